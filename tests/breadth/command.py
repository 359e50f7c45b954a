"""The command line of breadth: looks at every model, measures one of each family, writes the tables row by row."""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from breadth import parity, summary, survey
from breadth.families import smallest
from breadth.survey import Row
from tqdm import tqdm

from kravl.backbones import catalog
from kravl.cli.main import EXIT_INPUT, say
from kravl.runtime.files import write_atomic
from kravl.tracking.provenance import provenance

ROOT = Path(__file__).parents[2]
DESCRIPTION = (
    "Look at every model of open_clip and timm without memory for its weights, and adapt one of each family for real. "
    "Run the same command again to resume; rows made with other releases are made anew."
)
Key = tuple[str, ...]


def main() -> int:
    """0 if every family is as the library has it, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.breadth", description=DESCRIPTION)
    parser.add_argument("--work", type=Path, default=ROOT / "runs/breadth", help="rows as they are made (%(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "experiments/breadth", help="tables (%(default)s)")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="names of models to look at")
    parser.add_argument("--families", action="store_true", help="measure families of the models that OUT has")
    parser.add_argument("--again", action="store_true", help="make rows that are there anew")
    options = parser.parse_args()
    if find_spec("transformers") is None:
        return say("error: 49 names of open_clip need transformers: pip install 'kravl[text]'", EXIT_INPUT)
    options.work.mkdir(parents=True, exist_ok=True)
    every = survey.names()
    chosen = [key for key in every if any(fnmatchcase(key[1], pattern) for pattern in options.only)]
    models = Kept(options.work / catalog.MODELS, ("library", "name"), options.again)
    if options.families:
        models.take(options.out / catalog.MODELS)
    else:
        models.drop("models of other commits", survey.is_current)
        models.complete("models", chosen, survey.surveyed)
    rows = models.of(every)
    families = Kept(options.work / catalog.FAMILIES, ("family",), options.again)
    families.take(options.out / catalog.FAMILIES)
    members = {family: row for family, row in smallest(rows).items() if (row["library"], row["name"]) in set(chosen)}
    cheapest = sorted(members, key=lambda family: sum(members[family]["parameters"].values()))
    with TemporaryDirectory() as folder:
        families.complete("families", [(f,) for f in cheapest], lambda f: parity.compared(members[f], Path(folder)))
    measured = families.of([(family,) for family in smallest(rows)])
    if len(rows) == len(every):
        _write(options.out, models, rows, families, measured)
    wrong = list(summary.wrong(rows, measured))
    print("\n".join([summary.counts(rows), *wrong]))
    return int(bool(wrong))


def _write(out: Path, models: "Kept", rows: Sequence[Row], families: "Kept", measured: Sequence[Row]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    models.write(out / catalog.MODELS, rows)
    families.write(out / catalog.FAMILIES, measured)
    write_atomic(out / "table.md", summary.table(models.head(rows), rows, measured))


def _commit() -> str:
    return str(provenance()["git_commit"])[:7]


class Kept:
    """Rows that are written to a file one by one, as they are made, so that nothing is lost and nothing made twice.

    Args:
        keys: what tells one row from another.
        again: rows that are there are made anew.
    """

    def __init__(self, path: Path, keys: Sequence[str], again: bool) -> None:
        self._path, self._keys, self._again = path, keys, again
        self._versions = catalog.installed_versions()
        self._rows: dict[Key, Row] = {}
        self._former: dict[str, Any] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            row = json.loads(line)
            if row["versions"] == self._versions:
                self._rows[tuple(row[key] for key in keys)] = row

    def take(self, table: Path) -> None:
        """Add the rows of a table that is there, of these releases, to those that were made since."""
        if not table.exists():
            return
        head, rows = catalog.read_table(table)
        if head["versions"] == self._versions:
            self._former = head
            for row in rows:
                self._rows.setdefault(tuple(row[key] for key in self._keys), row)

    def drop(self, what: str, is_current: Callable[[Row], bool]) -> None:
        """Forget rows that were made at another commit and are no longer right."""
        commit = _commit()
        former = [key for key, row in self._rows.items() if row["commit"] != commit]
        for key in tqdm(former, desc=what, file=sys.stderr, disable=not former):
            if not is_current(self._rows[key]):
                del self._rows[key]

    def complete(self, what: str, wanted: Sequence[Key], make: Callable[..., Row]) -> None:
        """Make the rows that are not there, with a bar that says how long it will take."""
        missing = [key for key in wanted if self._again or key not in self._rows]
        commit = _commit()
        with self._path.open("a") as file:
            for key in (bar := tqdm(missing, desc=what, file=sys.stderr)):
                bar.set_postfix_str(key[-1][:40], refresh=False)
                begin = time.process_time()
                row = make(*key) | {"versions": self._versions, "commit": commit}
                row["took"] = round(time.process_time() - begin, 2)
                self._rows[key] = row
                file.write(json.dumps(row) + "\n")
                file.flush()

    def of(self, wanted: Iterable[Key]) -> list[Row]:
        """The rows that are there, in this order."""
        return [self._rows[key] for key in wanted if key in self._rows]

    def head(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The releases and commits that the rows were made with, and seconds of computing."""
        made = [row for row in rows if "commit" in row]
        former = self._former if len(made) < len(rows) else {}
        if not made and former:
            return former
        return {
            "versions": self._versions,
            "commits": sorted({row["commit"] for row in made} | set(former.get("commits", ()))),
            "python": platform.python_version(),
            "seconds": round(sum(row.get("took", row.get("seconds", 0)) for row in rows)),
            "threads": torch.get_num_threads(),
        }

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        """The table: a line of what it was made with, then one for each row."""
        plain = [{k: v for k, v in row.items() if k not in ("versions", "commit", "took")} for row in rows]
        write_atomic(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in [self.head(rows), *plain]))
