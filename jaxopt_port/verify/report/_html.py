"""A report as one HTML file that opens offline, and has no script."""

from __future__ import annotations

from html import escape
from importlib import resources
from string import Template

from ._report import Report
from ._sections import sections


def html(report: Report) -> str:
    """Return the report as one HTML page, with everything it needs inside.

    Args:
        report: of `compare` or of a replay, or read back with ``Report.from_json``.

    Example:
        >>> from jaxopt_port.verify.report import Curves, Report
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
    )


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
