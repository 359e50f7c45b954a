"""The server of the page on a free port of this machine, as `kravl demo` starts it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from kravl.demo.comparison import Comparison
from kravl.demo.server import LOOPBACK, Demo, listen, server
from kravl.tracking.run_folder import RunFolder


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str


class Page(NamedTuple):
    """A page that is served: its port, and its paths."""

    port: int
    path: str
    first: str

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self.port}{self.path}"

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """The answer to a request of its own connection; ``path`` is sent as it is."""
        connection = HTTPConnection(LOOPBACK, self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read().decode())
        finally:
            connection.close()

    def score(self, data: bytes, name: str, alpha: float | str = 1) -> dict[str, Any]:
        answer = self.ask("POST", f"{self.path}score?{urlencode({'name': name, 'alpha': alpha})}", data)
        assert answer.status == 200, answer
        return json.loads(answer.text)


@contextmanager
def served(run: Path) -> Iterator[Page]:
    demo = Demo(Comparison(RunFolder(run)))
    with listen(0) as listening:
        serving = server(demo)
        thread = threading.Thread(target=serving.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Page(listening.getsockname()[1], demo.path, demo.first)
        finally:
            serving.should_exit = True
            thread.join()
