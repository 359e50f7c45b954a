"""Learning rates for the first run without a test picture: 8 shots, accuracy on the training pictures left over.

    python experiments/quickstart/learning_rates.py OUT_FOLDER [EXPERIMENT ...]

Each experiment (default: those of the quickstart) at a few learning rates, three draws each; prints the means and
writes learning_rates.csv.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from hydra import compose, initialize_config_dir
from rich.progress import track

from kravl.config.compose import as_written, register_configs
from kravl.config.schema import CONFIGS
from kravl.data.fewshot import few_shot_split
from kravl.data.sources.openmoji.source import Pictograms
from kravl.study.scheduler import run_all
from kravl.tracking.run_folder import RunFolder, folder_of

SHOTS, SEEDS = 8, (1, 2, 3)
RATES = {
    "quickstart_zs_lp": (0.03, 0.1, 0.3),
    "quickstart_taskres": (2e-3, 6e-3, 2e-2),
    "quickstart_lora": (1e-3, 3e-3, 6e-3),
    "quickstart_kra": (3e-3, 1e-2, 2e-2),
    "quickstart_full": (1e-4, 3e-4, 1e-3),
    "design_kra_lora": (1e-3, 3e-3, 1e-2),
    "design_kra_scale1": (3e-3, 1e-2, 2e-2),
}
HEADS = ("quickstart_zs_lp", "quickstart_taskres")


def draw(folder: Path, seed: int) -> Path:
    """The training pictures as files, and a table in which those that were not drawn are the test set."""
    source = Pictograms()
    pictures = source.split("train")
    drawn = set(few_shot_split(pictures.labels, (), SHOTS, seed, "official")[0])
    table = folder / f"seed{seed}.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        for i, (name, label) in enumerate(zip(pictures.names, pictures.labels, strict=True)):
            picture = folder / f"{name}.png"
            if not picture.exists():
                pictures.image(i).save(picture)
            rows.writerow([picture.name, source.class_ids[label], "train" if i in drawn else "test"])
    return table


def main(out: Path, experiments: Sequence[str]) -> None:
    register_configs()
    out.mkdir(parents=True, exist_ok=True)
    tables = {seed: draw(out, seed) for seed in track(SEEDS, "pictures")}
    planned, keys = [], []
    for experiment in experiments:
        for rate in RATES[experiment]:
            for seed, table in tables.items():
                data = [f"data.file={table}", "++data.source.name=openmoji", "shots=null", "evaluation=in_domain"]
                key = "head.lr" if experiment in HEADS else "optim.lr"
                run = [f"experiment={experiment}", f"{key}={rate}", f"seed={seed}", f"runs={out}/runs"]
                with initialize_config_dir(str(CONFIGS), version_base="1.3"):
                    cfg = compose("train", overrides=[*run, "data=table", *data])
                folder = folder_of(cfg.runs, cfg.name, cfg.seed, as_written(cfg))
                planned.append((folder, cfg.copy))
                keys.append((experiment, rate))
    ended = (outcome for outcome in run_all(planned, None) if outcome.status != "started")
    for position, status, reason in track(ended, "runs", total=len(planned)):
        if status != "done":
            sys.exit(f"{planned[position][0]}: {status} {reason}")
    found = [RunFolder(folder).metrics()["metrics"]["test/accuracy"] for folder, _ in planned]
    with (out / "learning_rates.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["experiment", "learning_rate", "mean", "std", "n"])
        for key in dict.fromkeys(keys):
            values = [100 * value for value, of in zip(found, keys, strict=True) if of == key]
            rows.writerow([*key, f"{mean(values):.1f}", f"{stdev(values):.1f}", len(values)])
    print((out / "learning_rates.csv").read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or [name for name in RATES if name.startswith("quickstart")])
