"""The report as HTML: it holds what it should, escaped; in a browser it opens, sorts, and fits."""

import itertools
import json
import math
import os
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxopt_port.verify.report import (
    STAGES,
    Curves,
    Distance,
    LeafResult,
    Report,
    StageResult,
)
from jaxopt_port.verify.report._html import html
from jaxopt_port.verify.report._svg import (
    MOST_COLUMNS,
    MOST_LEAVES,
    columns_of,
    curves,
    heat_map,
    levels_of,
)
from parity_tests.verify.made_reports import HOSTILE, REPORTS

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")


class Page(HTMLParser):
    """Collects the elements, their attributes that load or run something, and the text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.loads, self.handlers, self.text = [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        self.loads += [(tag, v) for k, v in attributes if k in ("src", "href", "action")]
        self.handlers += [k for k, _ in attributes if k.startswith("on")]

    def handle_data(self, text):
        self.text += text


@pytest.fixture(scope="module")
def pages():
    """Return the pages by name, each made once."""
    return {name: html(made()) for name, made in REPORTS.items()}


@pytest.mark.parametrize("name", REPORTS)
def test_a_page_is_whole_small_runs_nothing_and_lets_no_name_out_of_its_place(pages, name):
    page = Page(pages[name])
    assert page.loads == [("link", "data:,")]
    assert page.handlers == []
    assert {"img", "script", "iframe", "object"}.isdisjoint(page.elements)
    headings = [int(tag[1]) for tag in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(headings))
    assert pages[name].startswith('<!doctype html>\n<html lang="en" data-verdict="')
    assert len(pages[name].encode()) < 500_000


def test_the_largest_page_that_can_be_is_small():
    """Every stage with leaves and steps without end, and no two neighbours of one class."""
    rng = np.random.default_rng(0)
    name = "encoder/a_name_of_some_length/layers/{}/attention/projection/kernel"
    leaves = [
        LeafResult(
            name.format(i), name.format(i).replace("/", "."), Distance(*[1.234e-5] * 5, 0, 0.9),
            1, dict(enumerate(10 ** rng.uniform(-1, 7, 240))), 1e-9, i % 2 > 0,
        )
        for i in range(300)
    ]  # fmt: skip
    many = [list(rng.normal(size=20_000)) for _ in range(12)]
    made = Report(
        "large", 20_000, None, {s: StageResult(s, leaves, 240) for s in STAGES},
        Curves(many[0], many[1], many, many), "float32", "Adam", {},
    )  # fmt: skip
    assert 300_000 < len(html(made).encode()) < 500_000


def test_long_runs_and_many_leaves_are_thinned_and_it_is_said(pages):
    stage = REPORTS["many"]().stages["update"]
    drawn, said = heat_map(stage, None)
    assert said == (
        f"The worst {MOST_LEAVES} of 300 leaves, the worst first. "
        "Each column is the largest of 13 compared steps."
    )
    assert drawn.count("<title>") == MOST_LEAVES
    # The one spike, of step 501, is in the column that holds this step, of the first row.
    assert Page(drawn).text.startswith("blocks/237/mixer/projection/kernel")
    columns = columns_of(stage.leaves)
    assert len(columns) <= MOST_COLUMNS
    spiked = levels_of(stage.leaves[237], columns)
    assert [c for c, level in zip(columns, spiked, strict=True) if level == 5] == [
        list(range(494, 507))
    ]


def test_what_was_not_compared_or_is_infinite_is_told_apart_from_zero():
    made = REPORTS["not_finite"]()
    broken, fine = sorted(made.stages["gradient"].leaves, key=lambda leaf: leaf.ok)
    assert levels_of(broken, [[0], [1], [2], [3]]) == [1, 7, 7, None]
    assert levels_of(fine, [[0], [2]]) == [0, 2]
    drawn = curves([("torch", [1.0, 2.0, 3.0]), ("yours", [1.0, math.nan, math.inf])], "Loss")
    assert re.findall(r'<(\w+) class="(?!grid)(\w+)"', drawn)[1:] == [
        ("polyline", "torch"), ("circle", "yours"),
    ]  # fmt: skip
    assert curves([("torch", [math.nan])], "Loss") == ""


# In a browser.


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (BROWSER and DRIVER):
        missing = "no Chromium with chromedriver (Debian: chromium, chromium-driver)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    webdriver = pytest.importorskip("selenium.webdriver")
    folder = tmp_path_factory.mktemp("browser")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (
        "headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run",
        "disable-background-networking", "disable-component-update", "disable-sync",
        f"user-data-dir={folder / 'profile'}",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    # The browser's own first page is none of ours.
    driver.get("about:blank")
    driver.get_log("performance")
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def files(pages, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return folder


def opened(browser, files, name, width=1280, scheme="light"):
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    browser.get((files / f"{name}.html").as_uri())
    return browser


def requests(browser):
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [
        m["params"]["request"]["url"]
        for m in messages
        if m["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in urls if not url.startswith(("file:", "data:", "blob:"))], len(urls)


# WCAG's contrast of every piece of text with the nearest background that is not transparent.
LEAST_CONTRAST = """
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
const luminance = (rgb) => rgb.slice(0, 3)
  .map((c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const opaque = (rgb) => rgb.length < 4 || rgb[3] === 1;
const behind = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const colour = channels(getComputedStyle(one).backgroundColor);
    if (opaque(colour)) return colour;
  }
  throw new Error("no background");
};
let least = [99, ""];
for (const element of document.querySelectorAll("body *:not(script)")) {
  if (![...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
  if (element.closest("title") || element.closest(".infinite")) continue;
  const style = getComputedStyle(element);
  const colour = element instanceof SVGElement ? style.fill : style.color;
  const [a, b] = [luminance(channels(colour)), luminance(behind(element))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (contrast < least[0]) least = [contrast, element.outerHTML.slice(0, 200)];
}
return least;
"""


VIEWS = [(360, "light"), (360, "dark"), (1280, "light"), (1280, "dark")]


@pytest.mark.parametrize("name", REPORTS)
def test_a_page_opens_without_errors_or_requests_and_fits_any_window(browser, files, name):
    views = {"differs": VIEWS, "hostile": VIEWS[1:3]}.get(name, VIEWS[:1])
    for width, scheme in views:
        opened(browser, files, name, width, scheme)
        assert browser.title == f"{'PASSED' if REPORTS[name]().ok else 'DIFFERS'}: " + (
            re.sub(r"\s+", " ", REPORTS[name]().name)
        )
        assert browser.execute_script("return innerWidth") == width
        assert browser.execute_script("return document.scrollingElement.scrollWidth") <= width
        contrast, element = browser.execute_script(LEAST_CONTRAST)
        assert contrast >= 4.5, element
    assert browser.get_log("browser") == []
    outside, all_of_them = requests(browser)
    assert outside == []
    assert all_of_them >= len(views), "the log of requests is on"


def test_no_script_of_others_runs_in_a_page(browser, files, pages):
    """What would happen if a name could leave its place."""
    broken = pages["passed"].replace("<main>", "<main><script>document.title = 'x'</script>", 1)
    (files / "broken.html").write_text(broken, encoding="utf-8")
    opened(browser, files, "broken")
    assert browser.title == "PASSED: mlp"
    assert "Content Security Policy" in browser.get_log("browser")[0]["message"]


def test_names_are_shown_as_they_are(browser, files):
    opened(browser, files, "hostile")
    assert HOSTILE in browser.execute_script("return document.querySelector('h1+p').textContent")
    labels = browser.execute_script(
        "return [...document.querySelectorAll('svg g title')].map((one) => one.textContent)"
    )
    assert {HOSTILE, "größe/核/κ", "<b>%{x}</b> $x^2$ &lt;"} == set(labels)
