"""Images, their draw, classes, prompts or a place that change between two starts are named, and nothing goes on."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import faults.warm  # noqa: F401 (it knows the model, which is built here too)
from faults.campaign import Outcome, Row
from faults.triggers import AtCall, Send
from faults.victims import configured, run

from kravl.run.train import train
from kravl.runtime.errors import InputError

Change = Callable[[Path], None]


def changed(count: int, folder: Path) -> Outcome:
    """``count`` changes, each before the start of an unfinished run and before that of a finished one."""
    failures = []
    places = {name: folder / name for name in ("killed", "whole")}
    letters, own = folder / "letters", folder / "own.txt"
    own.write_text("a photo of a {}.")
    settings = (f"data.templates={own}",)
    killed = AtCall("kravl.training.checkpoint:_write", 6, Send((signal.SIGKILL,)))
    run(configured(places["killed"], *settings), folder / "killed.log", killed)
    if run(configured(places["whole"], *settings), folder / "whole.log") != 0:
        return Outcome(0, "the run did not end", ["the run did not end"])
    shutil.copytree(letters, folder / "kept")
    for change in CHANGES[:count]:
        change(folder)
        for name, place in places.items():
            try:
                train(configured(place, *settings))
                failures.append(f"{change.__name__}: {name} was not refused")
            except InputError as error:
                if "other inputs: " not in str(error) or "\n" in str(error):
                    failures.append(f"{change.__name__}: {name} says {error}")
        shutil.rmtree(letters)
        shutil.copytree(folder / "kept", letters, copy_function=shutil.copyfile)  # a copy has other times
        own.write_text("a photo of a {}.")
    for name, place in places.items():
        if run(configured(place, *settings), folder / f"{name}.log") != 0:
            failures.append(f"{name} did not go on with a copy of its images")
    return Outcome(min(count, len(CHANGES)), f"{count} changes, {len(failures)} unnoticed or wrong", failures)


def _pictures(folder: Path, split: str) -> list[Path]:
    return sorted((folder / "letters/glyphs" / split).rglob("*.png"))


def _exchange(a: Path, b: Path) -> None:
    content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(content)


def trained_pixels(folder: Path) -> None:
    pictures = _pictures(folder, "train")
    _exchange(pictures[0], pictures[-1])


def evaluated_pixels(folder: Path) -> None:
    pictures = _pictures(folder, "test")
    _exchange(pictures[0], pictures[-1])


def one_byte_with_its_time_kept(folder: Path) -> None:
    """Told by its size alone."""
    picture = _pictures(folder, "train")[0]
    status = picture.stat()
    picture.write_bytes(picture.read_bytes() + b"\0")
    os.utime(picture, ns=(status.st_atime_ns, status.st_mtime_ns))


def more_images(folder: Path) -> None:
    for picture in _pictures(folder, "train"):
        shutil.copy2(picture, picture.with_name(f"more_{picture.name}"))


def an_image_less_to_test_on(folder: Path) -> None:
    _pictures(folder, "test")[0].unlink()


def classes_renamed(folder: Path) -> None:
    for split in ("train", "test"):
        (first, *_) = sorted((folder / "letters/glyphs" / split).iterdir())
        first.rename(first.with_name("Z"))


def classes_exchanged(folder: Path) -> None:
    for split in ("train", "test"):
        first, second = sorted(p for p in (folder / "letters/glyphs" / split).iterdir() if p.is_dir())[:2]
        first.rename(first.with_name("kept"))
        second.rename(first)
        first.with_name("kept").rename(second)


def other_prompts(folder: Path) -> None:
    (folder / "own.txt").write_text("a drawing of a {}.")


CHANGES: tuple[Change, ...] = (
    trained_pixels,
    evaluated_pixels,
    other_prompts,
    classes_exchanged,
    one_byte_with_its_time_kept,
    more_images,
    an_image_less_to_test_on,
    classes_renamed,
)
GATE = "8 of 8 refused with their fields, before an unfinished and before a finished run; a copy of the images goes on"
ROW = Row(23, "images, draw, classes or prompts change between two starts", GATE, 8, 2, changed)
