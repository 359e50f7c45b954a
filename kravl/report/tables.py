"""Groups of runs as rows: a table in percent for readers, and CSV with every number as fractions for programs."""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path

from kravl.report.groups import Group, Setting
from kravl.runtime.files import csv_text, write_atomic

TOP1 = "/accuracy"
Cells = list[list[str]]  # the rows of a table, the first one the header


def group_caption(groups: Sequence[Group]) -> str:
    """What the numbers in a table of ``groups`` mean."""
    kind = (
        "population standard deviation (ddof = 0)" if groups[0].population else "sample standard deviation (ddof = 1)"
    )
    return f"mean ± {kind} over n seeds, none of a single seed; accuracies (top-1) in percent"


def by_setting(groups: Iterable[Group]) -> Iterable[tuple[Setting, Iterable[Group]]]:
    """The groups that may share a table, by setting."""
    return groupby(groups, key=lambda group: group.setting)


def group_table(groups: Sequence[Group], every_set: bool = True) -> Cells:
    """Header and one row per group; columns without a value in any of the ``groups`` are left out.

    Without ``every_set`` the sets other than the in-domain one are represented by their mean alone.
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
    """A ``fraction`` as shown in a cell."""
    return f"{100 * fraction:.1f}"


def _cell(group: Group, name: str, show: Callable[[float], str]) -> str:
    stat = group.stat(name)
    if stat is None:
        return ""
    constant = stat.std == 0 and name == "trainable_parameters"  # it does not depend on the seed
    spread = "" if stat.std is None or constant else f" ± {show(stat.std)}"
    return show(stat.mean) + spread + (f" (n={stat.n})" if stat.n != len(group.runs) else "")


def markdown_rows(rows: Cells) -> list[str]:
    """The lines of a table in Markdown, the first column aligned left and the others right."""
    header, *others = [f"| {' | '.join(escape_markdown(cell) for cell in row)} |" for row in rows]
    return [header, "|---|" + "---:|" * (len(rows[0]) - 1), *others]


def escape_markdown(text: str) -> str:
    """``text`` on one line, with everything escaped that starts a cell, tag, link or code; ``*`` stays, for bold."""
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
