"""Groups of runs as rows: a table in percent for readers, and CSV with every number as fractions for programs."""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path

from kravl.report.groups import Group, Setting, Stat
from kravl.report.published.rows import TEST, PublishedRow
from kravl.runtime.files import csv_text, write_atomic

TOP1 = "/accuracy"
TRAIN_SECONDS = "train_seconds"  # shown as a median: one run that was held up says nothing of a method
Cells = list[list[str]]  # the rows of a table, the first one the header
SECONDS = "seconds of training are medians over the seeds"
LEGEND = (
    "Published: ~ is read off a figure; oracle: something was chosen by looking at test images. Gap: percentage points "
    "above it"
)


def group_caption(groups: Sequence[Group]) -> str:
    """What the numbers in a table of ``groups`` mean."""
    kind = (
        "population standard deviation (ddof = 0)" if groups[0].population else "sample standard deviation (ddof = 1)"
    )
    return f"mean ± {kind} over n seeds, none of a single seed; accuracies (top-1) in percent; {SECONDS}"


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
        TRAIN_SECONDS: ("train s (median)", seconds),
    }
    present = [name for name in columns if any(group.stat(name) for group in groups)]
    beside = {name for name in present if any(name in group.published for group in groups)}
    titles: list[str] = []
    for name in present:
        titles += [columns[name][0], *(_published_titles(name) if name in beside else ())]
    rows = [["method", "shots", "n", *titles]]
    for group in groups:
        cells: list[str] = []
        for name in present:
            row = group.published.get(name)
            pair = [published_cell(row), gap_cell(group.stat(name), row)] if name in beside else []
            cells += [_cell(group, name, columns[name][1]), *pair]
        rows.append([group.title, group.amount, str(len(group.runs)), *cells])
    return rows


def _published_titles(name: str) -> tuple[str, str]:
    what = "" if name == TEST else f" {name.removesuffix(TOP1)}"
    return f"published{what}", f"gap{what}"


def published_cell(row: PublishedRow | None) -> str:
    """A published accuracy in percent, marked if it is read off a figure or test images were looked at."""
    if row is None:
        return ""
    printed = f"{100 * row.value:.2f}".removesuffix("0")  # at least one decimal
    return f"{'~' if row.read == 'figure' else ''}{printed}{' oracle' if row.oracle else ''}"


def gap_cell(stat: Stat | None, row: PublishedRow | None) -> str:
    """How many percentage points runs are above a published number."""
    return "" if stat is None or row is None else f"{100 * (stat.mean - row.value):+.1f}"


def percent(fraction: float) -> str:
    """A ``fraction`` as shown in a cell."""
    return f"{100 * fraction:.1f}"


def seconds(value: float) -> str:
    """As shown in a cell: with a decimal below ten."""
    return f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"


def _cell(group: Group, name: str, show: Callable[[float], str]) -> str:
    stat = group.stat(name)
    if stat is None:
        return ""
    if name == TRAIN_SECONDS:
        return f"{show(group.median(name) or 0.0)}{f' (n={stat.n})' if stat.n != len(group.runs) else ''}"
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
    """One line per group and number: mean, std and n, and what is published of it; metrics are fractions.

    ``method`` is the name in records, ``name`` that in papers.
    """
    header = [*Setting._fields, "method", "shots", "quantity", "mean", "std", "n", "published", "gap", "oracle",
              "median", "name"]  # fmt: skip
    rows: list[Sequence[object]] = [header]
    for group in groups:
        for name in group.names:
            if stat := group.stat(name):
                spread = "" if stat.std is None else stat.std
                row = group.published.get(name)
                beside = [row.value, stat.mean - row.value, row.oracle] if row else ["", "", ""]
                numbers = [name, stat.mean, spread, stat.n, *beside, group.median(name)]
                rows.append([*group.setting, group.method, group.amount, *numbers, group.title])
    write_atomic(path, csv_text(rows))
