"""Row 18: a data set that is not what it says is refused before the first batch, with counts and what to do."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from faults.campaign import Outcome, Row
from PIL import Image

from kravl.backbones.preprocess import Preprocess
from kravl.data.classes import name_classes, read_class_list
from kravl.data.datamodule import FewShotDataModule, FewShotSplit, LoadingSettings
from kravl.data.inspect.verify import Verification, inspect
from kravl.data.source import Source
from kravl.data.sources.folder import ImageFolder
from kravl.data.sources.split_file import SplitFile
from kravl.data.sources.table import Table
from kravl.runtime.errors import InputError

SECONDS = 5.0
PREPROCESS = Preprocess(8, 8, (0.5,) * 3, (0.5,) * 3, "bicubic")


def images(folder: Path, *names: str, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / name)
    return folder


def tree(folder: Path) -> Path:
    return images(folder, *(f"{split}/{c}/{i}.png" for split in ("train", "test") for c in "ab" for i in range(2)))


def ready(source: Source, shots: int = 2, **others: Source) -> None:
    """All that happens before the first batch."""
    data = FewShotDataModule(source, FewShotSplit(shots), LoadingSettings(), others)
    data.preprocess = PREPROCESS
    data.check()


def folder_set(folder: Path) -> Source:
    return ImageFolder(str(folder), "test", train="train")


def split_file(folder: Path, **rows: list[tuple[str, int, str]]) -> Source:
    images(folder, "a.png", "b.png", "c.png")
    (folder / "split.json").write_text(json.dumps({"train": [], "val": [], "test": []} | rows))
    return SplitFile("theirs", str(folder), str(folder / "split.json"))


def _missing_class(folder: Path) -> None:
    images(tree(folder), "test/c/0.png")
    ready(folder_set(folder))


def _too_few(folder: Path) -> None:
    ready(folder_set(tree(folder)), shots=16)


def _in_two_splits(folder: Path) -> None:
    ready(split_file(folder, train=[("a.png", 0, "a")], test=[("a.png", 0, "a")]), shots=1)


def _same_bytes(folder: Path) -> None:
    (tree(folder) / "test/a/0.png").write_bytes((folder / "train/a/0.png").read_bytes())
    source = folder_set(folder)
    report = Verification("theirs", str(folder))
    inspect(report, {split: source.split(split) for split in ("train", "test")}, source.class_ids, {})
    if report.problems:
        raise InputError("; ".join(report.problems))


def _unknown_label(folder: Path) -> None:
    (images(folder, "a.png") / "names.csv").write_text("z,zebra\n")
    (folder / "table.csv").write_text("path,label\na.png,a\n")
    name_classes(Table(str(folder / "table.csv")), str(folder / "names.csv"))


def _label_beyond(folder: Path) -> None:
    ready(split_file(folder, train=[("a.png", 0, "a"), ("b.png", 7, "b")]), shots=1)


def _order_changed(folder: Path) -> None:
    ready(split_file(folder, train=[("a.png", 0, "a"), ("b.png", 1, "b")], test=[("c.png", 1, "a")]), shots=1)


def _foreign_classes(folder: Path) -> None:
    images(tree(folder), "other/x/0.png", "other/y/0.png")
    ready(folder_set(folder), other=ImageFolder(str(folder), "other", train="other", name="other"))


def _link_to_itself(folder: Path) -> None:
    (tree(folder) / "test/a/loop.png").symlink_to("loop.png")
    ready(folder_set(folder))


def _no_images(folder: Path) -> None:
    (tree(folder) / "train/c").mkdir()
    (folder / "train/c/1.heic").write_bytes(b"")
    ready(folder_set(folder))


def _listed_not_there(folder: Path) -> None:
    images(folder, "a.png")
    (folder / "table.csv").write_text("path,label,split\na.png,a,train\nb.png,a,test\n")
    ready(Table(str(folder / "table.csv")), shots=1)


def _steering_name(folder: Path) -> None:
    images(tree(folder), "train/c\x1b[2J/0.png")
    ready(folder_set(folder))


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a class that is not trained": (_missing_class, "unknown class folder .*'c'"),
    "too few images": (_too_few, "16"),
    "an image in two splits": (_in_two_splits, "a.png is in train and again in test"),
    "a test image that is trained on": (_same_bytes, "1 images are in more than one split"),
    "an unknown label": (_unknown_label, "unknown label .*'z'"),
    "a label beyond the classes": (_label_beyond, r"2 classes need the labels 0 to 1, not 7 \(b\)"),
    "the order of classes changed": (_order_changed, "label 1 is 'b', but 'a' for c.png"),
    "an evaluation of other classes": (_foreign_classes, "other"),
    "a link to itself": (_link_to_itself, r"loop\.png"),
    "a class without images": (_no_images, "1 class folders hold files but no image: c"),
    "an image that is not there": (_listed_not_there, r"b\.png: no such file"),
    "a name that steers a terminal": (_steering_name, "control character"),
}


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    places = [folder, *(p for p in folder.rglob("*") if p.is_dir())]
    for place in places:
        place.chmod(0o555)
    try:
        yield
    finally:
        for place in places:
            place.chmod(0o755)


def _odd_path(folder: Path) -> None:
    ready(folder_set(tree(folder / "données du chat 猫")))


def _read_only(folder: Path) -> None:
    with read_only(tree(folder)):
        before = sorted(os.walk(folder))
        ready(folder_set(folder))
        assert sorted(os.walk(folder)) == before


ACCEPTED = {"an odd path": _odd_path, "a folder that is read-only": _read_only}


def problem(kind: str, folder: Path) -> str:
    """What went wrong with the fault ``kind``, else empty."""
    if kind in ACCEPTED:
        ACCEPTED[kind](folder)
        return ""
    make, message = REFUSED[kind]
    with pytest.raises(InputError, match=rf"(?s){message}"):
        make(folder)
    return ""


def run(count: int, folder: Path) -> Outcome:
    """The first ``count`` faults, each timed."""
    failures = []
    kinds = [*REFUSED, *ACCEPTED][:count]
    for kind in kinds:
        place = folder / kind.replace(" ", "_")
        place.mkdir()
        begin = time.perf_counter()
        failures += [line for line in [problem(kind, place)] if line]
        failures += [f"{kind}: too slow"] if time.perf_counter() - begin > SECONDS else []
    return Outcome(len(kinds), f"{len(kinds) - len(failures)} of {len(kinds)} before the first batch", failures)


ALL = len(REFUSED) + len(ACCEPTED)
ROW = Row(18, "data sets that are not what they say", "10 of 10 before the first batch, < 5 s", ALL, ALL, run)


@pytest.mark.parametrize("kind", [*REFUSED, *ACCEPTED])
def test_a_data_set_that_is_not_what_it_says_is_refused_and_an_odd_place_is_none(kind: str, tmp_path: Path) -> None:
    assert problem(kind, tmp_path) == ""


def test_a_class_name_that_steers_a_terminal_is_refused_in_a_list_of_names(tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text("a,cat\x1b[2J\n")

    with pytest.raises(InputError, match="control character"):
        read_class_list(str(tmp_path / "names.csv"))
