"""The interactive page: one file that needs no network, and its rows."""

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
from kravl.report.robustness import ID, OOD
from kravl.report.runs import FinishedRun
from kravl.report.tables import by_setting, group_caption, percent
from kravl.runtime.files import write_atomic

SCALE = 2**20  # bytes in a MiB
ALL = 1e9  # images per class: "all" is sorted behind every number
LIBRARIES = ("vendor/d3.min.js", "vendor/plot.umd.min.js")
OWN = ("table", "parts", "charts", "robustness", "calibration", "pair", "page")  # scripts, in order
LICENCES = ("vendor/LICENSE.plot", "vendor/LICENSE.d3", "vendor/LICENSE.bundled")
MOST_SETTINGS = 12  # that have pictures


class Column(NamedTuple):
    """``quantity`` of a group, shown by ``show``; a column that is no ``number`` is sorted as text."""

    title: str
    quantity: str | None
    show: Callable[[float], str] = str
    number: bool = False


class PageCell(NamedTuple):
    """``text`` as shown; ``order`` is a number, or None where there is none, or text in small letters."""

    text: str
    order: float | str | None


METHOD = Column("Method", None)
COLUMNS = (
    Column("Backbone", None),
    Column("Data set", None),
    Column("Evaluation", None),
    METHOD,
    Column("Shots", None, number=True),
    Column("n", None, number=True),
    Column("Test, top-1 %", ID, percent, True),
    Column("OOD mean, top-1 %", OOD, percent, True),
    Column("Harmonic mean, %", "harmonic_mean", percent, True),
    Column("ECE, test, %", "test/ece", percent, True),
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
    first = [PageCell(name, name.lower()) for name in names]
    first += [
        PageCell(group.amount, ALL if group.shots is None else group.shots),
        PageCell(str(len(group.runs)), len(group.runs)),
    ]
    cells = first + [_cell(group, column) for column in COLUMNS[len(first) :]]
    filters = {"data set": group.setting.dataset, "method": group.method, "shots": group.amount}
    return {"filters": filters, "cells": cells}


def _cell(group: Group, column: Column) -> PageCell:
    assert column.quantity is not None
    stat = group.stat(column.quantity)
    if stat is None:
        return PageCell("", None)
    spread = f" ± {column.show(stat.std)}" if stat.std else ""
    fewer = f" (n={stat.n})" if stat.n != len(group.runs) else ""
    return PageCell(column.show(stat.mean) + spread + fewer, stat.mean)


def write_comparison(
    runs: Sequence[FinishedRun],
    groups: Sequence[Group],
    notes: Sequence[str],
    path: Path,
    pictures: Sequence[Picture] = (),
    question: str = "",
) -> None:
    """Write the page of ``runs``, which are in ``groups``, to ``path``.

    Args:
        notes: what to mind before comparing, as text.
        pictures: shown at the end.
        question: shown at the beginning.
    """
    kept = RunFiles()
    data = payload(groups, kept)
    lines = _add_pictures(data, groups)
    lines = [*notes, *kept.problems, *lines]
    columns, table_rows, caption = rows(groups)
    scripts = [_resource(name) for name in (*LIBRARIES, *(f"{name}.js" for name in OWN))]
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
        data=_safe_json(data),
    )
    write_atomic(path, page)


def _add_pictures(data: dict[str, Any], groups: Sequence[Group]) -> list[str]:
    problems: list[str] = []
    for setting, (_, members) in zip(data["settings"][:MOST_SETTINGS], by_setting(groups), strict=False):
        setting["pictures"] = disagreements(list(members), problems)
    return problems


def _resource(name: str) -> str:
    return files("kravl.report.interactive").joinpath(name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    """Nothing is fetched and no other script runs, whatever a name in the data is."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )


def _safe_json(data: dict[str, Any]) -> str:
    """JSON that ends no script element, whatever text is in it."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
