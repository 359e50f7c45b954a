"""Tables as LaTeX for a paper (packages booktabs and, for wide ones, graphicx), every name escaped."""

from collections.abc import Sequence

from kravl.overview import MISSING, Overview, overview_table
from kravl.significance import Comparison, significance_table
from kravl.tables import Table

SPECIALS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "±": r"$\pm$", MISSING: "--",
}  # fmt: skip
MARK = "\x00"  # around what is bold; no name has it, see `escape`


def escape(text: str) -> str:
    """``text`` as LaTeX prints it, on one line."""
    plain = " ".join(text.replace(MARK, "").split())
    return "".join(SPECIALS.get(character, character) for character in plain)


def latex(overviews: Sequence[Overview], comparisons: Sequence[Comparison], baseline: str, caption: str) -> str:
    """A file to ``\\input``: a table each overview, its best in bold, and one of the ``comparisons``, if any."""
    parts = [r"% \usepackage{booktabs, graphicx}; with pdflatex also \usepackage[T1]{fontenc}"]
    for overview in overviews:
        parts.append(_table(overview_table(overview, MARK), f"{overview.title}; {caption}"))
    if comparisons:
        parts.append(_table(significance_table(comparisons, baseline), f"Against {baseline}"))
    return "\n\n".join(parts) + "\n"


def _table(rows: Table, caption: str) -> str:
    header, *body = [" & ".join(map(_cell, row)) + r" \\" for row in rows]
    columns = "l" + "r" * (len(rows[0]) - 1)
    return "\n".join([
        r"\begin{table}", r"\centering", rf"\caption{{{escape(caption)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{columns}}}", r"\toprule", header, r"\midrule", *body, r"\bottomrule",
        r"\end{tabular}}", r"\end{table}",
    ])  # fmt: skip


def _cell(text: str) -> str:
    if text.startswith(MARK) and text.endswith(MARK) and len(text) > 1:
        return rf"\textbf{{{escape(text)}}}"
    return escape(text)
