"""A pytest plugin: fixtures that compare a port with torch, live or by a trace."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


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

    With ``--training-reports DIR`` a failure writes an HTML report there, named for the test.
    """
    from .verify import assert_same_training as check

    folder = request.config.getoption("--training-reports")
    if folder is None:
        return check
    name = re.sub(r"[^\w.-]+", "-", request.node.name).strip("-")
    return functools.partial(check, report=Path(folder) / f"{name}.html")


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
