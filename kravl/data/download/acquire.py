"""Bring a whole data set to disk by its card: fetch its files, unpack them, and see that nothing is missing."""

import contextlib
import fcntl
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kravl.data import catalog
from kravl.data.download.archive import unpack
from kravl.data.download.fetch import RemoteFile, fetch, remote_files
from kravl.runtime.errors import InputError
from kravl.runtime.files import read_json

RECORD = ".unpacked.json"  # sha256 of each archive that was unpacked here, by name


def lacking(card: Mapping[str, Any], folder: Path) -> list[str]:
    """What the card says that the set needs and ``folder`` does not have; all of it if there is no such folder."""
    return [str(path) for path in card.get("needs", ()) if not (folder / str(path)).exists()]


def on_disk(name: str, data_root: Path) -> Path | None:
    """The folder, of those that the card names, that holds what the set needs; None if there is none."""
    card = catalog.card(name)
    folders = [data_root / str(folder) for folder in card.get("folders", (name,))]
    return next((folder for folder in folders if _has_files(folder) and not lacking(card, folder)), None)


def _has_files(folder: Path) -> bool:
    # a lock alone is what a download that failed leaves
    return folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())


def acquire(name: str, data_root: Path, keep_archives: bool, say: Callable[[str], None]) -> Path:
    """Download the set ``name`` to the first folder that its card names; what is there already is not fetched again.

    Args:
        keep_archives: whether an archive stays beside what was unpacked from it.
        say: called with a line for each thing that was done.

    Raises:
        InputError: a set that a program cannot fetch (with what to do), no address that works, a wrong checksum, a
            hostile archive, or a folder that another process is downloading to.
    """
    card = catalog.card(name)
    files = remote_files(card)
    if not files:
        advice = card.get("manual", "its card names no file")
        raise InputError(f"{name} cannot be downloaded by a program: {advice} ({card.get('homepage', 'no homepage')})")
    folder = on_disk(name, data_root) or data_root / str(card.get("folders", (name,))[0])
    with _owned(folder):
        there = _unpacked_before(card, folder, files)
        for file in files:
            if file.name in there:
                say(f"{file.name}: its content is in {folder}")
            else:
                _bring(file, folder, keep_archives, say)
    if (found := on_disk(name, data_root)) is None:  # an archive may bring a folder of its own, named by the card
        absent = ", ".join(lacking(card, folder))
        raise InputError(f"{name}: {folder} still lacks {absent}; {card.get('manual', 'see its homepage')}")
    return found


def _unpacked_before(card: Mapping[str, Any], folder: Path, files: Sequence[RemoteFile]) -> set[str]:
    """The archives whose content is in ``folder``: by our record, or all where somebody else has put it there."""
    archives = {file.name for file in files if file.unpack}
    recorded = set(_record(folder))
    if lacking(card, folder):
        return recorded if archives - recorded else set()
    return recorded if recorded or not card.get("needs") else archives


def _bring(file: RemoteFile, folder: Path, keep_archives: bool, say: Callable[[str], None]) -> None:
    place = folder / file.to
    got = fetch(file, place)
    say(f"{got.path}: " + (f"{got.checked} as published" if got.checked else f"no checksum known; sha256 {got.sha256}"))
    if not file.unpack:
        return
    unpack(got.path, place)
    for inner in file.inner:
        unpack(place / inner, place)
        (place / inner).unlink()
    record = {**_record(folder), file.name: got.sha256}
    temporary = folder / f"{RECORD}.new"
    temporary.write_text(json.dumps(record, indent=1))
    temporary.replace(folder / RECORD)
    if not keep_archives:
        got.path.unlink()
    say(f"{file.name}: unpacked into {place}")


def _record(folder: Path) -> dict[str, str]:
    path = folder / RECORD
    record = read_json(path) if path.is_file() else {}
    if not isinstance(record, dict):
        raise InputError(f"{path} is no record of archives; delete it to unpack them again")
    return record


@contextlib.contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """One process at a time; the kernel lets go of the lock when it ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is downloading to {folder}; wait for it") from None
        yield
