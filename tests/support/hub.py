"""A local stand-in of the Hub's HTTP API, as its real client asks it: repositories of a user, in memory."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "1" * 40


@dataclass
class Hub:
    """``repositories``: name -> path -> content; ``refuses`` is the status of every commit where it is set.

    Args:
        visibility: name -> as it was asked for.
        tokens: of each request.
        silent: cleared, no request is answered before it is set.
    """

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    visibility: dict[str, Any] = field(default_factory=dict)
    refuses: int | None = None
    tokens: list[str | None] = field(default_factory=list)
    silent: threading.Event = field(default_factory=threading.Event)

    def answer(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, Any]:
        """Status and JSON of a request."""
        self.tokens.append(request.headers["Authorization"])
        self.silent.wait()
        path = request.path.partition("?")[0]
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.repositories[name], self.visibility[name] = {}, asked.get("visibility")
            return 200, {"url": f"{self.url}/{name}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(preupload|commit)/main)?", path)
        if not found or found[1] not in self.repositories:
            return 404, {"error": "Repository not found"}
        name, what = found.groups()
        if what == "preupload":
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            return 200, {"files": [{**file, "shouldIgnore": False, "oid": None} for file in files]}
        if what == "commit":
            return self._commit(name, body)
        siblings = [{"rfilename": file} for file in (".gitattributes", *self.repositories[name])]
        return 200, {"id": name, "siblings": siblings}

    def file(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content for a download."""
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/([^?]+)(?:\?.*)?", path)
        content = self.repositories.get(found[1], {}).get(found[2]) if found else None
        if content is None:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        return 200, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}, content

    def _commit(self, name: str, body: bytes) -> tuple[int, Any]:
        if self.refuses:
            return self.refuses, {"error": "not today"}
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return 200, {"commitUrl": f"{self.url}/{name}/commit/1", "commitOid": "1", "hookOutput": ""}


@contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()
    hub.silent.set()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._send(*hub.file(self.path), b"")

        def do_GET(self) -> None:
            if "/resolve/" in self.path:
                status, headers, content = hub.file(self.path)
                self._send(status, headers, content, content)
            else:
                self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])))

        def _answer(self, body: bytes) -> None:
            status, answer = hub.answer(self, body)
            headers = {"Content-Type": "application/json"} | ({"X-Error-Code": "RepoNotFound"} if status == 404 else {})
            content = json.dumps(answer).encode()
            self._send(status, headers, content, content)

        def _send(self, status: int, headers: Mapping[str, str], content: bytes, sent: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(BrokenPipeError):  # of a client that has not waited
                self.wfile.write(sent)

        def log_message(self, *_: object) -> None:
            """Not into the output of the tests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        hub.url = f"http://127.0.0.1:{server.server_port}"
        yield hub
        hub.silent.set()
        server.shutdown()
        thread.join()
