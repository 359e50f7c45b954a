"""Pictures are those on which methods differ, from the data set where it is there."""

import base64
import io
from pathlib import Path

import pytest
from kept_files import LABELS, write_kept
from PIL import Image
from run_records import write_run

from kravl.report.groups import Group, group_runs
from kravl.report.interactive.pictures import disagreements
from kravl.report.runs import read_runs

CONFIG = """
backbone: {name: x, build: {}}
method: x
data:
  name: animals
  source: {_target_: kravl.data.sources.folder.ImageFolder, name: animals, root: ROOT, test: ../test}
evaluation: {name: in_domain}
name: x
"""


def groups(folder: Path, config: str | None = None, **predictions: list[int]) -> list[Group]:
    """One run for each method that ``predictions`` something of the six images."""
    for method, predicted in predictions.items():
        write_run(folder / method, method=method)
        write_kept(folder / method, {"adapted": predicted})
        if config:
            (folder / method / "config.yaml").write_text(config)
    return group_runs(read_runs(folder)[0])


@pytest.fixture
def animals(tmp_path: Path) -> str:
    """A config of a folder of images, each of its own colour."""
    for name, count in (("train", 1), ("test", 2)):
        for i, label in enumerate(("cat", "dog", "owl")):
            (tmp_path / "data" / name / label).mkdir(parents=True)
            for j in range(count):
                Image.new("RGB", (300, 150), (40 * i, 90 * j, 0)).save(tmp_path / "data" / name / label / f"{j}.png")
    return CONFIG.replace("ROOT", str(tmp_path / "data/train"))


def test_the_pictures_are_those_that_one_gets_right_and_the_other_wrong(tmp_path: Path, animals: str) -> None:
    members = groups(tmp_path / "runs", animals, kra=[0, 0, 1, 1, 2, 0], lora=[0, 1, 1, 1, 0, 2])
    problems: list[str] = []

    shown = disagreements(members, problems)

    assert problems == []
    assert shown is not None
    assert shown["counts"] == {"kra": {"lora": 2}, "lora": {"kra": 1}}
    assert [image["label"] for image in shown["images"]] == [0, 2, 2]  # images 1, 4 and 5
    assert shown["images"][0]["says"] == {"kra": (0, 0.75), "lora": (1, 0.75)}
    with Image.open(io.BytesIO(base64.b64decode(shown["images"][0]["source"].split(",")[1]))) as image:
        assert image.size == (112, 56)
        assert image.getpixel((5, 5)) == pytest.approx((0, 90, 0), abs=8)  # cat 1, as a JPEG


def test_a_run_that_looked_at_no_test_image_shows_those_that_it_looked_at(tmp_path: Path, animals: str) -> None:
    for i, label in enumerate(("cat", "dog", "owl")):
        for j in (1, 2):  # beside the one picture of before
            Image.new("RGB", (300, 150), (40 * i, 0, 50 * j)).save(tmp_path / "data/train" / label / f"{j}.png")
    held_out = animals.replace("{name: in_domain}", "{name: validation, held_out: true}")
    config = held_out + "split_protocol: official\nshots: 1\nsplit_seed: 1\n"
    problems: list[str] = []

    shown = disagreements(groups(tmp_path / "runs", config, kra=list(LABELS), lora=[0] * 6), problems)

    assert problems == []
    assert shown is not None
    assert [image["label"] for image in shown["images"]] == [1, 1, 2, 2]  # of the two that each class has left
    for image in shown["images"]:
        with Image.open(io.BytesIO(base64.b64decode(image["source"].split(",")[1]))) as picture:
            assert picture.getpixel((5, 5))[1] < 10  # test pictures but the first have green in them


def test_without_the_data_set_a_line_says_so(tmp_path: Path, animals: str) -> None:
    gone = animals.replace("/data/train", "/elsewhere")
    problems: list[str] = []

    shown = disagreements(groups(tmp_path / "runs", gone, kra=list(LABELS), lora=[0] * 6), problems)

    assert shown is None
    assert len(problems) == 1
    assert "pictures are left out, as the data set cannot be read" in problems[0]


def test_a_config_that_names_code_of_others_is_not_run(tmp_path: Path, animals: str) -> None:
    evil = animals.replace("kravl.data.sources.folder.ImageFolder", "os.system") + "plugins: [os]\n"
    problems: list[str] = []

    assert disagreements(groups(tmp_path / "runs", evil, kra=list(LABELS), lora=[0] * 6), problems) is None
    assert "os.system" in problems[0]


@pytest.mark.parametrize("text", ["index,label\n1,", "index,label,adapted_predicted\n0,0,x", "\x00"], ids=repr)
def test_broken_predictions_are_left_out(tmp_path: Path, text: str) -> None:
    members = groups(tmp_path, kra=list(LABELS), lora=[0] * 6)
    (tmp_path / "lora/predictions.csv").write_text(text)

    assert disagreements(members, []) is None


def test_one_method_alone_has_no_pictures(tmp_path: Path) -> None:
    assert disagreements(groups(tmp_path, kra=list(LABELS)), []) is None
