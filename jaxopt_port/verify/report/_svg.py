"""The drawings of the HTML report: curves, and maps of leaves by steps, as SVG without scripts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from html import escape

from ._report import LeafResult, StageResult
from ._wording import by_severity, number, shortened

# More is neither seen nor worth the bytes.
MOST_COLUMNS = 80
MOST_LEAVES = 32
MOST_GROUPS = 8
_BUCKETS = 100  # of a curve, each with its least and its largest value

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 250, 76, 12, 10, 26
_NAMES, _ROW = 290, 18
# Units in the last place, in the lightest class, in the next, …
LEVELS = (0.0, 1.0, 10.0, 100.0, 1e4, 1e6)
_INFINITE = len(LEVELS) + 1


def curves(lines: Sequence[tuple[str, Sequence[float]]], label: str, zero: bool = False) -> str:
    """Return lines over steps, their class and values; "" where nothing is finite.

    Args:
        lines: classes of CSS, and values by step.
        label: what they are, for who cannot see them.
        zero: whether the axis begins at 0.
    """
    values = [v for _, line in lines for v in line if math.isfinite(v)]
    if not values:
        return ""
    steps = max(len(line) for _, line in lines)
    marks = _ticks(min(0.0, *values) if zero else min(values), max(values))
    low, high = marks[0], marks[-1]
    wide, high_px = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(step: float) -> float:
        return round(_LEFT + wide * step / max(1, steps - 1), 1)

    def y(value: float) -> float:
        return round(_TOP + high_px * (1 - (value - low) / (high - low)), 1)

    parts = [
        f'<path class="grid" d="M{_LEFT} {y(v)}h{wide}"/>'
        f'<text x="{_LEFT - 6}" y="{y(v) + 4}" text-anchor="end">{number(v, 4)}</text>'
        for v in marks
    ]
    parts += [
        f'<text x="{x(step)}" y="{_HEIGHT - 8}" text-anchor="middle">{step}</text>'
        for step in _steps_at(steps)
    ]
    for kind, line in lines:
        for run in _runs(line):
            if len(run) == 1:
                parts.append(f'<circle class="{kind}" cx="{x(run[0][0])}" cy="{y(run[0][1])}"/>')
            else:
                points = " ".join(f"{x(step)},{y(value)}" for step, value in run)
                parts.append(f'<polyline class="{kind}" points="{points}"/>')
    return _drawing(_WIDTH, _HEIGHT, label, "".join(parts))


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers, a few, around what is drawn."""
    apart = max(high - low, 1e-9 * max(abs(low), abs(high)), 1e-300)
    unit = 10.0 ** math.floor(math.log10(apart / 3))
    step = next(unit * m for m in (1, 2, 5, 10) if apart / (unit * m) <= 4)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * i for i in range(first, max(last, first + 1) + 1)]


def _steps_at(steps: int) -> list[int]:
    return sorted({round(i * (steps - 1) / 5) for i in range(6)})


def _runs(line: Sequence[float]) -> Iterator[list[tuple[int, float]]]:
    """Yield the parts of a line that are finite, of many points the least and the largest."""
    width = max(1, math.ceil(len(line) / _BUCKETS))
    points: list[tuple[int, float]] = []
    for start in range(0, len(line), width):
        held = [(i, line[i]) for i in range(start, min(start + width, len(line)))]
        if not all(math.isfinite(v) for _, v in held):
            points.append((start, math.nan))
        held = [(i, v) for i, v in held if math.isfinite(v)]
        if held:
            ends = {min(held, key=lambda p: p[1]), max(held, key=lambda p: p[1])}
            points += sorted({*ends, held[-1]} if start + width >= len(line) else ends)
    for finite, run in itertools.groupby(points, key=lambda p: math.isfinite(p[1])):
        if finite:
            yield list(run)


def heat_map(stage: StageResult, first: int | None) -> tuple[str, str]:
    """Return units in the last place by leaf and step, and what was left out, in words.

    Args:
        stage: of the report.
        first: the step of the first divergence, where it is of this stage.
    """
    leaves = by_severity([leaf for leaf in stage.leaves if leaf.ulps])[:MOST_LEAVES]
    columns = columns_of(leaves)
    width = max(map(len, columns))
    cell = (_WIDTH - _NAMES - _RIGHT) / len(columns)
    parts = []
    for row, leaf in enumerate(leaves):
        name = escape(shortened(leaf.leaf, 38)) + ("" if leaf.ok else " ✗")
        text = f'<text x="{_NAMES - 8}" y="{row * _ROW + 13}" text-anchor="end">{name}</text>'
        parts.append(f"<g><title>{escape(leaf.leaf)}</title>{text}</g>")
    cells: dict[int, list[str]] = {}
    for row, leaf in enumerate(leaves):
        at = 0
        for level, run in itertools.groupby(levels_of(leaf, columns)):
            n = len(list(run))
            if level is not None:
                cells.setdefault(level, []).append(f"M{at} {row}h{n}")
            at += n
    # Of units that are a column wide and a row high; a line as thick as a row makes the cells.
    scale = f'<g class="cells" transform="translate({_NAMES} {_ROW / 2}) scale({cell:.3f} {_ROW})">'
    filled = (f'<path class="u{level}" d="{"".join(d)}"/>' for level, d in sorted(cells.items()))
    parts += [scale, *filled, "</g>"]
    bottom = len(leaves) * _ROW
    for i in _steps_at(len(columns)):
        place = _NAMES + (i + 0.5) * cell
        parts.append(
            f'<text x="{place:.1f}" y="{bottom + 16}" text-anchor="middle">{columns[i][0]}</text>'
        )
    if first is not None:
        i = next((i for i, column in enumerate(columns) if column[-1] >= first), 0)
        parts.append(f'<path class="first" d="M{_NAMES + i * cell:.1f} 0v{bottom}"/>')
    said = []
    if len(leaves) < len(stage.leaves):
        said.append(f"The worst {len(leaves)} of {len(stage.leaves)} leaves, the worst first.")
    if width > 1:
        said.append(f"Each column is the largest of {width} compared steps.")
    label = f"Units in the last place at {stage.stage}, by leaf and step"
    return _drawing(_WIDTH, bottom + 24, label, "".join(parts)), " ".join(said)


def columns_of(leaves: Sequence[LeafResult]) -> list[list[int]]:
    """Return the steps that were compared, as many together as there is room for."""
    steps = sorted({step for leaf in leaves for step in leaf.ulps})
    width = math.ceil(len(steps) / MOST_COLUMNS)
    return [steps[i : i + width] for i in range(0, len(steps), width)]


def levels_of(leaf: LeafResult, columns: Sequence[Sequence[int]]) -> list[int | None]:
    """Return the class of each column: of its largest, None where nothing was compared."""
    return [_level([leaf.ulps[s] for s in column if s in leaf.ulps]) for column in columns]


def _level(values: Sequence[float]) -> int | None:
    if not values:
        return None
    if not all(map(math.isfinite, values)):
        return _INFINITE
    return sum(max(values) > bound for bound in LEVELS)


def _drawing(width: int, height: int, label: str, body: str) -> str:
    return (
        f'<div class="plot"><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label)}">{body}</svg></div>'
    )
