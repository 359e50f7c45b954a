"""The design's rules that a machine can hold: imports go one way, files and functions stay small."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kravl"
FILES = sorted(PACKAGE.rglob("*.py"))
EVERYBODY = {"errors", "foreign_text", "interruption", "whole_file"}
# a part may import these other parts; whatever is not named here imports nobody but EVERYBODY
ALLOWED = {
    "assemble": {"config", "build", "adapters", "backbones", "data", "versions"},
    "run": {"assemble", "adapters", "config", "curve_points", "details", "diagnostics", "ending", "evaluation",
            "fitting", "learning_curve", "objective", "phases", "predictions", "processes", "record", "result",
            "resumption", "run_evaluation", "trace", "tracking", "trainer", "wandb_results"},
    "run_evaluation": {"assemble", "config", "curve_points", "details", "ending", "evaluation", "predictions",
                       "record", "restore", "result", "trainer"},
    "ending": {"checkpoint", "learner", "pieces"},
    "details": {"evaluation", "predictions"},
    "fitting": {"adapters", "assemble", "checkpoint", "config", "features", "learner", "phases", "pieces", "record"},
    "learner": {"pieces", "sharding"},
    "features": {"pieces"},
    "diagnostics": {"sharding", "trace"},
    "approximate": {"adapters", "approximation", "build", "cli", "config", "lock"},
    "approximation": {"adapters", "figures", "page", "tables"},
    "config": {"analysis_config"},
    "record": {"lock"},
    "resumption": {"record"},
    "checkpoint": {"state_tree"},
    "restore": {"adapters", "assemble", "config", "interpolations", "record"},
    "spectra": {"adapters", "cli", "record", "restore", "spectra_report", "trace"},
    "spectra_report": {"figures", "page", "site_place", "tables", "trace"},
    "quickstart": {"cli", "config", "local_runs", "local_worker", "quickstart_report", "record"},
    "local_runs": {"local_crew", "local_worker", "lock", "record"},
    "local_crew": {"local_worker"},
    "local_worker": {"config", "lock", "run"},
    "study": {"aggregate", "cli", "config", "local_runs", "local_worker", "lock", "record"},
    "study/__main__": {"local_crew", "local_runs", "study"},
    "quickstart_report": {"aggregate", "assemble", "consistency", "data", "figures", "page", "record", "restore",
                          "spectra_report", "tables", "trace"},
    "page": {"tables"},
    "result": {"assemble", "config", "evaluation", "phases", "record"},
    "cli": {"chosen_files", "config", "interpolations", "versions"},
    "chosen_files": {"config", "interpolations"},
    "trainer": {"checkpoint", "precision", "sharding"},
    "evaluation": {"predictions"},
    "predictions": {"features", "pieces"},
    "tracking": {"wandb_logger"},
    "wandb_logger": {"wandb_mode"},
    "wandb_results": {"tracking", "wandb_logger"},
    "aggregate": {"wandb_files"},
    "dashboard": {"dashboard_panels", "wandb_mode"},
    "consistency": {"aggregate", "record", "selection"},
    "figures": {"aggregate", "panels", "robustness"},
    "panels": {"aggregate", "robustness"},
    "robustness": {"aggregate"},
    "comparison": {"aggregate", "assemble", "record", "restore", "robustness", "tables"},
    "tables": {"aggregate"},
    "named_source": {"assemble", "build", "cli", "config", "data"},
    "data_commands": {"assemble", "config", "data", "named_source"},
    "data/__main__": {"cli", "data_commands"},
    "overview": {"aggregate", "tables"},
    "significance": {"aggregate", "tables"},
    "selection": {"aggregate"},
    "latex": {"overview", "significance", "tables"},
    "report_files": {"aggregate", "latex", "overview", "significance", "tables"},
    "report": {"aggregate", "comparison", "consistency", "figures", "overview", "record", "report_files", "selection",
               "significance", "study", "tables"},
}  # fmt: skip


def part(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    if relative.name == "__main__.py":  # a command line knows more than the part that it is called by
        return str(relative.with_suffix(""))
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported_parts(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        modules += [f"kravl.{a.name}" for a in node.names] if modules == ["kravl"] else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {module.split(".")[1] for module in modules if module.startswith("kravl.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    own = part(path)
    foreign = imported_parts(path) - {own} - EVERYBODY - ALLOWED.get(own, set())
    assert not foreign, f"{path.name} of {own} imports {foreign}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_are_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 40, node.name


def test_every_file_says_what_it_is_in_its_first_line():
    for path in FILES:
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        assert docstring, path


def test_no_broad_except():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                caught = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else {"everything"}
                assert not caught & {"Exception", "BaseException", "everything"}, f"{path.name}:{node.lineno}"


def test_a_typo_is_answered_without_torch():
    for name in ("cli", "config", "errors"):
        imports = (PACKAGE / f"{name}.py").read_text()
        assert not re.search(r"^(import|from) (torch|timm|open_clip|pytorch_lightning)", imports, re.MULTILINE)
