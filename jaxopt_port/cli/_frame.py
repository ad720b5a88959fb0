"""What holds for every command: exit codes, errors in one line, files to write, a sign of life."""

from __future__ import annotations

import json
import os
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from typer.core import TyperGroup

from .._printable import printable
from ._shown import say

USAGE, FAULT = 2, 3  # 0: it is done, or the same; 1: they differ, a bound is broken
_TRACEBACK = "JAXOPT_PORT_TRACEBACK"
_PACKAGE = Path(__file__).parents[1]

EXTRAS = "pip install 'jaxopt-port[verify]'"
# What bad input raises, and what a machine that lacks something does.
USERS = (ValueError, TypeError, OSError, ImportError)


class Commands(TyperGroup):
    """A group of commands in which an error is a line and an exit code, whatever raises it."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if hasattr(error, "format_message"):  # of the command line itself: usage
                error.message = printable(error.message)  # type: ignore[attr-defined]
                raise
            _show_fault(error, f"{ctx.info_name} {ctx.invoked_subcommand or ''}".strip())
            raise typer.Exit(FAULT) from None


def _show_fault(error: BaseException, command: str) -> None:
    if os.environ.get(_TRACEBACK):
        say("".join(traceback.format_exception(error)), err=True)
    at = traceback.extract_tb(error.__traceback__)[-1]
    words = " ".join(str(error).split())
    say(
        f"{command}: a fault of jaxopt_port, not of what it was given: {type(error).__name__}: "
        f"{words} ({Path(at.filename).name}:{at.lineno}); {_TRACEBACK}=1 shows where it comes from",
        err=True,
    )


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show on a terminal that something goes on, where nothing can be counted."""
    with Console(stderr=True).status(printable(what)):
        yield


def counting(*columns: ProgressColumn) -> Progress:
    """Return bars of what can be counted, to be shown on a terminal while it goes on."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), *columns,
        console=Console(stderr=True), transient=True,
    )  # fmt: skip


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn errors of what was given into exit code 2, with what they say.

    Of an error that a case's own code leads to, and of one that another package raises for what it
    was given, where it is matters; any other is a fault of this package.
    """
    try:
        yield
    except (typer.Exit, typer.BadParameter):
        raise
    except ImportError as error:
        say(f"{error}; this command needs: {EXTRAS}", err=True)
        raise typer.Exit(USAGE) from None
    except SystemExit as error:
        say(f"the process was ended by the code that it ran: exit code {error.code}", err=True)
        raise typer.Exit(USAGE) from None
    except Exception as error:
        if isinstance(error, USERS) and _is_ours(error):
            say("\n".join([f"Error: {error}", *getattr(error, "__notes__", [])]), err=True)
        elif isinstance(error, SyntaxError) and _is_of_a_case(error):
            say("".join(traceback.format_exception_only(error)).rstrip(), err=True)
        elif isinstance(error, USERS) or _is_of_a_case(error):
            say("".join(traceback.format_exception(error)).rstrip(), err=True)
        else:
            raise
        raise typer.Exit(USAGE) from None


def _is_ours(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    # Of a file: pathlib, open and others raise for us.
    return isinstance(error, OSError) or Path(frames[-1].filename).is_relative_to(_PACKAGE)


def _is_of_a_case(error: BaseException) -> bool:
    """Whether code that is neither ours nor installed has led to it."""
    installed = [_PACKAGE, *(Path(path) for path in sysconfig.get_paths().values())]
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):  # which no line of the case has raised
        files.append(Path(error.filename or ""))
    return any(
        file.is_file() and not any(file.is_relative_to(path) for path in installed)
        for file in files
    )


def target(file: Path | None) -> Path | None:
    """Return a file to write, if it can be written."""
    if file is None:
        return None
    if not file.parent.is_dir():
        raise typer.BadParameter(f"the folder {file.parent} does not exist")
    if file.is_dir():
        raise typer.BadParameter(f"{file} is a folder; name a file")
    if not os.access(file.parent, os.W_OK):
        raise typer.BadParameter(f"the folder {file.parent} cannot be written to")
    return file


def new(file: Path) -> Path:
    """Return a file to write, if it can be written and there is none yet."""
    target(file)
    if file.exists():
        raise typer.BadParameter(f"{file} is there already; name another file")
    return file


JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", callback=target, help="Write what is said as JSON."),
]
HtmlFile = Annotated[
    Path | None,
    typer.Option(
        "--html", metavar="FILE", callback=target, help="Write the report as one HTML file."
    ),
]


def write_json(file: Path | None, facts: Mapping[str, Any]) -> None:
    """Write facts, if a file was asked for: a number that is not finite is a text."""
    if file is not None:
        from ..verify.report import plain

        text = json.dumps(plain(facts), indent=1, ensure_ascii=False, allow_nan=False)
        file.write_text(text + "\n", encoding="utf-8")
        say(f"Written to {file}")
