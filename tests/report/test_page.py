"""The HTML page holds everything it shows and treats names as text."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from kravl.report.page import Picture, write_page

TEXT = {"introduction": ["What was run."], "notes": ["n = 3"], "next": ["python train.py shots=4"]}
ROWS = [["method", "test"], ["kra", "63.1"], ["<script>alert(1)</script>", "a & b"]]


class Tags(HTMLParser):
    """Collects what opens, and every address that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.fixture
def page(tmp_path: Path) -> str:
    picture = tmp_path / "a.png"
    Image.new("RGB", (3, 2), "red").save(picture)
    write_page(tmp_path / "index.html", "A first run", ROWS, [Picture(picture, 'three "red" pixels')], TEXT)
    return (tmp_path / "index.html").read_text()


def test_nothing_is_fetched_from_elsewhere(page: str) -> None:
    tags = Tags()
    tags.feed(page)

    assert tags.addresses
    assert all(address.startswith("data:image/png;base64,") for address in tags.addresses)
    assert not re.search(r"url\(|@import|https?:", page)


def test_names_are_text_and_never_markup(page: str) -> None:
    tags = Tags()
    tags.feed(page)

    assert "script" not in tags.opened
    assert "&lt;script&gt;" in page
    assert "a &amp; b" in page
    assert 'alt="three &#34;red&#34; pixels"' in page


def test_the_table_has_a_heading_for_every_column_and_row(page: str) -> None:
    assert page.count('scope="col"') == 2
    assert page.count('scope="row"') == 2
    assert page.index("What was run.") < page.index("63.1") < page.index("n = 3") < page.index("shots=4")


def test_a_missing_picture_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_page(tmp_path / "index.html", "t", ROWS, [Picture(tmp_path / "none.svg", "")], TEXT)
