"""A report as tables in a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ._bounds import JUDGES
from ._recipes import LOOP_RECIPES
from ._results import RecipeResult, Report


def _head(title: str, *columns: str) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1)
    )
    table.add_column("recipe", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _same_weights(report: Report) -> Table:
    table = _head(
        "On torch's weights, step by step",
        "forward ¹",
        "gradient ¹",
        "update ²",
        "momentum ²",
        "literal ³",
    )
    unit = JUDGES[report.dtype].unit
    for r in report.results:
        table.add_row(
            r.recipe,
            f"{r.forward.value:.1f} ε",
            f"{r.gradient_median:.1f} ε",
            f"{r.update_param.value:.0f} {unit}",
            f"{r.update_buffer.value:.0f} {unit}",
            f"{r.literal_differs.value:.0f} {unit}",
        )
    return table


def _free_run(report: Report) -> Table:
    table = _head("Running free", "float64 ⁴", "drift ⁵", "torch ⁶", "optax ⁷", "loss", "accuracy")
    for r in report.results:
        table.add_row(
            r.recipe,
            f"{r.exact.value:.0e}",
            f"{r.drift:.0e}",
            f"{r.drift_torch:.0e}",
            f"{r.optax:.0e}",
            "{:.3f}|{:.3f}".format(*r.loss),
            "{:.1%}|{:.1%}".format(*r.accuracy),
        )
    return table


def _changes(results: list[RecipeResult]) -> Table:
    table = _head("The change in mid-run", "momentum before", "after", "loss before", "peak after")
    for r in results:
        if (c := r.change) is not None:
            norms = [c.momentum_before, c.momentum_after, c.loss_before, c.loss_peak]
            table.add_row(r.recipe, *(f"{theirs:.3g}|{ours:.3g}" for theirs, ours in norms))
    return table


def _loops(results: list[RecipeResult], unit: str) -> Table:
    table = _head("The loop around the step", "learning rates, momenta ⁸", "averages ⁹")
    for r in results:
        table.add_row(r.recipe, f"{r.schedule.value:.0e}", f"{r.averaged.value:.0f} {unit}")
    return table


_LOOP_NOTES = """
8 of each step, of the port fed with torch's gradients and of the one running
  free: relative difference, worst step
9 of parameters fed with torch's gradients, in the unit of ²"""

_NOTES = """\
Two numbers are torch|port.
1 difference over the largest value, in the dtype's epsilon ε: two orders of
  summation. Worst step for outputs; median for gradients, since a tie in max
  pooling that rounding decides may send a gradient either way
2 torch's own gradients fed to both optimizers: units in the last place, worst
  step
3 multi_transform of inject_hyperparams(jp.sgd) in a plain Optax loop against
  jp.SGD
4 both sides on their own in float64: outputs, gradients, parameters, worst step
5 distance of the port's parameters from torch's at the end, over their norm
6 the same of torch's from those of torch in float64
7 the same of optax.sgd's, fed with torch's gradients, from torch's"""


def render(report: Report) -> RenderableType:
    """Return the report as one renderable: tables, notes, verdict."""
    versions = ", ".join(f"{k} {v}" for k, v in report.versions.items() if k != "machine")
    parts: list[RenderableType] = [
        Text(
            f"LeNet on handwritten digits: Flax {report.flax}, {report.dtype}, batches of "
            f"{report.batch_size}, seed {report.seed}\n{versions}\n",
            style="dim",
        ),
        _same_weights(report),
        _free_run(report),
    ]
    changed = [result for result in report.results if result.change is not None]
    if changed:
        parts.append(_changes(changed))
    loops = [result for result in report.results if result.recipe in LOOP_RECIPES]
    if loops:
        parts.append(_loops(loops, JUDGES[report.dtype].unit))
    parts.append(Text(_NOTES + (_LOOP_NOTES if loops else ""), style="dim"))
    for result in report.results:
        parts += [Text(f"{result.recipe} warns: {w}", style="yellow") for w in result.warnings]
    parts.append(Text())
    if report.failures:
        parts.append(Text("FAILED: the two sides do not train alike", style="bold red"))
        parts += [Text(f"  {failure}", style="red") for failure in report.failures]
    else:
        parts.append(Text("PASSED: every bound holds", style="bold green"))
    return Group(*parts)
