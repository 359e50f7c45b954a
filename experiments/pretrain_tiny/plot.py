"""Logs of training, one going on from the other, as a picture.

python experiments/pretrain_tiny/plot.py PICTURE.png LOG.csv [LOG.csv ...]
"""

import csv
import sys
from pathlib import Path

from matplotlib.figure import Figure


def main(picture: Path, logs: list[Path]) -> None:
    figure = Figure(figsize=(8, 3), layout="constrained")
    panels = figure.subplots(1, 2)
    before = 0.0
    for log in logs:
        rows = list(csv.DictReader(log.open(newline="")))
        seen = [before + int(row["pictures"]) / 1e6 for row in rows]
        for axes, name in zip(panels, ("loss", "agreement"), strict=True):
            axes.plot(seen, [float(row[name]) for row in rows], label=log.stem)
        before = seen[-1]
    for axes, title in zip(panels, ("contrastive loss", "cosine to the teacher"), strict=True):
        axes.set(xlabel="million pictures seen", title=title)
        axes.grid(alpha=0.3)
    panels[0].legend()
    figure.savefig(picture, dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(log) for log in sys.argv[2:]])
