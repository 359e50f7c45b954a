"""Tables, figures and a page of all runs below a folder, over their seeds: ``python -m kravl.report runs``."""

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from kravl.aggregate import ZERO_SHOT, Group, Run, Setting, group_runs, read_runs
from kravl.comparison.page import write_comparison
from kravl.consistency import differences
from kravl.overview import overview_table, overviews
from kravl.report_files import Report, write_files
from kravl.runtime.errors import InputError
from kravl.selection import select
from kravl.significance import TEST, compare, significance_table
from kravl.study.grid import plan
from kravl.study.schema import Study, read_study
from kravl.tables import Table, by_setting, heading, table
from kravl.tracking.run_folder import place_of

log = logging.getLogger(__name__)
FILE_WIDTH = 160  # columns, where the output is no terminal
BASELINE = "lora"  # unless a study or the command line says another


def main(arguments: Sequence[str] | None = None) -> int:
    """Write report.md, .tex, .csv, .json, figures and a page; 0, or 2 with nothing to report or nowhere to write it."""
    options = _parser().parse_args(arguments)
    out: Path = options.out or options.runs / "report"
    try:
        report, runs = _read(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        out.mkdir(parents=True, exist_ok=True)
        figures = {} if options.no_figures else _draw(report.groups, out)
        write_files(report, figures, out)
        write_comparison(runs, report.groups, report.notes, out / "index.html")
    except OSError as error:
        print(f"the report cannot be written to {out}: {error.strerror}; pass --out FOLDER", file=sys.stderr)
        return 2
    _show(report)
    print(out / "report.md")
    return 0


def _parser() -> argparse.ArgumentParser:
    description = "Tables (Markdown, LaTeX, CSV, JSON), figures and a page of all finished runs, over their seeds."
    parser = argparse.ArgumentParser(prog="python -m kravl.report", description=description)
    parser.add_argument("runs", type=Path, help="folder that holds runs or W&B's folders, at any depth")
    parser.add_argument("--out", type=Path, help="folder for the report (default: <runs>/report)")
    parser.add_argument("--study", type=Path, help="take its runs alone, show what is missing, and use its baseline")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="as they were given to the study")
    parser.add_argument(
        "--where",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="runs whose metrics.json says so, such as shots=4,16",
    )
    parser.add_argument("--baseline", help=f"method to test the others against (default: the study's, else {BASELINE})")
    parser.add_argument("--std", choices=("sample", "population"), default="sample", help="default: %(default)s")
    parser.add_argument("--no-figures", action="store_true", help="tables and page alone")
    return parser


def _read(options: argparse.Namespace) -> tuple[Report, list[Run]]:
    runs, problems = read_runs(options.runs)
    study = read_study(options.study) if options.study else None
    planned = plan(study, options.set) if study else []
    if study and runs:
        places = {run.place for run in planned}
        runs = [run for run in runs if _place(run) in places]
        if missing := len(places - {_place(run) for run in runs}):
            problems.append(f"{missing} of the {len(places)} runs of {study.name} are not finished")
    if not runs:
        reason = "; ".join(problems) or "no metrics.json in it"
        raise InputError(f"no finished run below {options.runs}: {reason}")
    runs = select(runs, options.where)
    groups = group_runs(runs, population=options.std == "population")
    groups = _in_order(groups, study.methods) if study else groups
    wanted = options.baseline or (study.baseline if study else None)
    baseline, lines = _baseline(groups, wanted, must=options.baseline is not None)
    axes = (
        {"methods": list(study.methods), "datasets": sorted({run.base.data.name for run in planned})} if study else {}
    )
    notes = [*problems, *differences(groups), *lines]
    comparisons = compare(groups, baseline) if baseline else []
    return Report(_title(study), groups, notes, overviews(groups, axes), baseline, comparisons), runs


def _place(run: Run) -> Path:
    """The end of the folder that a run with its record has, wherever the record was read from."""
    return place_of(str(run.record.get("name")), run.record["seed"], run.record["config"])


def _title(study: Study | None) -> str:
    return "Runs" if study is None else f"{study.name}: {study.question}" if study.question else study.name


def _in_order(groups: Sequence[Group], methods: Iterable[str]) -> list[Group]:
    order = [ZERO_SHOT, *methods]
    return sorted(groups, key=lambda group: (group.setting, order.index(group.method)))


def _baseline(groups: Sequence[Group], wanted: str | None, must: bool) -> tuple[str | None, list[str]]:
    """The method to compare with, which is there, and a line where there is none."""
    methods = {group.method for group in groups} - {ZERO_SHOT}
    if must or (wanted or BASELINE) in methods or len(methods) < 2:
        return (None if len(methods) < 2 and not must else wanted or BASELINE), []
    return None, [f"no test of differences: no run has the baseline {wanted or BASELINE!r}; pass --baseline METHOD"]


def _draw(groups: Sequence[Group], out: Path) -> dict[Setting, str]:
    from kravl.figures import draw  # matplotlib takes a second to import

    return {setting: draw(list(members), out) for setting, members in by_setting(groups)}


def _show(report: Report) -> None:
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    settings = [(setting, list(members)) for setting, members in by_setting(report.groups)]
    if len(settings) == 1:
        _print(console, ", ".join(settings[0][0]), table(settings[0][1], every_set=False))
    for overview in report.overviews if len(settings) > 1 else ():
        _print(console, overview.title, overview_table(overview))
    if report.comparisons and report.baseline:
        _print(console, f"against {report.baseline}", significance_table(report.comparisons, report.baseline))
        console.print(Text(f"p: {TEST}"))
    console.print(Text(heading(report.groups)))
    for note in report.notes:
        log.warning("%s", note)


def _print(console: Console, title: str, rows: Table) -> None:
    shown = RichTable(box=SIMPLE, title=Text(title), pad_edge=False, collapse_padding=True)
    for name in rows[0]:
        shown.add_column(Text(name), justify="left" if name == "method" else "right", overflow="fold")
    for row in rows[1:]:
        shown.add_row(*map(Text, row))
    console.print(shown)


if __name__ == "__main__":
    sys.exit(main())
