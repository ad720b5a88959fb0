"""A report in a terminal: the verdict first, then why, then the figures."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ...trees import listed
from ._report import Divergence, Report
from ._wording import (
    FIGURES,
    compared,
    exact,
    figures,
    not_compared,
    number,
    shortened,
    stage_verdict,
    subtitle,
    to_do,
)

# Of 80 columns: what the other columns of their table leave.
_LEAF_WIDTH = 34
_PATH_WIDTH = 60
_LEAVES_NAMED = 8
_STYLES = {"same": "green", "differs": "bold red"}


def render(report: Report) -> RenderableType:
    """Return the report as one renderable: verdict, cause, tables, notes.

    Example:
        >>> from jaxopt_port.verify.report import Curves, Report
        >>> from rich.console import Console
        >>> report = Report("mlp", 3, None, {}, Curves(), "float32", "Adam", {})
        >>> Console(width=80).print(render(report))  # doctest: +ELLIPSIS
        PASSED  mlp: the same training...
    """
    parts: list[RenderableType] = [*_verdict(report)]
    parts += _to_do(report)
    if report.first is not None:
        parts += _divergence(report.first)
    parts += _stages(report)
    parts += _notes(report)
    return Group(*parts)


def _verdict(report: Report) -> list[RenderableType]:
    first = report.first
    if first is None:
        line = Text.assemble(("PASSED", "bold green"), f"  {report.name}: the same training")
    else:
        line = Text.assemble(
            ("DIFFERS", "bold red"),
            f"  {report.name}: at ",
            (f"step {first.step}, {first.stage}", "bold"),
            " of ",
            (shortened(first.leaf, _PATH_WIDTH), "bold"),
        )
    return [line, Text(subtitle(report), style="dim"), Text()]


def _to_do(report: Report) -> list[RenderableType]:
    lines = to_do(report)
    if not lines:
        return []
    steps = Table.grid(padding=(0, 1, 0, 0))
    for number_, (place, what) in enumerate(lines, 1):
        steps.add_row(f"{number_}.", Group(Text(place, style="bold"), Text(what)))
    title = f"{len(lines)} faults in this run; mend them in this order"
    return [Text(title, style="bold"), steps, Text()]


def _divergence(first: Divergence) -> list[RenderableType]:
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="fold")
    cause, named = first.cause, [shortened(leaf, _PATH_WIDTH) for leaf in first.leaves]
    for term, text, style in (
        ("Difference", first.message, ""),
        ("No rounding", first.why_not_rounding, ""),
        ("Likely cause", cause.message, "bold") if cause else ("Likely cause", "none found", "dim"),
        ("To mend it", cause.remedy if cause else "", "bold"),
        ("Unexplained", f"{number(cause.unexplained)} of it" * (cause.unexplained > 0) if cause
         else "", ""),
        ("Here", first.leaf, ""),
        ("In torch", first.torch_name, ""),
        ("All leaves", listed(named, _LEAVES_NAMED) if len(named) > 1 else "", ""),
    ):  # fmt: skip
        if text:
            rows.add_row(term, Text(text, style=style))
    return [rows, Text(), *([_elements(first)] if first.elements else [])]


def _elements(first: Divergence) -> RenderableType:
    table = _table("element", right=("torch", "yours"))
    for element in first.elements:
        index = ", ".join(map(str, element.index))
        table.add_row(Text(f"[{index}]"), exact(element.torch), exact(element.yours))
    return _titled(f"Furthest apart in {shortened(first.leaf, _PATH_WIDTH)}", table)


def _stages(report: Report) -> list[RenderableType]:
    stages = compared(report)
    if not stages:
        return []
    verdicts = _table("stage", "verdict", right=("leaves", "steps"))
    verdicts.add_column("worst leaf", no_wrap=True)
    distances = _table("stage", right=FIGURES)
    for stage, worst in stages:
        verdict = stage_verdict(stage)
        counts = str(len(stage.leaves)), str(stage.steps)
        leaf = Text(shortened(worst.leaf, _LEAF_WIDTH))
        verdicts.add_row(stage.stage, Text(verdict, style=_STYLES[verdict]), *counts, leaf)
        distances.add_row(stage.stage, *figures(worst, 2))
    return [
        _titled("What was compared", verdicts),
        _titled("How far apart, in the worst leaf", distances),
    ]


def _table(*left: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in left:
        table.add_column(column, no_wrap=True)
    for column in right:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _titled(title: str, table: Table) -> RenderableType:
    return Group(Text(title, style="bold"), table)


def _notes(report: Report) -> list[RenderableType]:
    skipped = not_compared(report).items()
    lines = [f"Not compared: {', '.join(stages)}: {reason}" for reason, stages in skipped]
    rows = Table.grid(padding=(0, 1, 0, 0))
    for line in [*lines, *report.notes]:
        rows.add_row(Text("•", style="dim"), Text(line, style="dim"))
    return [rows] if rows.rows else []
