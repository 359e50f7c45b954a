"""Row 31: the files of runs, edited by hand at every place: a line for each that is left out, and the others whole."""

import contextlib
import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.campaign import Outcome, Row
from run_records import record, write_run

from kravl.cli.report import main

Path_ = tuple[str | int, ...]
VALUES: dict[str, Any] = {
    "true": True, "-1": -1, "1.5": 1.5, "1e299": 1e299, "text": "x", "[]": [], "{}": {}, "null": None,
    "not a number": float("nan"), "infinity": float("inf"), "400 digits": 10**400, "20 digits": 10**20,
    "a formula": "=cmd|' /C calc'!A0",
    "a formula behind a space": " +1+cmd|x", "bidi": "a\u202eb", "escape": "a\x1b[31mb",
    "a title": "\x1b]0;theirs\a", "control": "a\x9b31mb",
    "script": "</script><script>alert(1)</script>",
    "half a character": "\ud800", "long": "y" * 100_000, "nul": "a\0b", "lines": "a\nb\u2028c", "empty": "",
    "outside": "../../../../escaped", "deep": json.loads("[" * 900 + "]" * 900), "[[1]]": [[1]],
    "a mapping of nan": {"a": float("nan")}, "what tables call the untrained": "zero-shot",
}  # fmt: skip
DETAILS = {
    "schema": 1, "evaluation": "in_domain", "class_names": ["a", "b"], "images": [4, 4],
    "hits": {"adapted": [2, 3], "zero_shot": [1, 1]},
    "reliability": {"adapted": {"test": [[8, 0.5, 0.5]]}, "zero_shot": {"test": [[8, 0.5, 0.25]]}},
}  # fmt: skip
CURVE = {"step": [1, 2], "loss": [2.0, 1.0], "lr": [0.1, 0.0]}
METRICS = {"test/accuracy": 0.5, "test/ece": 0.125, "sketch/accuracy": 0.25, "ood_mean": 0.25, "harmonic_mean": 1 / 3}
STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e\ud800-\udfff]")
FORMULA = re.compile(r"\s*([=@]|[+-](?!\d*\.?\d+(e[+-]?\d+)?$))")


def places(tree: Any, place: Path_ = ()) -> Iterator[Path_]:
    """Every place below ``tree``, of a list its first."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree[:1]) if isinstance(tree, list) else ()
    for name, value in pairs:
        yield (*place, name)
        yield from places(value, (*place, name))


def edits(folder: Path) -> Iterator[tuple[Path, Path_ | None, str]]:
    """A file of the run that is edited, a place in it (None: a further name at the top) and the name of a value."""
    for file in ("metrics.json", "cost.json", "details.json", "curve.json", "evaluations/other.json"):
        for place in (None, *places(json.loads((folder / file).read_text()))):
            yield from ((folder / file, place, name) for name in VALUES)


def write_runs(runs: Path) -> Path:
    """Five whole runs of two methods; the folder of the one that is edited."""
    zero_shot = {name: value / 2 for name, value in METRICS.items()}
    point = {"alpha": 0.5, **METRICS}
    for method in ("lora", "kra"):
        for seed in (1, 2):
            run = write_run(runs / f"{method}/seed{seed}", 3.0, method=method, seed=seed, metrics=METRICS,
                            zero_shot=zero_shot, wise_ft=[point])  # fmt: skip
            run.with_name("details.json").write_text(json.dumps(DETAILS))
            run.with_name("curve.json").write_text(json.dumps(CURVE))
    edited = runs / "kra/seed2"
    (edited / "evaluations").mkdir()
    other = {key: record()[key] for key in ("zero_shot", "wise_ft", "versions")} | {"metrics": METRICS}
    (edited / "evaluations/other.json").write_text(json.dumps({**other, "evaluation": "other"}))
    return edited


def problem(runs: Path, out: Path) -> str:
    """What is wrong with the report on ``runs``; empty where it came out, with the runs that are whole."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = main([str(runs), "--no-figures", "--out", str(out)])
    if status != 0:
        return f"it ended with {status}: {said.getvalue()[-200:]}"
    report = json.loads((out / "report.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    whole = {(group["method"], seed) for group in report["groups"] for seed in group["seeds"]}
    if not {("lora", 1), ("lora", 2), ("kra", 1)} <= whole:
        return f"runs that are whole are missing: {sorted(map(str, whole))}"
    if steers := STEERS.search(said.getvalue() + (out / "report.md").read_text() + (out / "report.tex").read_text()):
        return f"{steers[0]!a} reaches the terminal or a table"
    cells = [cell for row in csv.reader(io.StringIO((out / "report.csv").read_text())) for cell in row]
    formulas = [cell for cell in cells if FORMULA.match(cell)]
    return f"a spreadsheet would run {formulas[0]!r}" if formulas else ""


def run(count: int, folder: Path) -> Outcome:
    """``count`` edits at equal steps of all that there are."""
    edited = write_runs(folder / "runs")
    every = list(edits(edited))
    failures = []
    for i in range(count):
        file, place, name = every[i * len(every) // count]
        before = file.read_text()
        tree = json.loads(before)
        _put(tree, place or ("theirs",), VALUES[name])
        file.write_text(json.dumps(tree))
        try:
            line = problem(folder / "runs", folder / "report")
        except (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
            line = f"{type(error).__name__}: {str(error)[:200]}"
        failures += [f"{file.name}, {place}, {name}: {line}"] if line else []
        file.write_text(before)
    return Outcome(count, f"{count} edits, {len(failures)} that stopped or steered a report", failures)


def _put(tree: Any, place: Path_, value: Any) -> None:
    for name in place[:-1]:
        tree = tree[name]
    tree[place[-1]] = value


ROW = Row(
    31, "files of runs edited by hand", "every place and value: 0 reports stopped, 0 raw characters", 1500, 30, run
)


def test_no_edit_of_a_record_stops_or_steers_a_report(tmp_path: Path) -> None:
    assert list(run(ROW.quick_count, tmp_path).failures) == []
