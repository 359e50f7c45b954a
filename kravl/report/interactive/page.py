"""The interactive page: a single file that needs no network, and its rows."""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from kravl.report.groups import Group
from kravl.report.interactive.payload import payload
from kravl.report.interactive.pictures import disagreements
from kravl.report.interactive.run_files import RunFiles
from kravl.report.page import Picture, render
from kravl.report.published.compare import matches_table, published_matches
from kravl.report.robustness import ID, OOD
from kravl.report.runs import FinishedRun
from kravl.report.tables import LEGEND, by_setting, gap_cell, group_caption, percent, published_cell
from kravl.runtime.files import write_atomic

SCALE = 2**20  # bytes in a MiB
ALL_IMAGES = 1e9  # sorts "all" after every number of images per class
LIBRARIES = ("vendor/d3.min.js", "vendor/plot.umd.min.js")
SCRIPTS = ("table", "parts", "charts", "robustness", "calibration", "pair", "page")  # in order
LICENCES = ("vendor/LICENSE.plot", "vendor/LICENSE.d3", "vendor/LICENSE.bundled")
MAX_SETTINGS = 12  # with pictures


class Column(NamedTuple):
    """``quantity`` of a group, formatted by ``show``; unless it is a ``number``, the column is sorted as text."""

    title: str
    quantity: str | None
    show: Callable[[float], str] = str
    number: bool = False


class PageCell(NamedTuple):
    """``text`` as shown, sorted by ``order``: a number, None for an empty cell, or lower-case text."""

    text: str
    order: float | str | None


METHOD = Column("Method", None)
PUBLISHED, GAP = "published", "gap"  # of the accuracy on the test set
COLUMNS = (
    Column("Backbone", None),
    Column("Data set", None),
    Column("Evaluation", None),
    METHOD,
    Column("Shots", None, number=True),
    Column("n", None, number=True),
    Column("Test, top-1 %", ID, percent, True),
    Column("Published, %", PUBLISHED, percent, True),
    Column("Gap, points", GAP, number=True),
    Column("OOD mean, top-1 %", OOD, percent, True),
    Column("Harmonic mean, %", "harmonic_mean", percent, True),
    Column("ECE, test, %", "test/ece", percent, True),
    Column("Trainable parameters", "trainable_parameters", "{:,.0f}".format, True),
    Column("Effective rank", "effective_rank", "{:.1f}".format, True),
    Column("Training, s", "train_seconds", "{:.0f}".format, True),
    Column("Peak memory, MiB", "peak_memory_bytes", lambda size: f"{size / SCALE:,.0f}", True),
)


def group_rows(groups: Sequence[Group]) -> tuple[list[Column], list[dict[str, Any]], str]:
    """The columns that tell the ``groups`` apart or hold a number, a row per group, and what all rows have in common.

    A row has its ``filters`` and its ``cells``.
    """
    rows = [_row(group) for group in groups]
    names = range(COLUMNS.index(METHOD))
    same = [i for i in names if len({row["cells"][i].text for row in rows}) == 1]
    empty = [i for i, column in enumerate(COLUMNS) if column.quantity and not any(row["cells"][i].text for row in rows)]
    shown = [i for i in range(len(COLUMNS)) if i not in same + empty]
    caption = "; ".join(f"{COLUMNS[i].title.lower()}: {rows[0]['cells'][i].text}" for i in same)
    return [COLUMNS[i] for i in shown], [{**row, "cells": [row["cells"][i] for i in shown]} for row in rows], caption


def _row(group: Group) -> dict[str, Any]:
    names = [*group.setting[:3], group.method]
    first = [PageCell(name, name.lower()) for name in names]
    first += [
        PageCell(group.amount, ALL_IMAGES if group.shots is None else group.shots),
        PageCell(str(len(group.runs)), len(group.runs)),
    ]
    cells = first + [_cell(group, column) for column in COLUMNS[len(first) :]]
    filters = {"data set": group.setting.dataset, "method": group.method, "shots": group.amount}
    return {"filters": filters, "cells": cells}


def _cell(group: Group, column: Column) -> PageCell:
    assert column.quantity is not None
    if column.quantity in (PUBLISHED, GAP):
        return _published_cell(group, column.quantity)
    stat = group.stat(column.quantity)
    if stat is None:
        return PageCell("", None)
    spread = f" ± {column.show(stat.std)}" if stat.std else ""
    fewer = f" (n={stat.n})" if stat.n != len(group.runs) else ""
    return PageCell(column.show(stat.mean) + spread + fewer, stat.mean)


def _published_cell(group: Group, quantity: str) -> PageCell:
    row, stat = group.published.get(ID), group.stat(ID)
    if row is None or stat is None:
        return PageCell("", None)
    return (
        PageCell(published_cell(row), row.value)
        if quantity == PUBLISHED
        else PageCell(gap_cell(stat, row), stat.mean - row.value)
    )


def write_comparison(
    runs: Sequence[FinishedRun],
    groups: Sequence[Group],
    notes: Sequence[str],
    path: Path,
    pictures: Sequence[Picture] = (),
    question: str = "",
) -> None:
    """Write the page of ``runs``, grouped in ``groups``, to ``path``.

    Args:
        notes: to read before comparing, as plain text.
        pictures: shown at the end.
        question: shown at the beginning.
    """
    run_files = RunFiles()
    data = payload(groups, run_files)
    lines = _add_pictures(data, groups)
    lines = [*notes, *run_files.problems, *lines]
    columns, table_rows, caption = group_rows(groups)
    scripts = [_resource(name) for name in (*LIBRARIES, *(f"{name}.js" for name in SCRIPTS))]
    text = {"heading": group_caption(groups), "notes": list(dict.fromkeys(lines)), "runs": len(runs)}
    page = render(
        _resource("page.html"),
        **text,
        question=question,
        pictures=pictures,
        columns=columns,
        rows=table_rows,
        caption=caption,
        style=_resource("page.css"),
        scripts=scripts,
        licences=[_resource(name) for name in LICENCES],
        policy=_policy(scripts),
        published=matches_table(matches) if (matches := published_matches(groups)) else [],
        legend=LEGEND,
        data=_safe_json(data),
    )
    write_atomic(path, page)


def _add_pictures(data: dict[str, Any], groups: Sequence[Group]) -> list[str]:
    problems: list[str] = []
    for setting, (_, members) in zip(data["settings"][:MAX_SETTINGS], by_setting(groups), strict=False):
        setting["pictures"] = disagreements(list(members), problems)
    return problems


def _resource(name: str) -> str:
    return files("kravl.report.interactive").joinpath(name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    """A content security policy: nothing is fetched and no other script runs, whatever the data contains."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )


def _safe_json(data: dict[str, Any]) -> str:
    """JSON that cannot end a script element, whatever text it holds."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
