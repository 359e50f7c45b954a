"""All images that cannot be used are found and listed before training starts."""

import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from kravl.data.images import FileOpener
from kravl.data.loading.cache import check_images
from kravl.data.source import Samples
from kravl.data.sources.split_file import SplitFile
from kravl.runtime.errors import InputError
from kravl.runtime.signals import Interrupted


def samples(root: Path) -> Samples:
    names = tuple(sorted(p.relative_to(root).as_posix() for p in root.rglob("*.png")))
    return Samples(names, (0,) * len(names), FileOpener(root, names))


def test_sound_images_pass_without_a_word(make_tree: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    root = make_tree("a", {"cat": 3, "dog": 2})

    check_images({"train": samples(root), "empty": samples(root / "nothing")})

    assert capsys.readouterr() == ("", "")


def test_every_bad_image_is_listed_with_its_set_and_reason(make_tree: Callable[..., Path]) -> None:
    root = make_tree("a", {"cat": 3, "dog": 2})
    train, test = samples(root), samples(root / "a")
    (root / "a/cat/1.png").unlink()
    (root / "a/dog/0.png").write_text("not an image")

    with pytest.raises(InputError) as error:
        check_images({"train": train, "test": test})

    assert str(error.value).splitlines() == [
        "4 of 10 images cannot be used:",
        f"  train: cannot read {root}/a/cat/1.png: no such file",
        f"  train: cannot read {root}/a/dog/0.png: not an image, or damaged beyond recognition",
        f"  test: cannot read {root}/a/cat/1.png: no such file",
        f"  test: cannot read {root}/a/dog/0.png: not an image, or damaged beyond recognition",
    ]


def test_a_long_list_is_cut_and_counted(make_tree: Callable[..., Path]) -> None:
    root = make_tree("a", {"cat": 26})
    found = samples(root)
    for path in (root / "a/cat").glob("[0-9]*.png"):
        if path.name != "7.png":
            path.write_bytes(b"")

    with pytest.raises(InputError) as error:
        check_images({"train": found})

    lines = str(error.value).splitlines()
    assert lines[0] == "25 of 26 images cannot be used:"
    assert len(lines) == 1 + 20 + 1
    assert lines[-1] == "  and 5 more"
    assert not re.search(r"/7\.png", str(error.value))


class Counted:
    """Images of which none is opened while more than a few are waiting for it."""

    def __init__(self, count: int) -> None:
        self.count, self.checked = count, 0

    def __len__(self) -> int:
        return self.count

    def check(self, index: int) -> None:
        self.checked += 1


def test_checking_many_images_keeps_no_job_for_each_of_them() -> None:
    images = Counted(400_000)
    tracemalloc.start()
    try:
        check_images({"train": images, "test": Counted(1)})
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert images.checked == 400_000
    assert most < 2 * 2**20  # a future each took 698 MB


def test_nothing_is_checked_any_more_once_a_check_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    images = Counted(100_000)

    def interrupt() -> None:
        if images.checked > 1_000:
            raise Interrupted

    monkeypatch.setattr("kravl.data.loading.cache.raise_if_stopped", interrupt)
    with pytest.raises(Interrupted):
        check_images({"train": images})

    assert images.checked < 5_000


@pytest.mark.assets
def test_the_test_images_of_caltech101_are_sound(assets: Path) -> None:
    root = assets / "caltech101"
    source = SplitFile("caltech101", str(root / "101_ObjectCategories"), str(root / "split_zhou_Caltech101.json"))

    check_images({"test": source.split("test")})
