"""A report as one HTML file that opens offline."""

from __future__ import annotations

import functools
import json
import re
from html import escape
from importlib import resources
from string import Template
from typing import Any

from ..compare._report import Report
from ._figures import figures
from ._sections import sections


def html(report: Report) -> str:
    """Return the report as one HTML page, with everything it needs inside.

    Args:
        report: of `compare` or of a replay, or read back with ``Report.from_json``.

    Raises:
        ImportError: plotly is not installed.

    Example:
        >>> from jaxopt_port.verify.compare._report import Curves, Report
        >>> report = Report("mlp", 3, None, {}, Curves(), "float32", "Adam", {})
        >>> html(report).startswith("<!doctype html>")
        True
    """
    verdict = "PASSED" if report.ok else "DIFFERS"
    return Template(_asset("_page.html")).substitute(
        verdict=verdict.lower(),
        title=escape(f"{verdict}: {report.name}"),
        css=_asset("_page.css"),
        sections=sections(report),
        download=escape(_file_name(report.name)),
        report=_in_script(report.to_json()),
        figures=_in_script(figures(report)),
        plotly=_plotly(),
        script=_asset("_page.js"),
    )


@functools.cache
def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ImportError(
            "a report in HTML needs plotly: pip install 'jaxopt-port[cli]'; a file whose name ends "
            "in .json needs nothing"
        ) from error
    text: str = get_plotlyjs()
    return text


@functools.cache
def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _file_name(name: str) -> str:
    return (re.sub(r"[^\w.-]+", "-", name).strip("-.") or "report") + ".json"


def _in_script(value: Any) -> str:
    """JSON that cannot end the ``<script>`` element it stands in."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
