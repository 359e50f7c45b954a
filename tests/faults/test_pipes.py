"""Row 21: a pipe in place of a file, which an archive can bring, is no file: nothing waits for it."""

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.parsers import PARSERS, Parser

from kravl.adapters.injection.serialization import read_adapters
from kravl.backbones.weights.sources import check_weights
from kravl.data.images import check_readable, open_rgb
from kravl.data.tree import find_images
from kravl.report.interactive.pictures import _read
from kravl.report.runs import FinishedRun
from kravl.runtime.errors import InputError
from kravl.runtime.lock import in_use


def _predictions(path: Path) -> None:
    problems: list[str] = []
    _read(FinishedRun(path.parent, {"evaluation": "in_domain"}, {}), problems)
    raise InputError(*problems)


READERS: dict[str, Callable[[Path], object]] = {
    "adapter.safetensors": read_adapters,
    "weights.pth": check_weights,
    "picture.png": open_rgb,
    "checked.png": check_readable,
    "predictions.csv": _predictions,
}


def _waited_for(pipe: Path, read: Callable[[], object]) -> bool:
    """Whether ``read`` opens the ``pipe``; the other end is opened here, so that it would come back."""
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    kept = Path(tempfile.mkdtemp()) / "kept"  # a parser may move the pipe, or remove it
    kept.hardlink_to(pipe)
    over, early = threading.Event(), []

    def write() -> None:
        descriptor = os.open(kept, os.O_WRONLY)  # waits for a reader
        early.append(not over.is_set())
        os.close(descriptor)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        read()
    finally:
        over.set()
        descriptor = os.open(kept, os.O_RDONLY | os.O_NONBLOCK)
        thread.join()
        os.close(descriptor)
    return early[0]


def _refused(read: Callable[[], object], error: type[InputError] | None) -> None:
    if error is None:
        read()
        return
    with pytest.raises(error, match="it is a pipe or a device, not a file"):
        read()


@pytest.mark.parametrize("name", READERS)
def test_a_reader_refuses_a_pipe(name: str, tmp_path: Path) -> None:
    assert not _waited_for(tmp_path / name, lambda: _refused(lambda: READERS[name](tmp_path / name), InputError))


@pytest.mark.parametrize("name", sorted(PARSERS.keys() - {"command line"}))
def test_a_parser_does_not_wait_for_a_pipe(name: str, tmp_path: Path) -> None:
    parser: Parser = PARSERS[name]
    folder = tmp_path / "seed1"
    (folder / parser.file).parent.mkdir(parents=True)

    def read() -> None:
        try:
            parser.read(folder)
        except InputError as error:
            assert "\n" not in str(error)

    assert not _waited_for(folder / parser.file, read)


def test_a_pipe_among_images_and_in_place_of_an_owner_is_passed_over(tmp_path: Path) -> None:
    assert not _waited_for(tmp_path / "a", lambda: find_images(tmp_path).images)
    assert not _waited_for(tmp_path / ".owner", lambda: in_use(tmp_path))
