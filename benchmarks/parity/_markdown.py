"""Distances, tables and paragraphs as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import numpy as np

from ._measure import Distance

ANOTHER_ALGORITHM = 1e-3  # a relative distance that no rounding explains


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose others are numbers."""
    all_lines = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in all_lines)


def in_units(units: float) -> str:
    """Return a distance in units in the last place."""
    if units == 0:
        return "0"
    if not np.isfinite(units):
        return "∞"
    if units < 9.95:
        return f"{max(units, 0.1):.1f}".removesuffix(".0")
    return (
        f"{units:.0f}" if units < 9_999.5 else f"{units:.0e}".replace("e+0", "e").replace("e+", "e")
    )


def in_parts(relative: float) -> str:
    """Return a relative distance, in bold where it is another algorithm's."""
    if relative == 0:
        return "0"
    if relative < ANOTHER_ALGORITHM:
        return f"{relative:.0e}".replace("e-0", "e-")
    return f"**{100 * relative:.2g} %**" if relative < 1 else f"**{100 * relative:.0f} %**"


def both(distance: Distance) -> str:
    """Return a distance in both measures."""
    if distance.units == 0:
        return "0"
    return f"{in_units(distance.units)} ({in_parts(distance.relative)})"


def brief(distance: Distance) -> str:
    """Return a distance, in parts alone where units say nothing any more."""
    far = distance.relative >= ANOTHER_ALGORITHM
    return in_parts(distance.relative) if far else both(distance)


def filled(text: str) -> str:
    """Break the lines of paragraphs and list items."""
    return "\n".join(
        textwrap.fill(
            line,
            100,
            subsequent_indent="  " * line.startswith("- "),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in text.splitlines()
    )
