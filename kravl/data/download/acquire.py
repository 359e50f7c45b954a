"""Download a whole data set by its card: fetch its files, unpack them, and check that nothing is missing."""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kravl.data import catalog
from kravl.data.download.archive import unpack
from kravl.data.download.fetch import RemoteFile, fetch, remote_files
from kravl.runtime.errors import InputError
from kravl.runtime.files import read_json
from kravl.runtime.own_files import create_own, open_own

RECORD = ".unpacked.json"  # sha256 of each archive that was unpacked here, by name


def lacking(card: Mapping[str, Any], folder: Path) -> list[str]:
    """What the set needs by its ``card`` and ``folder`` lacks; everything if there is no such folder."""
    return [str(path) for path in card.get("needs", ()) if not (folder / str(path)).exists()]


def on_disk(name: str, data_root: Path) -> Path | None:
    """The folder, of those that the card names, that holds what the set needs; None if there is none."""
    card = catalog.card(name)
    folders = [data_root / str(folder) for folder in card.get("folders", (name,))]
    return next((folder for folder in folders if _has_files(folder) and not lacking(card, folder)), None)


def _has_files(folder: Path) -> bool:
    # a failed download leaves only a lock file
    return folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())


def acquire(name: str, data_root: Path, keep_archives: bool, say: Callable[[str], None]) -> Path:
    """Download the set ``name`` to the first folder that its card names; existing files are not fetched again.

    Args:
        keep_archives: whether an archive stays beside what was unpacked from it.
        say: called with a line for each step done.

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
    with _locked(folder):
        unpacked = _unpacked_before(card, folder, files)
        for file in files:
            if file.name in unpacked:
                say(f"{file.name}: its content is in {folder}")
            else:
                _fetch_and_unpack(file, folder, keep_archives, say)
    if (complete := on_disk(name, data_root)) is None:  # an archive may bring a folder of its own, named by the card
        absent = ", ".join(lacking(card, folder))
        raise InputError(f"{name}: {folder} still lacks {absent}; {card.get('manual', 'see its homepage')}")
    return complete


def _unpacked_before(card: Mapping[str, Any], folder: Path, files: Sequence[RemoteFile]) -> set[str]:
    """The archives whose content is in ``folder``: by its record, or all if somebody else put it there."""
    archives = {file.name for file in files if file.unpack}
    recorded = set(_record(folder))
    if lacking(card, folder):
        return recorded if archives - recorded else set()
    return recorded if recorded or not card.get("needs") else archives


def _fetch_and_unpack(file: RemoteFile, folder: Path, keep_archives: bool, say: Callable[[str], None]) -> None:
    place = folder / file.to
    fetched = fetch(file, place)
    checksum = f"{fetched.checked} as published" if fetched.checked else f"no checksum known; sha256 {fetched.sha256}"
    say(f"{fetched.path}: {checksum}")
    if not file.unpack:
        return
    unpack(fetched.path, place)
    for inner in file.inner:
        unpack(place / inner, place)
        (place / inner).unlink()
    record = {**_record(folder), file.name: fetched.sha256}
    temporary = folder / f"{RECORD}.new"
    with os.fdopen(create_own(temporary), "w") as written:
        written.write(json.dumps(record, indent=1))
    temporary.replace(folder / RECORD)
    if not keep_archives:
        fetched.path.unlink()
    say(f"{file.name}: unpacked into {place}")


def _record(folder: Path) -> dict[str, str]:
    path = folder / RECORD
    record = read_json(path) if path.is_file() else {}
    if not isinstance(record, dict):
        raise InputError(f"{path} is not a record of archives; delete it to unpack them again")
    return record


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time; the kernel releases the lock when the process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with os.fdopen(open_own(folder / ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is downloading to {folder}; wait for it") from None
        yield
