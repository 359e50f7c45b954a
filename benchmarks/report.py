"""Writes the measured part of benchmarks/README.md from the records in benchmarks/results.

python benchmarks/report.py     what stands above the mark in README.md is left as it is
"""

import json
from pathlib import Path
from typing import Any

from record import text

HERE = Path(__file__).parent
MARK = "<!-- what follows is written by benchmarks/report.py -->"


def section(found: dict[str, Any]) -> str:
    """A record as Markdown: title, command, where it ran, table, and a table for each of its ``parts``."""
    machine, versions = found["machine"], found["versions"]
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    where = f"{machine['processor']}{gpu}, {machine['threads']} of {machine['cores']} cores"
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    apart: dict[str, Any] = {"machine": {}, "versions": {}, "parts": {}}
    facts = {key: value for key, value in found.items() if isinstance(value, dict)} | apart
    settings = "; ".join(f"{key} {text(value)}" for group in facts.values() for key, value in group.items())
    lines = [
        f"## {found['title']}\n",
        f"`{found['command']}`\n",
        f"Commit {found['commit']}{_length(found)}; {where}; {packages}. {settings}.\n",
        *table(found["rows"]),
    ]
    for title, rows in found.get("parts", {}).items():
        lines += [f"\n### {title}\n", *table(rows)]
    return "\n".join(lines) + "\n"


def _length(found: dict[str, Any]) -> str:
    return f", measured in {found['seconds'] / 60:.0f} min" if "seconds" in found else ""


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of a table in Markdown; columns of numbers on the right."""
    names = list(rows[0])
    numbers = {name: all(not isinstance(row[name], str) for row in rows) for name in names}
    return [
        f"| {' | '.join(names)} |",
        f"|{'|'.join('---:' if numbers[name] else '---' for name in names)}|",
        *(f"| {' | '.join(text(value) for value in row.values())} |" for row in rows),
    ]


def main() -> None:
    readme = HERE / "README.md"
    above = readme.read_text(encoding="utf-8").split(MARK)[0]
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((HERE / "results").glob("*.json"))]
    readme.write_text("\n".join([above + MARK + "\n", *map(section, records)]), encoding="utf-8")


if __name__ == "__main__":
    main()
