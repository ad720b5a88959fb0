"""``python -m benchmarks``: run suites and print medians, with ratios taken in the same run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from . import groups, imports
from ._timing import Spread

# A suite, and the contender that the others are divided by.
SUITES: dict[str, tuple[Callable[[bool], dict[str, Spread]], str]] = {
    "groups": (groups.measure, "jp.SGD, 1 group"),
    "imports": (imports.measure, "import optax"),
}


def _show(name: str, measured: dict[str, Spread], base: str, console: Console) -> None:
    table = Table(title=f"{name} (ratios to {base})", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("contender", no_wrap=True)
    for column in ("median", "quartiles", "ratio"):
        table.add_column(column, justify="right", no_wrap=True)
    for contender, (median, low, high) in measured.items():
        table.add_row(
            contender,
            f"{median * 1e3:.3f} ms",
            f"{low * 1e3:.3f} to {high * 1e3:.3f}",
            f"{median / measured[base].median:.2f}",
        )
    console.print(table)


def main(
    suites: Annotated[
        list[str] | None, typer.Argument(help=f"Which to run: {', '.join(SUITES)}. All by default.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds.")] = False,
) -> None:
    """Measure this library beside its peers."""
    console = Console()
    for name in suites or SUITES:
        if name not in SUITES:
            raise typer.BadParameter(f"no suite {name!r}; the suites are {', '.join(SUITES)}")
        measure, base = SUITES[name]
        with console.status(f"measuring {name} …"):
            measured = measure(quick)
        _show(name, measured, base, console)


if __name__ == "__main__":
    typer.run(main)
