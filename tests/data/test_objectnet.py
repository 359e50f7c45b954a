"""ObjectNet's classes are found among ImageNet's by the archive's own mappings, and its frame is cut off."""

import json
from pathlib import Path

import pytest
from PIL import Image

from kravl.data.classes import match_classes
from kravl.data.sources.imagenet import wordnet_classes
from kravl.data.sources.objectnet import ObjectNet
from kravl.runtime.errors import InputError

IDS = wordnet_classes("imagenet")[0]
FOLDERS = {"alarm_clock": "Alarm clock", "banana": "Banana", "squeegee": "Squeegee"}
COMPRISED = {"Banana": "banana", "Alarm clock": "analog clock; digital clock"}
ENGLISH = ["digital clock", "banana", "analog clock"]  # in the order of ImageNet's own numbers
RANKS = {"530": 0, "954": 1, "409": 2}  # rank of the sorted WordNet id -> ImageNet's own number


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "objectnet-1.0"
    (folder / "mappings").mkdir(parents=True)
    (folder / "mappings/folder_to_objectnet_label.json").write_text(json.dumps(FOLDERS))
    (folder / "mappings/objectnet_to_imagenet_1k.json").write_text(json.dumps(COMPRISED))
    (folder / "mappings/imagenet_to_label_2012_v2").write_text("\n".join(ENGLISH))
    (folder / "mappings/pytorch_to_imagenet_2012_id.json").write_text(json.dumps(RANKS))
    for name in FOLDERS:
        (folder / "images" / name).mkdir(parents=True)
        image = Image.new("RGB", (12, 10), (255, 0, 0))
        image.paste((0, 0, 255), (1, 1, 11, 9))
        image.save(folder / "images" / name / "1.png")
    return tmp_path


def test_a_class_may_be_several_of_imagenets(root: Path) -> None:
    source = ObjectNet(str(root))

    assert source.class_names == ("alarm clock", "banana")
    assert source.split("test").labels == (0, 1)
    assert match_classes(source, IDS) == ((409, 530), (954,))
    assert match_classes(source, [IDS[954], IDS[530], IDS[409]]) == ((2, 1), (0,))


def test_the_red_frame_is_cut_off(root: Path) -> None:
    image = ObjectNet(str(root)).split("test").image(0)

    assert image.size == (8, 6)
    assert image.getcolors() == [(48, (0, 0, 255))]


def test_a_class_that_is_not_trained_is_named(root: Path) -> None:
    with pytest.raises(InputError, match=f"1 classes are not among the trained ones: '{IDS[530]}'"):
        match_classes(ObjectNet(str(root)), [IDS[954], IDS[409]])


def test_mappings_that_do_not_fit_each_other_are_refused(root: Path) -> None:
    path = root / "objectnet-1.0/mappings/imagenet_to_label_2012_v2"
    path.write_text("\n".join(ENGLISH[:2]))

    with pytest.raises(InputError, match="do not agree about 'Alarm clock'"):
        ObjectNet(str(root))


def test_missing_mappings_are_named(root: Path) -> None:
    (root / "objectnet-1.0/mappings/imagenet_to_label_2012_v2").unlink()

    with pytest.raises(InputError, match="lacks imagenet_to_label_2012_v2, which come with the archive"):
        ObjectNet(str(root))
