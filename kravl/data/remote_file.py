"""What a card says of the files that make up a data set: names, mirrors, checksums, and where they go."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from typing import Any

from kravl.runtime.errors import InputError, unknown

HEX_DIGITS = {"md5": 32, "sha256": 64}


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch.

    Args:
        name: what it is called on disk.
        urls: where it is, the first choice first.
        md5, sha256: hex digests that its publisher, torchvision or we have stated; either, both or none.
        bytes: its size, where that is known.
        unpack: whether it is an archive whose content is wanted.
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
            raise InputError(f"file {self.name!r} of a card: a name is no path; its folder is given by `to`")
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
