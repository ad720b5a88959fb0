"""The commands that take a case file: verify, record, replay; and those that begin one."""

from __future__ import annotations

import os
import traceback
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from ..verify import Report
    from ..verify._case import Case


def target_of(file: Path | None) -> Path | None:
    """Return a file that can be written; it is known before a long run."""
    if file is not None and not file.parent.is_dir():
        raise typer.BadParameter(f"the folder {file.parent} does not exist")
    if file is not None and file.is_dir():
        raise typer.BadParameter(f"{file} is a folder; name a file")
    if file is not None and not os.access(file.parent, os.W_OK):
        raise typer.BadParameter(f"the folder {file.parent} cannot be written to")
    return file


CaseFile = Annotated[Path, typer.Argument(metavar="CASE.py", help="The case file.")]
HtmlFile = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", callback=target_of, help="Write the report as HTML."),
]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", callback=target_of, help="Write all that was measured."),
]
Steps = Annotated[
    int | None,
    typer.Option(min=1, help="Steps to compare.", show_default="the case's STEPS, or all batches"),
]


def verify_case(
    file: Path, *, steps: int | None, html: Path | None, json: Path | None, to_end: bool
) -> None:
    """Compare both sides of a case file, show the report, and exit."""
    with _usage_errors(file):
        from ..verify import compare
        from ..verify._case import load_case

        case = load_case(file)
        case.need("torch_side", "jax_side", "batches")
        assert case.jax_side is not None
        torch_side, jax_side = case.made_torch_side(), case.jax_side()
        batches, count = _batches(case, steps)
        with _progress(file.stem) as progress:
            report = compare(
                torch_side, jax_side, batches, steps=count, name=file.stem, stop=not to_end,
                progress=progress, **case.options, **case.compared,
            )  # fmt: skip
    _show(report, html, json)


def record(
    case: CaseFile,
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="The folder to write.")],
    steps: Steps = None,
    budget: Annotated[
        str, typer.Option(help="What the trace may take: 500 MB, 2 GB; what does not fit is left.")
    ] = "2 GB",
    overwrite: Annotated[bool, typer.Option(help="Replace a trace that is there.")] = False,
) -> None:
    """Record torch's side of a case, to be compared with JAX where torch is not installed.

    Exit code 0: the trace is whole. 2: bad usage.
    """
    with _usage_errors(case):
        from ..verify import recorder
        from ..verify._case import load_case

        loaded = load_case(case)
        loaded.need("torch_side", "batches")
        batches, count = _batches(loaded, steps)
        with _progress(case.stem) as progress:
            recorder.record(
                trace, loaded.made_torch_side(), batches, steps=count, budget=budget,
                name=case.stem, overwrite=overwrite, progress=progress,
            )  # fmt: skip
    typer.echo(f"Written to {trace}. Next: jaxopt-port replay {trace} {case}")


def replay(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="The folder of the trace.")],
    case: CaseFile,
    html: HtmlFile = None,
    json: JsonFile = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Compare what there is of a recording cut short.")
    ] = False,
) -> None:
    """Compare the JAX side of a case with a trace of torch's; torch is not needed.

    Exit code 0: the same training. 1: they differ, and the first place is named. 2: bad usage.
    """
    with _usage_errors(case):
        from ..verify import replay as run
        from ..verify._case import load_case

        loaded = load_case(case)
        loaded.need("jax_side")
        assert loaded.jax_side is not None
        with _progress(case.stem) as progress:
            report = run(
                trace, loaded.jax_side(), batches=loaded.batches and loaded.batches(),
                name=case.stem, allow_partial=partial, progress=progress, **loaded.options,
            )  # fmt: skip
    _show(report, html, json)


def new_case(
    file: Annotated[Path, typer.Argument(metavar="FILE.py", help="The file to write.")],
) -> None:
    """Write a case file to begin with: a small network that passes, to be replaced by yours."""
    from ..verify._case import TEMPLATE

    if file.suffix != ".py":
        raise typer.BadParameter(f"{file} is no Python file: name a file that ends in .py")
    if file.exists():
        raise typer.BadParameter(f"{file} is there already; name another file")
    if not file.parent.is_dir():
        raise typer.BadParameter(f"the folder {file.parent} does not exist")
    file.write_text(TEMPLATE.format(file=file), encoding="utf-8")
    typer.echo(f"Written to {file}. Next: jaxopt-port verify {file}")


def recorder(
    file: Annotated[Path, typer.Argument(metavar="FILE.pyz", help="The file to write.")],
) -> None:
    """Write the recorder as one file, for an environment that has torch alone.

    There, `python FILE.pyz CASE.py TRACE` does what `jaxopt-port record` does.
    """
    if file.exists():
        raise typer.BadParameter(f"{file} is there already; name another file")
    if not file.parent.is_dir():
        raise typer.BadParameter(f"the folder {file.parent} does not exist")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__main__.py", "from recorder import main\n\nmain()\n")
        for part in sorted((Path(__file__).parents[1] / "verify" / "recorder").glob("*.py")):
            archive.write(part, f"recorder/{part.name}")
    typer.echo(f"Written to {file}. Next, where torch is: python {file} CASE.py run.trace")


def _batches(case: Case, steps: int | None) -> tuple[Iterable[Any], int | None]:
    assert case.batches is not None
    batches = case.batches()
    count = steps or case.steps
    if count is None and not hasattr(batches, "__len__"):
        from ..verify._case import CaseError

        raise CaseError(f"{case.path} says nothing of how many steps: set STEPS, or use --steps")
    return batches, count


def _show(report: Report, html: Path | None, json: Path | None) -> None:
    import sys

    from ..verify.report._terminal import render

    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(render(report))
    for file in (html, json):
        if file is not None:
            report.write(file)
            console.print(f"Written to {file}")
    if not report.ok:
        raise typer.Exit(1)


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None]]:
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    with bar:
        task = bar.add_task(name, total=None)
        yield lambda done, steps: bar.update(task, completed=done, total=steps)


@contextmanager
def _usage_errors(case: Path) -> Iterator[None]:
    """Turn errors of what was given into exit code 2, with what they say."""
    try:
        yield
    except ImportError as error:
        typer.echo(f"{error}; this command needs: pip install 'jaxopt-port[verify]'", err=True)
        raise typer.Exit(2) from None
    except (ValueError, TypeError, OSError) as error:
        if not _is_ours(error):
            traceback.print_exception(error)  # of the case's own code: where it is, matters
        else:
            typer.echo("\n".join([str(error), *getattr(error, "__notes__", [])]), err=True)
        raise typer.Exit(2) from None
    except Exception as error:
        places = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        if not any(Path(place).resolve() == case.resolve() for place in places):
            raise
        traceback.print_exception(error)
        raise typer.Exit(2) from None


def _is_ours(error: BaseException) -> bool:
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    return Path(last).is_relative_to(Path(__file__).parents[1])
