"""LaTeX: names are printed as they are, the best is bold, and braces and environments close."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from run_records import accuracies, write_run

from kravl.report.groups import group_runs
from kravl.report.paper_table import overviews
from kravl.report.runs import read_runs
from kravl.report.significance import compare
from kravl.report.writers import escape_latex, latex

NASTY = r"a_b{c}$d&e#f%g^h~i\j<k>|l" + '" \\input{x}'


@pytest.fixture
def text(tmp_path: Path) -> str:
    for method, accuracy in (("lora", 0.5), (NASTY, 0.6)):
        for seed in (1, 2):
            write_run(tmp_path / f"{method[:4]}{seed}", method=method, dataset="d_1&2", seed=seed,
                      metrics=accuracies(accuracy + 0.01 * seed))  # fmt: skip
    groups = group_runs(read_runs(tmp_path)[0])
    return latex(overviews(groups), compare(groups, "lora"), "lora", "100 % & more")


def test_every_special_character_is_escaped() -> None:
    assert escape_latex("50 % of a_b & {c} $1 #2") == r"50 \% of a\_b \& \{c\} \$1 \#2"
    assert escape_latex('a\\b^c~d<e>f|g"h±–\nx') == (
        r"a\textbackslash{}b\textasciicircum{}c\textasciitilde{}d\textless{}e\textgreater{}f\textbar{}g"
        r"\textquotedbl{}h$\pm$-- x"
    )


def test_the_best_is_bold_and_names_are_not_commands(text: str) -> None:
    assert r"\textbf{61.5 $\pm$ 0.7}" in text
    assert text.count(r"\textbf{") == 1
    assert r"\input" not in text
    assert r"d\_1\&2" in text
    assert "LoRA & 51.5" in text
    assert r"\caption{Against LoRA}" in text


def test_rows_have_as_many_cells_as_columns_and_everything_closes(text: str) -> None:
    for spec, body in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(rows) >= 2
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(spec)}
    assert text.count(r"\begin{") == text.count(r"\end{") == 4
    bare = text.replace(r"\{", "").replace(r"\}", "")
    assert bare.count("{") == bare.count("}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_a_paper_with_it_compiles(text: str, tmp_path: Path) -> None:
    head = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs,graphicx}\begin{document}"
    (tmp_path / "paper.tex").write_text(rf"{head}{text}\end{{document}}")

    done = subprocess.run(["pdflatex", "-halt-on-error", "paper"], cwd=tmp_path, capture_output=True, check=False)

    assert done.returncode == 0, done.stdout[-2000:]
