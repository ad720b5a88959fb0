"""``python -m benchmarks``: medians of times with ratios from one run; distances from torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import compile as compiling
from . import convert, groups, imports, verification
from ._timing import Spread

# A suite, and the contender that the others are divided by.
SUITES: dict[str, tuple[Callable[[bool], dict[str, Spread]], str]] = {
    "groups": (groups.measure, "jp.SGD, 1 group"),
    "compile": (compiling.measure, "optax.adam"),
    "imports": (imports.measure, "import optax"),
    "convert": (convert.measure, "copy, synced"),
    "verification": (verification.measure, "both plain runs"),
}
PARITY = "parity"
FAULTS, ALARMS = "faults", "false-alarms"


def _console() -> Console:
    """Return one that is wide enough for a table in a file too."""
    return Console(width=None if sys.stdout.isatty() else 120)


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


def _timed(names: list[str], quick: bool, console: Console) -> None:
    for name in names:
        measure, base = SUITES[name]
        with console.status(f"measuring {name} …"):
            measured = measure(quick)
        _show(name, measured, base, console)


def _parity(optimizers: list[str], quick: bool, write: bool) -> None:
    """Measure, print the document and, if asked to, write it."""
    from . import _parity_document, parity
    from ._torch_table import configurations

    known = list(dict.fromkeys(configuration.optimizer for configuration in configurations()))
    for name in optimizers:
        if name not in known:
            raise typer.BadParameter(
                f"no optimizer {name!r}; torch's are {', '.join(known)}", param_hint="--optimizer"
            )
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("parity", total=None)

        def show(configuration: Any, done: int, total: int) -> None:
            text = f"{configuration.optimizer}({configuration})"
            bar.update(task, description=escape(text[:60]), completed=done, total=total)

        text = _parity_document.document(parity.measure(optimizers, quick, show))
    typer.echo(text, nl=False)
    if write:
        _parity_document.write(text)
        typer.echo(f"written: {_parity_document.DOCUMENT}", err=True)


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True)


def _faults(console: Console) -> None:
    """Compare every training with a seeded fault, and print the score."""
    from . import faults

    with _bar() as bar:
        scored = list(bar.track(faults.scores(), total=None, description="faults"))
    console.print(faults.table(scored))
    console.print(faults.summary(scored))


def _alarms(models: list[str] | None, seeds: int, steps: int, console: Console) -> None:
    """Compare trainings without a fault, and print what was found all the same."""
    from . import faults

    runs, found = faults.matrix(seeds, models), []
    with _bar() as bar:
        for run in bar.track(runs, description="runs without a fault"):
            if said := faults.alarm(*run, steps=steps):
                found.append(said)
                console.print(f"{run}: {said}")
    console.print(f"{len(runs)} runs of {steps} steps without a fault: {len(found)} false alarms")


def main(
    suites: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SUITE]...",
            help=f"Which to run: {', '.join(SUITES)} (all of these by default), or parity, faults, "
            "false-alarms.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer rounds; for parity, a tenth of the steps.")
    ] = False,
    optimizer: Annotated[
        list[str] | None,
        typer.Option(
            "--optimizer",
            metavar="NAME",
            help="For parity: torch's class, e.g. RMSprop; repeatable.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", metavar="NAME", help="For false-alarms: one of the networks; repeatable."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="For false-alarms: seeds of each run.")] = 20,
    steps: Annotated[int, typer.Option(min=1, help="For false-alarms: of each run.")] = 200,
    write: Annotated[
        bool, typer.Option("--write", help="For parity: also write it to docs/parity.md.")
    ] = False,
) -> None:
    """Measure this library beside its peers.

    The suites groups, compile, imports, convert and verification are about time. The suite parity
    is about numbers: in each configuration of torch's own table it takes 200 steps in torch, in
    this library and in plain Optax, and prints as Markdown how far they end apart, with the closest
    Optax code for each optimizer and the reasons. It takes minutes, so it runs only when it is
    named:

    python -m benchmarks parity --optimizer RMSprop

    The suites faults and false-alarms say what the verification harness finds: 124 trainings with a
    fault seeded into each, and 20 seeds of 48 trainings with none (half an hour).
    """
    known = (*SUITES, PARITY, FAULTS, ALARMS)
    for name in suites or ():
        if name not in known:
            raise typer.BadParameter(f"no suite {name!r}; they are {', '.join(known)}")
    asked = suites or list(SUITES)
    if (write or optimizer) and PARITY not in asked:
        raise typer.BadParameter("--write and --optimizer are for the suite parity: name it")
    if model and ALARMS not in asked:
        raise typer.BadParameter("--model is for the suite false-alarms: name it")
    if write and (quick or optimizer):
        raise typer.BadParameter("--write takes the whole run: no --quick, no --optimizer")
    _timed([name for name in asked if name in SUITES], quick, _console())
    if PARITY in asked:
        _parity(optimizer or [], quick, write)
    if FAULTS in asked:
        _faults(Console(width=140))
    if ALARMS in asked:
        _alarms(model, seeds, steps, Console())


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(main)
    app(prog_name="python -m benchmarks")
