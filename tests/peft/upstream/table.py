"""The table of experiments/peft: what passed, failed and was skipped, and why, by file and method."""

import importlib.metadata
import json
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

PACKAGES = ("peft", "transformers", "accelerate", "torch")


def write(results: Path, out: Path) -> None:
    """Write ``results.json`` and ``table.md`` to ``out`` from all JUnit files in ``results``.

    Rows that ``out`` has already, of the same releases and not among these files, are kept: those of another machine.
    """
    counts = {path.relative_to(results).with_suffix("").parts: counted(path) for path in results.glob("*/*.xml")}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    earlier = out / "results.json"
    if earlier.exists() and (there := json.loads(earlier.read_text()))["versions"] == versions:
        counts = {(row["method"], row["file"]): row for row in there["rows"]} | counts
    rows = [row for _, row in sorted(counts.items())]
    out.mkdir(parents=True, exist_ok=True)
    earlier.write_text(json.dumps({"versions": versions, "rows": rows}, indent=1) + "\n")
    (out / "table.md").write_text(_markdown(rows, versions))


def counted(path: Path) -> dict[str, object]:
    """Method, file, number of passed tests, names of failed ones, and how many were skipped for which reason."""
    failed: list[str] = []
    skipped: Counter[str] = Counter()
    passed = 0
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        wrong = case.find("failure") if case.find("failure") is not None else case.find("error")
        left_out = case.find("skipped")
        if wrong is not None:
            failed.append(case.get("name", ""))
        elif left_out is not None:
            skipped[_reason(left_out.get("message", ""))] += 1
        else:
            passed += 1
    return {
        "method": path.parent.name, "file": path.stem, "passed": passed, "failed": failed, "skipped": dict(skipped),
    }  # fmt: skip


def _reason(message: str) -> str:
    """The reason without what differs from case to case: names of models and classes in it."""
    return re.sub(r"\s+", " ", re.sub(r"<class '[\w.]+'>|'[^']*'|\S+/\S+", "…", message)).strip()[:160]


def _markdown(rows: list[dict], versions: dict[str, str]) -> str:
    lines = ["PEFT's own tests, " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".", ""]
    lines += ["| file | method | passed | failed | skipped | skipped because |", "|---|---|---:|---:|---:|---|"]
    for row in sorted(rows, key=lambda row: (row["file"], row["method"])):
        reasons = "; ".join(f"{reason} ({count})" for reason, count in Counter(row["skipped"]).most_common())
        counts = f"{row['passed']} | {len(row['failed'])} | {sum(row['skipped'].values())}"
        lines.append(f"| {row['file']} | {row['method']} | {counts} | {reasons.replace('|', '/')} |")
    failures = [f"- {row['method']}, {row['file']}: `{name}`" for row in rows for name in row["failed"]]
    return "\n".join([*lines, "", *(["Failed:", "", *failures, ""] if failures else [])])
