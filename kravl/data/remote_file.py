"""What a card says of the files that make up a data set: names, mirrors, checksums, and where they go."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from typing import Any

from kravl.errors import InputError, unknown

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
        for place in (self.name, self.to, *self.inner):
            if PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
                raise InputError(f"file {self.name!r} of a card: {place!r} leaves the folder of the set")
        if "/" in self.name:
            raise InputError(f"file {self.name!r} of a card: a name is no path; its folder is given by `to`")
        if not self.urls:
            raise InputError(f"file {self.name!r} of a card: no urls")
        for kind, length in HEX_DIGITS.items():
            digest = getattr(self, kind)
            if digest is not None and not re.fullmatch(f"[0-9a-f]{{{length}}}", digest):
                raise InputError(f"file {self.name!r} of a card: {kind} {digest!r} is not {length} hex digits")

    @property
    def checksum(self) -> tuple[str, str] | None:
        """The name of a digest and its value, the stronger one if there are two."""
        for kind in reversed(HEX_DIGITS):
            if digest := getattr(self, kind):
                return kind, digest
        return None


def remote_files(card: Mapping[str, Any]) -> list[RemoteFile]:
    """The ``files`` of a card, then its ``split_file`` where that has an address.

    Raises:
        InputError: a key that a file does not have, or a wrong value.
    """
    listed = [dict(entry) for entry in card.get("files", ())]
    split_file = dict(card.get("split_file", {}))
    if split_file.get("urls"):
        listed.append(split_file)
    return [_remote_file(entry) for entry in listed]


def _remote_file(entry: dict[str, Any]) -> RemoteFile:
    legal = [field.name for field in fields(RemoteFile)]
    for key in entry:
        if key not in legal:
            raise unknown(f"key of file {entry.get('name')!r} of a card", key, legal)
    for key in ("name", "urls"):
        if key not in entry:
            raise InputError(f"a file of a card has no {key}: {entry}")
    lists: dict[str, Any] = {key: tuple(entry[key]) for key in ("urls", "inner") if key in entry}
    return RemoteFile(**{**entry, **lists})
