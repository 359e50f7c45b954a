"""Each annotated object of PASCAL VOC is an image: the part of the photograph inside its box."""

from pathlib import Path

import pytest
from PIL import Image

from kravl.data import catalog
from kravl.data.sources.voc2007 import Voc2007
from kravl.runtime.errors import InputError

NAMES = [n.replace(" ", "") for n in catalog.class_names("voc2007") or ()]
BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "VOCdevkit/VOC2007"
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    for name in NAMES:
        (folder / f"ImageSets/Main/{name}_test.txt").write_text("")
    (folder / "ImageSets/Main/train.txt").write_text("000005\n")
    (folder / "ImageSets/Main/test.txt").write_text("")
    Image.linear_gradient("L").resize((60, 40)).save(folder / "JPEGImages/000005.jpg")
    objects = [("chair", (10, 5, 30, 35)), ("tvmonitor", (0, 0, 60, 40))]
    text = "".join(f"<object><name>{name}</name>{BOX.format(*box)}</object>" for name, box in objects)
    (folder / "Annotations/000005.xml").write_text(f"<annotation>{text}</annotation>")
    return tmp_path


def test_an_object_is_cut_out_of_its_photograph(root: Path) -> None:
    source = Voc2007(str(root))

    samples = source.split("train")

    photograph = Image.open(root / "VOCdevkit/VOC2007/JPEGImages/000005.jpg").convert("RGB")
    assert samples.names == ("000005/0", "000005/1")
    assert [source.class_names[label] for label in samples.labels] == ["chair", "tv monitor"]
    assert samples.image(0).tobytes() == photograph.crop((10, 5, 30, 35)).tobytes()
    assert samples.image(1).size == (60, 40)
    samples.check(0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object><name>chair</name></object></annotation>", "an object without a complete box"),
        ("<annotation>", "cannot read .*000005.xml"),
        (
            f"<annotation><object><name>dodo</name>{BOX.format(1, 1, 2, 2)}</object></annotation>",
            "without a list: dodo",
        ),
    ],
)
def test_a_damaged_annotation_is_named(text: str, message: str, root: Path) -> None:
    (root / "VOCdevkit/VOC2007/Annotations/000005.xml").write_text(text)

    with pytest.raises(InputError, match=message):
        Voc2007(str(root)).split("train")
