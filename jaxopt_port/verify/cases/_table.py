"""A run of recipes as tables in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..report._terminal import render as render_report
from ._recipes import LOOP_RECIPES
from ._run import Run

Cell = Callable[[Mapping[str, Any]], str]


def _worst(name: str, form: str) -> Cell:
    return lambda columns: form.format(columns[name]["value"], columns["unit"])


def _number(name: str) -> Cell:
    return lambda columns: f"{columns[name]:.0e}"


def _pair(name: str, form: str, within: str = "") -> Cell:
    return lambda columns: "|".join(
        form.format(x) for x in (columns[within] if within else columns)[name]
    )


# Title, and a cell of each column.
_SAME_WEIGHTS: tuple[str, dict[str, Cell]] = (
    "On torch's weights",
    {
        "forward ¹": _worst("forward", "{:.1f} ε"),
        "gradient ¹": _worst("gradient", "{:.1f} ε"),
        "update ²": _worst("update_param", "{:.0f} {}"),
        "momentum ²": _worst("update_buffer", "{:.0f} {}"),
        "literal ³": _worst("literal_differs", "{:.0f} {}"),
    },
)
_ALONE: tuple[str, dict[str, Cell]] = (
    "Each side on its own",
    {
        "float64 ⁴": _worst("exact", "{:.0e}"),
        "drift ⁵": _number("drift"),
        "torch ⁶": _number("drift_torch"),
        "optax ⁷": _number("optax"),
        "loss": _pair("loss", "{:.3f}"),
        "accuracy": _pair("accuracy", "{:.1%}"),
    },
)
_CHANGE: tuple[str, dict[str, Cell]] = (
    "The change in mid-run",
    {
        "momentum before": _pair("momentum_before", "{:.3g}", "change"),
        "after": _pair("momentum_after", "{:.3g}", "change"),
        "loss before": _pair("loss_before", "{:.3g}", "change"),
        "peak after": _pair("loss_peak", "{:.3g}", "change"),
    },
)
_LOOP: tuple[str, dict[str, Cell]] = (
    "The loop around the step",
    {
        "learning rates, momenta ⁸": _worst("schedule", "{:.0e}"),
        "averages ⁹": _worst("averaged", "{:.1f} ε"),
    },
)

_NOTES = """\
Two numbers are torch|port.
1 in the worst step that was checked, over the largest value, in the dtype's
  epsilon ε; what rounding may leave is judged by the same step in float64
2 torch's own gradients fed to both optimizers, worst step: units in the last
  place; in bfloat16, and after clipping, as ¹
3 multi_transform of inject_hyperparams(jp.sgd) in a plain Optax loop against
  jp.SGD
4 both sides on their own in float64: parameters, worst step
5 distance of the port's parameters from torch's at the end, over their norm
6 the same of torch's from those of torch in float64
7 the same of optax.sgd's, fed with torch's gradients, from torch's"""
_LOOP_NOTES = """
8 of each step: relative difference, worst step
9 of parameters fed with torch's gradients, as ¹"""


def _table(of: tuple[str, dict[str, Cell]], rows: Iterable[Mapping[str, Any]]) -> Table:
    title, cells = of
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1)
    )
    table.add_column("recipe", no_wrap=True)
    for column in cells:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row["recipe"], *(cell(row) for cell in cells.values()))
    return table


def render(run: Run) -> RenderableType:
    """Return a run as one renderable: tables, notes, verdict, and the report of what differs."""
    shown = ("python", "jax", "optax", "flax", "torch", "numpy")
    versions = ", ".join(f"{name} {run.versions[name]}" for name in shown)
    head = (
        f"LeNet on handwritten digits: Flax {run.flax}, {run.dtype}, batches of "
        f"{run.batch_size}, seed {run.seed}\n{versions}\n"
    )
    rows = [result.columns() for result in run.results]
    changed = [row for row in rows if row["change"] is not None]
    loops = [row for row in rows if row["recipe"] in LOOP_RECIPES]
    parts: list[RenderableType] = [Text(head, style="dim")]
    parts += [_table(_SAME_WEIGHTS, rows), _table(_ALONE, rows)]
    parts += [_table(_CHANGE, changed)] if changed else []
    parts += [_table(_LOOP, loops)] if loops else []
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
