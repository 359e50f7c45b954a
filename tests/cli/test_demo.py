"""`kravl demo`: its address is printed and opened once, mistakes are a line, and Ctrl-C ends it without a traceback."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from kravl.cli import demo
from kravl.cli.main import main

NEEDED = pytest.mark.skipif(
    any(demo.find_spec(name) is None for name in demo.NEEDED),
    reason="starlette and uvicorn are not installed: pip install 'kravl[demo]'",
)


@pytest.fixture
def places(finished_run: Path, finished_vit: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """What the words of a command stand for."""
    halves = {"UNFINISHED": "metrics.json", "HALF": "adapter.safetensors"}
    for name, missing in halves.items():
        shutil.copytree(finished_run, tmp_path / name)
        (tmp_path / name / missing).unlink()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        runs = {"RUN": finished_run, "VIT": finished_vit, **{name: tmp_path / name for name in halves}}
        yield {**{name: str(run) for name, run in runs.items()}, "TAKEN": str(listening.getsockname()[1])}


@NEEDED
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN", "--alpha", "2"], "alpha=2.0: from 0"),
        (["RUN", "--alpha", "nan"], "alpha=nan: from 0"),
        (["VIT", "--alpha", "0"], "alpha=0: vit_tiny_random knows no class without training"),
        (["RUN", "--port", "TAKEN"], "Address already in use; leave it out to take the first that is free from 8650"),
        (["RUN", "--device", "cuda:99"], "--device cuda:99"),
        (["UNFINISHED"], "is not finished; run its training command again to resume"),
        (["HALF"], "adapter.safetensors"),
        (["nowhere/seed1"], "no run 'nowhere/seed1'"),
        (["nowhere/seed1-\x1b[2J"], "no run 'nowhere/seed1-\\x1b[2J'"),
    ],
)
def test_mistakes_are_one_line(places, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: pytest.fail("it is served"))
    monkeypatch.setattr("kravl.run.finished.restore.build_model", lambda *_, **__: pytest.fail("weights were loaded"))

    assert main(["demo", *(places.get(word, word) for word in arguments), "--no-browser"]) == 2

    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_without_the_packages_it_says_how_to_install_them(finished_run, monkeypatch, capsys):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)

    assert main(["demo", str(finished_run)]) == 2

    assert capsys.readouterr().err == "error: kravl demo needs starlette and uvicorn: pip install 'kravl[demo]'\n"


@NEEDED
def test_the_next_port_is_taken_and_none_is_a_line(monkeypatch):
    from kravl.demo import server
    from kravl.runtime.errors import InputError

    with server.listen(0) as any_port:
        monkeypatch.setattr(server, "FIRST_PORT", any_port.getsockname()[1])
        with server.listen(None) as second:
            assert 0 < second.getsockname()[1] - any_port.getsockname()[1] < server.TRIED
        monkeypatch.setattr(server, "TRIED", 1)
        with pytest.raises(InputError, match="are taken; --port 0 takes any that is free"):
            server.listen(None)


@NEEDED
@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_asked_to_stop(finished_run: Path, tmp_path: Path, number: signal.Signals) -> None:
    browser = tmp_path / "browser"
    browser.write_text('#!/bin/sh\necho "$1" > "$0.opened"\n')
    browser.chmod(0o755)
    environment = {**os.environ, "BROWSER": str(browser), "DISPLAY": ":0"}
    code = "import sys; from kravl.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "demo", str(finished_run), "--port", "0"]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=environment, cwd=tmp_path) as process:
        address = process.stdout.readline().strip()
        first = browser.with_name("browser.opened")
        assert b"Before and after" in urllib.request.urlopen(address, timeout=60).read()
        waiting = socket.create_connection(("127.0.0.1", int(address.split(":")[2].split("/")[0])))  # of a browser
        process.send_signal(number)
        said, error = process.stdout.read(), process.stderr.read()
        waiting.close()

    assert said == "Ctrl-C ends it\n"
    assert (process.returncode, error) == ((0, "ended\n") if number == signal.SIGINT else (-number, ""))
    opened = first.read_text().strip()
    assert "/start/" in opened and address.split("/")[3] not in opened  # the command line of a browser is no secret
