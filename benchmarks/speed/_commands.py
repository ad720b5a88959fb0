"""The commands about speed: ``run``, ``report``, ``compare`` and ``readme``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from .._terminal import console
from . import _figures, _tables
from ._results import FOLDER, Results, ResultsError, load
from ._run import SUITES, Run
from ._worker import WorkerError


def _speed(
    suites: list[str], quick: bool, add: Results | None, out: Path, printed: Console
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
        printed.print(_tables.suite_table(results, suite))
    for left in results.left_out:
        printed.print(f"left out: {left['contender']}, {left['case']}: {left['why']}", style="dim")
    printed.print(_tables.targets_table(results))
    printed.print(f"kept in {out}; python -m benchmarks report {out} draws it")


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    suites: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SUITE]...", help=f"Which to run: {', '.join(SUITES)}; all by default."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few cases and turns.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to keep the results (JSON).")
    ] = None,
    add: Annotated[
        bool, typer.Option("--add", help="Keep the other suites that --out already has.")
    ] = False,
) -> None:
    """Time this library beside torch and Optax, each in a process of its own, in turns.

    ``--quick`` takes two minutes; ``step train`` runs these two suites alone.
    """
    for name in suites or ():
        if name not in SUITES:
            raise typer.BadParameter(f"no suite {name!r}; they are {', '.join(SUITES)}")
    if out is not None and out.is_dir():
        raise typer.BadParameter(f"{out} is a folder; name a file")
    asked = [name for name in SUITES if not suites or name in suites]
    kept = out or FOLDER / "local" / ("quick.json" if quick else "latest.json")
    try:
        _speed(asked, quick, _loaded(kept) if add and kept.exists() else None, kept, console())
    except WorkerError as error:
        typer.echo(f"{error}", err=True)
        raise typer.Exit(3) from None


def _loaded(file: Path) -> Results:
    try:
        return load(file)
    except ResultsError as error:
        raise typer.BadParameter(str(error)) from None


_ResultsFile = Annotated[Path, typer.Argument(metavar="FILE", help="Results, as run keeps them.")]


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
    console().print(_tables.changes_table(found, every))
    worse = [c for c in found if c.beyond_noise and c.ratio > 1 and "jp" in c.new.contender]
    typer.echo(f"{len(found)} compared; of this library's, {len(worse)} slower beyond noise")
    if worse:
        raise typer.Exit(1)


def readme(
    file: _ResultsFile,
    gpu: Annotated[Path | None, typer.Option(help="Results from a GPU, for its column.")] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write it into README.md and docs.")
    ] = False,
) -> None:
    """Make the table of speed in README.md and docs/speed.md from files of results."""
    of_gpu = _loaded(gpu) if gpu else None
    if of_gpu and of_gpu.sides.get("jax", {}).get("platform") == "cpu":
        raise typer.BadParameter(f"{gpu} was measured on a CPU", param_hint="--gpu")
    results = _loaded(file)
    typer.echo(_tables.speed_table(results, of_gpu), nl=False)
    for path, text in _tables.with_tables(results, of_gpu).items() if write else ():
        path.write_text(text)
        typer.echo(f"written: {path}", err=True)


COMMANDS = (run, report, compare, readme)
