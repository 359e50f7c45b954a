"""The questions of this folder, answered from runs.jsonl and interventions.jsonl: answers.md and its figures.

python experiments/effective_rank/questions.py
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from measure import CUTS, SHARES, known

from kravl.report.figures.drawing import STYLE, Place, label_beside, mark_of, save, settle
from kravl.report.figures.ranks import correlate
from kravl.report.significance import signed_rank

HERE = Path(__file__).parent
Row = dict[str, Any]
PREDICTORS = ("effective_rank", "stable_rank", "norm", "top_16")
METRICS = {"test": "in domain", "ood": "out of domain"}
BUDGETS, PULLS = ("half", "", "double"), ("", "0.01", "0.1", "1")  # variants of a method: its size, strength of L2-SP
NORMS = (0.2, 0.5, 1, 2, 4)  # that are written below the figure of them
DRAWS = 10_000
FIGURES = {"kravl_tiny": "effective_rank.png", "vit_s14": "effective_rank_vits14.png"}  # of each model


def measured(rows: Sequence[Row], metric: str) -> list[Row]:
    """The ``rows`` whose set has the ``metric``: Caltech-101 has no other domains."""
    return [row for row in rows if row[metric] is not None]


def task(row: Row) -> tuple[str, int]:
    return row["dataset"], row["shots"]


def named(row: Row) -> tuple[str, str]:
    """Method and variant, which is empty for the method as it is."""
    method, _, variant = row["method"].partition("_")
    return method, variant


def centred(rows: Sequence[Row], values: Sequence[str], by: Callable[[Row], object]) -> list[list[float]]:
    """The ``values`` of each row as differences from the means of the rows that ``by`` puts together."""
    members: dict[object, list[Row]] = defaultdict(list)
    for row in rows:
        members[by(row)].append(row)
    means = {key: [fmean(row[name] for row in each) for name in values] for key, each in members.items()}
    return [[row[name] - mean for name, mean in zip(values, means[by(row)], strict=True)] for row in rows]


def between(rows: Sequence[Row], predictor: str, metric: str) -> str:
    """Rank correlation over methods' means, differences between tasks taken out."""
    members: dict[str, list[list[float]]] = defaultdict(list)
    rows = measured(rows, metric)
    for row, pair in zip(rows, centred(rows, (predictor, metric), task), strict=True):
        members[row["method"]].append(pair)
    return str(correlate([(fmean(p[0] for p in each), fmean(p[1] for p in each)) for each in members.values()]))


def within(rows: Sequence[Row], predictor: str, metric: str) -> str:
    """Rank correlation over runs, differences between tasks and methods taken out."""
    pairs = centred(measured(rows, metric), (predictor, metric), lambda row: (row["method"], *task(row)))
    return str(correlate([(x, y) for x, y in pairs]))


def interval(differences: Sequence[float]) -> str:
    """Mean in points of a percent, with 95 % of a bootstrap of the runs."""
    values = 100 * np.array(differences)
    picks = np.random.default_rng(0).integers(len(values), size=(DRAWS, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), (2.5, 97.5))
    return f"{values.mean():+.1f} [{low:+.1f}, {high:+.1f}]"


def against(rows: Sequence[Row], metric: str, one: str, other: str) -> list[float]:
    """Differences of two methods, a pair for each task and seed that both have."""
    values = {(row["method"], *task(row), row["seed"]): row[metric] for row in measured(rows, metric)}
    return [v - values[other, *key[1:]] for key, v in values.items() if key[0] == one and (other, *key[1:]) in values]


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction (Scand. J. Stat. 1979)."""
    highest, corrected = 0.0, {}
    for place, name in enumerate(sorted(p, key=lambda name: p[name])):
        highest = corrected[name] = min(1.0, max(highest, (len(p) - place) * p[name]))
    return corrected


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return [f"| {' | '.join(map(str, line))} |" for line in lines] + [""]


def methods_table(rows: Sequence[Row], name: str) -> list[str]:
    shots = sorted({row["shots"] for row in rows})
    head = ["method", "runs", "parameters", "effective rank", "stable rank", "norm", "share of top 16"]
    metrics = [m for m in METRICS if measured(rows, m)]
    head += [f"{METRICS[m]}, {k} shots" for m in metrics for k in shots]
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        last = [row for row in own if row["shots"] == shots[-1]] or own
        numbers = [f"{fmean(row[p] for row in last):.2f}" for p in ("norm", "top_16")]
        ranks = [f"{fmean(row[p] for row in last):.0f}" for p in ("effective_rank", "stable_rank")]
        cells = [spread([100 * row[m] for row in own if row["shots"] == k]) for m in metrics for k in shots]
        lines.append([method, len(own), f"{own[0]['trainable_parameters']:,}", *ranks, *numbers, *cells])
    return [f"### {name}", "", *table(head, lines)]


def spread(values: Sequence[float]) -> str:
    return "" if not values else f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def pairs_table(rows: Sequence[Row]) -> list[str]:
    """KRAdapter against each other method, over all tasks and seeds."""
    others = [method for method in dict.fromkeys(row["method"] for row in rows) if method != "kra"]
    return differences_table("difference", {f"kra - {other}": (rows, other) for other in others})


def shira_table(rows: Sequence[Row]) -> list[str]:
    """KRAdapter against SHiRA on each set, and at each number of shots."""
    parts = {row["dataset"]: [r for r in rows if r["dataset"] == row["dataset"]] for row in rows}
    parts |= {f"shots {row['shots']}": [r for r in rows if r["shots"] == row["shots"]] for row in rows}
    return differences_table("kra - shira", {name: (part, "shira") for name, part in parts.items()})


def held_table(rows: Sequence[Row]) -> list[str]:
    """KRAdapter against each other method that was pulled as hard: their norms are about one."""
    held = [
        row | {"method": method, "shots": variant}
        for row in rows
        for method, variant in [named(row)]
        if variant in PULLS[1:]
    ]
    return pairs_table(held)


def differences_table(title: str, asked: Mapping[str, tuple[Sequence[Row], str]]) -> list[str]:
    """KRAdapter less a method, by what it is called: on which runs, and the method; corrected over all of a kind."""
    lines = []
    for metric, where in METRICS.items():
        found = {name: against(rows, metric, "kra", other) for name, (rows, other) in asked.items()}
        p = {name: signed_rank(each) for name, each in found.items() if each}
        corrected = holm(p)
        for name in p:
            each = found[name]
            won, lost = sum(d > 0 for d in each), sum(d < 0 for d in each)
            counts = [len(each), f"{won} / {lost}", f"{p[name]:.4f}", f"{corrected[name]:.4f}"]
            lines.append([name, where, interval(each), *counts])
    return table([title, "where", "points, 95 %", "pairs", "won / lost", "p", "p (Holm)"], lines)


def interventions_table(rows: Sequence[Row], changed: Mapping[str, Row]) -> list[str]:
    names = [*(f"cut_{k}" for k in CUTS), "without_16", "flat", "norm", *(f"wise_{s}" for s in SHARES)]
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [changed[row["key"]]["results"] for row in rows if row["method"] == method and row["key"] in changed]
        for metric, where in METRICS.items():
            if not own or own[0]["itself"][metric] is None:
                continue
            itself = f"{100 * fmean(r['itself'][metric] for r in own):.1f}"
            lines.append(
                [method, where, itself, *(interval([r[n][metric] - r["itself"][metric] for r in own]) for n in names)]
            )
    return table(["method", "where", "itself", *names], lines)


def varied(rows: Sequence[Row], variants: Sequence[str]) -> dict[str, dict[str, list[Row]]]:
    """Method -> variant -> runs, of methods that have other variants than themselves, on what all of them have run."""
    found: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    changed = {named(row)[0] for row in rows if named(row)[1] in variants and named(row)[1]}
    kept = [row for row in rows if named(row)[0] in changed and named(row)[1] in variants]
    common = [
        {(*task(row), row["seed"]) for row in kept if row["method"] == name} for name in {r["method"] for r in kept}
    ]
    for row in kept:
        if (*task(row), row["seed"]) in set.intersection(*common):
            method, variant = named(row)
            found[method][variant].append(row)
    return found


def variants_table(rows: Sequence[Row], variants: Sequence[str]) -> list[str]:
    groups = varied(rows, variants)
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    head = ["method", "variant", "runs", "parameters", "effective rank", "norm"]
    lines = []
    for method, found in groups.items():
        for variant in filter(found.get, variants):
            own = found[variant]
            cells = [f"{fmean(row['effective_rank'] for row in own):.0f}", f"{fmean(row['norm'] for row in own):.2f}"]
            for metric in METRICS:
                cells += [spread([100 * r[metric] for r in own if r["dataset"] == each]) for each in datasets]
            lines.append([method, variant, len(own), f"{own[0]['trainable_parameters']:,}", *cells])
    return table(head + [f"{where}, {each}" for where in METRICS.values() for each in datasets], lines)


def draw_norms(rows: Sequence[Row]) -> None:
    """One line a method: the norm at which L2-SP holds its update against accuracy; the point without is the last."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    groups = varied(rows, PULLS)
    for axes, (metric, where) in zip(figure.subplots(1, 2), METRICS.items(), strict=True):
        places = []
        for method, found in groups.items():
            points = sorted(
                (fmean(r["norm"] for r in own), 100 * fmean(r[metric] for r in own)) for own in found.values()
            )
            axes.plot(*zip(*points, strict=True), **mark_of(method))
            places.append(Place.of(method, *points[-1]))
        axes.set(xscale="log", xlabel="Frobenius norm of the trained update, mean over matrices", title=where)
        axes.set_ylabel("accuracy in percent")
        axes.minorticks_off()
        axes.set_xticks(NORMS, [f"{norm:g}" for norm in NORMS])
        label_beside(axes, places)
    settle(figure)
    save(figure, HERE / "norm.png")


def draw(rows: Sequence[Row], name: str) -> None:
    """One point a method: effective rank against accuracy, differences between tasks taken out."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    for axes, (metric, where) in zip(figure.subplots(1, 2), METRICS.items(), strict=True):
        members: dict[str, list[tuple[float, float]]] = defaultdict(list)
        kept = measured(rows, metric)
        for row, (gain,) in zip(kept, centred(kept, (metric,), task), strict=True):
            members[row["method"]].append((row["effective_rank"], 100 * gain))
        places = []
        for method, points in members.items():
            x, gains = fmean(p[0] for p in points), [p[1] for p in points]
            error = 1.96 * stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
            axes.errorbar(x, fmean(gains), yerr=error, **mark_of(method))
            places.append(Place.of(method, x, fmean(gains)))
        axes.set(xlabel="effective rank of the trained update, mean over matrices", title=where)
        axes.set_ylabel("accuracy, points above the mean of the task")
        label_beside(axes, places)
    settle(figure)
    save(figure, HERE / name)


def answers(every: Sequence[Row], changed: Mapping[str, Row]) -> list[str]:
    """The tables of one model."""
    rows = [row for row in every if not named(row)[1]]
    lines = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        lines += methods_table([row for row in rows if row["dataset"] == dataset], dataset)
    lines += ["### Rank correlation with accuracy, all tasks", ""]
    cells = [
        [predictor, where, between(rows, predictor, m), within(rows, predictor, m)]
        for predictor in PREDICTORS
        for m, where in METRICS.items()
    ]
    lines += table(["", "where", "between methods", "within methods"], cells)
    equal = [row | changed[row["key"]]["results"]["norm"] for row in rows if row["key"] in changed]
    if equal:
        cells = [["effective_rank", where, between(equal, "effective_rank", m)] for m, where in METRICS.items()]
        lines += ["### The same at KRAdapter's norm", "", *table(["", "where", "between methods"], cells)]
    lines += ["### KRAdapter against each method, pairs of task and seed", "", *pairs_table(rows)]
    lines += ["### KRAdapter against SHiRA, by set and by shots", "", *shira_table(rows)]
    if equal:
        lines += ["### Updates changed without training", "", *interventions_table(rows, changed)]
    for title, variants in (("Half and double budgets", BUDGETS), ("Pulled towards the pretrained weights", PULLS)):
        if varied(every, variants):
            lines += [f"### {title}", "", *variants_table(every, variants)]
    if varied(every, PULLS):
        lines += ["### KRAdapter against each method pulled as hard, pairs of set, strength and seed", ""]
        lines += held_table(every)
    return lines


def main() -> None:
    every = list(known(HERE / "runs.jsonl").values())
    changed = known(HERE / "interventions.jsonl")
    lines = ["<!-- written by questions.py -->", ""]
    for backbone, figure in FIGURES.items():
        own = [row for row in every if row["backbone"] == backbone]
        lines += [f"## {backbone}", "", *answers(own, changed)]
        draw([row for row in own if not named(row)[1]], figure)
    (HERE / "answers.md").write_text("\n".join(lines))
    draw_norms(every)


if __name__ == "__main__":
    with matplotlib.rc_context(STYLE):
        main()
