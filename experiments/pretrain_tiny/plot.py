"""The training's log as a picture: python experiments/pretrain_tiny/plot.py LOG.csv PICTURE.png"""

import csv
import sys
from pathlib import Path

from matplotlib.figure import Figure


def main(log: Path, picture: Path) -> None:
    rows = list(csv.DictReader(log.open(newline="")))
    seen = [int(row["pictures"]) / 1e6 for row in rows]
    figure = Figure(figsize=(8, 3), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, name, title in zip(
        panels, ("loss", "agreement"), ("contrastive loss", "cosine to the teacher"), strict=True
    ):
        axes.plot(seen, [float(row[name]) for row in rows], color="#0072B2")
        axes.set(xlabel="million pictures seen", title=title)
        axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
