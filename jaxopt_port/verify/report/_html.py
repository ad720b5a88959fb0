"""A report as one HTML file that opens offline."""

from __future__ import annotations

import base64
import functools
import hashlib
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
        ValueError: this version of plotly cannot be put into a page.

    Example:
        >>> from jaxopt_port.verify.compare._report import Curves, Report
        >>> report = Report("mlp", 3, None, {}, Curves(), "float32", "Adam", {})
        >>> html(report).startswith("<!doctype html>")
        True
    """
    verdict = "PASSED" if report.ok else "DIFFERS"
    plotly, script = plotly_script(), _asset("_page.js")
    return Template(_asset("_page.html")).substitute(
        verdict=verdict.lower(),
        title=escape(f"{verdict}: {report.name}"),
        # No other script runs, whatever the names in a report hold.
        scripts=f"{_source(plotly)} {_source(script)}",
        css=_asset("_page.css"),
        sections=sections(report),
        download=escape(_file_name(report.name)),
        report=_in_script(report.to_json()),
        figures=_in_script(figures(report)),
        plotly=plotly,
        script=script,
    )


@functools.cache
def plotly_script() -> str:
    """Return plotly's JavaScript, as a page can hold it; raises as `html` does."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ImportError(
            "a report in HTML needs plotly: pip install 'jaxopt-port[cli]'; a file whose name ends "
            "in .json needs nothing"
        ) from error
    # A browser reads every line end as \n, and the digest is of what it reads.
    text: str = get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n")
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError(
            "this version of plotly would end the page's script; write the report as JSON, or "
            "install another version of plotly"
        )
    return text


@functools.cache
def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _source(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _file_name(name: str) -> str:
    return (re.sub(r"[^\w.-]+", "-", name).strip("-.") or "report") + ".json"


def _in_script(value: Any) -> str:
    """JSON that cannot end the ``<script>`` element it stands in."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
