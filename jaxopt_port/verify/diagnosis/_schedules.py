"""Names a learning rate that goes another way than torch's, step by step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from ..report import Cause
from ._numbers import nice, same

_SAME = 1e-5
_LONGEST = 100_000


def another_schedule(
    mine: Sequence[float], torchs: Sequence[float], first: int, step: int
) -> Cause | None:
    """Return the cause of rates that explain your side's steps, and are not torch's.

    Args:
        mine: by step.
        torchs: likewise.
        first: the place in both of the first that differs.
        step: its step.
    """
    if len(mine) <= first + 1 or not all(math.isfinite(r) and r >= 0 for r in mine):
        return None
    rises = [b > a for a, b in itertools.pairwise(mine) if not same(a, b, _SAME)]
    if sum(a != b for a, b in itertools.pairwise(rises)) > 1:
        return None  # rates that only sum up something else jump about
    told = (
        f"at step {step} your side's learning rate is {nice(mine[first]):.6g}, torch's "
        f"{torchs[first]:.6g}"
    )
    lengths = [_cosine(_falling(rates)) for rates in (mine, torchs)]
    if all(lengths) and lengths[0] != lengths[1]:
        return Cause(
            "schedule-length",
            f"your side's cosine is {lengths[0]} steps long, torch's {lengths[1]}: {told}",
            "give decay_steps torch's T_max; a warm-up is part of Optax's decay_steps, and of "
            "torch's T_max it is not",
        )  # fmt: skip
    slopes = [_slope(rates) for rates in (mine, torchs)]
    if all(s is not None for s in slopes):
        return Cause(
            "schedule-length",
            f"your side's rate changes by {nice(slopes[0] or 0):.4g} a step, torch's by "
            f"{nice(slopes[1] or 0):.4g}: {told}",
            "give transition_steps torch's total_iters, and both the same ends",
        )  # fmt: skip
    decays = [_decay(rates) for rates in (mine, torchs)]
    if all(d is not None for d in decays):
        return Cause(
            "schedule", f"your side's rate is multiplied by {nice(decays[0] or 0):.6g} a step, "
            f"torch's by {nice(decays[1] or 0):.6g}: {told}",
            "give both the same factor, and the same steps between two of it",
        )  # fmt: skip
    return Cause(
        "schedule", f"your side's learning rate follows another schedule: {told}",
        "print both by step; compare length, warm-up, start, boundaries and the values there",
    )  # fmt: skip


def _falling(rates: Sequence[float]) -> Sequence[float]:
    """Return rates without those after the end, where they stay as they are."""
    last = len(rates)
    while last > 1 and rates[last - 1] == rates[last - 2]:
        last -= 1
    return rates[:last]


def _cosine(rates: Sequence[float]) -> int | None:
    """Return the length of a cosine, from its peak to its end, of which these are steps."""
    falling = np.array(rates[max(range(len(rates)), key=rates.__getitem__) :])
    if len(falling) < 5 or same(falling[0], falling[-1], _SAME):
        return None
    # Of equal steps w around a middle c: r[i-1] + r[i+1] = 2 cos(w) r[i] + 2 c (1 - cos(w)).
    inner, around = falling[1:-1], falling[:-2] + falling[2:]
    terms = np.stack([inner, np.full(len(inner), falling[0])], axis=1)
    (twice, rest), *_ = np.linalg.lstsq(terms, around, rcond=None)
    left = float(np.max(np.abs(terms @ (twice, rest) - around)))
    if not -1 < twice / 2 < 1 - 1e-9 or left > 1e-6 * float(falling[0] - falling[-1]):
        return None
    length = math.pi / math.acos(twice / 2)
    near = round(length)
    return near if 1 < near < _LONGEST and abs(length - near) <= 0.05 else None


def _slope(rates: Sequence[float]) -> float | None:
    steps = [b - a for a, b in itertools.pairwise(rates)]
    even = steps and max(steps) - min(steps) <= 1e-4 * max(map(abs, steps))
    return steps[0] if even and steps[0] else None


def _decay(rates: Sequence[float]) -> float | None:
    if not all(rates):
        return None
    factors = [b / a for a, b in itertools.pairwise(rates)]
    return factors[0] if max(factors) - min(factors) <= 1e-5 and not same(factors[0], 1.0) else None
