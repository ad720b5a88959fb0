"""What a file says, as a terminal may show it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markup import escape
from rich.segment import Segment

from .._printable import printable


def text(value: Any) -> str:
    """Return what a cell or a line of Rich shows as it stands: without markup, too."""
    return escape(printable(str(value)))


def say(text: str, err: bool = False) -> None:
    """Print a text without the control sequences that a name in it may carry."""
    typer.echo(printable(text), err=err)


@dataclass(frozen=True)
class _Harmless:
    """A table or a report whose words carry no control sequences."""

    shown: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.shown, options):
            yield Segment(printable(segment.text), segment.style, segment.control)


def show(shown: RenderableType) -> None:
    """Print a table or a report; a pipe or a log has no width of its own, and 92 are wanted."""
    Console(width=None if sys.stdout.isatty() else 100).print(_Harmless(shown), highlight=False)
