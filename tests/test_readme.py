"""What the README tells a reader to type is what works."""

import re
import shlex
from pathlib import Path

import pytest

from kravl.cli.configured import as_methods
from kravl.config.compose import check, register

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
]
EXPERIMENTS = [
    command
    for path in [*(ROOT / "configs/experiment").glob("*.yaml"), *(ROOT / "configs/method").glob("*.yaml")]
    for command in re.findall(r"#\s+(python train\.py .*)", path.read_text())
]


@pytest.mark.parametrize(
    "command", [c for c in [*COMMANDS, *EXPERIMENTS] if ".py" in c and "<" not in c and "--help" not in c]
)
def test_a_command_composes(command):
    _, script, *arguments = shlex.split(command.split("   ")[0])
    overrides = as_methods([a for a in arguments if a != "-m"])
    register(name for a in overrides if a.startswith("experiment=") for name in a[11:].split(","))
    keys = [a for a in overrides if not a.startswith(("trainer.", "adapter.", "backbone.build.", "data.source."))]
    check(keys, Path(script).stem, multirun="-m" in arguments)


def test_the_two_commands_are_targets_of_the_makefile():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {c.split()[1] for c in COMMANDS if c.startswith("make ")} == {"quickstart", "test"} <= targets


def test_every_file_that_is_linked_exists():
    links = re.findall(r"\]\(([^)#:]+)\)", TEXT)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert len(names["ranks"]) == 36


def test_the_readme_is_short():
    assert len(TEXT.splitlines()) <= 150


def test_the_table_is_the_one_that_the_experiment_holds():
    assert (ROOT / "experiments/quickstart/table.md").read_text() in TEXT
