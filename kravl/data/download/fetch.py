"""One remote file, fetched and checked against its card."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from kravl.data.download.transfer import Digests, PartialFile, TransferError, receive
from kravl.runtime.errors import InputError, unknown

HEX_DIGITS = {"md5": 32, "sha256": 64}
BY_HAND = ("drive.google.com", "docs.google.com")


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch.

    Args:
        name: what it is called on disk.
        urls: its addresses, in order of preference.
        md5, sha256: hex digests that its publisher, torchvision or we have stated; either, both or none.
        bytes: its size, if known.
        unpack: whether it is an archive to unpack.
        inner: paths, in what was unpacked, of further archives to unpack in the same place.
        to: the folder within the set's own.

    Raises:
        InputError: a name or place that would leave the set's folder, no address, or a malformed checksum.
    """

    name: str
    urls: tuple[str, ...]
    md5: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    unpack: bool = False
    inner: tuple[str, ...] = ()
    to: str = "."

    def __post_init__(self) -> None:
        texts = (self.name, self.to, *self.inner, *self.urls)
        if not all(isinstance(text, str) for text in texts):
            raise InputError(f"file {self.name!r} of a card: name, to, inner and urls are texts")
        for place in (self.name, self.to, *self.inner):
            if leaves(place):
                raise InputError(f"file {self.name!r} of a card: {place!r} leaves the folder of the set")
        if "/" in self.name:
            raise InputError(f"file {self.name!r} of a card: a name is not a path; its folder is given by `to`")
        if not self.urls:
            raise InputError(f"file {self.name!r} of a card: no urls")
        for kind, length in HEX_DIGITS.items():
            digest = getattr(self, kind)
            if digest is not None and not re.fullmatch(f"[0-9a-f]{{{length}}}", str(digest)):
                raise InputError(f"file {self.name!r} of a card: {kind} {digest!r} is not {length} hex digits")

    @property
    def checksum(self) -> tuple[str, str] | None:
        """The name of a digest and its value, the stronger one if there are two."""
        for kind in reversed(HEX_DIGITS):
            if digest := getattr(self, kind):
                return kind, digest
        return None


def leaves(place: str) -> bool:
    """Whether a path of a card leads out of the folder that it starts from."""
    return PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts or "\0" in place


def remote_files(card: Mapping[str, Any]) -> list[RemoteFile]:
    """The ``files`` of a card, then its ``split_file`` where that has an address.

    Raises:
        InputError: a key that a file does not have, or a wrong value.
    """
    listed, split_file = card.get("files") or [], card.get("split_file") or {}
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in [*listed, split_file]):
        raise InputError("files of a card is a list of name, urls and so on, and split_file is one such file")
    return [_remote_file(dict(entry)) for entry in [*listed, *([split_file] if split_file.get("urls") else [])]]


def _remote_file(entry: dict[str, Any]) -> RemoteFile:
    legal = [field.name for field in fields(RemoteFile)]
    for key in entry:
        if key not in legal:
            raise unknown(f"key of file {entry.get('name')!r} of a card", key, legal)
    for key in ("name", "urls"):
        if key not in entry:
            raise InputError(f"a file of a card has no {key}: {entry}")
    if wrong := [key for key in ("urls", "inner") if not isinstance(entry.get(key, []), list)]:
        raise InputError(f"file {entry['name']!r} of a card: {wrong[0]} is a list")
    lists: dict[str, Any] = {key: tuple(entry[key]) for key in ("urls", "inner") if key in entry}
    return RemoteFile(**{**entry, **lists})


@dataclass(frozen=True)
class Fetched:
    """A complete file, its sha256, and the name of the checksum that it was verified by (None if none is known)."""

    path: Path
    sha256: str
    checked: str | None


def fetch(remote: RemoteFile, folder: Path) -> Fetched:
    """``remote`` as a file in ``folder``: the existing one if correct, else downloaded from its addresses in order.

    A bar shows the progress if stderr is a terminal.

    Raises:
        InputError: no address yields the file (why not, and where to put it by hand), or the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / remote.name
    checked = remote.checksum[0] if remote.checksum else None
    reasons = []
    if target.is_file():
        present = Digests().add_file(target)
        if (reason := _refusal(remote, present)) is None:
            return Fetched(target, present.hex["sha256"], checked)
        reasons.append(f"{target}: {reason}; kept as {_set_aside(target, target)}")
    part = PartialFile(target.with_name(f"{remote.name}.part"))
    for url in remote.urls:
        try:
            _receive_all(url, part, remote)
        except TransferError as error:
            reasons.append(f"{url}: {error}")
            continue
        if (reason := _refusal(remote, part.digests)) is None:
            done = Fetched(target, part.digests.hex["sha256"], checked)
            part.finish(target)
            return done
        reasons.append(f"{url}: {reason}; kept as {_set_aside(part, target)}")
    listed = "\n".join(f"  {reason}" for reason in reasons)
    raise InputError(
        f"cannot download {remote.name}:\n{listed}\n  run the command again, or put it at {target} by hand"
    )


def _receive_all(url: str, part: PartialFile, remote: RemoteFile) -> None:
    """Retry as long as each attempt receives more bytes."""
    if urlsplit(url).hostname in BY_HAND:
        raise TransferError("Google Drive serves large files only to a browser: open it there")
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True
    ) as progress:
        task = progress.add_task(remote.name, total=remote.bytes)
        while True:
            before = part.size
            try:
                return receive(url, part, lambda size, total: progress.update(task, completed=size, total=total))
            except TransferError:
                if part.size <= before:
                    raise


def _refusal(remote: RemoteFile, actual: Digests) -> str | None:
    """Why these bytes are not the file, or None."""
    if remote.checksum is not None:
        kind, expected = remote.checksum
        return None if actual.hex[kind] == expected else f"its {kind} is {actual.hex[kind]}, not {expected}"
    if remote.bytes is not None and actual.size != remote.bytes:
        return f"it has {actual.size:,} bytes, not {remote.bytes:,}"
    return None


def _set_aside(file: PartialFile | Path, target: Path) -> Path:
    aside = target.with_name(f"{target.name}.wrong-checksum")
    file.replace(aside) if isinstance(file, Path) else file.finish(aside)
    return aside
