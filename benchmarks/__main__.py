"""``python -m benchmarks``: times beside torch's and Optax's, distances, found faults."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import convert, verification
from ._timing import Spread
from .speed import _figures, _tables
from .speed._results import FOLDER, Results, ResultsError, load
from .speed._run import SUITES as SPEED
from .speed._run import Run
from .speed._worker import WorkerError

# A suite of times of its own, and the contender that the others are divided by.
OTHERS: dict[str, tuple[Callable[[bool], dict[str, Spread]], str]] = {
    "convert": (convert.measure, "copy, synced"),
    "verification": (verification.measure, "both plain runs"),
}
PARITY = "parity"
FAULTS, ALARMS, HARNESS = "faults", "false-alarms", "harness"


def _console() -> Console:
    """Return one that is wide enough for a table in a file too."""
    return Console(width=None if sys.stdout.isatty() else 150)


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
        measure, base = OTHERS[name]
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


def _harness(console: Console, quick: bool) -> None:
    """Print what the harness finds of both held-out kinds of fault, and in right ports."""
    from . import faults

    if not quick:
        _faults(console)
    with _bar() as bar:
        scored = list(bar.track(faults.unseen(), total=None, description="held out"))
    for fault, told in scored:
        if not told.found or told.named < len(fault.causes) or told.wrong:
            console.print(f"{fault.name}: {told.said}; it is {fault.causes}")
    console.print(faults.told_of(scored))
    most = 60 if quick else 10**6
    with _bar() as bar:
        ports = list(bar.track(faults.right_ports(most), total=None, description="right ports"))
    alarms = [(case, said) for case, said in ports if said]
    for case, said in alarms:
        console.print(f"{case}: {said}")
    console.print(f"{len(ports)} right ports: {len(alarms)} false alarms")


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


def _speed(
    suites: list[str], quick: bool, add: Results | None, out: Path, console: Console
) -> None:
    """Measure, keep, and print."""

    def whole(results: Results) -> Results:
        return results.with_suites_of(add) if add else results

    columns = (TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        command = "python -m benchmarks " + " ".join([*suites, *(["--quick"] if quick else [])])
        run = Run(
            *(suites, quick, _threads(), command),
            say=lambda text: bar.update(task, description=escape(text)),
            keep=lambda results: whole(results).save(out),
        )
        results = whole(run.measure())
        results.save(out)
    for suite in suites:
        console.print(_tables.suite_table(results, suite))
    for left in results.left_out:
        console.print(f"left out: {left['contender']}, {left['case']}: {left['why']}", style="dim")
    console.print(_tables.targets_table(results))
    console.print(f"kept in {out}; python -m benchmarks report {out} draws it")


class _RunByDefault(typer.core.TyperGroup):
    """``python -m benchmarks step`` is ``python -m benchmarks run step``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunByDefault,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Measure this library beside its peers. Without a command: run.",
)


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@app.command()
def run(
    suites: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SUITE]...",
            help=f"Which to run: {', '.join(SPEED)} (all of these by default); or "
            f"{', '.join(OTHERS)}, parity, faults, false-alarms, harness.",
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Few cases and turns; for parity, a tenth of the steps."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where to keep the results of the suites about speed (JSON)."),
    ] = None,
    add: Annotated[
        bool, typer.Option("--add", help="Keep the other suites that --out already has.")
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
    r"""Run suites.

    step, train, groups, dispatch, compile, memory and import time this library beside torch and
    Optax, each framework in a process of its own, in turns; the results are kept in a file. parity
    takes 200 steps in torch, here and in plain Optax, in each configuration of torch's own table,
    and prints as Markdown how far they end apart (minutes). faults and false-alarms say what the
    verification harness finds: 124 trainings with a fault seeded into each, and 20 seeds of 48
    trainings with none (half an hour). harness prints its figures: of those faults, of others that
    were held out, and of 2665 right ports (an hour and more; --quick: of 60). convert and
    verification time those two.

    \b
    python -m benchmarks --quick             two minutes
    python -m benchmarks step train          only these
    python -m benchmarks parity --optimizer RMSprop
    """
    known = (*SPEED, *OTHERS, PARITY, FAULTS, ALARMS, HARNESS)
    for name in suites or ():
        if name not in known:
            raise typer.BadParameter(f"no suite {name!r}; they are {', '.join(known)}")
    asked = suites or list(SPEED)
    speed = [name for name in SPEED if name in asked]
    if (write or optimizer) and PARITY not in asked:
        raise typer.BadParameter("--write and --optimizer are for the suite parity: name it")
    if model and ALARMS not in asked:
        raise typer.BadParameter("--model is for the suite false-alarms: name it")
    if write and (quick or optimizer):
        raise typer.BadParameter("--write takes the whole run: no --quick, no --optimizer")
    if out is not None and (out.is_dir() or not speed):
        raise typer.BadParameter(
            f"{out} is a folder; name a file" if speed else "--out is for the suites about speed"
        )
    if speed:
        kept = out or FOLDER / "local" / ("quick.json" if quick else "latest.json")
        try:
            _speed(speed, quick, _loaded(kept) if add else None, kept, _console())
        except WorkerError as error:
            typer.echo(f"{error}", err=True)
            raise typer.Exit(1) from None
    _timed([name for name in asked if name in OTHERS], quick, _console())
    if PARITY in asked:
        _parity(optimizer or [], quick, write)
    if FAULTS in asked:
        _faults(Console(width=140))
    if HARNESS in asked:
        _harness(Console(width=140), quick)
    if ALARMS in asked:
        _alarms(model, seeds, steps, Console())


def _loaded(file: Path) -> Results:
    try:
        return load(file)
    except ResultsError as error:
        raise typer.BadParameter(str(error)) from None


_ResultsFile = Annotated[Path, typer.Argument(metavar="FILE", help="Results, as run keeps them.")]


@app.command()
def report(
    file: _ResultsFile,
    html: Annotated[Path | None, typer.Option(help="The page; beside FILE by default.")] = None,
    png: Annotated[Path | None, typer.Option(help="The picture; beside FILE by default.")] = None,
) -> None:
    """Draw a file of results: a page to look into, and a picture."""
    results = _loaded(file)
    page, picture = html or file.with_suffix(".html"), png or file.with_suffix(".png")
    page.write_text(_figures.page(results))
    _figures.png(results, picture)
    typer.echo(f"written: {page}, {picture}")


@app.command()
def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="Results of before.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Results of now.")],
    every: Annotated[bool, typer.Option("--all", help="Also what has not changed.")] = False,
) -> None:
    """Compare two files of results; ends with 1 if this library has become slower.

    A change is one of more than a tenth where the quartiles do not meet. A machine that has become
    slower as a whole shows in torch's and Optax's figures too; only this library's decide.
    """
    before, after = _loaded(old), _loaded(new)
    for kind in ("processor", "threads"):
        if before.machine[kind] != after.machine[kind]:
            typer.echo(f"{kind}: {before.machine[kind]} against {after.machine[kind]}", err=True)
    found = _tables.changes(before, after)
    if not found:
        raise typer.BadParameter("the files have no measurement in common")
    _console().print(_tables.changes_table(found, every))
    worse = [c for c in found if c.beyond_noise and c.ratio > 1 and "jp" in c.new.contender]
    typer.echo(f"{len(found)} compared; of this library's, {len(worse)} slower beyond noise")
    if worse:
        raise typer.Exit(1)


@app.command()
def readme(
    file: _ResultsFile,
    gpu: Annotated[Path | None, typer.Option(help="Results from a GPU, for its column.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Write it into README.md.")] = False,
) -> None:
    """Make the README's table of speed from files of results."""
    table = _tables.readme_table(_loaded(file), _loaded(gpu) if gpu else None)
    typer.echo(table, nl=False)
    if write:
        text = _tables.in_readme(_tables.README.read_text(), table)
        _tables.README.write_text(text)
        typer.echo(f"written: {_tables.README}", err=True)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
