"""``kravl ls KIND [PATTERN ...]``: models, methods, data sets, shifts, experiments and runs, read from files alone."""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

from kravl.backbones import catalog
from kravl.cli.listed_runs import list_runs
from kravl.cli.main import framed
from kravl.config.schema import CONFIGS, Config
from kravl.runtime.console import output, text_table
from kravl.runtime.errors import LONGEST, InputError, nearest, unknown
from kravl.runtime.files import read_text
from kravl.runtime.yaml_files import read_yaml

Row = dict[str, str]  # title -> cell; the first column is what is named
FILE_WIDTH = 1000  # columns, where the output is no terminal: a row is one line for grep
NUMBERS = ("image", "text", "weights", "classes", "images", "sets", "test", "OOD mean", "parameters")
OPTION_OF = {"runs": "runs", "datasets": "data_root"}  # the folder that is looked at
LISTED = 4  # sets of an evaluation in a cell
SHOTS = (1, 2, 4, 8, 16)
EPILOG = """kinds:
{kinds}

examples:
  kravl ls models siglip               names that hold it
  kravl ls methods 'r*'                a pattern with * and ?
  kravl ls experiments clip_vitb16_kra
  kravl ls runs --runs /scratch/runs   finished, training, stopped and failed runs, with their numbers
  kravl ls runs quickstart --json

Nothing is loaded or downloaded. kravl models NAME shows one model in detail, kravl data list sizes and licences."""
WHAT = {
    "models": "models of open_clip and timm that a backbone can be",
    "methods": "adapters and other ways to train: method=NAME",
    "datasets": "data sets: data=NAME, or evaluation=NAME of what is evaluated on alone",
    "shifts": "sets that a run is evaluated on: evaluation=NAME",
    "experiments": "shipped experiments, and every BACKBONE_METHOD_Nshot: experiment=NAME",
    "runs": "runs below a folder",
}


@framed
def main(arguments: Sequence[str]) -> int:
    """Print the rows that match; 0, or 2 for an unknown kind, a pattern without a match or no folder of runs."""
    options = _parser().parse_args(arguments)
    if options.kind is None:
        raise InputError(f"nothing is named to list; give one of {', '.join(WHAT)}, such as kravl ls runs")
    if options.kind not in WHAT:
        raise unknown("kind", options.kind, WHAT)
    for kind, default in (("runs", Config.runs), ("datasets", Config.data_root)):
        if options.kind != kind and getattr(options, OPTION_OF[kind]) != default:
            raise InputError(f"--{OPTION_OF[kind].replace('_', '-')} is for kravl ls {kind}, not for {options.kind}")
    rows = list_runs(Path(options.runs)) if options.kind == "runs" else LISTS[options.kind](options)
    if options.kind != "models":  # matched by their tags too
        rows = matching(options.kind.removesuffix("s"), rows, options.pattern)
    if options.json:
        plain = [{title: _number(title, cell) for title, cell in row.items()} for row in rows]
        print(json.dumps(plain, ensure_ascii=False, indent=1))
    else:
        _show(rows)
        print(f"{len(rows):,} {options.kind if len(rows) != 1 else options.kind.removesuffix('s')}{_note(options)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kravl ls",
        description="What there is to choose from, and the runs that there are.",
        epilog=EPILOG.format(kinds="\n".join(f"  {kind:<12} {what}" for kind, what in WHAT.items())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", nargs="?", metavar="KIND", help=", ".join(WHAT))
    parser.add_argument("pattern", nargs="*", metavar="PATTERN", help="part of a name, or a pattern with * and ?")
    parser.add_argument("--runs", default=Config.runs, help="the folder of runs (default: %(default)s)")
    parser.add_argument("--data-root", default=Config.data_root, help="of data sets (default: %(default)s)")
    parser.add_argument(
        "--json", action="store_true", help="the rows as JSON, numbers as numbers: accuracies in percent"
    )
    return parser


def matching(kind: str, rows: Sequence[Row], patterns: Sequence[str]) -> list[Row]:
    """The rows whose first cell holds one of the ``patterns``, or matches one with ``*``, ``?`` or ``[``; all for none.

    Raises:
        InputError: a pattern matches nothing; the nearest names are told.
    """
    names = [next(iter(row.values())) for row in rows]
    chosen = set() if patterns else set(range(len(rows)))
    for pattern in patterns:
        hits = {i for i, name in enumerate(names) if _matches(name.casefold(), pattern.casefold())}
        if not hits:
            near = nearest(pattern[:LONGEST], names)
            listed = f"the nearest are {', '.join(near)}" if near else "there are none to choose from"
            raise InputError(f"no {kind} {pattern[:LONGEST]!r} among {len(names):,}; {listed}")
        chosen |= hits
    return [rows[i] for i in sorted(chosen)]


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) if set(pattern) & set("*?[") else pattern in name


def _number(title: str, cell: str) -> str | int | float | None:
    """The number that a cell says, of a column of numbers; its text where it says none, None where it is empty."""
    if title not in (*NUMBERS, "shots"):
        return cell
    if not cell:
        return None
    text = cell.replace(",", "")
    if (millions := re.fullmatch(r"(\d+(?:\.\d+)?) M", text)) is not None:
        return round(float(millions[1]) * 10**6)
    return int(text) if text.isdecimal() else float(text) if re.fullmatch(r"\d+\.\d+", text) else cell


def _show(rows: Sequence[Row]) -> None:
    if rows:
        titles = list(rows[0])
        cells = [[row[title] for title in titles] for row in rows]
        output(FILE_WIDTH).print(text_table([titles, *cells], left={*titles} - {*NUMBERS}))


def _note(options: argparse.Namespace) -> str:
    if options.kind == "experiments" and not options.pattern:
        backbones, methods = (len(_names(group)) for group in ("backbone", "method"))
        return (
            f"; and BACKBONE_METHOD_Nshot for each of {backbones} backbones and {methods} methods, on ImageNet and "
            "its shifts: kravl ls experiments clip_vitb16"
        )
    return ""


def _models(options: argparse.Namespace) -> list[Row]:
    """Of open_clip and timm, from the table that ships with kravl."""
    table = catalog.read_table(catalog.folder() / catalog.MODELS)
    return [
        {
            "model": row["name"],
            "library": row["library"],
            **{tower: _millions(row["parameters"].get(tower)) for tower in ("image", "text")},
            "weights": str(len(catalog.tags(row))),
            "works": "yes" if row["works"] else f"no: {row['why']}",
        }
        for row in catalog.matching(table.rows, options.pattern)
    ]


def _millions(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.1f} M"


def _methods(_: argparse.Namespace) -> list[Row]:
    return [
        {"method": name, "adapter": _adapter(name), "what": _says("method", name)}
        for name in _names("method")
        if name != "custom"  # stands for an adapter without a file of its own
    ]


def _adapter(method: str) -> str:
    """The file of configs/adapter that it puts on matrices; KRAdapter's where its file names no other."""
    settings = read_yaml(CONFIGS / "method" / f"{method}.yaml")
    if settings.get("sites", "") is None:
        return "none"
    chosen = [entry.get("override /adapter") for entry in settings.get("defaults", []) if isinstance(entry, dict)]
    return next((str(name) for name in chosen if name), "kra")


def _datasets(options: argparse.Namespace) -> list[Row]:
    from kravl.cli.named_set import data_sets
    from kravl.data.inspect.listing import list_sets

    choices = data_sets()
    listed = {row.name: row for row in list_sets(Path(options.data_root), choices)}
    return [
        {
            "data set": name,
            "choice": choices.get(name, ""),
            "classes": row.classes if (row := listed.get(name)) else "",
            "images": row.images if row else "",
            "on disk": row.on_disk if row else "",
            "what": row.title if row else _says("data", name),
        }
        for name in sorted({*choices, *listed})
    ]


def _shifts(_: argparse.Namespace) -> list[Row]:
    return [_shift(name) for name in _names("evaluation") if name not in ("in_domain", "validation")]


def _shift(name: str) -> Row:
    settings = read_yaml(CONFIGS / "evaluation" / f"{name}.yaml")
    entries = [entry for entry in settings.get("defaults", []) if isinstance(entry, dict)]
    files = [key.partition("@sets.")[2] for entry in entries for key in entry]
    names = [*filter(None, files), *settings.get("sets", {})]
    more = [f"and {len(names) - LISTED} more"] if len(names) > LISTED else []
    listed = ", ".join([*names[:LISTED], *more])
    return {"shift": name, "sets": str(len(names)), "names": listed, "what": _says("evaluation", name)}


def _experiments(options: argparse.Namespace) -> list[Row]:
    files = [{"experiment": name, "what": _says("experiment", name)} for name in _names("experiment")]
    if not options.pattern:
        return files
    named = product(_names("backbone"), _names("method"), SHOTS)
    of_method = {method: _says("method", method) for method in _names("method")}
    grid = [{"experiment": f"{b}_{m}_{n}shot", "what": of_method[m]} for b, m, n in named]
    return [*files, *grid]


def _says(group: str, name: str) -> str:
    """The first line of comment of a file of configs."""
    lines = read_text(CONFIGS / group / f"{name}.yaml").splitlines()
    return next((line.lstrip("# ") for line in lines if line.startswith("#") and not line.startswith("# @")), "")


def _names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


LISTS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "models": _models,
    "methods": _methods,
    "datasets": _datasets,
    "shifts": _shifts,
    "experiments": _experiments,
}
