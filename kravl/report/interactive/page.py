"""The interactive page: a single file that needs no network, and its rows."""

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from kravl.report.groups import Group
from kravl.report.interactive.payload import palette, payload
from kravl.report.interactive.pictures import disagreements
from kravl.report.interactive.run_files import RunFiles
from kravl.report.page import Picture, render
from kravl.report.published.compare import matches_table, published_matches
from kravl.report.robustness import ID, OOD
from kravl.report.runs import FinishedRun
from kravl.report.tables import (
    LEGEND,
    TRAIN_SECONDS,
    by_setting,
    gap_cell,
    group_caption,
    percent,
    published_cell,
    seconds,
)
from kravl.runtime.files import write_atomic
from kravl.tracking.methods import shown
from kravl.tracking.run_folder import ZERO_SHOT

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
    best: Callable[[Sequence[float]], float] | None = None  # which value of a setting and number of shots is in bold


class PageCell(NamedTuple):
    """``text`` as shown, sorted by ``order``: a number, None for an empty cell, or lower-case text."""

    text: str
    order: float | str | None
    best: bool = False


METHOD = Column("Method", None)
PLACE = (Column("Data set", None), Column("Evaluation", None), Column("Backbone", None))  # what may be the same in all
PUBLISHED, GAP = "published", "gap"  # of the accuracy on the test set
COLUMNS = (
    METHOD,
    PLACE[0],
    Column("Shots", None, number=True),
    Column("Test, top-1 %", ID, percent, True, max),
    Column("Published, %", PUBLISHED, percent, True),
    Column("Gap, points", GAP, number=True),
    Column("OOD mean, top-1 %", OOD, percent, True, max),
    Column("Harmonic mean, %", "harmonic_mean", percent, True, max),
    Column("ECE, test, %", "test/ece", percent, True, min),
    Column("Trainable parameters", "trainable_parameters", "{:,.0f}".format, True),
    Column("Effective rank", "effective_rank", "{:.1f}".format, True),
    Column("Training, s (median)", TRAIN_SECONDS, seconds, True),
    Column("Peak memory, MiB", "peak_memory_bytes", lambda size: f"{size / SCALE:,.0f}", True),
    Column("n", None, number=True),
    *PLACE[1:],
)


def group_rows(groups: Sequence[Group]) -> tuple[list[Column], list[dict[str, Any]], str]:
    """The columns that tell the ``groups`` apart or hold a number, a row per group, and what all rows have in common.

    A row has its ``filters`` and its ``cells``.
    """
    rows = [_row(group) for group in groups]
    _mark_best(groups, rows)
    same = [
        i for i, column in enumerate(COLUMNS) if column in PLACE and len({row["cells"][i].text for row in rows}) == 1
    ]
    empty = [i for i, column in enumerate(COLUMNS) if column.quantity and not any(row["cells"][i].text for row in rows)]
    shown = [i for i in range(len(COLUMNS)) if i not in same + empty]
    caption = "; ".join(f"{COLUMNS[i].title.lower()}: {rows[0]['cells'][i].text}" for i in same)
    return [COLUMNS[i] for i in shown], [{**row, "cells": [row["cells"][i] for i in shown]} for row in rows], caption


def _row(group: Group) -> dict[str, Any]:
    texts = {METHOD: group.title, **dict(zip(PLACE, (*group.setting[1:3], group.setting[0]), strict=True))}
    numbers = {
        "Shots": PageCell(group.amount, ALL_IMAGES if group.shots is None else group.shots),
        "n": PageCell(str(len(group.runs)), len(group.runs)),
    }
    cells = [
        PageCell(texts[column], texts[column].lower()) if column in texts
        else numbers[column.title] if column.title in numbers
        else _cell(group, column)
        for column in COLUMNS
    ]  # fmt: skip
    filters = {"data set": group.setting.dataset, "method": group.method, "shots": group.amount}
    return {"filters": filters, "cells": cells}


def _mark_best(groups: Sequence[Group], rows: Sequence[dict[str, Any]]) -> None:
    """Mark the cells of each column that show the best value of a setting and number of shots, zero-shot apart."""
    members: dict[tuple[Any, ...], list[list[PageCell]]] = defaultdict(list)
    for group, row in zip(groups, rows, strict=True):
        if group.method != ZERO_SHOT:
            members[group.setting, group.amount].append(row["cells"])
    for found in members.values():
        for i, column in enumerate(COLUMNS):
            known = [order for cells in found if isinstance(order := cells[i].order, int | float)]
            if column.best and len(known) > 1:
                best = column.show(column.best(known))  # what is shown as equal is equally good
                for cells in found:
                    if isinstance(order := cells[i].order, int | float):
                        cells[i] = cells[i]._replace(best=column.show(order) == best)


def _cell(group: Group, column: Column) -> PageCell:
    assert column.quantity is not None
    if column.quantity in (PUBLISHED, GAP):
        return _published_cell(group, column.quantity)
    stat = group.stat(column.quantity)
    if stat is None:
        return PageCell("", None)
    if column.quantity == TRAIN_SECONDS:
        return PageCell(column.show(middle := group.median(TRAIN_SECONDS) or 0.0), middle)
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
    lines = list(dict.fromkeys([*notes, *run_files.problems, *lines]))
    write_atomic(path, page_text(data, groups, pictures, notes=lines, runs=len(runs), question=question))


def page_text(data: dict[str, Any], groups: Sequence[Group], pictures: Sequence[Picture] = (), **text: Any) -> str:
    """The page whose charts show ``data`` (`payload`), with a table of the ``groups``.

    Args:
        text: ``notes``, how many ``runs``, and the ``question``.
    """
    columns, table_rows, caption = group_rows(groups)
    scripts = [_resource(name) for name in (*LIBRARIES, *(f"{name}.js" for name in SCRIPTS))]
    return render(
        _resource("page.html"),
        **text,
        heading=group_caption(groups),
        pictures=pictures,
        columns=columns,
        rows=table_rows,
        caption=caption,
        style=palette() + _resource("page.css"),
        shown=shown,
        scripts=scripts,
        licences=[_resource(name) for name in LICENCES],
        policy=_policy(scripts),
        published=matches_table(matches) if (matches := published_matches(groups)) else [],
        legend=LEGEND,
        data=_safe_json(data),
    )


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
