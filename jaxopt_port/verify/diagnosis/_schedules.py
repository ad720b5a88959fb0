"""Names a learning rate that goes another way than torch's, step by step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from ..compare._report import Cause
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
    if all(lengths):
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
    """Return the length of a cosine from its peak to 0 of which these are steps."""
    # cos(w) of equal steps: (r[i-1] + r[i+1] - 2 c) / (2 (r[i] - c)), where c is half the peak.
    peak = max(rates)
    if (
        len(rates) < 3
        or not peak
        or same(rates[0], rates[-1], _SAME)
        or not same(rates[0], peak, _SAME)
    ):
        return None
    fall = 2 * rates[1] / peak - 1
    if not -1 < fall < 1:
        return None
    length = round(math.pi / math.acos(fall))
    if not 1 < length < _LONGEST:
        return None
    right = [peak * (1 + math.cos(math.pi * i / length)) / 2 for i in range(len(rates))]
    near = all(abs(a - b) <= 1e-4 * peak for a, b in zip(rates, right, strict=True))
    return length if near else None


def _slope(rates: Sequence[float]) -> float | None:
    steps = [b - a for a, b in itertools.pairwise(rates)]
    even = steps and max(steps) - min(steps) <= 1e-4 * max(map(abs, steps))
    return steps[0] if even and steps[0] else None


def _decay(rates: Sequence[float]) -> float | None:
    if not all(rates):
        return None
    factors = [b / a for a, b in itertools.pairwise(rates)]
    return factors[0] if max(factors) - min(factors) <= 1e-5 and not same(factors[0], 1.0) else None
