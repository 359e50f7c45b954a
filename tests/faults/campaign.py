"""The campaign of faults: rows, each with its gate, found by listing this folder, and their table."""

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
HEAD = ("row", "fault", "gate", "tries", "reached", "passed")


@dataclass(frozen=True)
class Outcome:
    """``count`` tries, the numbers ``reached`` as a reader wants them, and one line for each failure."""

    count: int
    reached: str
    failures: Sequence[str] = field(default=())


@dataclass(frozen=True)
class Row:
    """A fault that kravl must survive.

    A module ``tests/faults/row_*.py`` or ``test_*.py`` has one as ``ROW``, and a test runs it a few times. Several
    modules may share the ``number`` of a row of the specification.

    Args:
        gate: what must hold, in numbers.
        full_count, quick_count: tries of the whole campaign, and of ``--quick``.
        run: (count, empty folder) -> outcome. It is called in a process of its own, which has one thread.
    """

    number: int
    fault: str
    gate: str
    full_count: int
    quick_count: int
    run: Callable[[int, Path], Outcome]


def rows(only: Sequence[int] = ()) -> dict[str, Row]:
    """Module name -> its row, by number; those of ``only`` where it names any."""
    modules = sorted(path.stem for pattern in ("row_*.py", "test_*.py") for path in FOLDER.glob(pattern))
    found = {name: vars(importlib.import_module(f"faults.{name}")).get("ROW") for name in modules}
    listed = {name: row for name, row in found.items() if isinstance(row, Row) and (not only or row.number in only)}
    return dict(sorted(listed.items(), key=lambda item: (item[1].number, item[0])))


def attempt(module: str, count: int, folder: Path) -> Outcome:
    """Run the row of ``module``; the one call that a process of the campaign gets."""
    return rows()[module].run(count, folder)


def record(row: Row, outcome: Outcome, seconds: float) -> dict[str, Any]:
    """What results.json keeps of a row; it has passed if nothing failed and no try was left out."""
    return {
        "row": row.number,
        "fault": row.fault,
        "gate": row.gate,
        "tries": outcome.count,
        "reached": outcome.reached,
        "failures": list(outcome.failures),
        "passed": not outcome.failures and outcome.count > 0,
        "seconds": round(seconds, 1),
    }


def markdown(records: Iterable[Mapping[str, Any]]) -> str:
    """The table of gates."""
    lines = [HEAD, ["---"] * len(HEAD), *([str(_cell(r[key])) for key in HEAD] for r in records)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: Any) -> Any:
    return {True: "yes", False: "NO"}[value] if isinstance(value, bool) else value
