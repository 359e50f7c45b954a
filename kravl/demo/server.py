"""The server of the page: on the loopback address alone, for who has its address, without a file or a network.

Another user of the machine lacks the token in the path, as with Jupyter; another site in the same browser lacks it
too, and a name that it lets point here (DNS rebinding) is not among the hosts that are answered. An upload is bytes in
memory that never get a path. By Starlette and uvicorn: Gradio, the field's usual choice, serves files by their paths,
asks other hosts for fonts and versions, and excludes the Pillow that kravl is tested with.
"""

import asyncio
import errno
import json
import os
import secrets
import socket
from importlib.resources import files

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from kravl.demo.comparison import Comparison
from kravl.runtime.errors import InputError, printable
from kravl.runtime.microbatch import OutOfMemory

LOOPBACK = "127.0.0.1"
FIRST_PORT, TRIED = 8650, 20
MOST_BYTES = 100 * 2**20  # of a file: 40 megapixels with 16 bits a channel are 240 MB before compression
AT_ONCE = 2  # files in memory
STALLED = 30.0  # seconds without a byte of a file
SHOWN = 120  # characters of a file's name
FILES = {"": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
STRANGER = "wrong or missing token: open the whole address that kravl demo printed"
NOTHING = "there is nothing here: open the whole address that kravl demo printed"
OPENED = (
    "this address opens once, and was opened already: use the one that kravl demo printed. If it was not you, end it"
)
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:"
HEADERS = {
    "Content-Security-Policy": f"{POLICY}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Demo:
    """The page of one comparison, under a path that cannot be guessed."""

    def __init__(self, comparison: Comparison, shown: int = 5) -> None:
        self.path = f"/{secrets.token_urlsafe(24)}/"
        # for the browser that is started here: its command line, which others can list, is not worth knowing later
        self.first = f"/start/{secrets.token_urlsafe(24)}"
        self._comparison, self._opened = comparison, False
        self._described = json.dumps({**comparison.described(), "shown": shown, "most_bytes": MOST_BYTES})
        self._uploads, self._model = asyncio.Semaphore(AT_ONCE), asyncio.Lock()

    def application(self) -> Starlette:
        routes = [
            Route("/start/{once}", self._start),
            Route("/{token}/score", self._score, methods=["POST"]),
            Route("/{token}/{name:path}", self._file),
            Route("/{token}", self._file),
        ]
        hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK, "localhost"], www_redirect=False)
        application = Starlette(routes=routes, middleware=[hosts], exception_handlers={HTTPException: _refused})
        application.router.redirect_slashes = False
        return application

    async def _start(self, request: Request) -> Response:
        if not _equal(request.url.path, self.first):
            raise HTTPException(403, STRANGER)
        if self._opened:
            raise HTTPException(403, OPENED)
        self._opened = True
        return RedirectResponse(self.path, 303, HEADERS)

    async def _file(self, request: Request) -> Response:
        self._admit(request)
        if (name := request.path_params.get("name")) is None:  # without the slash at its end
            return RedirectResponse(self.path, 303, HEADERS)
        if name == "run":
            return Response(self._described, 200, HEADERS, "application/json")
        if name not in FILES:
            raise HTTPException(404)
        text = files("kravl.demo").joinpath(name or "page.html").read_text(encoding="utf-8")
        return Response(text, 200, HEADERS, FILES[name])

    async def _score(self, request: Request) -> Response:
        self._admit(request)
        try:
            name, alpha = _asked(request)
            async with self._uploads:
                data = await _received(request, name)
                async with self._model:  # one image at a time
                    said = await run_in_threadpool(self._comparison.score, data, name, alpha)
        except (InputError, OutOfMemory) as error:  # of one file among many: an answer like others
            said = {"error": printable(error)}
        except ClientDisconnect:
            return Response(status_code=400)  # to nobody
        return Response(json.dumps(said, allow_nan=False), 200, HEADERS, "application/json")

    def _admit(self, request: Request) -> None:
        if not _equal(f"/{request.path_params['token']}/", self.path):
            raise HTTPException(403, STRANGER)


def listen(port: int | None) -> socket.socket:
    """A socket that listens on the loopback address: at ``port`` (0: any), or at the first that is free.

    Raises:
        InputError: the port is taken, or not for this user; or none of those that are tried is free.
    """
    for tried in range(FIRST_PORT, FIRST_PORT + TRIED) if port is None else (port,):
        try:
            listening = socket.create_server((LOOPBACK, tried))
            # asyncio would, had the socket a protocol: without, each answer of two parts waits 40 ms
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return listening
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            reason = os.strerror(error.errno)
    if port is None:
        raise InputError(f"ports {FIRST_PORT} to {FIRST_PORT + TRIED - 1} are taken; --port 0 takes any that is free")
    raise InputError(f"--port {port}: {reason}; leave it out to take the first that is free from {FIRST_PORT}")


def server(demo: Demo) -> uvicorn.Server:
    """What answers for ``demo``: ``run(sockets=[...])`` returns once it is asked to stop."""
    return uvicorn.Server(
        uvicorn.Config(
            demo.application(),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,  # it would hold the token
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
    )


def _asked(request: Request) -> tuple[str, float]:
    """The name of the file and the share of the update."""
    asked = request.query_params
    name = printable(asked.get("name") or "the image").replace("\n", " ")
    try:
        return name if len(name) <= SHOWN else f"...{name[-SHOWN:]}", float(asked.get("alpha", "1"))
    except ValueError as error:
        raise InputError(f"alpha={asked['alpha'][:SHOWN]!r} is not a number") from error


async def _received(request: Request, name: str) -> bytes:
    """The body, which is refused as soon as it is known to be too long, or has stopped coming."""
    too_long = InputError(f"cannot read {name}: a file of more than {MOST_BYTES // 2**20} MiB")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > MOST_BYTES:
        raise too_long
    data, now = bytearray(), asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(STALLED) as left:
            async for part in request.stream():
                data += part
                if len(data) > MOST_BYTES:
                    raise too_long
                left.reschedule(now() + STALLED)
    except TimeoutError as error:  # others wait for its place
        raise InputError(f"cannot read {name}: nothing of it has come for {STALLED:g} s") from error
    return bytes(data)


def _equal(given: str, secret: str) -> bool:
    return secrets.compare_digest(given.encode(), secret.encode())


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = NOTHING if error.status_code == 404 else error.detail  # Starlette's own, of a path that is no route
    return PlainTextResponse(f"{said}\n", error.status_code, {**(error.headers or {}), **HEADERS})
