"""How the spectrum of the update changes while a model is adapted: means over matrices, then over the seeds of a run.

    python experiments/adaptation_choices/evolution.py runs/NAME [runs/OTHER ...]

Writes evolution.csv beside this file: run, quantity, step, mean and sample standard deviation over seeds, and n.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from kravl.training.spectrum_monitor import SPECTRA_FILE, Trace, read_trace

QUANTITIES = ("effective_rank", "stable_rank", "norm", "overlap")


def means(trace: Trace, quantity: str) -> dict[int, float]:
    """Step -> mean over the adapted matrices."""
    return {step: fmean(site[quantity] for site in sites.values()) for step, sites in trace.steps.items()}


def main(folders: Sequence[Path]) -> None:
    with Path(__file__).with_name("evolution.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["run", "quantity", "step", "mean", "std", "n"])
        for folder in folders:
            traces = [read_trace(path) for path in sorted(folder.glob(f"seed*/{SPECTRA_FILE}"))]
            for quantity in QUANTITIES:
                seeds = [means(trace, quantity) for trace in traces]
                for step in sorted(seeds[0]):
                    values = [seed[step] for seed in seeds]
                    spread = f"{stdev(values):.4g}" if len(values) > 1 else ""
                    rows.writerow([folder.name, quantity, step, f"{fmean(values):.5g}", spread, len(values)])


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
