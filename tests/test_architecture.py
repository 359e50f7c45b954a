"""The design's rules that a machine can hold: imports go one way, files and functions stay small."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kravl"
DATA = {"__pycache__", "kravl_tiny", "vendor"}
ONE_FILE_A_THING = {"adapters", "cli", "heads", "sources"}  # a method, a verb, a head, a data set
FILES = sorted(PACKAGE.rglob("*.py"))
SEVEN = {"adapters", "backbones", "config", "data", "evaluation", "tracking", "training"}
MAY_IMPORT = {
    "runtime": set(),
    **{room: {"runtime"} for room in SEVEN},
    "run": SEVEN | {"runtime"},
    "export": SEVEN | {"peft", "run", "runtime"},  # of peft one format, where the extra is installed
    "demo": SEVEN | {"run", "runtime"},
    "study": {"config", "run", "runtime", "tracking"},
    "report": {"run", "runtime", "study", "tracking"},
    "api": SEVEN | {"export", "run", "runtime"},
    "analysis": {"adapters", "report", "run", "runtime", "tracking", "training"},
}
MAY_IMPORT["cli"] = set(MAY_IMPORT) | {"cli"}
MAY_IMPORT["peft"] = {"adapters", "runtime"}  # an extra: no room imports it


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a file imports from, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        modules += [f"kravl.{a.name}" for a in node.names] if modules == ["kravl"] else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {module.split(".")[1] for module in modules if module.startswith("kravl.")}
    return {name for name in found if not name.startswith("__")}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_what_is_below_it(path):
    # `python -m kravl.ROOM` is a command
    room = "cli" if path.name == "__main__.py" else path.relative_to(PACKAGE).parts[0]
    if path.parent != PACKAGE:
        assert imported_rooms(path) - {room} <= MAY_IMPORT[room], path


def test_the_listing_is_the_table_of_contents():
    folders = [path for path in PACKAGE.rglob("*") if path.is_dir() and path.name not in DATA]
    assert {path.name for path in folders if path.parent == PACKAGE} == set(MAY_IMPORT)
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py"}
    for folder in folders:
        if folder.name not in ONE_FILE_A_THING:
            names = [p.name for p in folder.iterdir() if (p.is_dir() or p.suffix == ".py") and p.name not in DATA]
            assert len(names) <= 16, folder


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
