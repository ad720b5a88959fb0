"""A time for each test: of its cases, as many run as it has seconds for.

`--budget=test`, `quick` or a number of seconds keeps a fixed draw of a test's cases that takes
about so long by `seconds.json`, and at least one, unless a single case takes fifteen times as long.
A test that the file does not have runs whole. A case that is marked `always` runs in any time;
`share(times)` is for a table each row of which tests code of its own: it has more time, and the
tests of one file that have the mark draw the same rows, whose programs are compiled once.
`--record` writes what the tests of a run took into the file. Files of tests that take the longest
come first, so that no worker is alone with them at the end.
"""

import json
import zlib
from collections import defaultdict
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RECORDED = HERE / "seconds.json"
BUDGETS = {"test": 0.7, "quick": 0.04}  # of make test and make test-quick
LEAST = 0.1  # seconds of a test's cases that ran, from which on the file has it
LONGEST = 15  # times the budget: of a case that is the only one


def budget(text):
    return BUDGETS[text] if text in BUDGETS else float(text)


def pytest_addoption(parser):
    group = parser.getgroup("time")
    group.addoption(
        "--budget",
        type=budget,
        metavar="test|quick|SECONDS",
        help="of each test as many cases as take about so long",
    )
    group.addoption(
        "--record", action="store_true", help="write what each test takes into seconds.json"
    )


def pytest_configure(config):
    config.option.loadscopereorder = False  # xdist's: else the files with the most cases come first
    if config.getoption("record") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Record())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    given = config.getoption("budget")
    seconds = json.loads(RECORDED.read_text(encoding="utf-8"))
    if given is not None:
        _draw(config, items, given, seconds)
    of_files = times([item.nodeid for item in items], seconds)
    items.sort(key=lambda item: -of_files[file(item.nodeid)])


def _draw(config, items, given, seconds):
    cases = defaultdict(list)
    for item in items:
        cases[function(item.nodeid)].append(item)
    kept = {item.nodeid for item in items if item.get_closest_marker("always")}
    for test, of_it in cases.items():
        names = [item.nodeid for item in of_it]
        each, share = seconds.get(test, 0.0), of_it[0].get_closest_marker("share")
        kept.update(
            sample(names, each, given * share.args[0], by=row)
            if share
            else sample(names, each, given)
        )
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in kept])
    items[:] = [item for item in items if item.nodeid in kept]


def function(nodeid):
    return nodeid.partition("[")[0].removeprefix(f"{HERE.name}/")


def file(nodeid):
    return function(nodeid).partition("::")[0]


def times(nodeids, seconds):
    """Return how long each file takes that cases are of."""
    found = defaultdict(float)
    for nodeid in nodeids:
        found[file(nodeid)] += seconds.get(function(nodeid), LEAST / 10)
    return found


def row(nodeid):
    return nodeid.partition("[")[2]


def sample(names, each, time, by=str):
    """Return the cases that are run of those of one test, of ``each`` so many seconds.

    ``by``: of a case's name, what the draw goes by.
    """
    if each > LONGEST * time:
        return []
    drawn = sorted(names, key=lambda name: zlib.crc32(by(name).encode()))
    return drawn[: max(1, int(time / each))] if each else drawn


class _Record:
    def __init__(self):
        self.took = defaultdict(lambda: defaultdict(float))

    def pytest_runtest_logreport(self, report):
        self.took[function(report.nodeid)][report.nodeid] += report.duration

    def pytest_sessionfinish(self):
        seconds = json.loads(RECORDED.read_text(encoding="utf-8")) if RECORDED.exists() else {}
        for test, cases in self.took.items():
            if sum(cases.values()) >= LEAST or test in seconds:
                seconds[test] = float(f"{sum(cases.values()) / len(cases):.2g}")
        text = json.dumps(dict(sorted(seconds.items())), indent=1)
        RECORDED.write_text(text + "\n", encoding="utf-8")
