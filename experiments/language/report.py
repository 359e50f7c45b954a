"""The table of the language experiment: accuracies over draws, and KRAdapter's lead over each method."""

import csv
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SETS = ("descriptions", "synopses", "typing noise", "unseen sections")
OURS, RESAMPLES = "KRAdapter", 10_000


def hits(records: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """0 or 1 for each draw and text of a set: (seeds, texts)."""
    return np.array([[int(hit) for hit in record[name]] for record in records])


def lead(ours: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Mean difference of accuracy and the bounds of its 95 % interval, resampled over draws and over texts."""
    difference = ours - other  # of the same draw and text
    generator = np.random.default_rng(0)
    seeds, texts = difference.shape
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        rows, columns = generator.integers(seeds, size=seeds), generator.integers(texts, size=texts)
        means[i] = difference[np.ix_(rows, columns)].mean()
    low, high = np.percentile(means, [2.5, 97.5])
    return float(difference.mean()), float(low), float(high)


def write_report(records: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """``results.csv``, a row for each training, and ``table.md``."""
    scored = [r for r in records if r["seed"] != 0]
    methods = list(dict.fromkeys(r["method"] for r in scored))
    with (folder / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", "rate", "seed", "trainable", "step_s", "held out", *SETS])
        for r in records:
            accuracies = [
                f"{r[name].count('1') / len(r[name]):.4f}" if name in r else "" for name in ("held out", *SETS)
            ]
            writer.writerow([r["method"], r["rate"], r["seed"], r["trainable"], f"{r['step_s']:.3f}", *accuracies])
    lines = [f"| method | {' | '.join(SETS)} | trainable | learning rate | s / step |", "|---|" + "---:|" * 7]
    for method in methods:
        own = [r for r in scored if r["method"] == method]
        cells = [_spread([100 * row.mean() for row in hits(own, name)]) for name in SETS]
        step = statistics.median(r["step_s"] for r in own)
        lines.append(f"| {method} | {' | '.join(cells)} | {own[0]['trainable']:,} | {own[0]['rate']:g} | {step:.2f} |")
    lines += [
        "",
        f"{OURS} minus the method, points, with the 95 % interval over draws and texts; * where it leaves out 0:",
    ]
    lines += ["", f"| method | {' | '.join(SETS)} |", "|---|" + "---:|" * len(SETS)]
    ours = {name: hits([r for r in scored if r["method"] == OURS], name) for name in SETS}
    for method in methods:
        if method != OURS:
            own = [r for r in scored if r["method"] == method]
            cells = [_interval(*lead(ours[name], hits(own, name))) for name in SETS]
            lines.append(f"| {method} | {' | '.join(cells)} |")
    (folder / "table.md").write_text("\n".join(lines) + "\n")


def _spread(values: Sequence[float]) -> str:
    mean = statistics.mean(values)
    return f"{mean:.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else f"{mean:.1f}"


def _interval(mean: float, low: float, high: float) -> str:
    mark = "*" if low > 0 or high < 0 else ""
    return f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]{mark}"
