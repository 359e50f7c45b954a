"""``kravl report``: tables, figures and a page of all runs below a folder or in a W&B project, over their seeds."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from kravl.cli.main import framed
from kravl.cli.report_figures import draw_figures
from kravl.report.build import BASELINE, read_report
from kravl.report.groups import Group
from kravl.report.interactive.page import write_comparison
from kravl.report.paper_table import overview_table
from kravl.report.published.compare import matches_table, rows_table, select_published
from kravl.report.significance import TEST, significance_table
from kravl.report.tables import LEGEND, Cells, by_setting, group_caption, group_table
from kravl.report.wandb_runs import PREFIX
from kravl.report.writers import Report, write_files
from kravl.runtime.console import output, plain, text_table
from kravl.runtime.errors import InputError, printable
from kravl.tracking.methods import shown

log = logging.getLogger(__name__)
TEXTS = ("method", "backbone", "set", "metric", "protocol", "source")  # columns of published tables
PUBLISHED_WIDTH = 400  # columns where no terminal sets them: a row stays on one line for grep
MOST_COLUMNS = 40  # of a table with every set: turned on its side it has as many lines


@framed
def main(arguments: Sequence[str]) -> int:
    """Write report.md, .tex, .csv, .json, figures and a page; 0, or 2 with nothing to report or nowhere to write it."""
    options = _parser().parse_args(arguments)
    if options.published is not None:
        return _show_published(options)
    if options.runs is None:
        raise InputError("name the folder of the runs, or print published numbers with --published")
    out: Path = options.out or Path("" if options.runs.startswith(PREFIX) else options.runs, "report")
    report, runs = read_report(options)
    try:
        out.mkdir(parents=True, exist_ok=True)
        figures, problems = ({}, []) if options.no_figures else draw_figures(report.groups, out)
        write_files(report, figures, out)
        pictures = [picture for drawn in figures.values() for picture in drawn[1:]]  # accuracies, the page draws itself
        notes, question = [*report.notes, *problems], report.title if options.study else ""
        write_comparison(runs, report.groups, notes, out / "index.html", pictures, question)
    except OSError as error:
        raise InputError(f"the report cannot be written to {out}: {error.strerror}; pass --out FOLDER") from error
    _show(report)
    print(printable(out / "report.md"))
    return 0


def _parser() -> argparse.ArgumentParser:
    description = "Tables (Markdown, LaTeX, CSV, JSON), figures and a page of all finished runs, over their seeds."
    parser = argparse.ArgumentParser(prog="kravl report", description=description)
    parser.add_argument(
        "runs",
        nargs="?",
        help="folder that holds runs, at any depth; or wandb:ENTITY/PROJECT, the runs of a W&B project, which takes a "
        "key ($WANDB_API_KEY or `wandb login`); wandb:PROJECT is one of your own entity",
    )
    parser.add_argument("--out", type=Path, help="folder for the report (default: <runs>/report; of W&B's: report)")
    parser.add_argument("--study", type=Path, help="take its runs alone, show what is missing, and use its baseline")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="as they were given to the study")
    parser.add_argument(
        "--where",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="runs whose metrics.json says so, such as shots=4,16",
    )
    parser.add_argument(
        "--baseline", help=f"method to test the others against, or zero-shot (default: the study's, else {BASELINE})"
    )
    parser.add_argument("--std", choices=("sample", "population"), default="sample", help="default: %(default)s")
    parser.add_argument("--shortened", action="store_true", help="with runs that did less than their settings say")
    parser.add_argument(
        "--published",
        nargs="?",
        const="",
        metavar="PATTERN",
        help="print published numbers and their sources, without runs: all of them, or those of which the method, "
        "backbone, set or evaluation matches a shell pattern, such as coop or 'clip_vit*'",
    )
    parser.add_argument("--no-figures", action="store_true", help="tables and page alone")
    return parser


def _show_published(options: argparse.Namespace) -> int:
    if options.runs is not None:
        raise InputError(f"--published prints published numbers without runs; leave out {options.runs!r}")
    console = output(PUBLISHED_WIDTH)
    console.print(text_table(rows_table(select_published(options.published)), left=TEXTS))
    console.print(plain(LEGEND))
    return 0


def _show(report: Report) -> None:
    console = output()
    settings = [(setting, list(members)) for setting, members in by_setting(report.groups)]
    if len(settings) == 1:
        rows = _fitting(settings[0][1], console.width)
        console.print(text_table(rows, title=plain(", ".join(settings[0][0]))))
    for overview in report.overviews if len(settings) > 1 else ():
        console.print(text_table(overview_table(overview), title=plain(overview.title)))
    if report.comparisons and report.baseline:
        rows = significance_table(report.comparisons, report.baseline)
        console.print(text_table(rows, title=plain(f"against {shown(report.baseline)}")))
        console.print(plain(f"p: {TEST}"))
    if report.matches:
        console.print(text_table(matches_table(report.matches), left=TEXTS, title=plain("beside published numbers")))
        console.print(plain(LEGEND))
    console.print(plain(group_caption(report.groups)))
    for note in report.notes:
        log.warning("%s", note)


def _fitting(groups: Sequence[Group], width: int) -> Cells:
    """Every set, the table turned on its side where it has more columns than fit; else the mean of the sets alone."""
    rows = group_table(groups)
    for turned in (rows, [list(column) for column in zip(*rows, strict=True)]):
        needed = sum(max(map(len, column)) + 2 for column in zip(*turned, strict=True))
        if len(rows[0]) <= MOST_COLUMNS and needed <= width:
            return turned
    return group_table(groups, every_set=False)
