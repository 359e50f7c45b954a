"""The worked examples for a user's own images run as they are written."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image
from tiny_run import TINY, VIT

from kravl.config.compose import check_command_line, typed
from kravl.config.schema import CONFIGS
from kravl.run.build import build_run
from kravl.run.evaluate import evaluate_run
from kravl.run.train import train
from kravl.runtime.errors import InputError

TEXT = (Path(__file__).parents[2] / "datasets/README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)\n```", TEXT, re.DOTALL)
COMMANDS = {
    re.findall(r"data=(\w+)", command)[0]: shlex.split(command)[2:] for command in BLOCKS if "train.py" in command
}
(EVALUATION,) = (shlex.split(command)[3:] for command in BLOCKS if "evaluate.py" in command)
MINE = [setting for setting in TINY if not setting.startswith(("data", "shots"))]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a reader, with photographs in one folder and in a folder for each class."""
    rng = np.random.default_rng(0)
    for label in ("tabby", "t_800"):
        for i in range(9):
            image = Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
            names = [f"flat/{label}_{i:02}.jpg", f"photos/{'test' if i % 3 == 2 else 'train'}/{label}/{i}.jpg"]
            for path in (tmp_path / name for name in names):
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
    (names_csv,) = re.findall(r"```csv\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "names.csv").write_text(names_csv)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def composed(photos: Path) -> Callable[[list[str]], Any]:
    def make(arguments: list[str]) -> Any:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return compose("train", [*MINE, *VIT, f"runs={photos}/runs", f"cache_root={photos}/cache", *arguments])

    return make


def test_a_table_is_made_and_trained_on_and_its_test_images_are_kept(
    photos: Path, composed: Callable[[list[str]], Any]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(code, {})
    cfg = composed(COMMANDS["table"])

    metrics = train(cfg)
    parts = build_run(typed(cfg))

    assert metrics["metrics"]["test/count"] == 6
    assert parts.source.class_names == ("combine harvester", "tabby cat")
    assert sorted(parts.data.train_samples.labels) == [0] * 4 + [1] * 4
    assert len(list((photos / "cache").glob("*.safetensors"))) == 1


def test_a_folder_for_each_class_is_what_the_table_of_the_same_images_is(
    photos: Path, composed: Callable[[list[str]], Any]
) -> None:
    parts = build_run(typed(composed(COMMANDS["folder"])))
    parts.data.check()

    assert parts.source.class_names == ("t 800", "tabby")
    assert len(parts.source.split("test")) == 6


def test_another_folder_is_an_evaluation_of_a_run_and_of_a_finished_one(
    photos: Path, composed: Callable[[list[str]], Any]
) -> None:
    (photos / "photos/night").mkdir()
    shutil.copytree(photos / "photos/test/tabby", photos / "photos/night/tabby")
    settings = [*COMMANDS["folder"], "evaluation.root=photos/test", "evaluation=folder"]

    trained = train(composed(settings))
    (run,) = (photos / "runs").glob("*/seed1-*")
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        found = evaluate_run(compose("evaluate", [f"run={run}", *EVALUATION, "cache_root=null", "alphas=1"]))

    assert trained["evaluation"] == "test"
    assert trained["metrics"]["folder/accuracy"] == trained["metrics"]["test/accuracy"]
    assert (found["evaluation"], found["metrics"]["folder/count"]) == ("night", 3)
    assert (run / "evaluations/night.json").exists()
    with pytest.raises(InputError, match=r"no value for 'evaluation.root'"):
        check_command_line(["evaluation=folder"], "train")


def test_the_command_for_hugging_face_composes() -> None:
    settings = [f"++{a}" if a.startswith("data.source.") else a for a in COMMANDS["hf"]]

    check_command_line(settings, "train")


def test_the_examples_are_all_of_them() -> None:
    assert sorted(COMMANDS) == ["folder", "hf", "table"]
