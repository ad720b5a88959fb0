"""What a file says, as a terminal may show it."""

from __future__ import annotations

from typing import Any

from rich.markup import escape


def printable(text: str) -> str:
    """Return text without the control sequences that a name in a file may carry to a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def text(value: Any) -> str:
    """Return what a cell or a line of Rich shows as it stands: without markup, too."""
    return escape(printable(str(value)))
