"""The commands that take a case file: verify, record, replay; and those that begin one."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, TimeRemainingColumn

from .._printable import printable
from ._frame import HtmlFile, JsonFile, counting, new, usage_errors, waiting, write_json
from ._shown import say, show

if TYPE_CHECKING:
    from ..verify import Report
    from ._case import Case

CaseFile = Annotated[Path, typer.Argument(metavar="CASE.py", help="The case file.")]
NewFile = Annotated[Path, typer.Argument(metavar="FILE", callback=new, help="The file to write.")]
Steps = Annotated[
    int | None,
    typer.Option(min=1, help="Steps to compare.", show_default="the case's STEPS, or all batches"),
]

_THEN = "looking for causes"


def verify_case(
    file: Path, *, steps: int | None, html: Path | None, json: Path | None, to_end: bool
) -> None:
    """Compare both sides of a case file, show the report, and exit."""
    with usage_errors():
        from ..verify import compare
        from ._case import load_case

        with waiting(f"reading {file.name}"):
            case = load_case(file)
            case.need("torch_side", "jax_side", "batches")
            assert case.jax_side is not None
            torch_side, jax_side = case.made_torch_side(), case.jax_side()
            batches, count = _batches(case, steps)
        with _progress(file.stem, _THEN) as progress:
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
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a trace that is there.")
    ] = False,
    json: JsonFile = None,
) -> None:
    """Record torch's side of a case, to be compared with JAX where torch is not installed.

    Example: jaxopt-port record case.py run.trace --budget "500 MB"

    Exit code 0: the trace is whole. 2: bad usage.
    """
    with usage_errors():
        from ..verify import recorder
        from ._case import load_case

        recorder.check_target(trace, overwrite)
        loaded = load_case(case)
        loaded.need("torch_side", "batches")
        batches, count = _batches(loaded, steps)
        with _progress(case.stem) as progress:
            recorder.record(
                trace, loaded.made_torch_side(), batches, steps=count, budget=budget,
                name=case.stem, overwrite=overwrite, progress=progress,
            )  # fmt: skip
    files = [file for file in trace.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    write_json(json, {"trace": trace, "files": len(files), "bytes": size})
    say(f"Written to {trace}. Next: jaxopt-port replay {trace} {case}")


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

    Example: jaxopt-port replay run.trace case.py --html report.html

    Exit code 0: the same training. 1: they differ, and the first place is named. 2: bad usage.
    """
    with usage_errors():
        from ..verify import replay as run
        from ._case import CaseError, load_case

        if trace.is_file():
            raise CaseError(
                f"{trace} is a file, and a trace is a folder; the order is: jaxopt-port replay "
                "TRACE CASE.py"
            )
        loaded = load_case(case)
        loaded.need("jax_side")
        assert loaded.jax_side is not None
        with _progress(case.stem, _THEN) as progress:
            report = run(
                trace, loaded.jax_side(), batches=loaded.batches and loaded.batches(),
                name=case.stem, allow_partial=partial, progress=progress, **loaded.options,
            )  # fmt: skip
        _show(report, html, json)


def new_case(file: NewFile, json: JsonFile = None) -> None:
    """Write a case file to begin with: a small network that passes, to be replaced by yours.

    Example: jaxopt-port new-case case.py

    Exit code 0: it is written. 2: bad usage; a file that is there is left as it is.
    """
    from ._case import TEMPLATE

    if file.suffix != ".py":
        raise typer.BadParameter(f"{file} is no Python file: name a file that ends in .py")
    with usage_errors():
        file.write_text(TEMPLATE.format(file=file.as_posix()), encoding="utf-8")
    write_json(json, {"file": file})
    say(f"Written to {file}. Next: jaxopt-port verify {file}")


def recorder(file: NewFile, json: JsonFile = None) -> None:
    """Write the recorder as one file, for an environment that has torch alone.

    Example: jaxopt-port recorder record.pyz

    There, `python record.pyz case.py run.trace` does what `jaxopt-port record` does.

    Exit code 0: it is written. 2: bad usage; a file that is there is left as it is.
    """
    with usage_errors(), zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__main__.py", "from recorder import main\n\nmain()\n")
        for part in sorted((Path(__file__).parents[1] / "verify" / "recorder").glob("*.py")):
            archive.writestr(f"recorder/{part.name}", part.read_text("utf-8"))
    write_json(json, {"file": file})
    say(f"Written to {file}. Next, where torch is: python {file} CASE.py run.trace")


def _batches(case: Case, steps: int | None) -> tuple[Iterable[Any], int | None]:
    assert case.batches is not None
    batches = case.batches()
    count = steps or case.steps
    if count is None and not hasattr(batches, "__len__"):
        from ._case import CaseError

        raise CaseError(f"{case.path} says nothing of how many steps: set STEPS, or use --steps")
    return batches, count


def _show(report: Report, html: Path | None, json: Path | None) -> None:
    from ..verify.report import render

    show(render(report))
    if html is not None:
        report.write(html)
        say(f"Written to {html}")
    write_json(json, report.to_json())
    if not report.ok:
        raise typer.Exit(1)


@contextmanager
def _progress(name: str, then: str = "") -> Iterator[Callable[[int, int], None]]:
    """Yield what shows the steps done of all, and what is done after the last one."""
    with counting(MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(printable(name), total=None)

        def show(done: int, steps: int) -> None:
            after = f", {then}" if then and done == steps else ""
            bar.update(task, completed=done, total=steps, description=printable(name + after))

        yield show
