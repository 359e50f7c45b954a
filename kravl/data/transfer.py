"""Receive a file over HTTP, or from a ``file:`` address, into a part that a later attempt goes on from."""

import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from kravl.data.partial_file import PartialFile
from kravl.runtime.errors import InputError, first_line

SCHEMES = ("https", "http", "file")
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 2**18
RANGE_NOT_SATISFIABLE, PARTIAL = 416, 206
HANDLERS = (  # urllib's usual ones less FTP, to which a redirection could lead
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


class TransferError(Exception):
    """An address does not give the file, or not all of it; what has come is kept."""


def receive(url: str, part: PartialFile, progress: Progress) -> None:
    """Append to ``part`` what it lacks of ``url``: all of it if what is there belongs to another file.

    Args:
        progress: called with the bytes so far and in all (None if the server does not say).

    Raises:
        TransferError: no such address, no answer, or a connection that ended early; with the reason.
        InputError: there is no room for the file.
    """
    if urlsplit(url).scheme not in SCHEMES:
        raise TransferError(f"only {', '.join(SCHEMES)} addresses are followed")
    if part.facts.get("url") == url and part.size == part.facts["total"]:
        return
    going_on = part.facts.get("url") == url and part.size > 0
    with _open(url, part if going_on else None) as response:
        facts = {"url": url, **_facts(response)}
        if going_on and response.status == PARTIAL:
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
        raise TransferError("a web page came in place of a file")
    return response


def _facts(response: Any) -> dict[str, Any]:
    """What identifies the file: size and, for a later If-Range, its entity tag unless weak, and its date (RFC 9110)."""
    headers = response.headers
    content_range = re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("Content-Range", ""))
    total = content_range[1] if content_range else headers.get("Content-Length")
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
