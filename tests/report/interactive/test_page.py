"""The page is one file: nothing is fetched, names stay text, libraries are as published."""

import hashlib
import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest
from kept_files import write_grid
from run_records import write_run

from kravl.report.groups import group_runs
from kravl.report.interactive.page import write_comparison
from kravl.report.runs import read_runs

EVIL = "</script><img src=x onerror=alert(1)><!--"


def page(folder: Path, notes: tuple[str, ...] = ()) -> str:
    runs = read_runs(folder)[0]
    write_comparison(runs, group_runs(runs), notes, folder / "index.html")
    return (folder / "index.html").read_text()


class Tags(HTMLParser):
    """Collects what opens, with its attributes, outside of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append((tag, dict(attrs)))


def test_nothing_is_fetched_and_only_the_pages_own_scripts_may_run(tmp_path: Path) -> None:
    write_grid(tmp_path)

    text = page(tmp_path)

    tags = Tags(text).opened
    assert not [a for tag, a in tags if tag in ("link", "iframe", "object", "base") or "src" in a]
    policy = next(a["content"] for tag, a in tags if a.get("http-equiv") == "Content-Security-Policy") or ""
    assert policy.startswith("default-src 'none'; img-src data:;")
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert policy.count("'sha256-") == len(scripts) == 9


def test_names_of_others_are_text_in_the_table_and_in_the_data(tmp_path: Path) -> None:
    write_run(tmp_path / "a", method=EVIL, dataset='"><b>', backbone="a & b")

    text = page(tmp_path, notes=(f"skipped {EVIL}",))

    assert EVIL not in text
    assert not [tag for tag, _ in Tags(text).opened if tag in ("img", "b")]
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    assert data["settings"][0]["groups"][0]["method"] == EVIL


def test_every_row_and_column_of_the_table_has_a_heading_and_what_is_the_same_is_said_once(tmp_path: Path) -> None:
    write_grid(tmp_path)

    text = page(tmp_path)

    assert text.count('<th scope="row"') == 7  # three methods of two shots, and zero-shot
    assert "In all rows data set: dtd; evaluation: in_domain; backbone: clip_vitb16" in text
    assert '<th scope="col">Method</th>' in text
    assert '<th scope="col">Backbone</th>' not in text
    assert '<td class="number" data-order="43008.0">43,008</td>' in text


def test_the_best_of_a_setting_and_number_of_shots_is_bold_and_zero_shot_is_not_compared(tmp_path: Path) -> None:
    for method, accuracy, error in (("kra", 0.50001, 0.2), ("lora", 0.50002, 0.1), ("full", 0.4, 0.3)):
        metrics = {"test/accuracy": accuracy, "test/ece": error}
        write_run(tmp_path / method, method=method, metrics=metrics, zero_shot={"test/accuracy": 0.9, "test/ece": 0.01})

    cells = re.findall(r'<td class="number best" data-order="([\d.]+)">', page(tmp_path))

    assert sorted(map(float, cells)) == [0.1, 0.50001, 0.50002]  # what is shown alike is equally good


def test_a_page_written_again_is_the_same(tmp_path: Path) -> None:
    write_grid(tmp_path)

    assert page(tmp_path) == page(tmp_path)


@pytest.mark.parametrize("name", ["plot.umd.min.js", "d3.min.js"])
def test_libraries_are_as_they_were_published(name: str) -> None:
    vendor = files("kravl.report.interactive").joinpath("vendor")
    content = vendor.joinpath(name).read_bytes()

    row = next(line for line in vendor.joinpath("README.md").read_text().splitlines() if line.startswith(f"| {name} "))

    assert hashlib.sha256(content).hexdigest() in row
    assert b"</script" not in content
