"""The page's result table: one row a group, with what a column is sorted by."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kravl.aggregate import Group
from kravl.robustness import ID, OOD

SCALE = 2**20  # bytes in a MiB
ALL = 1e9  # images a class: "all" is sorted behind every number


class Column(NamedTuple):
    """``quantity`` of a group, shown by ``show``; a column that is no ``number`` is sorted as text."""

    title: str
    quantity: str | None
    show: Callable[[float], str] = str
    number: bool = False


class Cell(NamedTuple):
    """``text`` as shown; ``order`` is a number, or None where there is none, or text in small letters."""

    text: str
    order: float | str | None


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


METHOD = Column("Method", None)
COLUMNS = (
    Column("Backbone", None),
    Column("Data set", None),
    Column("Evaluation", None),
    METHOD,
    Column("Shots", None, number=True),
    Column("n", None, number=True),
    Column("Test, top-1 %", ID, _percent, True),
    Column("OOD mean, top-1 %", OOD, _percent, True),
    Column("Harmonic mean, %", "harmonic_mean", _percent, True),
    Column("ECE, test, %", "test/ece", _percent, True),
    Column("Trainable parameters", "trainable_parameters", "{:,.0f}".format, True),
    Column("Effective rank", "effective_rank", "{:.1f}".format, True),
    Column("Training, s", "train_seconds", "{:.0f}".format, True),
    Column("Peak memory, MiB", "peak_memory_bytes", lambda size: f"{size / SCALE:,.0f}", True),
)


def rows(groups: Sequence[Group]) -> tuple[list[Column], list[dict[str, Any]], str]:
    """The columns that tell the ``groups`` apart or have a number, a row each, and what is the same in all rows.

    A row is what it is filtered by, and its cells.
    """
    found = [_row(group) for group in groups]
    names = range(COLUMNS.index(METHOD))
    same = [i for i in names if len({row["cells"][i].text for row in found}) == 1]
    empty = [
        i for i, column in enumerate(COLUMNS) if column.quantity and not any(row["cells"][i].text for row in found)
    ]
    kept = [i for i in range(len(COLUMNS)) if i not in same + empty]
    caption = "; ".join(f"{COLUMNS[i].title.lower()}: {found[0]['cells'][i].text}" for i in same)
    return [COLUMNS[i] for i in kept], [{**row, "cells": [row["cells"][i] for i in kept]} for row in found], caption


def _row(group: Group) -> dict[str, Any]:
    names = [*group.setting[:3], group.method]
    first = [Cell(name, name.lower()) for name in names]
    first += [
        Cell(group.amount, ALL if group.shots is None else group.shots),
        Cell(str(len(group.runs)), len(group.runs)),
    ]
    cells = first + [_cell(group, column) for column in COLUMNS[len(first) :]]
    filters = {"data set": group.setting.dataset, "method": group.method, "shots": group.amount}
    return {"filters": filters, "cells": cells}


def _cell(group: Group, column: Column) -> Cell:
    assert column.quantity is not None
    stat = group.stat(column.quantity)
    if stat is None:
        return Cell("", None)
    spread = f" ± {column.show(stat.std)}" if stat.std else ""
    fewer = f" (n={stat.n})" if stat.n != len(group.runs) else ""
    return Cell(column.show(stat.mean) + spread + fewer, stat.mean)
