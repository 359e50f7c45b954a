"""Learning rates for the first run without a test picture: 8 shots, accuracy on the training pictures left over.

    python experiments/quickstart/learning_rates.py OUT_FOLDER [--jobs N] [EXPERIMENT ...]

Each experiment (default: those of the quickstart) at a few learning rates, with as many steps as the first run has;
prints the means over a few draws and writes learning_rates.csv. What is tried in OUT_FOLDER already is not run again.

The rule: three rates a step of about three apart for every method, a further one on that side for as long as the best,
or one that equals it, is the first or the last; the highest mean is taken, of equals that nearest to the first middle.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from hydra import compose, initialize_config_dir
from rich.progress import track

from kravl.config.compose import as_written, register_configs
from kravl.config.schema import CONFIGS
from kravl.study.scheduler import run_all
from kravl.tracking.run_folder import RunFolder, folder_of

SEEDS, SEEDS_OF_HEADS = (1, 2), (1, 2, 3)  # a head takes a second
HALF = ("shots=8", "evaluation=validation", "alphas=1")
STEPS = ("optim.epochs=null", "optim.steps=45")  # those of the first run, whose epochs have more pictures
RATES = {  # the first three, then further ones
    "quickstart_zs_lp": (0.1, 0.3, 1.0, 0.03),
    "quickstart_taskres": (6e-3, 2e-2, 6e-2, 0.2),
    "quickstart_lora": (1e-3, 3e-3, 1e-2),
    "quickstart_kra": (3e-3, 1e-2, 3e-2),
    "quickstart_full": (1e-4, 3e-4, 1e-3),
    "design_kra_lora": (1e-3, 3e-3, 1e-2),
    "design_kra_scale1": (3e-3, 1e-2, 2e-2),
}
HEADS = ("quickstart_zs_lp", "quickstart_taskres")


def main(out: Path, experiments: Sequence[str], jobs: int | None) -> None:
    register_configs()
    planned, keys = [], []
    for seed in SEEDS_OF_HEADS:
        for experiment in (name for name in experiments if name in HEADS or seed in SEEDS):
            for rate in RATES[experiment]:
                key = "head.lr" if experiment in HEADS else "optim.lr"
                run = [f"experiment={experiment}", f"{key}={rate}", f"seed={seed}", f"runs={out}/runs"]
                run += () if experiment.startswith("design") else STEPS
                with initialize_config_dir(str(CONFIGS), version_base="1.3"):
                    cfg = compose("train", overrides=[*run, *HALF])
                folder = folder_of(cfg.runs, cfg.name, cfg.seed, as_written(cfg))
                planned.append((folder, cfg.copy))
                keys.append((experiment, rate))
    ended = (outcome for outcome in run_all(planned, jobs) if outcome.status != "started")
    for position, status, reason in track(ended, "runs", total=len(planned)):
        if status != "done":
            sys.exit(f"{planned[position][0]}: {status} {reason}")
    found = [RunFolder(folder).metrics()["metrics"]["test/accuracy"] for folder, _ in planned]
    with (out / "learning_rates.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["experiment", "learning_rate", "mean", "std", "n"])
        for key in sorted(set(keys), key=keys.index):
            values = [100 * value for value, of in zip(found, keys, strict=True) if of == key]
            rows.writerow([*key, f"{mean(values):.1f}", f"{stdev(values):.1f}", len(values)])
    print((out / "learning_rates.csv").read_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT")
    parser.add_argument("--jobs", type=int, help="runs at once (default: one a core)")
    given = parser.parse_args()
    every = [name for name in RATES if name.startswith("quickstart")]
    main(given.out, given.experiments or every, given.jobs)
