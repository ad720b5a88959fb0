"""The commands ``harness``, ``faults``, ``false-alarms``, ``verification`` and ``convert``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from .._spread import Spread
from .._terminal import bar, console

_Quick = Annotated[bool, typer.Option("--quick", help="Few turns.")]


def _show(name: str, measured: Mapping[str, Spread], base: str) -> None:
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
    console().print(table)


def convert(quick: _Quick = False) -> None:
    """Time the conversion of 1 GB of parameters with Adam's state, beside a copy of the bytes."""
    from . import _convert

    with console().status("measuring convert …"):
        measured = _convert.measure(quick)
    _show("convert", measured, "copy, synced")


def verification(quick: _Quick = False) -> None:
    """Time a verification beside the two plain runs that it compares, and take its memory."""
    from . import _verification

    with console().status("measuring verification …"):
        measured = _verification.measure(quick)
    _show("verification", measured, "both plain runs")


def faults() -> None:
    """Compare 124 trainings, each with a fault seeded into it, and print how many are found."""
    from . import _faults

    with bar() as shown:
        scored = list(shown.track(_faults.scores(), total=None, description="faults"))
    printed = Console(width=140)
    printed.print(_faults.table(scored))
    printed.print(_faults.summary(scored))


def false_alarms(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME", help="One of the networks; repeatable."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each run.")] = 20,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each run.")] = 200,
) -> None:
    """Compare trainings without a fault, and print what is found all the same (half an hour)."""
    from . import _faults

    runs, found, printed = _faults.matrix(seeds, model), 0, Console()
    with bar() as shown:
        for run in shown.track(runs, description="runs without a fault"):
            if said := _faults.alarm(*run, steps=steps):
                found += 1
                printed.print(f"{run}: {said}")
    printed.print(f"{len(runs)} runs of {steps} steps without a fault: {found} false alarms")


def harness(
    quick: _Quick = False,
    ports: Annotated[int, typer.Option(min=0, help="Right ports, drawn by a seed.")] = 600,
) -> None:
    """Print what the harness finds of all seeded and held-out faults, and in right ports.

    An hour and more; ``--quick`` leaves the first two tables of faults out, and takes 60 ports.
    """
    from . import _faults

    if not quick:
        faults()
    printed = Console(width=140)
    with bar() as shown:
        scored = list(shown.track(_faults.unseen(), total=None, description="held out"))
    for fault, told in scored:
        if not told.found or told.named < len(fault.causes) or told.wrong:
            printed.print(f"{fault.name}: {told.said}; it is {fault.causes}")
    printed.print(_faults.told_of(scored))
    count, alarms = min(ports, 60) if quick else ports, 0
    with bar() as shown:
        drawn = _faults.right_ports(count)
        for port, said in shown.track(drawn, total=count, description="right ports"):
            if said:
                alarms += 1
                printed.print(f"{tuple(port)}: {said}")
    printed.print(f"{count} right ports: {alarms} false alarms")


COMMANDS = {
    "harness": harness,
    "faults": faults,
    "false-alarms": false_alarms,
    "verification": verification,
    "convert": convert,
}
