"""A report in a terminal: the verdict first, then why, then the figures."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ...trees import listed
from ._report import STAGES, Divergence, LeafResult, Report, StageResult
from ._wording import (
    exact,
    not_compared,
    number,
    shortened,
    stage_verdict,
    subtitle,
    to_do,
    worst_leaf,
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
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("Difference", Text(first.message))
    if first.why_not_rounding:
        facts.add_row("No rounding", Text(first.why_not_rounding))
    if first.cause is not None:
        facts.add_row("Likely cause", Text(first.cause.message, style="bold"))
        if first.cause.remedy:
            facts.add_row("To mend it", Text(first.cause.remedy, style="bold"))
        if first.cause.unexplained > 0:
            facts.add_row("Unexplained", Text(f"{number(first.cause.unexplained)} of it"))
    else:
        facts.add_row("Likely cause", Text("none found", style="dim"))
    facts.add_row("Here", Text(first.leaf))
    if first.torch_name:
        facts.add_row("In torch", Text(first.torch_name))
    if len(first.leaves) > 1:
        facts.add_row("All leaves", Text(_named(first.leaves)))
    parts: list[RenderableType] = [facts, Text()]
    if first.elements:
        parts.append(_elements(first))
    return parts


def _named(leaves: tuple[str, ...]) -> str:
    return listed([shortened(leaf, _PATH_WIDTH) for leaf in leaves], _LEAVES_NAMED)


def _elements(first: Divergence) -> RenderableType:
    table = _table("element", right=("torch", "yours"))
    for element in first.elements:
        index = ", ".join(map(str, element.index))
        table.add_row(Text(f"[{index}]"), exact(element.torch), exact(element.yours))
    return _titled(f"Furthest apart in {shortened(first.leaf, _PATH_WIDTH)}", table)


def _stages(report: Report) -> list[RenderableType]:
    compared = [
        (stage, worst)
        for name in STAGES
        if (stage := report.stages.get(name)) is not None and not stage.skipped
        if (worst := worst_leaf(stage)) is not None
    ]
    if not compared:
        return []
    return [
        _titled("What was compared", _verdicts(compared)),
        _titled("How far apart, in the worst leaf", _distances(compared)),
    ]


def _verdicts(compared: list[tuple[StageResult, LeafResult]]) -> Table:
    table = _table("stage", "verdict", right=("leaves", "steps"))
    table.add_column("worst leaf", no_wrap=True)
    for stage, worst in compared:
        verdict = stage_verdict(stage)
        table.add_row(
            stage.stage,
            Text(verdict, style=_STYLES[verdict]),
            str(len(stage.leaves)),
            str(stage.steps),
            Text(shortened(worst.leaf, _LEAF_WIDTH)),
        )
    return table


def _distances(compared: list[tuple[StageResult, LeafResult]]) -> Table:
    columns = ("ulps max", "99%", "mean", "relative", "absolute", "bound")
    table = _table("stage", right=columns)
    for stage, worst in compared:
        d = worst.worst
        ulps = (d.ulps_max, d.ulps_p99, d.ulps_mean)
        sizes = (d.relative, d.absolute, worst.bound)
        table.add_row(stage.stage, *(number(u) for u in ulps), *(number(size, 2) for size in sizes))
    return table


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
    lines = [
        f"Not compared: {', '.join(stages)}: {reason}"
        for reason, stages in not_compared(report).items()
    ]
    lines += report.notes
    return [_bullet(line) for line in lines]


def _bullet(line: str) -> Table:
    row = Table.grid(padding=(0, 1, 0, 0))
    row.add_row(Text("•", style="dim"), Text(line, style="dim"))
    return row
