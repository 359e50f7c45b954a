"""The page in a real browser: files through its own input, scored as `kravl predict` does, hostile ones as lines."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hostile_files import HOSTILE, SCRIPT, picture

pytest.importorskip("starlette", reason="starlette is not installed: pip install 'kravl[demo]'")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'kravl[demo]'")
pytest.importorskip("selenium", reason="selenium is not installed: pip install 'kravl[browser]'")
from chromium import fits_the_width, opened_chromium
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from served_demo import served

from kravl.cli.main import main

pytestmark = pytest.mark.browser
Browser = webdriver.Chrome
ATOL = 1e-5  # probabilities have six digits; of one image and of a batch they come from other kernels
# what a person drops: the names that an operating system allows
DROP = """
const [names, bytes] = arguments;
const data = new DataTransfer();
names.forEach((name, i) => data.items.add(new File([Uint8Array.from(bytes[i])], name)));
document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with opened_chromium() as opened:
        yield opened


@pytest.fixture
def opened(browser: Browser, page) -> Browser:
    for kind in ("performance", "browser"):
        browser.get_log(kind)  # what was said before
    browser.get(page.address)
    wait(lambda: browser.find_element(By.ID, "run").text)
    return browser


@pytest.fixture
def photos(glyphs: Path) -> list[Path]:
    return [next(iter(sorted(folder.iterdir()))) for folder in sorted((glyphs / "glyphs/test").iterdir())]


def wait(holds: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def upload(browser: Browser, *files: Path) -> None:
    """Through the page's own input, until all are answered."""
    browser.find_element(By.ID, "files").send_keys("\n".join(map(str, files)))
    answered(browser)


def answered(browser: Browser) -> None:
    wait(lambda: browser.find_elements(By.CSS_SELECTOR, ".card") and not shown(browser, "#stop, .waiting"))


def shown(browser: Browser, selector: str) -> list[str]:
    """The texts of what is visible."""
    return browser.execute_script(
        "const all = [...document.querySelectorAll(arguments[0])];"
        "return all.filter((each) => each.checkVisibility()).map((each) => each.innerText)",
        selector,
    )


def chances(browser: Browser, side: str) -> list[dict[str, float]]:
    """The probabilities by class of each card."""
    script = """return [...document.querySelectorAll('.card:not(.failed)')].map((card) => Object.fromEntries(
      [...card.querySelectorAll(`.${arguments[0]} li`)].map((li) =>
        [li.firstElementChild.innerText, Number(li.dataset.probability)])))"""
    return browser.execute_script(script, side)


def predicted(run: Path, files: list[Path], alpha: float, capsys) -> list[dict[str, float]]:
    capsys.readouterr()
    main(["predict", str(run), *map(str, files), "--format", "jsonl", "--alpha", str(alpha)])
    rows = map(json.loads, capsys.readouterr().out.splitlines())
    return [dict(zip(row["classes"], row["probabilities"], strict=True)) for row in rows]


def test_uploads_have_the_probabilities_of_predict_on_both_sides(opened, finished_run, photos, capsys) -> None:
    upload(opened, *photos)

    assert shown(opened, ".card h2") == [photo.name for photo in photos]
    for side, alpha in (("zero", 0), ("adapted", 1)):
        expected = predicted(finished_run, photos, alpha, capsys)
        assert chances(opened, side) == [pytest.approx(each, abs=ATOL) for each in expected]
    firsts = [[max(each, key=each.__getitem__) for each in chances(opened, side)] for side in ("zero", "adapted")]
    marks = ["They agree" if before == after else "They disagree" for before, after in zip(*firsts, strict=True)]
    assert shown(opened, ".card > header span") == marks
    assert f"4 images; the models disagree on {marks.count('They disagree')}" in shown(opened, "#status")
    assert len(shown(opened, ".card canvas")) == 8
    assert opened.get_log("browser") == []


def test_it_asks_its_own_address_alone(opened, page, photos) -> None:
    upload(opened, photos[0])
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith((page.address, "data:", "chrome"))} == set()


def test_the_slider_scores_again(opened, finished_run, photos, capsys) -> None:
    upload(opened, *photos[:2])
    before = chances(opened, "zero")

    opened.find_element(By.ID, "alpha").send_keys(Keys.ARROW_LEFT)  # as a key does
    wait(lambda: "α = 0.99" in "".join(shown(opened, ".adapted h3")))
    opened.execute_script(
        "const e = document.getElementById('alpha'); e.value = 0.5;"
        "for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind, {bubbles: true}))"
    )
    wait(lambda: shown(opened, ".adapted h3") == ["Adapted, α = 0.5"] * 2)

    expected = predicted(finished_run, photos[:2], 0.5, capsys)
    assert chances(opened, "adapted") == [pytest.approx(each, abs=ATOL) for each in expected]
    assert chances(opened, "zero") == before
    assert shown(opened, "#share") == ["0.50"]


def test_hostile_files_are_lines_of_text_and_the_page_goes_on(opened, photos) -> None:
    names, contents, reasons = zip(*(HOSTILE[kind] for kind in HOSTILE), strict=True)
    opened.execute_script(DROP, names, [list(content) for content in contents])
    answered(opened)
    upload(opened, photos[0])

    assert shown(opened, ".card.failed h2")[: len(names) - 3] == list(names)[:-3]
    for line, reason in zip(shown(opened, ".card.failed p"), reasons, strict=True):
        assert reason in line and "\n" not in line
    assert len(chances(opened, "adapted")) == 1
    assert f"{len(names)} files could not be scored" in shown(opened, "#status")[0]
    assert opened.title == "kravl: before and after adaptation"
    assert not opened.find_elements(By.CSS_SELECTOR, ".card script")
    assert SCRIPT in "".join(shown(opened, ".card h2"))
    assert opened.get_log("browser") == []


@pytest.mark.long
def test_a_thousand_files_can_be_stopped_and_cleared(opened, photos) -> None:
    opened.execute_script(DROP, [f"{i}.jpg" for i in range(1000)], [list(picture(size=(9, 9)))] * 1000)
    wait(lambda: len(chances(opened, "adapted")) >= 20 and all(chances(opened, "adapted")[:20]))

    opened.find_element(By.ID, "stop").click()
    wait(lambda: not shown(opened, "#stop"))

    lines = "return [...document.querySelectorAll('.card.failed p')].map((p) => p.textContent)"  # not all in view
    assert set(opened.execute_script(lines)) == {"stopped"}
    (status,) = shown(opened, "#status")
    assert "files could not be scored" in status and "to go" not in status
    opened.find_element(By.ID, "clear").click()
    assert shown(opened, ".card") == []
    upload(opened, photos[0])
    assert shown(opened, "#status")[0].startswith("1 image;")


def test_what_is_shown_can_be_chosen(opened, photos) -> None:
    upload(opened, *photos)
    top = opened.find_element(By.ID, "top")
    top.send_keys(Keys.ARROW_DOWN)
    assert [len(each) for each in chances(opened, "zero")] == [3] * 4
    opened.find_element(By.ID, "attention").click()
    assert shown(opened, ".card canvas") == []
    opened.find_element(By.ID, "differing").click()
    assert set(shown(opened, ".card > header span")) <= {"They disagree"}
    opened.find_element(By.ID, "differing").click()
    opened.find_element(By.CSS_SELECTOR, ".card button").click()
    assert len(shown(opened, ".card")) == 3


def test_every_control_is_reached_by_the_tab_key(opened, photos) -> None:
    upload(opened, photos[0])
    opened.execute_script(
        "window.reached = []; document.addEventListener('focusin', ({target: e}) =>"
        "reached.push(e.id || e.getAttribute('aria-label') || e.tagName)); document.activeElement.blur()"
    )
    ActionChains(opened, duration=0).send_keys(Keys.TAB * 14).perform()
    reached = opened.execute_script("return reached")
    wanted = ("A", "theme", "SUMMARY", "files", "alpha", "top", "attention", "differing", "clear", "Remove 0.png")
    assert [each for each in wanted if each not in reached] == []
    nameless = (
        "return [...document.querySelectorAll('input, canvas, button')].filter((e) => !(e.labels?.length ||"
        "e.getAttribute('aria-label') || e.textContent)).map((e) => e.outerHTML)"
    )
    assert opened.execute_script(nameless) == []


@pytest.mark.parametrize("width", [360, 1600])
def test_it_fits_the_width_of_the_window(opened, photos, width) -> None:
    upload(opened, photos[0])
    assert fits_the_width(opened, width)


def test_dark_follows_the_system_and_the_button(opened) -> None:
    def ground() -> str:
        return opened.execute_script("return getComputedStyle(document.body).backgroundColor")

    seen = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        seen[scheme] = ground()
    button = opened.find_element(By.ID, "theme")
    button.click()
    assert (button.text, ground(), seen["light"] != seen["dark"]) == ("Theme: light", seen["light"], True)


def test_a_run_without_zero_shot_or_curve_says_so(browser, finished_vit, photos) -> None:
    with served(finished_vit) as page:
        browser.get(page.address)
        upload(browser, photos[0])
        assert "no zero-shot side" in shown(browser, "#notes")[0]
        assert chances(browser, "zero") == [{}]
        assert shown(browser, ".zero h3, .adapted h3") == ["Pretrained", "Adapted"]
    upload(browser, photos[1])  # kravl demo has ended
    assert "kravl demo has ended" in shown(browser, ".card.failed p")[0]
