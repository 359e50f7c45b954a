"""A headless Chromium that asks no other host, driven by selenium (https://www.selenium.dev)."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--window-size=1280,900")  # fmt: skip


@contextmanager
def opened_chromium() -> Iterator[webdriver.Chrome]:
    """A browser with a new profile, which logs what the page says and asks for; the test is skipped without one."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no Chromium with its driver: apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = program
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        browser = webdriver.Chrome(options=options, service=Service(driver))
        yield browser
        browser.quit()


def fits_the_width(browser: webdriver.Chrome, width: int) -> bool:
    """Whether nothing of the page is wider than a window of ``width`` pixels, within ten seconds of becoming so."""
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        fits = "return document.documentElement.scrollWidth <= innerWidth"
        until = time.monotonic() + 10
        while not browser.execute_script(fits) and time.monotonic() < until:
            time.sleep(0.05)  # a page draws a moment after the last change of width
        return browser.execute_script(fits)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
