"""The server of the page over HTTP: the probabilities of `kravl predict`, and a line for whatever is hostile."""

import base64
import io
import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import open_clip
import pytest
from hostile_files import HOSTILE, picture
from PIL import Image
from tiny_run import CLIP

pytest.importorskip("starlette", reason="starlette is not installed: pip install 'kravl[demo]'")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'kravl[demo]'")
from kravl.cli.main import main
from kravl.demo import server
from kravl.demo.comparison import Comparison
from kravl.demo.server import LOOPBACK, NOTHING, STRANGER
from kravl.run.train import train
from kravl.runtime.errors import InputError
from kravl.tracking.run_folder import RunFolder, find_run

ATOL = 1e-5  # probabilities have six digits; of one image and of a batch they come from other kernels
WORKS = "the server still scores a picture"


@pytest.fixture
def photos(glyphs: Path, tmp_path: Path) -> list[Path]:
    """Pictures of the kinds that people have, one of them lying on its side by its EXIF orientation."""
    letter = Image.open(next((glyphs / "glyphs/test/B").iterdir())).convert("RGB")
    lying = letter.getexif()
    lying[0x0112] = 6
    settings: dict[str, dict[str, Any]] = {"a.png": {}, "b.jpg": {"exif": lying}, "c.webp": {}, "d.gif": {}, "e": {}}
    for name, given in settings.items():
        letter.save(tmp_path / name, format=None if "." in name else "PNG", **given)
    letter.convert("RGBA").resize((400, 90)).save(tmp_path / "f.png")
    Image.new("I;16", (50, 60), 40000).save(tmp_path / "g.png")
    return sorted(tmp_path.iterdir())


def predicted(run: Path, files: list[Path], alpha: float, capsys) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["predict", str(run), *map(str, files), "--format", "jsonl", "--alpha", str(alpha)]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def assert_same(said: dict[str, Any], expected: dict[str, Any]) -> None:
    chances = dict(zip(expected["classes"], expected["probabilities"], strict=True))
    assert dict(zip(said["classes"], said["probabilities"], strict=True)) == pytest.approx(chances, abs=ATOL)
    assert list(said["probabilities"]) == sorted(said["probabilities"], reverse=True)
    assert said["energy"] == pytest.approx(expected["energy"], abs=1e-3)


def test_both_sides_have_the_probabilities_of_predict(page, finished_run, photos, capsys):
    before, half, after = (predicted(finished_run, photos, alpha, capsys) for alpha in (0, 0.5, 1))
    for i, file in enumerate(photos):
        data = file.read_bytes()
        first = page.score(data, file.name)
        assert_same(first["zero_shot"], before[i])
        assert_same(first["adapted"], after[i])
        assert_same(page.score(data, file.name, 0.5)["adapted"], half[i])
        assert page.score(data, file.name) == first  # the weights are back, bit for bit


def test_what_the_model_sees_and_where_it_looks_are_shown(page, photos):
    said = page.score(photos[0].read_bytes(), photos[0].name)

    kind, data = said["image"].split(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (64, 64)
    maps = [said[side]["attention"] for side in ("zero_shot", "adapted")]
    assert [(len(rows), len(rows[0])) for rows in maps] == [(8, 8), (8, 8)]
    assert all(0 < sum(map(sum, rows)) <= 1.001 for rows in maps)
    assert maps[0] != maps[1]


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_a_line_and_the_server_goes_on(page, kind):
    name, data, reason = HOSTILE[kind]

    said = page.score(data, name)

    assert said.keys() == {"error"}
    assert reason in said["error"] and said["error"].isprintable() and len(said["error"]) < 300
    assert "adapted" in page.score(picture(), "photo.jpg"), WORKS


def test_a_thousand_files_are_answered_one_by_one(page):
    connection = HTTPConnection(LOOPBACK, page.port, timeout=60)
    for i in range(1000):
        connection.request("POST", f"{page.path}score?name={i}", b"no" if i % 100 else picture())
        said = json.loads(connection.getresponse().read())
        assert ("error" in said) == bool(i % 100)
    connection.close()


def test_a_file_that_is_too_large_is_refused_before_it_is_read(page, monkeypatch):
    with socket.create_connection((LOOPBACK, page.port), timeout=60) as raw:
        raw.sendall(f"POST {page.path}score?name=a.tif HTTP/1.1\r\nHost: localhost\r\n".encode())
        raw.sendall(b"Content-Length: 3000000000\r\n\r\nfew")
        said = b""
        while b"}" not in said:
            said += raw.recv(2000)
    assert b"cannot read a.tif: a file of more than 100 MiB" in said
    monkeypatch.setattr(server, "MOST_BYTES", 2**20)
    chunked = page.ask("POST", f"{page.path}score?name=a.tif", iter([bytes(2**19)] * 3))  # without its length
    assert "a file of more than 1 MiB" in chunked.text
    assert "adapted" in page.score(picture(), "photo.jpg"), WORKS


def test_who_hangs_up_or_sends_no_http_is_left_alone(page, caplog):
    half = f"POST {page.path}score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nfew"
    for sent in (half, "\x16\x03\x01\n\n", ""):
        with socket.create_connection((LOOPBACK, page.port)) as raw:
            raw.sendall(sent.encode())
    assert "adapted" in page.score(picture(), "photo.jpg"), WORKS
    assert "Traceback" not in caplog.text


def test_uploads_that_stall_give_up_their_places(page, monkeypatch):
    monkeypatch.setattr(server, "STALLED", 0.5)
    half = f"POST {page.path}score?name=slow.jpg HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nfew"
    stalled = [socket.create_connection((LOOPBACK, page.port), timeout=30) for _ in range(2 * server.AT_ONCE)]
    try:
        for connection in stalled:
            connection.sendall(half.encode())
        assert "adapted" in page.score(picture(), "photo.jpg"), WORKS
        said = b"".join(iter(lambda: stalled[0].recv(2000), b""))
        assert b"cannot read slow.jpg: nothing of it has come for 0.5 s" in said
    finally:
        for connection in stalled:
            connection.close()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404),
        ("/etc/passwd", 403),
        ("/wrong/", 403),
        ("/wrong/run", 403),
        ("/wrong/score", 403),
        ("/w%c3%a9%00/run", 403),
        ("/start/wrong", 403),
        ("/favicon.ico", 403),
        ("TOKEN../../etc/passwd", 404),
        ("TOKEN/etc/passwd", 404),
        ("TOKEN..%2f..%2fetc%2fpasswd", 404),
        ("TOKENpage.html", 404),
        ("TOKENcomparison.py", 404),
        ("TOKENscore", 404),
        ("TOKENfile=/etc/passwd", 404),
    ],
)
def test_a_stranger_and_a_path_get_a_line(page, path, status):
    answer = page.ask("POST" if path == "/wrong/score" else "GET", path.replace("TOKEN", page.path))

    assert answer.status == status
    assert answer.text.count("\n") == 1 and "root:" not in answer.text
    assert answer.text.strip() == {403: STRANGER, 404: NOTHING}[status]


def test_another_host_in_the_address_is_not_answered_and_no_other_site_reads(page):
    for host in ("kravl.example", f"kravl.example:{page.port}", "127.0.0.1.kravl.example", "0.0.0.0", ""):
        assert page.ask("GET", page.path, Host=host).status == 400
    for host in (f"127.0.0.1:{page.port}", "localhost:9000"):  # forwarded by ssh under another port
        assert page.ask("GET", page.path, Host=host).status == 200
    answer = page.ask("GET", f"{page.path}run", Origin="http://kravl.example")
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_it_listens_on_the_loopback_address_alone(page):
    with pytest.raises(OSError, match=r"refused|unreachable|assign"):
        socket.create_connection(("127.0.0.2", page.port), timeout=5).close()  # which all addresses would include


def test_the_link_for_the_browser_opens_once(page):
    first = page.ask("GET", page.first)
    again = page.ask("GET", page.first)

    assert (first.status, first.headers["location"]) == (303, page.path)
    assert page.ask("GET", page.path.rstrip("/")).headers["location"] == page.path
    assert again.status == 403 and "was opened already" in again.text


@pytest.mark.parametrize("alpha", ["x", "nan", "2", "-0.1", "", "1e999"])
def test_a_share_that_is_none_is_a_line(page, alpha):
    assert "alpha=" in page.score(picture(), "photo.jpg", alpha)["error"]
    assert "adapted" in page.score(picture(), "photo.jpg"), WORKS


def test_answers_at_once_are_those_of_one_after_the_other(page):
    alphas = [0.25, 0.5, 0.75, 1.0] * 3
    expected = {alpha: page.score(picture(), "photo.jpg", alpha) for alpha in set(alphas)}
    with ThreadPoolExecutor(len(alphas)) as pool:
        said = list(pool.map(lambda alpha: page.score(picture(), "photo.jpg", alpha), alphas))
    assert said == [expected[alpha] for alpha in alphas]


def test_a_vision_transformer_has_no_zero_shot_side_and_shows_both_attentions(finished_vit):
    comparison = Comparison(RunFolder(finished_vit))

    said = comparison.score(picture(), "photo.jpg", 1.0)

    assert said["zero_shot"].keys() == {"attention"}
    assert len(said["adapted"]["classes"]) == 4
    assert (comparison.described()["zero_shot"], comparison.described()["curve"]) == (False, True)
    with pytest.raises(InputError, match="alpha=0: vit_tiny_random knows no class"):
        comparison.score(picture(), "photo.jpg", 0.0)


@pytest.mark.parametrize("method", [("method=tip_adapter",), ("method=coop", "context_tokens=4", "optim.epochs=1")])
def test_a_head_and_a_context_have_two_ends_and_nothing_between(
    tiny_run: Callable[..., Any], tmp_path: Path, capsys, photos, method
):
    open_clip.add_model_config(Path(__file__).parents[1] / "fixtures/tiny-clip.json")
    train(tiny_run(*method, backbone=CLIP))
    (run,) = (tmp_path / "runs").glob("*/seed*")
    comparison = Comparison(find_run(str(run)))
    data = photos[0].read_bytes()

    said = comparison.score(data, "photo.png", 1.0)

    for side, alpha in (("zero_shot", 0), ("adapted", 1)):
        assert_same(said[side], predicted(run, photos[:1], alpha, capsys)[0])
    assert not comparison.described()["curve"]
    with pytest.raises(InputError, match=r"alpha=0\.5"):
        comparison.score(data, "photo.png", 0.5)
    assert comparison.score(data, "photo.png", 1.0) == said
