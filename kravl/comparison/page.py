"""Writes the page: its table as HTML, the data of its charts as JSON, and the scripts that it carries."""

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from kravl.aggregate import Group, Run
from kravl.comparison.kept import Files
from kravl.comparison.payload import payload
from kravl.comparison.pictures import disagreements
from kravl.comparison.rows import rows
from kravl.runtime.files import write_whole
from kravl.tables import by_setting, heading

LIBRARIES = ("vendor/d3.min.js", "vendor/plot.umd.min.js")
OWN = ("table", "parts", "charts", "robustness", "calibration", "pair", "page")  # scripts, in order
LICENCES = ("vendor/LICENSE.plot", "vendor/LICENSE.d3", "vendor/LICENSE.bundled")
MOST_SETTINGS = 12  # that have pictures


def write_comparison(runs: Sequence[Run], groups: Sequence[Group], notes: Sequence[str], path: Path) -> None:
    """Write the page of ``runs``, which are in ``groups``, to ``path``.

    Args:
        notes: what to mind before comparing, as text.
    """
    kept = Files()
    data = payload(groups, kept)
    lines = _add_pictures(data, groups)
    lines = [*notes, *kept.problems, *lines]
    columns, table_rows, caption = rows(groups)
    scripts = [_resource(name) for name in (*LIBRARIES, *(f"{name}.js" for name in OWN))]
    text = {"heading": heading(groups), "notes": list(dict.fromkeys(lines)), "runs": len(runs)}
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(_resource("page.html")).render(
        **text,
        columns=columns,
        rows=table_rows,
        caption=caption,
        style=_resource("page.css"),
        scripts=scripts,
        licences=[_resource(name) for name in LICENCES],
        policy=_policy(scripts),
        data=_safe_json(data),
    )
    write_whole(path, page)


def _add_pictures(data: dict[str, Any], groups: Sequence[Group]) -> list[str]:
    problems: list[str] = []
    for setting, (_, members) in zip(data["settings"][:MOST_SETTINGS], by_setting(groups), strict=False):
        setting["pictures"] = disagreements(list(members), problems)
    return problems


def _resource(name: str) -> str:
    return files("kravl.comparison").joinpath(name).read_text(encoding="utf-8")


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
