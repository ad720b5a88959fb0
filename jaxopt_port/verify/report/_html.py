"""A report as one HTML file that opens offline."""

from __future__ import annotations

import json
import math
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

from ..compare._report import STAGES, LeafResult, Report, StageResult
from ._heat_map import MOST_LEAVES, heat_map
from ._wording import by_severity, exact, not_compared, number, stage_verdict, subtitle, worst_leaf

if TYPE_CHECKING:
    from jinja2 import Environment


def html(report: Report) -> str:
    """Return the report as one HTML page, with everything it needs inside.

    Raises:
        ImportError: Jinja2 or plotly is not installed.

    Example:
        >>> from jaxopt_port.verify.compare._report import Curves, Report
        >>> report = Report("mlp", 3, None, {}, Curves(), "float32", "Adam", {})
        >>> html(report).startswith("<!doctype html>")
        True
    """
    try:
        from jinja2 import Environment
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ImportError(
            f"a report in HTML needs {error.name}: pip install 'jaxopt_port[cli]'; "
            "a name that ends in .json needs nothing"
        ) from error
    page = _prepared(Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True))
    compared = _compared(report)
    return page.from_string(_asset("_page.html")).render(
        report=report,
        first=report.first,
        subtitle=subtitle(report),
        stages=[(stage, worst_leaf(stage)) for stage in compared],
        sections=[(stage, by_severity(stage.leaves)[:MOST_LEAVES]) for stage in compared],
        descriptions=STAGES,
        not_compared=not_compared(report),
        file_name=_file_name(report.name),
        css=_asset("_page.css"),
        js=_asset("_page.js"),
        plotly=get_plotlyjs(),
        raw=_in_script(report.to_json()),
        heat=_in_script({s.stage: heat_map(s) for s in compared if _has_steps(s)}),
    )


def _prepared(page: Environment) -> Environment:
    page.filters["number"] = number
    page.filters["exact"] = exact
    page.filters["sort_key"] = _sort_key
    page.filters["verdict"] = _verdict
    page.filters["breakable"] = _breakable
    return page


def _compared(report: Report) -> list[StageResult]:
    stages = (report.stages[name] for name in STAGES if name in report.stages)
    return [stage for stage in stages if stage.leaves and not stage.skipped]


def _has_steps(stage: StageResult) -> bool:
    return any(leaf.ulps for leaf in stage.leaves)


def _verdict(compared: StageResult | LeafResult) -> str:
    if isinstance(compared, StageResult):
        return stage_verdict(compared)
    return "same" if compared.ok else "differs"


def _sort_key(value: float) -> str:
    """A number that JavaScript's ``Number`` reads; NaN sorts as the worst."""
    return repr(float(value)) if math.isfinite(value) else "Infinity"


def _breakable(path: str) -> list[str]:
    """A path in parts after which a line may break."""
    return re.findall(r"[^/._]*[/._]?", path)[:-1] or [path]


def _file_name(name: str) -> str:
    return (re.sub(r"[^\w.-]+", "-", name).strip("-.") or "report") + ".json"


def _in_script(value: Any) -> str:
    """JSON that cannot end the ``<script>`` element it stands in."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
