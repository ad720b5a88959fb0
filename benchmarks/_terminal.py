"""What the commands print on."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


def console() -> Console:
    """Return one that is wide enough for a table in a file too."""
    return Console(width=None if sys.stdout.isatty() else 150)


def bar() -> Progress:
    """Return a bar of progress, beside what is printed."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True)
