"""A local HTTP server that holds files, and misbehaves as it is told."""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from kravl.data.download.fetch import RemoteFile

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
Remote = Callable[..., RemoteFile]


@dataclass
class Shelf:
    """``files`` by name; a name in ``cuts`` is cut off after so many bytes of an answer, once for each number.

    Once ``stalls`` is cleared an answer that is cut off does not end before it is set again.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    etag: str | None = '"first"'
    kind: str = "application/octet-stream"
    knows_ranges: bool = True
    says_length: bool | str = True  # or a text in place of it
    cuts: dict[str, list[int]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    stalls: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # name, Range

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        name = request.path.lstrip("/")
        self.asked.append((name, request.headers["Range"]))
        if name in self.redirects:
            request.send_response(302)
            request.send_header("Location", self.redirects[name])
            request.end_headers()
            return
        if name not in self.files:
            request.send_error(404)
            return
        content, start = self.files[name], self._start(request)
        if start >= len(content) > 0:
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        request.send_header("Content-Type", self.kind)
        if self.etag:
            request.send_header("ETag", self.etag)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.says_length:
            said = self.says_length if isinstance(self.says_length, str) else str(len(content) - start)
            request.send_header("Content-Length", said)
        request.end_headers()
        cut = self.cuts[name].pop(0) if self.cuts.get(name) else len(content)
        request.wfile.write(content[start : start + cut])
        if start + cut < len(content):
            self.stalls.wait()

    def _start(self, request: BaseHTTPRequestHandler) -> int:
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers["Range"] or "")
        same = request.headers["If-Range"] in (None, self.etag)
        return int(wanted[1]) if wanted and self.knows_ranges and same else 0


@contextmanager
def serve() -> Iterator[Shelf]:
    shelf = Shelf()
    shelf.stalls.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shelf.answer(self)

        def log_message(self, *_: object) -> None:
            """Not into the output of the tests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        shelf.url = f"http://127.0.0.1:{server.server_port}"
        yield shelf
        shelf.stalls.set()
        server.shutdown()
        thread.join()
