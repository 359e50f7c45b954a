"""Groups of runs as rows: a table in percent for readers, every number as fractions in CSV for programs."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path

from kravl.report.groups import Group, Setting
from kravl.runtime.files import write_atomic

TOP1 = "/accuracy"
Table = list[list[str]]  # the first row is the header


def group_caption(groups: Sequence[Group]) -> str:
    """What the numbers of a table of ``groups`` are."""
    kind = (
        "population standard deviation (ddof = 0)" if groups[0].population else "sample standard deviation (ddof = 1)"
    )
    return f"mean ± {kind} over n seeds, none of a single seed; accuracies (top-1) in percent"


def by_setting(groups: Iterable[Group]) -> Iterable[tuple[Setting, Iterable[Group]]]:
    """Groups that may share a table."""
    return groupby(groups, key=lambda group: group.setting)


def table(groups: Sequence[Group], every_set: bool = True) -> Table:
    """Header and one row per group; a column is there if any of the ``groups`` has a value for it.

    Without ``every_set`` the sets beside the in-domain one are represented by their mean alone.
    """
    names = dict.fromkeys(name for group in groups for name in group.names)
    sets = [name for name in names if (name.endswith(TOP1) if every_set else name == f"test{TOP1}")]
    columns: dict[str, tuple[str, Callable[[float], str]]] = {
        **{name: (name.removesuffix(TOP1), percent) for name in sets},
        "ood_mean": ("OOD mean", percent),
        "harmonic_mean": ("harmonic mean", percent),
        "trainable_parameters": ("trainable", "{:,.0f}".format),
        "effective_rank": ("eff. rank", "{:.1f}".format),
        "train_seconds": ("train s", "{:.0f}".format),
    }
    present = [name for name in columns if any(group.stat(name) for group in groups)]
    rows = [["method", "shots", "n", *(columns[name][0] for name in present)]]
    for group in groups:
        cells = [_cell(group, name, columns[name][1]) for name in present]
        rows.append([group.method, group.amount, str(len(group.runs)), *cells])
    return rows


def percent(fraction: float) -> str:
    """As a cell shows it."""
    return f"{100 * fraction:.1f}"


def _cell(group: Group, name: str, show: Callable[[float], str]) -> str:
    stat = group.stat(name)
    if stat is None:
        return ""
    constant = stat.std == 0 and name == "trainable_parameters"  # the seed cannot change it
    spread = "" if stat.std is None or constant else f" ± {show(stat.std)}"
    return show(stat.mean) + spread + (f" (n={stat.n})" if stat.n != len(group.runs) else "")


def markdown_rows(rows: Table) -> list[str]:
    """The lines of a table in Markdown, its first column to the left and the others to the right."""
    header, *others = [f"| {' | '.join(escape_markdown(cell) for cell in row)} |" for row in rows]
    return [header, "|---|" + "---:|" * (len(rows[0]) - 1), *others]


def escape_markdown(text: str) -> str:
    """``text`` on one line, in which nothing begins a cell, a tag, a link or code; ``*`` is left, for bold cells."""
    for special, instead in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("[", "\\["), ("`", "\\`")):
        text = text.replace(special, instead)
    return " ".join(text.splitlines())


def write_csv(groups: Sequence[Group], path: Path) -> None:
    """One line per group and number: mean, std and n, with metrics as fractions."""
    rows: list[Sequence[object]] = [[*Setting._fields, "method", "shots", "quantity", "mean", "std", "n"]]
    for group in groups:
        for name in group.names:
            if stat := group.stat(name):
                spread = "" if stat.std is None else stat.std
                rows.append([*group.setting, group.method, group.amount, name, stat.mean, spread, stat.n])
    write_atomic(path, csv_text(rows))


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """The rows as a CSV file has them."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
