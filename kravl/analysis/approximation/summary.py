"""Fits averaged over seeds: a row per target, method and budget, as CSV for programs and as a table for readers."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from kravl.runtime.files import csv_text, write_atomic
from kravl.tracking.methods import shown

ERROR = "frobenius_error"
OPTIMUM = "optimum_error"
SPECTRA = ("spectrum", "target_spectrum")


@dataclass(frozen=True)
class FitSummary:
    """Mean and sample standard deviation (0 for a single seed) of each metric over ``n`` seeds."""

    target: str
    method: str
    budget: float | None
    parameters: int
    n: int
    mean: Mapping[str, float]
    std: Mapping[str, float]
    spectrum: Sequence[float]  # means over seeds, at equal steps from the first singular value to the last
    target_spectrum: Sequence[float]


def summarise(records: Iterable[Mapping[str, Any]]) -> list[FitSummary]:
    """Rows in the order of first appearance; records in one row differ by seed only."""
    members: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        members[record["target"], record["method"], record["budget"], record["parameters"]].append(record)
    rows = []
    for (target, method, budget, parameters), group in members.items():
        values = [_values(record) for record in group]
        names = [name for name in values[0] if all(name in each for each in values)]
        mean = {name: fmean(each[name] for each in values) for name in names}
        std = {name: stdev(each[name] for each in values) if len(values) > 1 else 0.0 for name in names}
        spectra = [zip(*(record[name] for record in group), strict=True) for name in SPECTRA]
        fitted, given = ([fmean(at) for at in points] for points in spectra)
        rows.append(FitSummary(target, method, budget, parameters, len(group), mean, std, fitted, given))
    return rows


def _values(record: Mapping[str, Any]) -> dict[str, float]:
    best = record[OPTIMUM]
    known = {} if best is None else {OPTIMUM: best}
    return {**record["metrics"], **known, "seconds": record["seconds"]}


def write_fits_csv(rows: Sequence[FitSummary], path: Path) -> None:
    """One line per row: mean and standard deviation of each metric in two columns, blank where a row has none."""
    present = {name for row in rows for name in row.mean}
    names = sorted(present, key=lambda name: (name not in (ERROR, OPTIMUM), name))
    pairs = [column for name in names for column in (name, f"{name}_std")]
    lines: list[Sequence[object]] = [["target", "method", "budget", "parameters", "n", *pairs]]
    for row in rows:
        numbers = [f"{part[name]:.6g}" if name in part else "" for name in names for part in (row.mean, row.std)]
        budget = "" if row.budget is None else row.budget
        lines.append([row.target, row.method, budget, row.parameters, row.n, *numbers])
    write_atomic(path, csv_text(lines))


def at_one_budget(rows: Sequence[FitSummary]) -> list[FitSummary]:
    """The rows whose budget is nearest to KRAdapter's own, or all if each method has its own size."""
    budgets = {row.budget for row in rows if row.budget is not None}
    if not budgets:
        return list(rows)
    chosen = min(budgets, key=lambda budget: abs(budget - 1.0))
    return [row for row in rows if row.budget == chosen]


def error_table(rows: Sequence[FitSummary]) -> list[list[str]]:
    """Header, then a row per target: each method's relative Frobenius error in percent, its optimum in brackets."""
    rows = at_one_budget(rows)
    parameters = {row.method: row.parameters for row in rows}
    header = ["target", "eff. rank", *(f"{shown(method)} ({number:,})" for method, number in parameters.items())]
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    ranks: dict[str, float] = {}
    for row in rows:
        best = f" ({100 * row.mean[OPTIMUM]:.1f})" if OPTIMUM in row.mean else ""
        cells[row.target][row.method] = f"{100 * row.mean[ERROR]:.1f} ± {100 * row.std[ERROR]:.1f}{best}"
        ranks[row.target] = row.mean["target_effective_rank"]
    body = [[t, f"{ranks[t]:.1f}", *(errors.get(method, "") for method in parameters)] for t, errors in cells.items()]
    return [header, *body]


def largest_gap(rows: Sequence[FitSummary]) -> FitSummary | None:
    """The row in which training ends farthest above the closed-form optimum; None if no method has one."""
    known = [row for row in rows if OPTIMUM in row.mean]
    return max(known, key=lambda row: row.mean[ERROR] - row.mean[OPTIMUM], default=None)
