"""A run of recipes as tables in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..report import render as render_report
from ._recipes import LOOP_RECIPES
from ._run import Run

Row = Mapping[str, Any]


def _far(name: str) -> Callable[[Row], str]:
    return lambda row: f"{row[name]['value']:.0f} {row['unit']}"


def _pair(form: str, *names: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        for name in names:
            row = row[name]
        return "|".join(form.format(number) for number in row)

    return cell


# The title of each table, which recipes are in it, and its columns.
_TABLES: tuple[tuple[str, Callable[[Row], bool], dict[str, Callable[[Row], str]]], ...] = (
    (
        "On torch's weights",
        lambda row: True,
        {
            "forward ¹": lambda row: f"{row['forward']['value']:.1f} ε",
            "gradient ¹": lambda row: f"{row['gradient']['value']:.1f} ε",
            "update ²": _far("update_param"),
            "momentum ²": _far("update_buffer"),
            "literal ³": _far("literal_differs"),
        },
    ),
    (
        "Each side on its own",
        lambda row: True,
        {
            "float64 ⁴": lambda row: f"{row['exact']['value']:.0e}",
            "drift ⁵": lambda row: f"{row['drift']:.0e}",
            "torch ⁶": lambda row: f"{row['drift_torch']:.0e}",
            "optax ⁷": lambda row: f"{row['optax']:.0e}",
            "loss": _pair("{:.3f}", "loss"),
            "accuracy": _pair("{:.1%}", "accuracy"),
        },
    ),
    (
        "The change in mid-run",
        lambda row: row["change"] is not None,
        {
            "momentum before": _pair("{:.3g}", "change", "momentum_before"),
            "after": _pair("{:.3g}", "change", "momentum_after"),
            "loss before": _pair("{:.3g}", "change", "loss_before"),
            "peak after": _pair("{:.3g}", "change", "loss_peak"),
        },
    ),
    (
        "The loop around the step",
        lambda row: row["recipe"] in LOOP_RECIPES,
        {
            "learning rates, momenta ⁸": lambda row: f"{row['schedule']['value']:.0e}",
            "averages ⁹": _far("averaged"),
        },
    ),
)
_NOTES = """\
Two numbers are torch|port.
1 in the worst step, over the largest value, in the dtype's epsilon ε; judged
  by the same step in float64, since a tie in max pooling that rounding breaks
  sends a gradient either way (thousands of ε)
2 torch's own gradients, clipped, fed to both optimizers, worst step: units in
  the last place; in bfloat16 as ¹
3 multi_transform of inject_hyperparams(jp.sgd) in a plain Optax loop against
  jp.SGD
4 both sides on their own in float64: parameters, worst step
5 distance of the port's parameters from torch's at the end, over their norm
6 the same of torch's from those of torch in float64
7 the same of optax.sgd's, fed with torch's gradients, from torch's"""
_LOOP_NOTES = """
8 of each step: relative difference, worst step
9 of parameters fed with torch's gradients, as ²"""


def render(run: Run) -> RenderableType:
    """Return a run as one renderable: tables, notes, verdict, and the report of what differs."""
    shown = ("python", "jax", "optax", "flax", "torch", "numpy")
    versions = ", ".join(f"{name} {run.versions[name]}" for name in shown)
    head = (
        f"LeNet on handwritten digits: Flax {run.flax}, {run.dtype}, batches of "
        f"{run.batch_size}, seed {run.seed}\n{versions}\n"
    )
    parts: list[RenderableType] = [Text(head, style="dim")]
    rows = [result.columns() for result in run.results]
    for title, has, cells in _TABLES:
        table = Table(
            title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD,
            padding=(0, 1),
        )  # fmt: skip
        table.add_column("recipe", no_wrap=True)
        for column in cells:
            table.add_column(column, justify="right", no_wrap=True)
        for row in filter(has, rows):
            table.add_row(row["recipe"], *(cell(row) for cell in cells.values()))
        parts += [table] if table.rows else []
    loops = any(row["recipe"] in LOOP_RECIPES for row in rows)
    parts.append(Text(_NOTES + (_LOOP_NOTES if loops else ""), style="dim"))
    for result in run.results:
        parts += [Text(f"{result.recipe} warns: {w}", style="yellow") for w in result.warnings]
    parts.append(Text())
    if not run.failures:
        return Group(*parts, Text("PASSED: every bound holds", style="bold green"))
    parts += [render_report(result.report) for result in run.results if not result.report.ok]
    parts.append(Text("FAILED: the two sides do not train alike", style="bold red"))
    for recipe, found in run.failures:
        line = f"  {recipe}: {found.stage}, step {found.step}, {found.leaf}: {found.message}"
        parts.append(Text(line, style="red"))
    return Group(*parts)
