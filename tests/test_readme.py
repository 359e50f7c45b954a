"""What the README tells a reader to type is what works."""

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from kravl.cli.configured import as_methods
from kravl.cli.main import VERBS
from kravl.config.compose import check_command_line, register_configs
from kravl.config.quoting import as_overrides

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
]
EXPERIMENTS = [
    command
    for path in (ROOT / "configs/experiment").glob("*.yaml")
    for command in re.findall(r"#\s+(python train\.py .*)", path.read_text())
]
OF_METHODS = {
    path.stem: re.findall(r"#\s+(python train\.py .*)", path.read_text())
    for path in sorted((ROOT / "configs/method").glob("*.yaml"))
}


@pytest.mark.parametrize(
    "command", [c for c in [*COMMANDS, *EXPERIMENTS] if ".py" in c and "<" not in c and "--help" not in c]
)
def test_a_command_composes(command):
    _, script, *arguments = shlex.split(command.split("   ")[0])
    overrides = as_methods([a for a in arguments if a != "-m"])
    register_configs(name for a in overrides if a.startswith("experiment=") for name in a[11:].split(","))
    multirun, verb = "-m" in arguments, Path(script).stem
    check_command_line(as_overrides(overrides, verb, multirun), verb, multirun)


@pytest.mark.parametrize("method", OF_METHODS)
def test_a_methods_own_command_names_it(method):
    """That the method composes with any data set is held in tests/config."""
    for command in OF_METHODS[method]:
        assert re.search(rf"(method=|_){method}\b|_{method}_", command), command


def test_the_two_commands_are_targets_of_the_makefile():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {c.split()[1] for c in COMMANDS if c.startswith("make ")} == {"quickstart", "test"} <= targets


def test_every_file_that_is_linked_exists():
    links = re.findall(r"\]\(([^)#:]+)\)", TEXT)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


DOCUMENTS = sorted(path for path in ROOT.rglob("*.md") if not {".venv", "runs"} & set(path.relative_to(ROOT).parts))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_names_of_the_package_is_there(path):
    text = path.read_text()
    files = re.findall(r"(?<![\w/.])kravl/[\w/]+(?:\.\w+)+", text)
    assert [name for name in files if not (ROOT / name).exists()] == []
    folders = re.findall(r"`(kravl/[\w/]+)`", text)
    assert [name for name in folders if not (ROOT / name).is_dir()] == []
    if path.name != "CHANGELOG.md":  # it tells what things were called
        assert [name for name in re.findall(r"`(kravl(?:\.\w+)+)[(`]", text) if not found(name)] == []
        verbs = re.findall(r"^    kravl (\w+)|`kravl (\w+)", text, re.MULTILINE)
        assert {first or second for first, second in verbs} <= set(VERBS)


def found(name):
    """Whether a dotted name is a module, or an attribute of one."""
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute) or bool(importlib.util.find_spec(name))
    except ModuleNotFoundError:
        return False


def test_the_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert len(names["ranks"]) == 36


def test_the_readme_is_short():
    assert len(TEXT.splitlines()) <= 150


def test_the_table_is_the_one_that_the_experiment_holds():
    assert (ROOT / "experiments/quickstart/table.md").read_text() in TEXT
