"""A pytest plugin: fixtures that compare a port with torch, live or by a trace."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

_WRITTEN = pytest.StashKey[set[str]]()  # names of reports
_LONGEST = 200  # characters of one


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("jaxopt-port", "ports from torch")
    group.addoption(
        "--training-reports",
        metavar="DIR",
        help="write an HTML report of each assert_same_training that fails into this folder",
    )
    parser.addini("torch_traces", "folder of traces of torch's runs", default="traces")


@pytest.fixture
def assert_same_training(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Assert that a port trains as torch does: `jaxopt_port.verify.assert_same_training`.

    With ``--training-reports DIR`` each failure writes an HTML report there, named for the test.
    """
    from .verify import assert_same_training as check

    folder = request.config.getoption("--training-reports")
    if folder is None:
        return check
    written = request.config.stash.setdefault(_WRITTEN, set())

    def checked(*given: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        name = _free_name(request.node.nodeid, written)
        try:
            return check(*given, **{"report": Path(folder) / f"{name}.html", **options})
        except AssertionError:
            written.add(name.lower())
            raise

    return checked


def _free_name(node: str, taken: Collection[str]) -> str:
    """Return the name of a file for a test's report, which no other report has.

    Args:
        node: the test's id: its file, its classes, its own name and its case's.
        taken: names, in lower case: some file systems do not tell cases apart.
    """
    name = re.sub(r"[^\w.-]+", "-", node).strip("-.")[-_LONGEST:]
    numbered = (name if n == 1 else f"{name}-{n}" for n in itertools.count(1))
    return next(each for each in numbered if each.lower() not in taken)


@pytest.fixture
def torch_trace(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Return the folder of a trace by its name, in the folder that ``torch_traces`` names."""
    root = Path(request.config.rootpath, request.config.getini("torch_traces"))

    def find(name: str) -> Path:
        folder = root / name
        if not (folder / "trace.json").is_file():
            known = sorted(p.parent.name for p in root.glob("*/trace.json"))
            raise FileNotFoundError(
                f"there is no trace {name!r} in {root}, which has {', '.join(known) or 'none'}; "
                f"`jaxopt-port record CASE.py {folder}` makes one where torch is installed"
            )
        return folder

    return find
