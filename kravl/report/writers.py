"""A report's files: Markdown, LaTeX, CSV and JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kravl.report.groups import Group, Setting, Stat
from kravl.report.page import Picture
from kravl.report.paper_table import MISSING, Overview, overview_table
from kravl.report.published.compare import Match, matches_table
from kravl.report.significance import TEST, Comparison, significance_table
from kravl.report.tables import (
    LEGEND,
    Cells,
    by_setting,
    escape_markdown,
    group_caption,
    group_table,
    markdown_rows,
    write_csv,
)
from kravl.runtime.files import write_atomic
from kravl.tracking.methods import shown

SPECIALS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "±": r"$\pm$", MISSING: "--",
}  # fmt: skip
MARK = "\x00"  # around bold text; names cannot contain it, see `escape_latex`


def escape_latex(text: str) -> str:
    """``text`` as LaTeX prints it, on one line."""
    plain = " ".join(text.replace(MARK, "").split())
    return "".join(SPECIALS.get(character, character) for character in plain)


def latex(
    overviews: Sequence[Overview],
    comparisons: Sequence[Comparison],
    baseline: str,
    caption: str,
    matches: Sequence[Match] = (),
) -> str:
    """A file to ``\\input``: a table per overview, the best in bold, then ``comparisons`` and ``matches``, if any."""
    parts = [r"% \usepackage{booktabs, graphicx}; with pdflatex also \usepackage[T1]{fontenc}"]
    for overview in overviews:
        parts.append(_table(overview_table(overview, MARK), f"{overview.title}; {caption}"))
    if comparisons:
        parts.append(_table(significance_table(comparisons, baseline), f"Against {shown(baseline)}"))
    if matches:
        parts.append(_table(matches_table(matches), f"Beside published numbers. {LEGEND}"))
    return "\n\n".join(parts) + "\n"


def _table(rows: Cells, caption: str) -> str:
    header, *body = [" & ".join(map(_cell, row)) + r" \\" for row in rows]
    columns = "l" + "r" * (len(rows[0]) - 1)
    return "\n".join([
        r"\begin{table}", r"\centering", rf"\caption{{{escape_latex(caption)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{columns}}}", r"\toprule", header, r"\midrule", *body, r"\bottomrule",
        r"\end{tabular}}", r"\end{table}",
    ])  # fmt: skip


def _cell(text: str) -> str:
    if text.startswith(MARK) and text.endswith(MARK) and len(text) > 1:
        return rf"\textbf{{{escape_latex(text)}}}"
    return escape_latex(text)


@dataclass(frozen=True)
class Report:
    """The content of a report; without a ``baseline`` there are no ``comparisons``."""

    title: str
    groups: Sequence[Group]
    notes: Sequence[str]
    overviews: Sequence[Overview]
    baseline: str | None
    comparisons: Sequence[Comparison]
    matches: Sequence[Match] = ()  # numbers beside published ones


def write_files(report: Report, figures: Mapping[Setting, Sequence[Picture]], out: Path) -> None:
    """Write report.md, .tex, .csv and .json to ``out``, where the ``figures`` are."""
    caption = f"{group_caption(report.groups)}; {_missing(report)}best of each column in bold, zero-shot apart"
    write_atomic(out / "report.md", markdown(report, figures))
    text = latex(report.overviews, report.comparisons, report.baseline or "", caption, report.matches)
    write_atomic(out / "report.tex", text)
    write_csv(report.groups, out / "report.csv")
    write_atomic(out / "report.json", json.dumps(as_json(report), indent=1, allow_nan=False) + "\n")


def _missing(report: Report) -> str:
    cells = [stat for overview in report.overviews for row in overview.rows for stat in row.stats]
    return "– was not run or is not finished; " if None in cells else ""


def markdown(report: Report, figures: Mapping[Setting, Sequence[Picture]]) -> str:
    """The whole report as a document, with ``figures`` from the same folder."""
    lines = [f"# {escape_markdown(report.title)}", "", f"{group_caption(report.groups)}.", ""]
    if report.notes:
        lines += ["**Read before comparing:**", "", *(f"- {escape_markdown(note)}" for note in report.notes), ""]
    for overview in report.overviews:
        lines += [f"## {escape_markdown(overview.title)}", "", *markdown_rows(overview_table(overview, "**")), ""]
    if report.overviews:
        lines += [f"Bold: the best method of a column; {_missing(report)}costs are ranges over data sets.", ""]
    if report.comparisons and report.baseline:
        lines += [f"## Against {escape_markdown(shown(report.baseline))}", ""]
        lines += [
            *markdown_rows(significance_table(report.comparisons, report.baseline)),
            "",
            f"The p-values: {TEST}",
            "",
        ]
    if report.matches:
        lines += [
            "## Beside published numbers",
            "",
            *markdown_rows(matches_table(report.matches)),
            "",
            f"{LEGEND}.",
            "",
        ]
    for setting, members in by_setting(report.groups):
        title = escape_markdown(", ".join(setting))
        lines += [f"## {title}", "", *markdown_rows(group_table(list(members))), ""]
        for picture in figures.get(setting, ()):
            lines += [f"![{escape_markdown(picture.caption)}]({picture.path.name})", ""]
    return "\n".join(lines)


def as_json(report: Report) -> dict[str, Any]:
    """Every group with all statistics, the overviews and the comparisons; accuracies as fractions."""
    return {
        "title": report.title,
        "numbers": group_caption(report.groups),
        "notes": list(report.notes),
        "groups": [_group(group) for group in report.groups],
        "overviews": [_overview(overview) for overview in report.overviews],
        "baseline": report.baseline,
        "test": TEST,
        "comparisons": [asdict(comparison) for comparison in report.comparisons],
        "published": [{**asdict(match.row), **match.stat._asdict(), "gap": match.gap} for match in report.matches],
    }


def _group(group: Group) -> dict[str, Any]:
    stats = {
        name: {**stat._asdict(), "median": group.median(name)} for name in group.names if (stat := group.stat(name))
    }
    seeds = [run.record["seed"] for run in group.runs]
    names = {"method": group.method, "name": group.title}
    return {**group.setting._asdict(), **names, "shots": group.amount, "seeds": seeds, "stats": stats}


def _overview(overview: Overview) -> dict[str, Any]:
    def cell(stat: Stat | None) -> dict[str, Any] | None:
        return stat and stat._asdict()

    rows = {row.method: dict(zip(overview.columns, map(cell, row.stats), strict=True)) for row in overview.rows}
    return {"backbone": overview.backbone, "shots": overview.amount, "metric": overview.metric, "rows": rows}
