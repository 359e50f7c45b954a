"""What the documentation tells a reader to type works: commands compose or run, code runs, tables have every file."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from kravl.cli import calibrate, data, demo, export, ls, models, predict, push, report
from kravl.cli.configured import as_methods
from kravl.cli.main import VERBS
from kravl.config.compose import check_command_line, register_configs
from kravl.config.quoting import as_overrides
from kravl.study.schema import read_study
from kravl.tracking.methods import shown

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
NEEDS = "needs:"  # what a command cannot be tried without, said beside it
COMMANDS = sorted(
    {
        (page.name, line.strip())
        for page in PAGES
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
        for line in block.splitlines()
        if line.strip()
    }
)
CODE = {page.name: re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL) for page in PAGES}
FEW = '{"optim.steps": 1, "loading.batch_size": 8, "loading.min_batches": 1, "trainer.enable_progress_bar": False}'
PARSERS = {
    "calibrate": calibrate._parser,
    "data": data._parser,
    "demo": demo._parser,
    "export": export._parser,
    "models": models._parser,
    "predict": predict._parser,
    "push": push._parser,
    "report": report._parser,
}


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=lambda text: text[:60])
def test_a_command_is_one_that_kravl_takes(
    page: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program, *arguments = shlex.split(command, comments=True)
    if program == "make":
        assert f"\n{arguments[0]}:" in (ROOT / "Makefile").read_text()
        return
    if program in ("python", "torchrun"):
        script = next(i for i, word in enumerate(arguments) if word.endswith(".py"))
        verb, arguments = Path(arguments[script]).stem, arguments[script + 1 :]
    else:
        assert program == "kravl"
        verb, arguments = arguments[0] if arguments else "", arguments[1:]
    assert verb in VERBS
    if verb == "ls":
        (tmp_path / "runs").mkdir()
        monkeypatch.chdir(tmp_path)
        assert ls.main(arguments) == 0
    elif verb == "doctor":
        composes("train", [word for word in arguments if word != "--measure"])
    elif verb in PARSERS:
        assert PARSERS[verb]().parse_args(arguments)
    elif verb == "study":
        assert (ROOT / arguments[0]).is_file()
    elif f"{NEEDS} pip" not in command and f"{NEEDS} mypackage" not in command and verb != "dashboard":
        composes(verb, arguments)


def composes(verb: str, arguments: list[str]) -> None:
    multirun = "-m" in arguments
    given = as_methods([word for word in arguments if word != "-m"])
    register_configs(name for a in given if a.startswith("experiment=") for name in a[11:].split(","))
    check_command_line(as_overrides(given, verb, multirun), verb, multirun, complete=bool(given))


@pytest.mark.long
@pytest.mark.parametrize("page", [page for page, blocks in CODE.items() if blocks])
def test_the_code_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, glyphs: Path, finished_run: Path
) -> None:
    """With two steps where a page trains, and with this test's images and run where it names some."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(glyphs / "glyphs")
    names: dict[str, Any] = {"__name__": "page"}
    for block in CODE[page]:
        code = block.replace("shots=4", f"shots=4, settings={FEW}").replace('{"optim.epochs": 1}', FEW)
        exec(code.replace("runs/NAME/seed1", str(finished_run)), names)


@pytest.mark.long
def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process, with the settings that a reader runs it with."""
    monkeypatch.chdir(tmp_path)
    cells = json.loads((ROOT / "docs/notebooks/first_run.ipynb").read_text())["cells"]
    names: dict[str, Any] = {"__name__": "notebook"}
    for cell in cells:
        assert not cell.get("outputs") and not cell.get("execution_count")
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["after"] > names["before"] and (tmp_path / "kept/metrics.json").is_file()
    assert "# A first run" not in (page := script("tables").notebook_text("docs/notebooks/first_run.ipynb"))
    assert page.count("```python\n") == sum(cell["cell_type"] == "code" for cell in cells)


def test_the_commands_of_the_cloud_are_ones_that_kravl_takes() -> None:
    """SkyPilot itself is not run; its file has the keys that it knows, and a mount for each folder that is named."""
    task = yaml.safe_load((ROOT / "docs/skypilot.yaml").read_text())
    assert task.keys() == {"name", "workdir", "resources", "envs", "file_mounts", "setup", "run"}
    for line in task["run"].splitlines():
        program, verb, *arguments = shlex.split(line)
        assert program == "kravl" and verb in VERBS
        if verb == "study":
            assert arguments[1] == "--set" and read_study(ROOT / arguments[0], arguments[2:]).methods
        elif verb == "report":
            assert PARSERS[verb]().parse_args(arguments)
        else:
            composes("train", arguments)
        folders = {word.partition("=")[2] or word for word in arguments if "=/" in word or word.startswith("/")}
        assert folders <= task["file_mounts"].keys()
    assert all(mount["source"].startswith("s3://${BUCKET}/") for mount in task["file_mounts"].values())


def test_merged_weights_are_those_of_the_library(finished_run: Path, tmp_path: Path) -> None:
    """What the page on exporting says of them, in a process without kravl's classes."""
    import open_clip
    import torch

    from kravl.run.finished.restore import load_run

    run = load_run(finished_run)
    images = torch.randn(2, 3, 64, 64)
    run.adapters.merge()
    expected = run.classifier.encoder().encode_image(images)
    run.adapters.unmerge()
    run.adapters.merge_and_unload()
    plain = open_clip.create_model("kravl-tiny", pretrained=None)
    plain.load_state_dict(run.classifier.encoder().state_dict())
    assert torch.allclose(plain.eval().encode_image(images), expected, atol=1e-6)


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_have_every_shipped_file_once() -> None:
    made = script("tables")
    rows = re.findall(r"^\| `([\w]+)` \|", f"{made.adapters_table()}\n{made.heads_table()}", re.MULTILINE)
    assert sorted(rows) == sorted({path.stem for path in (ROOT / "configs/method").glob("*.yaml")} - {"custom"})
    shifts = re.findall(r"^\| `([\w]+)` \|", made.shifts_table(), re.MULTILINE)
    assert shifts == sorted(path.stem for path in (ROOT / "configs/evaluation").glob("*.yaml"))
    assert "Row i of ΔW is v_i ⊗ u_i" in made.adapters_table()
    assert "](../" not in made.file_text("kravl/peft/README.md")


def test_every_adapter_is_in_one_picture_of_the_page_on_methods() -> None:
    page = (ROOT / "docs/methods.md").read_text()
    made = script("draw_methods")
    kinds = made.kinds()

    drawn = [name for names in kinds.values() for name in names]
    assert sorted([*drawn, *made.SAME]) == sorted(path.stem for path in (ROOT / "configs/adapter").glob("*.yaml"))
    for kind, names in kinds.items():
        [alternative] = re.findall(rf"!\[(.*?)\]\(methods_{kind}\.png\)", page)
        assert (ROOT / f"docs/methods_{kind}.png").is_file()
        short = {"kra_lora": "KRAdapter with a LoRA"}
        assert [name for name in names if short.get(name, shown(name)) not in alternative] == []


def test_an_update_is_drawn_at_an_equal_number_of_parameters_and_has_the_rank_of_its_formula() -> None:
    import torch

    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    update = script("draw_methods").update

    (kra, of_kra), (lora, of_lora), (shira, of_shira) = (update(name, weight) for name in ("kra", "lora", "shira"))

    assert of_kra == of_lora == of_shira == 64 * (8 + 8)
    assert (torch.linalg.matrix_rank(kra), torch.linalg.matrix_rank(lora)) == (64, 8)
    assert torch.count_nonzero(shira) == 1024


def test_every_page_is_in_the_navigation_and_every_link_leads_somewhere() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    listed = [file for entry in config["nav"] for file in entry.values()]
    assert sorted(listed) == [page.name for page in PAGES]
    for page in PAGES:
        for link in re.findall(r"\]\((?!https://)([^)#]+)", page.read_text()):
            assert (page.parent / link).is_file(), (page.name, link)


@pytest.mark.skipif(not importlib.util.find_spec("mkdocs"), reason="mkdocs is not installed: pip install 'kravl[docs]'")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # its theme's advertisement
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=quiet)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "WARNING" not in done.stderr
    for page in PAGES:
        html = (tmp_path / "site" / page.with_suffix(".html").name).read_text()
        assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?://(?!example)[^"]+', html), page
        assert "<!-- table:" not in html
