"""The page in a real browser: it loads without a request, sorts, filters, draws, and is reached by keyboard."""

import base64
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kept_files import write_grid
from run_records import accuracies, record

from kravl.report.groups import group_runs
from kravl.report.interactive.page import write_comparison
from kravl.report.runs import FinishedRun, read_runs
from kravl.runtime.files import shipped
from kravl.runtime.yaml_files import read_yaml
from kravl.tracking.methods import shown
from kravl.tracking.run_folder import ZERO_SHOT

pytest.importorskip("selenium", reason="selenium is not installed: pip install 'kravl[browser]'")
from chromium import fits_the_width, opened_chromium
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.browser
EVIL = "</script><img src=x onerror=document.title=1>'\"&"
FIELD = list(read_yaml(shipped("experiments/studies") / "field_tiny.yaml")["methods"])
Browser = webdriver.Chrome


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with opened_chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three methods, one of them with a hostile name."""
    folder = tmp_path_factory.mktemp("runs")
    write_grid(folder, methods=("kra", EVIL, "linear_probe"))
    return write(read_runs(folder)[0], folder)


def write(runs: list[FinishedRun], folder: Path) -> Path:
    write_comparison(runs, group_runs(runs), [f"skipped {EVIL}"], folder / "index.html")
    return folder / "index.html"


@pytest.fixture
def page(browser: Browser, written: Path) -> Browser:
    load(browser, written)
    return browser


def load(browser: Browser, path: Path) -> None:
    for kind in ("performance", "browser"):
        browser.get_log(kind)  # what was said before
    browser.get(path.as_uri())


def texts(browser: Browser, selector: str) -> list[str]:
    return browser.execute_script(
        "const all = [...document.querySelectorAll(arguments[0])];"
        "return all.filter((each) => each.checkVisibility()).map((each) => each.innerText)",
        selector,
    )


def count(browser: Browser, selector: str) -> int:
    return len(browser.find_elements(By.CSS_SELECTOR, selector))


def choose(browser: Browser, selector: str, value: str) -> None:
    browser.execute_script(
        "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('input', {bubbles: true})); e.dispatchEvent(new Event('change', {bubbles: true}))",
        selector,
        value,
    )


def test_it_loads_without_an_error_and_without_a_request(page: Browser, written: Path) -> None:
    assert page.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith(("data:", "chrome"))} == {written.as_uri()}


def test_every_chart_is_there_with_a_mark_for_each_number_a_name_and_a_table(page: Browser) -> None:
    figures = page.find_elements(By.CSS_SELECTOR, "figure")
    assert [figure.get_attribute("id") for figure in figures] == [
        "against-shots", "scatter", "each-set", "against-trainable-parameters", "against-effective-rank", "curves",
        "calibration", "classes", "pictures",
    ]  # fmt: skip
    assert count(page, "#against-shots .point > *") == 3 * 2 * 2  # methods, shots, in and out of domain
    assert count(page, "#scatter .point > *") == 4  # and zero-shot
    assert count(page, "#each-set .point > *") == 4 * 2
    assert count(page, "#against-trainable-parameters .point > *") == 3
    assert count(page, "#calibration svg[role=img]") == 4
    assert count(page, "#calibration .point > *") == 4 * 2
    assert count(page, "#classes .point > *") == 3
    charts = page.find_elements(By.CSS_SELECTOR, "figure svg")
    assert all(chart.get_attribute("aria-label") for chart in charts)
    assert count(page, "figure details table") == 8  # the pictures have none
    assert count(page, "#curves details tbody tr") == 3 * 3


@pytest.mark.parametrize(("title", "last"), [("Method", "zero-shot"), ("Test, top-1 %", EVIL)])
def test_a_button_sorts_the_table_up_and_down(page: Browser, title: str, last: str) -> None:
    button = page.find_element(By.XPATH, f"//th/button[normalize-space()='{title}']")

    button.click()
    up = texts(page, "#table tbody th")
    direction = page.find_elements(By.CSS_SELECTOR, "th[aria-sort=ascending]")
    button.click()

    assert [head.text.strip() for head in direction] == [title]
    assert count(page, "th[aria-sort]") == count(page, "th[aria-sort=descending]") == 1
    assert up[-1] == last or title != "Method"
    assert texts(page, "#table tbody th")[0] == up[-1]
    assert sorted(texts(page, "#table tbody th")) == sorted(up)


def test_numbers_are_sorted_as_numbers_and_what_is_missing_comes_last(page: Browser) -> None:
    button = page.find_element(By.XPATH, "//th/button[normalize-space()='Training, s (median)']")
    column = "#table tbody td:nth-child(9)"

    for order in (sorted, lambda values: sorted(values, reverse=True)):
        button.click()
        shown = texts(page, column)
        assert shown[-1] == ""  # zero-shot was not trained
        assert [float(text.split()[0]) for text in shown[:-1]] == order(float(t.split()[0]) for t in shown[:-1])


def test_filters_choose_rows_and_say_how_many(page: Browser) -> None:
    rows = "#table tbody tr"
    choose(page, "[data-filter=method]", "kra")
    assert len(texts(page, rows)) == 2
    choose(page, "[data-filter=shots]", "4")
    assert len(texts(page, rows)) == 1
    assert texts(page, "#shown") == ["1 of 7 rows"]
    page.find_element(By.CSS_SELECTOR, "#filters [type=reset]").click()
    page.find_element(By.ID, "text").send_keys("LINEAR_P")  # as settings call it
    assert texts(page, "#table tbody th") == ["linear probe"] * 2


def test_a_hostile_name_is_text_wherever_it_is_shown(page: Browser) -> None:
    assert EVIL in texts(page, "#table tbody th")
    assert EVIL in texts(page, "#methods label")
    choose(page, "#one", EVIL)
    assert any(EVIL in text for text in texts(page, "#classes figcaption p"))
    assert any(EVIL in text for text in texts(page, ".notes li"))
    assert page.title == "kravl: comparison of runs"
    assert page.get_log("browser") == []


def test_the_selection_draws_anew(page: Browser) -> None:
    page.find_element(By.CSS_SELECTOR, "#methods label[data-method=kra] input").click()
    assert count(page, "#scatter .point > *") == 3
    choose(page, "#shots", "1")
    assert count(page, "#scatter .point > *") == 3
    page.find_element(By.ID, "logit").click()
    assert page.switch_to.active_element.get_attribute("id") == "logit"
    assert page.get_log("browser") == []


def test_every_control_is_reached_by_the_tab_key_and_works_by_keyboard(page: Browser) -> None:
    page.execute_script(
        "window.reached = []; document.addEventListener('focusin', ({target: e}) =>"
        "reached.push(`${e.tagName} ${e.id || e.innerText || e.getAttribute('href') || ''}`.toLowerCase()))"
    )
    ActionChains(page, duration=0).send_keys(Keys.TAB * 60).perform()
    reached = page.execute_script("return reached")
    wanted = ("a skip to the results", "button theme", "input text", "select setting", "select shots", "select one",
              "select other", "input logit", "summary numbers", "button method")  # fmt: skip
    assert [each for each in wanted if not any(r.startswith(each) for r in reached)] == []

    page.find_element(By.XPATH, "//th/button[normalize-space()='n']").send_keys(Keys.ENTER)
    assert [text.strip() for text in texts(page, "th[aria-sort=ascending]")] == ["n"]


def test_dark_follows_the_system_and_the_button(page: Browser) -> None:
    def ground() -> str:
        return page.execute_script("return getComputedStyle(document.body).backgroundColor")

    def prefer(scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    prefer("light")
    light = ground()
    prefer("dark")
    dark = ground()
    button = page.find_element(By.ID, "theme")
    button.click()
    assert (button.text, ground(), light != dark) == ("Theme: light", light, True)
    prefer("light")
    button.click()
    assert (button.text, ground()) == ("Theme: dark", dark)


def test_print_is_light_without_controls_and_with_every_chart(page: Browser) -> None:
    page.find_element(By.ID, "theme").click()
    page.find_element(By.ID, "theme").click()  # dark on the screen
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    ground = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    hidden = texts(page, ".screen, figure details")
    drawn = len(texts(page, "figure"))
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})

    pdf = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])

    assert (ground, hidden, drawn) == ("rgb(255, 255, 255)", [], 9)
    assert pdf.startswith(b"%PDF")


@pytest.fixture(scope="module")
def of_field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of nineteen methods."""
    folder = tmp_path_factory.mktemp("field")
    write_grid(folder, methods=FIELD)
    return write(read_runs(folder)[0], folder)


@pytest.fixture
def field(browser: Browser, of_field: Path) -> Browser:
    load(browser, of_field)
    return browser


def test_methods_are_called_as_in_papers_and_found_by_either_name(field: Browser) -> None:
    names = {shown(method) for method in FIELD}
    assert {"KRAdapter", "Tip-Adapter-F", "LP++"} < names
    assert set(texts(field, "#table tbody th")) == names | {"zero-shot"}
    assert {text.strip() for text in texts(field, "#methods label")} == names | {"zero-shot"}
    assert {option.get_property("text") for option in field.find_elements(By.CSS_SELECTOR, "#one option")} > names
    field.find_element(By.ID, "text").send_keys("tip_adapter_f")
    assert texts(field, "#table tbody th") == ["Tip-Adapter-F"] * 2
    assert texts(field, "#table .best") != []


def test_names_beside_charts_are_those_of_all_methods_and_do_not_overlap(field: Browser) -> None:
    for chart, columns in (("#against-shots", 2), ("#scatter", 1)):
        groups = field.find_elements(By.CSS_SELECTOR, f"{chart} .names")
        assert len(groups) == columns
        for group in groups:
            labels = group.find_elements(By.TAG_NAME, "text")
            assert sorted(label.text for label in labels) == sorted(map(shown, [*FIELD, ZERO_SHOT]))
            boxes = sorted((label.rect["y"], label.rect["height"]) for label in labels)
            assert all(y + height <= below + 1.5 for (y, height), (below, _) in itertools.pairwise(boxes))


def test_colours_of_a_method_are_those_of_other_pages(field: Browser, written: Path) -> None:
    def colour() -> tuple[str, str]:
        mark = field.find_element(By.CSS_SELECTOR, "#methods label[data-method=kra] path:last-of-type")
        return mark.value_of_css_property("fill"), mark.get_attribute("d")

    of_many = colour()
    load(field, written)
    assert colour() == of_many
    assert of_many[0] == "rgb(0, 114, 178)"


def test_on_a_telephone_the_method_stays_and_numbers_are_in_sight(field: Browser) -> None:
    size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    field.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        row = field.find_element(By.CSS_SELECTOR, "#table tbody tr:nth-child(2)")
        numbers = [cell for cell in row.find_elements(By.TAG_NAME, "td") if " ± " in cell.text]
        assert [cell.rect["x"] + cell.rect["width"] <= 400 for cell in numbers[:2]] == [True, True]
        name = row.find_element(By.TAG_NAME, "th")
        before = name.rect["x"]
        field.execute_script("document.querySelector('#results .wide').scrollLeft = 300")
        assert numbers[0].rect["x"] < 0
        assert name.rect["x"] == pytest.approx(before, abs=1.5)
    finally:
        field.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("width", [360, 1600])
def test_charts_fit_the_width_of_the_window(page: Browser, width: int) -> None:
    assert fits_the_width(page, width)


def test_two_thousand_runs_load_sort_and_filter(browser: Browser, tmp_path: Path) -> None:
    given: dict[str, Any] = {"zero_shot": accuracies(0.4, 0.3), "metrics": accuracies(0.5, 0.4)}
    runs = [
        FinishedRun(tmp_path, record(seed=s, dataset=f"set{d}", method=f"m{m}", shots=n, **given), {})
        for s in range(1, 6) for d in range(10) for m in range(8) for n in (1, 2, 4, 8, 16)
    ]  # fmt: skip

    load(browser, write(runs, tmp_path))

    assert browser.get_log("browser") == []
    assert texts(browser, "#shown") == ["410 of 410 rows"]
    browser.find_element(By.XPATH, "//th/button[normalize-space()='Method']").click()
    choose(browser, "[data-filter='data set']", "set3")
    assert texts(browser, "#shown") == ["41 of 410 rows"]
    choose(browser, "#setting", "10")
    assert "mean over data sets (10)" in browser.find_element(By.CSS_SELECTOR, "#setting option:checked").text
    assert count(browser, "#against-shots .point > *") == 8 * 5 * 2
