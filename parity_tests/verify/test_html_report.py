"""The report as HTML: it holds what it should, escaped; in a browser it opens, sorts, and fits."""

import itertools
import json
import os
import re
import shutil
import sys
from html.parser import HTMLParser

import pytest
from plotly.offline import get_plotlyjs

from jaxopt_port.verify.compare._report import Report
from jaxopt_port.verify.report._figures import MOST_COLUMNS, MOST_LEAVES, figures
from jaxopt_port.verify.report._html import html
from parity_tests.verify.made_reports import HOSTILE, REPORTS

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")


class Page(HTMLParser):
    """Collects the elements, the attributes that load or run something, and embedded JSON."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.loads, self.handlers, self.data, self._in = [], [], [], {}, None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.elements.append(tag)
        self.loads += [(tag, v) for k, v in attributes if k in ("src", "href", "action")]
        self.handlers += [k for k in values if k.startswith("on")]
        self._in = values.get("id") if values.get("type") == "application/json" else None

    def handle_endtag(self, tag):
        self._in = None

    def handle_data(self, text):
        if self._in:
            self.data[self._in] = self.data.get(self._in, "") + text


@pytest.fixture(scope="module")
def pages():
    """Return the pages by name, each made once."""
    return {name: html(made()) for name, made in REPORTS.items()}


@pytest.fixture(scope="module")
def parsed(pages):
    """Return what is in the pages besides plotly, which takes a second to parse each time."""
    plotly = get_plotlyjs()
    assert "</script" not in plotly.lower()
    return {name: Page(text.replace(plotly, "")) for name, text in pages.items()}


@pytest.mark.parametrize("name", REPORTS)
def test_a_page_is_whole_loads_nothing_and_lets_no_name_out_of_its_place(pages, parsed, name):
    page = parsed[name]
    assert page.loads == [("link", "data:,"), ("a", "#")]
    assert page.handlers == []
    assert "img" not in page.elements
    assert page.elements.count("script") == 4
    headings = [int(tag[1]) for tag in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(headings))
    assert pages[name].startswith('<!doctype html>\n<html lang="en" data-verdict="')


@pytest.mark.parametrize("name", REPORTS)
def test_the_raw_data_in_a_page_is_the_report(parsed, name):
    data = parsed[name].data
    expected = REPORTS[name]().to_json()
    assert json.loads(data["report"]) == expected
    assert "<" not in data["report"] + data["figures"]


def test_long_runs_and_many_leaves_are_thinned_and_it_is_said():
    drawn = figures(REPORTS["many"]())["maps"]["update"]
    assert len(drawn["leaves"]) == MOST_LEAVES == len(drawn["ulps"])
    assert len(drawn["columns"]) <= MOST_COLUMNS
    assert drawn["caption"] == (
        "The worst 200 of 300 leaves, the worst first. "
        "Each column is the largest of 3 compared steps."
    )
    # The one spike, of step 501, is in the column that holds this step, of the first row.
    column = drawn["columns"].index("501–503")
    assert drawn["leaves"][0] == "blocks/237/mixer/projection/kernel"
    assert drawn["ulps"][0][column] == 123000
    assert max(map(max, drawn["ulps"][1:])) <= 100


def test_what_was_not_compared_or_is_infinite_is_told_apart_from_zero():
    drawn = figures(REPORTS["not_finite"]())["maps"]["gradient"]
    assert drawn["leaves"] == ["layers/0/kernel", "layers/0/bias"]
    assert drawn["differs"] == [True, False]
    assert drawn["ulps"] == [[1.0, -1, -1], [0.0, 0.0, 2.0]]
    curves = figures(REPORTS["not_finite"]())["curves"]
    assert curves["loss"] == [{"torch": [1.0, 2.0, 3.0], "yours": [1.0, None, None]}]
    assert curves["lr"] == [{"torch": [0.1] * 3, "yours": []}]


def test_a_page_without_plotly_says_what_to_install(monkeypatch):
    from jaxopt_port.verify.report import _html

    _html.plotly_script.cache_clear()
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ImportError, match=r"needs plotly.*pip install 'jaxopt-port\[cli\]'"):
        html(REPORTS["passed"]())


@pytest.mark.parametrize("end", ["</SCRIPT>", "<!-- <script"])
def test_a_plotly_that_would_end_the_page_is_refused(monkeypatch, end):
    from jaxopt_port.verify.report import _html

    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: f"const text = '{end}'")
    _html.plotly_script.cache_clear()
    with pytest.raises(ValueError, match="another version of plotly"):
        _html.plotly_script()
    _html.plotly_script.cache_clear()


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
    options.add_experimental_option(
        "prefs", {"download.default_directory": str(folder), "download.prompt_for_download": False}
    )
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.downloads = folder
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


def column(browser, table, index):
    script = """return [...document.querySelectorAll(arguments[0] + " tbody tr")]
        .map((row) => row.cells[arguments[1]].textContent)"""
    return browser.execute_script(script, table, index)


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
  if (element.closest("noscript") || element.closest(".infinite")) continue;
  const style = getComputedStyle(element);
  const colour = element instanceof SVGElement ? style.fill : style.color;
  const [a, b] = [luminance(channels(colour)), luminance(behind(element))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (contrast < least[0]) least = [contrast, element.outerHTML.slice(0, 200)];
}
return least;
"""


VIEWS = [(360, "light"), (360, "dark"), (1280, "light"), (1280, "dark")]


@pytest.mark.slow
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


@pytest.mark.slow
def test_no_script_of_others_runs_in_a_page(browser, files, pages):
    """What would happen if a name could leave its place."""
    broken = pages["passed"].replace("<main>", "<main><script>document.title = 'x'</script>", 1)
    (files / "broken.html").write_text(broken, encoding="utf-8")
    opened(browser, files, "broken")
    assert browser.title == "PASSED: mlp"
    assert "Content Security Policy" in browser.get_log("browser")[0]["message"]


@pytest.mark.slow
def test_names_are_shown_as_they_are(browser, files):
    opened(browser, files, "hostile")
    assert HOSTILE in browser.execute_script("return document.querySelector('h1+p').textContent")
    labels = browser.execute_script(
        "return [...document.querySelectorAll('#map-plot .ytick')].map((one) => one.textContent)"
    )
    assert "größe/核/κ" in labels
    assert "<b>%{x}</b> $x^2$ &lt;" in labels
    assert column(browser, "details", 0)[0] == HOSTILE


@pytest.mark.slow
def test_tables_sort_by_click_and_by_keyboard(browser, files):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    opened(browser, files, "not_finite")
    header = browser.find_element(By.XPATH, "//details//th[button='mean']")
    before = column(browser, "details", 5)
    assert header.get_attribute("aria-sort") is None
    header.find_element(By.TAG_NAME, "button").click()
    assert header.get_attribute("aria-sort") == "descending"
    assert column(browser, "details", 5) == ["NaN", "0.222"] == before
    header.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert header.get_attribute("aria-sort") == "ascending"
    assert column(browser, "details", 5) == ["0.222", "NaN"]
    other = browser.find_element(By.XPATH, "//details//th[button='leaf']")
    for direction, names in (
        ("ascending", ["layers/0/bias", "layers/0/kernel"]),
        ("descending", ["layers/0/kernel", "layers/0/bias"]),
    ):
        other.find_element(By.TAG_NAME, "button").send_keys(Keys.SPACE)
        assert other.get_attribute("aria-sort") == direction
        assert column(browser, "details", 0) == names
    assert header.get_attribute("aria-sort") is None

    opened(browser, files, "differs")
    header = browser.find_element(By.XPATH, "//details[summary/b='update']//th[button='ulps max']")
    for _ in range(2):
        header.find_element(By.TAG_NAME, "button").click()
    cells = column(browser, "details:last-of-type", 3)
    assert cells == sorted(cells, key=float)
    assert len(set(cells)) > 3


@pytest.mark.slow
def test_the_stage_that_is_chosen_is_drawn_and_colours_follow_the_scheme(browser, files):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select, WebDriverWait

    opened(browser, files, "differs")
    drawn = "return document.getElementById('map-plot').data[0]"
    select = Select(browser.find_element(By.ID, "stage"))
    assert select.first_selected_option.text == "update ✗"
    assert len(browser.execute_script(f"{drawn}.y")) == 12
    select.select_by_value("forward")
    assert browser.execute_script(f"{drawn}.y") == ["output"]
    assert browser.execute_script(f"{drawn}.x") == [str(step) for step in range(0, 120, 10)]
    light = browser.execute_script(f"{drawn}.colorscale[0][1]")
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    WebDriverWait(browser, 10).until(
        lambda _: browser.execute_script(f"{drawn}.colorscale[0][1]") != light
    )
    titles = """return [...document.querySelectorAll("#loss-plot .modebar-btn")]
        .map((button) => button.dataset.title)"""
    # None that sends the figure to a server.
    assert browser.execute_script(titles) == ["Download plot as a PNG", "Zoom", "Pan", "Reset axes"]
    assert browser.execute_script("return document.getElementById('loss-plot').data.length") == 2
    assert browser.execute_script("return document.getElementById('lr-plot').data.length") == 4


@pytest.mark.slow
def test_the_data_can_be_downloaded_and_read_back(browser, files):
    import time

    from selenium.webdriver.common.by import By

    opened(browser, files, "not_finite")
    browser.find_element(By.ID, "download").click()
    target = browser.downloads / "overflow.json"
    end = time.monotonic() + 10
    while not target.exists() and time.monotonic() < end:
        time.sleep(0.02)
    report = Report.from_json(json.loads(target.read_text()))
    assert report.to_json() == REPORTS["not_finite"]().to_json()


@pytest.mark.slow
def test_all_leaves_are_printed_in_light_colours(browser, files):
    opened(browser, files, "differs", scheme="dark")
    closed = "return document.querySelectorAll('details:not([open])').length"
    assert browser.execute_script(closed) == 3
    browser.execute_script(
        "addEventListener('beforeprint', () => {"
        " window.closed_in_print = document.querySelectorAll('details:not([open])').length;"
        " window.paper = getComputedStyle(document.documentElement).getPropertyValue('--card');"
        "})"
    )
    browser.print_page()
    assert browser.execute_script("return [closed_in_print, paper.trim()]") == [0, "#ffffff"]
    assert browser.execute_script(closed) == 3
