"""The page in a real browser, driven over WebDriver's own HTTP protocol."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from optbench.report.build import write_report

ROWS = "return Array.from(document.querySelectorAll('#part-1 tbody tr')).map(r => r.cells[2].textContent)"
NETWORK = ("http:", "https:", "ws:", "wss:", "ftp:")


class Browser:
    """A session of a headless Chromium."""

    def __init__(self, base: str, binary: str, profile) -> None:
        self.base = base
        flags = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"]
        flags += ["disable-background-networking", "disable-component-update", "window-size=1200,900"]
        options = {"binary": binary, "args": [f"--{flag}" for flag in flags] + [f"--user-data-dir={profile}"]}
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        made = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.path = f"/session/{made['sessionId']}"

    def go(self, url: str) -> None:
        self._ask("POST", f"{self.path}/url", {"url": url})

    def run(self, script: str):
        return self._ask("POST", f"{self.path}/execute/sync", {"script": script, "args": []})

    def log(self, kind: str) -> list[dict]:
        return self._ask("POST", f"{self.path}/se/log", {"type": kind})

    def resize(self, width: int) -> None:
        self._ask("POST", f"{self.path}/window/rect", {"width": width, "height": 900})

    def keys(self, text: str) -> None:
        strokes = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        actions = [{"type": "key", "id": "keyboard", "actions": strokes}]
        self._ask("POST", f"{self.path}/actions", {"actions": actions})

    def close(self) -> None:
        self._ask("DELETE", self.path)

    def _ask(self, method: str, path: str, body=None):
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.base + path, data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    program = shutil.which("chromedriver")
    if binary is None or program is None:
        pytest.skip("no browser: needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    process = subprocess.Popen([program, "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        port = next(
            line.rsplit(" ", 1)[1].strip(" .\n") for line in process.stdout if "successfully on port" in line
        )
        browser = _open(f"http://127.0.0.1:{port}", binary, tmp_path_factory.mktemp("profile"))
        yield browser
        browser.close()
    finally:
        process.terminate()
        process.wait(timeout=20)


def _open(base: str, binary: str, profile) -> Browser:
    for _ in range(50):
        try:
            return Browser(base, binary, profile)
        except urllib.error.HTTPError:
            raise
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{base} does not answer")


@pytest.fixture(scope="module")
def address(two_workloads, tmp_path_factory):
    results, suite, _ = two_workloads
    return write_report(results, suite, tmp_path_factory.mktemp("page"), formats=("html",)).index.as_uri()


@pytest.fixture
def page(driver, address):
    driver.resize(1200)
    driver.go(address)
    return driver


def test_the_page_sorts_filters_and_stays_at_home(page):
    first = page.run(ROWS)
    click = "document.querySelectorAll('#part-1 thead button')[3].click();"
    up, down = page.run(click + ROWS), page.run(click + ROWS)
    assert sorted(up) == sorted(first)
    assert up == down[::-1]
    assert up == ["sgd", "wame", "adam"]
    sorts = page.run("return document.querySelectorAll('#part-1 th')[3].getAttribute('aria-sort')")
    assert sorts == "descending"

    shown = page.run(
        """const part = document.querySelector('#trials'), input = part.querySelector('input');
        input.value = 'sgd diverged'; input.dispatchEvent(new Event('input'));
        return [Array.from(part.querySelectorAll('tbody tr')).filter(r => !r.hidden).length,
                part.querySelector('[role=status]').textContent]"""
    )
    assert shown == [4, "4 of 36 rows"]

    complaints = [entry for entry in page.log("browser") if entry["level"] in ("WARNING", "SEVERE")]
    assert complaints == []
    events = [json.loads(entry["message"])["message"] for entry in page.log("performance")]
    sent = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert sent
    assert [url for url in sent if url.startswith(NETWORK)] == []


def test_missing_values_stay_last_in_either_direction(page):
    column = "const b = document.querySelectorAll('#part-1 thead button')[5]; b.click();"
    assert page.run(column + ROWS)[-2:].count("wame") == 1
    assert "wame" in page.run(column + ROWS)[-2:]


def test_the_keyboard_reaches_and_sorts_a_column(page):
    page.run("document.querySelectorAll('#part-1 thead button')[2].focus()")
    page.keys("\ue007")
    assert page.run(ROWS) == ["adam", "sgd", "wame"]


@pytest.mark.parametrize("width", [500, 1200])
def test_nothing_is_wider_than_the_window(page, width):
    page.resize(width)
    wide, inner = page.run("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= inner


def test_every_plot_and_table_has_a_name_and_ids_are_unique(page):
    unnamed = page.run(
        "return Array.from(document.querySelectorAll('[role=img], [role=region], section'))"
        ".filter(e => !e.getAttribute('aria-label') && !e.getAttribute('aria-labelledby')).length"
    )
    ids = page.run("return Array.from(document.querySelectorAll('[id]')).map(e => e.id)")
    links = page.run("return Array.from(document.querySelectorAll('nav a')).map(a => a.hash.slice(1))")
    assert unnamed == 0
    assert len(ids) == len(set(ids))
    assert set(links) <= set(ids)


def test_light_and_dark_can_be_chosen(page):
    colour = "return getComputedStyle(document.body).backgroundColor"
    before = page.run(colour)
    assert page.run("document.getElementById('theme').click();" + colour) != before
    assert page.run("return getComputedStyle(document.querySelector('.drawing text')).fill") != ""
