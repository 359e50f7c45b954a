"""Tables and figures of all runs below a folder, over their seeds: ``python -m kravl.report runs``."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from kravl.aggregate import Group, Setting, group_runs, read_runs
from kravl.comparison.page import write_comparison
from kravl.consistency import differences
from kravl.tables import HEADING, by_setting, markdown, table, write_csv

log = logging.getLogger(__name__)
FILE_WIDTH = 160  # columns, where the output is no terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """Write report.md, report.csv and figures; 0, or 2 where there is nothing to report or nowhere to write it."""
    description = "Tables (Markdown, CSV) and figures of all finished runs in a folder, over their seeds."
    parser = argparse.ArgumentParser(prog="python -m kravl.report", description=description)
    parser.add_argument("runs", type=Path, help="folder that holds runs, at any depth")
    parser.add_argument("--out", type=Path, help="folder for the report (default: <runs>/report)")
    options = parser.parse_args(arguments)
    out: Path = options.out or options.runs / "report"
    runs, problems = read_runs(options.runs)
    if not runs:
        reason = "; ".join(problems) or "no metrics.json in it"
        print(f"no finished run below {options.runs}: {reason}", file=sys.stderr)
        return 2
    groups = group_runs(runs)
    notes = [*problems, *differences(groups)]
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_csv(groups, out / "report.csv")
        figures = _draw(groups, out)
        (out / "report.md").write_text(markdown(groups, notes, figures))
        write_comparison(runs, groups, notes, out / "index.html")
    except OSError as error:
        print(f"the report cannot be written to {out}: {error.strerror}; pass --out FOLDER", file=sys.stderr)
        return 2
    _show(groups, notes)
    print(out / "report.md")
    return 0


def _draw(groups: Sequence[Group], out: Path) -> dict[Setting, str]:
    from kravl.figures import draw  # matplotlib takes a second to import

    return {setting: draw(list(members), out) for setting, members in by_setting(groups)}


def _show(groups: Sequence[Group], notes: Sequence[str]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    for setting, members in by_setting(groups):
        header, *rows = table(list(members), every_set=False)
        shown = RichTable(box=SIMPLE, title=Text(", ".join(setting)), pad_edge=False, collapse_padding=True)
        for title in header:
            shown.add_column(Text(title), justify="left" if title == "method" else "right", overflow="fold")
        for row in rows:
            shown.add_row(*map(Text, row))
        console.print(shown)
    console.print(Text(HEADING))
    for note in notes:
        log.warning("%s", note)


if __name__ == "__main__":
    sys.exit(main())
