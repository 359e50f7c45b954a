"""A set is found under the folder names that CoOp, CLIP-LoRA and torchvision give it."""

import json
from pathlib import Path

import pytest

from kravl.data.catalog import find_folder
from kravl.data.sources.split_file import SplitFile
from kravl.runtime.errors import InputError

SPLIT = {"train": [["banded/1.jpg", 0, "banded"]], "val": [], "test": [["banded/2.jpg", 0, "banded"]]}


@pytest.mark.parametrize("folder", ["dtd", "DTD", "dtd/dtd", "."])
def test_each_known_folder_name_is_found(folder: str, tmp_path: Path) -> None:
    (tmp_path / folder / "images").mkdir(parents=True)

    assert find_folder("dtd", tmp_path).resolve() == (tmp_path / folder).resolve()


def test_a_folder_that_lacks_what_the_set_needs_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "stanford_cars/cars_train").mkdir(parents=True)
    for part in ("cars_train", "cars_test"):
        (tmp_path / "StanfordCars" / part).mkdir(parents=True)

    assert find_folder("stanford_cars", tmp_path) == tmp_path / "StanfordCars"


def test_a_wrong_layout_names_every_path_that_was_tried(tmp_path: Path) -> None:
    (tmp_path / "StanfordCars/cars_train").mkdir(parents=True)

    with pytest.raises(InputError) as error:
        find_folder("stanford_cars", tmp_path)

    message = str(error.value)
    assert f"no folder {tmp_path}/stanford_cars" in message
    assert f"{tmp_path}/StanfordCars lacks cars_test;" in message
    assert f"{tmp_path} lacks cars_train, cars_test" in message
    assert "set data_root" in message


def test_a_set_without_a_card_is_where_its_root_says(tmp_path: Path) -> None:
    assert find_folder("mine", tmp_path) == tmp_path


@pytest.mark.parametrize("place", ["dtd", "DTD", "."])
def test_a_split_file_lies_beside_the_images_in_another_of_the_folders_or_in_the_data_root(
    place: str, tmp_path: Path
) -> None:
    (tmp_path / "DTD/images").mkdir(parents=True)
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "split.json").write_text(json.dumps(SPLIT))

    source = SplitFile("dtd", str(tmp_path), "split.json", images="images")

    assert source.split("test").names == ("banded/2.jpg",)


def test_a_missing_split_file_is_sought_everywhere_and_its_address_given(tmp_path: Path) -> None:
    (tmp_path / "DTD/images").mkdir(parents=True)

    with pytest.raises(InputError, match=rf"dtd: no split file {tmp_path}/DTD/split.json, .*from https://.*Textures"):
        SplitFile("dtd", str(tmp_path), "split.json", images="images")
