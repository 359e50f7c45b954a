"""An HTTP download that resumes where it stopped."""

import hashlib
import json
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kravl.runtime.errors import InputError, first_line
from kravl.runtime.files import read_json
from kravl.runtime.own_files import create_own, open_own

HASH_CHUNK = 2**20
SCHEMES = ("https", "http", "file")
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 2**18
RANGE_NOT_SATISFIABLE, PARTIAL = 416, 206
MOST_FACTS = 2**20  # bytes of what a server says of a file
TEXTS = ("url", "etag", "modified")  # that identify a file on its server, besides its size
LENGTH = re.compile(r"[0-9]{1,18}")  # of a file in bytes, as a header says it
HANDLERS = (  # urllib's default ones except FTP, to which a redirect could lead
    urllib.request.ProxyHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.FileHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPRedirectHandler,
    urllib.request.HTTPErrorProcessor,
    urllib.request.UnknownHandler,
)
Progress = Callable[[int, int | None], None]


class Digests:
    """Size and digests of the bytes that have been added."""

    def __init__(self) -> None:
        self.size = 0
        self._digests = {name: hashlib.new(name) for name in ("md5", "sha256")}

    def add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        for digest in self._digests.values():
            digest.update(chunk)

    def add_file(self, path: Path) -> "Digests":
        with path.open("rb") as file:
            for chunk in iter(partial(file.read, HASH_CHUNK), b""):
                self.add(chunk)
        return self

    @property
    def hex(self) -> Mapping[str, str]:
        """Hex digests by the name of their algorithm."""
        return {name: digest.hexdigest() for name, digest in self._digests.items()}


class PartialFile:
    """The beginning of a file, at ``path``; ``facts`` identify the file on its server."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._facts_path = path.with_name(f"{path.name}.json")
        self.digests = Digests()
        self.facts: dict[str, Any] = {}
        if path.is_file() and (facts := self._read_facts()):
            self.facts = facts
            self.digests.add_file(path)

    @property
    def size(self) -> int:
        """In bytes."""
        return self.digests.size

    def restart(self, facts: dict[str, Any]) -> None:
        """Discard the content; what is appended from now on belongs to the file that ``facts`` describe."""
        for path, content in ((self.path, ""), (self._facts_path, json.dumps(facts))):
            with os.fdopen(create_own(path), "w") as file:
                file.write(content)
        self.digests, self.facts = Digests(), facts

    def append(self, chunks: Iterator[bytes]) -> Iterator[int]:
        """Write each chunk through to the file system; yields the size so far."""
        with os.fdopen(open_own(self.path, os.O_WRONLY | os.O_APPEND), "ab") as file:
            for chunk in chunks:
                file.write(chunk)
                file.flush()  # all of it: an unbuffered write may stop halfway if the disk is full for a moment
                self.digests.add(chunk)
                yield self.size

    def finish(self, target: Path) -> None:
        """Give the file the name ``target``; this object is empty afterwards."""
        self.path.replace(target)
        self._facts_path.unlink()
        self.digests, self.facts = Digests(), {}

    def _read_facts(self) -> dict[str, Any]:
        try:
            facts = read_json(self._facts_path, MOST_FACTS)
        except InputError:  # truncated, or not written by kravl
            return {}
        if not isinstance(facts, dict) or not facts.keys() >= {*TEXTS, "total"}:
            return {}
        whole = isinstance(facts["total"], int | None) and all(isinstance(facts[key], str | None) for key in TEXTS)
        return facts if whole else {}


class TransferError(Exception):
    """An address does not yield the file, or not all of it; what was received is kept."""


def receive(url: str, part: PartialFile, progress: Progress) -> None:
    """Append what ``part`` lacks of the file at ``url``: everything if it holds another file.

    Args:
        progress: called with the bytes so far and in all (None if the server does not say).

    Raises:
        TransferError: no such address, no answer, or the connection ended early; with the reason.
        InputError: there is no room for the file.
    """
    if urlsplit(url).scheme not in SCHEMES:
        raise TransferError(f"only {', '.join(SCHEMES)} addresses are followed")
    if part.facts.get("url") == url and part.size == part.facts["total"]:
        return
    resuming = part.facts.get("url") == url and part.size > 0
    with _open(url, part if resuming else None) as response:
        facts = {"url": url, **_facts(response)}
        if resuming and response.status == PARTIAL:
            if not _continues(response, facts, part):
                part.restart({})
                return receive(url, part, progress)
        else:
            part.restart(facts)
        total: int | None = part.facts["total"]
        _require_room(part, total)
        for size in part.append(_chunks(response)):
            progress(size, total)
    if total is not None and part.size != total:
        raise TransferError(f"the connection ended after {part.size:,} of {total:,} bytes")


def _open(url: str, part: PartialFile | None) -> Any:
    headers = {"User-Agent": "kravl", "Accept-Encoding": "identity"}
    if part is not None:
        headers["Range"] = f"bytes={part.size}-"
        if validator := part.facts["etag"] or part.facts["modified"]:
            headers["If-Range"] = validator
    opener = urllib.request.OpenerDirector()
    for handler in HANDLERS:
        opener.add_handler(handler())
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == RANGE_NOT_SATISFIABLE and part is not None:
            return _open(url, None)
        raise TransferError(f"{error.code} {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:  # ValueError: no URL
        raise TransferError(first_line(error)) from error
    if "text/html" in response.headers.get("Content-Type", ""):
        response.close()
        raise TransferError("the server sent a web page instead of a file")
    return response


def _facts(response: Any) -> dict[str, Any]:
    """What identifies the file: size and, for a later If-Range, its entity tag unless weak, and its date (RFC 9110)."""
    headers = response.headers
    content_range = re.fullmatch(r"bytes [0-9]+-[0-9]+/([0-9]+)", headers.get("Content-Range", ""))
    total = content_range[1] if content_range else headers.get("Content-Length")
    if total is not None and not LENGTH.fullmatch(total):
        raise TransferError(f"the server says that the file has {total[:80]!r} bytes")
    etag = headers.get("ETag", "")
    strong = etag if etag.startswith('"') else None
    return {"etag": strong, "modified": headers.get("Last-Modified"), "total": int(total) if total else None}


def _continues(response: Any, facts: dict[str, Any], part: PartialFile) -> bool:
    begins = re.match(rf"bytes {part.size}-", response.headers.get("Content-Range", ""))
    # a 206 may leave out what If-Range has settled (RFC 9110, section 15.3.7)
    same = all(value in (None, part.facts[key]) for key, value in facts.items())
    return begins is not None and same


def _chunks(response: Any) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read1(CHUNK)
        except (OSError, HTTPException) as error:
            raise TransferError(first_line(error)) from error
        if not chunk:
            return
        yield chunk


def _require_room(part: PartialFile, total: int | None) -> None:
    free = shutil.disk_usage(part.path.parent).free
    if total is not None and total - part.size > free:
        raise InputError(f"{part.path.parent} has {free:,} bytes free; {total - part.size:,} more are needed")
