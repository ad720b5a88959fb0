"""What the rates of a schedule show of its shape: length, end, slope, factor, boundaries."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ._numbers import same

EVEN = 1e-5
_ROUND = 3e-7  # of the largest rate: a few roundings to float32
_LONGEST = 100_000


def falling_of(rates: Sequence[float]) -> Sequence[float]:
    """Return rates without those after the end, where they stay as they are."""
    last = len(rates)
    while last > 1 and rates[last - 1] == rates[last - 2]:
        last -= 1
    return rates[:last]


def cosine_of(rates: Sequence[float]) -> tuple[int, float] | None:
    """Return how long a cosine is, from its peak on, of which these are steps, and its end."""
    falling = np.array(rates[peak_of(rates) :])
    if len(falling) < 5 or same(falling[0], falling[-1], EVEN):
        return None
    # Most end at 0: then the last of these rates says the length, to less than a step or not.
    angle = math.acos(max(-1.0, 2 * falling[-1] / falling[0] - 1))
    near = round(math.pi * (len(falling) - 1) / angle)
    if [n for n in (near - 1, near, near + 1) if _is_cosine(falling, max(n, 1))] == [near]:
        return near, 0.0
    # Of equal steps w around a middle c: r[i-1] + r[i+1] = 2 cos(w) r[i] + 2 c (1 - cos(w)).
    inner, around = falling[1:-1], falling[:-2] + falling[2:]
    terms = np.stack([inner, np.full(len(inner), falling[0])], axis=1)
    (twice, rest), *_ = np.linalg.lstsq(terms, around, rcond=None)
    left = float(np.max(np.abs(terms @ (twice, rest) - around)))
    if not -1 < twice / 2 < 1 - 1e-9 or left > 1e-6 * float(falling[0] - falling[-1]):
        return None
    length = math.pi / math.acos(twice / 2)
    near, end = round(length), falling[0] * (rest / (1 - twice / 2) - 1)
    return (near, end) if 1 < near < _LONGEST and abs(length - near) <= 0.05 else None


def _is_cosine(falling: NDArray[np.float64], length: int) -> bool:
    angles = np.minimum(np.arange(len(falling)) / length, 1) * math.pi
    return bool(np.all(abs(falling[0] / 2 * (1 + np.cos(angles)) - falling) <= _ROUND * falling[0]))


def peak_of(rates: Sequence[float]) -> int:
    return max(range(len(rates)), key=rates.__getitem__)


def warm_up_of(rates: Sequence[float]) -> int | None:
    """Return how many steps a rate rises evenly before it goes on otherwise."""
    peak = peak_of(rates)
    even = 1 < peak < len(rates) - 1 and slope_of(rates[: peak + 1])
    return peak if even else None


def slope_of(rates: Sequence[float]) -> float | None:
    """Return by how much rates change each step, where that is always as much."""
    step = (rates[-1] - rates[0]) / (len(rates) - 1)
    off = max(abs(rates[0] + step * i - rate) for i, rate in enumerate(rates))
    largest = max(map(abs, rates))
    even = off <= max(1e-3 * abs(step), _ROUND * largest)
    return step if even and abs(rates[-1] - rates[0]) > EVEN * largest else None


def decay_of(rates: Sequence[float]) -> float | None:
    if not all(rates):
        return None
    factors = [b / a for a, b in itertools.pairwise(rates)]
    return factors[0] if max(factors) - min(factors) <= 1e-5 and not same(factors[0], 1.0) else None


def changes_of(rates: Sequence[float]) -> list[int]:
    return [i for i in range(1, len(rates)) if not same(rates[i], rates[i - 1])]


def period_of(changes: Sequence[int]) -> int | None:
    """Return after how many steps something changes, where that is always as many."""
    gaps = {b - a for a, b in itertools.pairwise([0, *changes])}
    return gaps.pop() if len(gaps) == 1 and len(changes) > 1 else None
