"""What the rates of a schedule show of its shape, and how two shapes differ."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ._numbers import SAME, nice, same

ANOTHER = "your side's learning rate follows another schedule"  # where its shape says no more
COMPARE = "print both by step; compare length, warm-up, start, boundaries and the values there"
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


def turns_of(rates: Sequence[float], tolerance: float = SAME) -> int:
    """Return how often rates turn: those that a schedule gives rise once, and fall, at most."""
    rises = [b > a for a, b in itertools.pairwise(rates) if not same(a, b, tolerance)]
    return sum(a != b for a, b in itertools.pairwise(rises))


def differences(
    mine: Sequence[float], torchs: Sequence[float], first: int, rising: Sequence[int | None]
) -> Iterator[tuple[str, str, str]]:
    """Yield what of two schedules' shapes differs, the surest first: name, words and remedy."""
    both, peak = (mine, torchs), peak_of(torchs)
    if all(rising) and rising[0] != rising[1]:
        yield (
            "schedule-length", f"your side's warm-up is {rising[0]} steps long, torch's "
            f"{rising[1]}", "give both the same steps of warm-up, counted from 0",
        )  # fmt: skip
    if all(rising) and not same(mine[0], torchs[0], EVEN):
        yield (
            "schedule", f"your side's warm-up starts at {nice(mine[0]):.4g}, torch's at "
            f"{torchs[0]:.4g}", "give init_value torch's start_factor times the rate",
        )  # fmt: skip
    cosines = [part for rates in both if (part := cosine_of(falling_of(rates)))]
    if len(cosines) == 2:
        (length, end), (torchs_length, torchs_end) = cosines
        if length != torchs_length:
            yield (
                "schedule-length", f"your side's cosine is {length} steps long, torch's "
                f"{torchs_length}",
                "give decay_steps torch's T_max; a warm-up is part of Optax's decay_steps, and of "
                "torch's T_max it is not",
            )  # fmt: skip
        if abs(end - torchs_end) > 1e-3 * torchs[peak]:
            yield (
                "schedule", f"your side's cosine ends at {end:.3g}, torch's at {torchs_end:.3g}",
                "give alpha (or end_value) torch's eta_min: alpha is a part of the rate, end_value "
                "is one",
            )  # fmt: skip
        if first - peak > length:
            mine_stays = torchs[first] > mine[first]
            who = ("torch's", "your side's") if mine_stays else ("yours", "torch's")
            yield (
                "schedule", f"after its {length} steps {who[0]} goes up again as a cosine does, "
                f"{who[1]} stays where it ended",
                "step torch's scheduler T_max times at most; or give your side "
                "jp.lr_scheduler.CosineAnnealingLR, which goes on as torch's",
            )  # fmt: skip
    slopes, decays = ([x for s in both if (x := of(s))] for of in (slope_of, decay_of))
    if len(slopes) == 2 and not same(slopes[0], slopes[1], EVEN):
        by = [f"{nice(slope):.4g}" for slope in slopes]
        yield (
            "schedule-length", f"your side's rate changes by {by[0]} a step, torch's by {by[1]}",
            "give transition_steps torch's total_iters, and both the same ends",
        )  # fmt: skip
    if len(decays) == 2 and not same(decays[0], decays[1], EVEN):
        by = [f"{nice(decay):.6g}" for decay in decays]
        yield (
            "schedule", f"your side's rate is multiplied by {by[0]} a step, torch's by {by[1]}",
            "give both the same factor, and the same steps between two of it",
        )  # fmt: skip
    stairs = [changes_of(rates) for rates in both]
    if all(0 < 3 * len(at) <= len(mine) for at in stairs):
        if stairs[0] == stairs[1]:
            at = next((i for i in stairs[0] if not same(mine[i], torchs[i], EVEN)), first)
            by = [f"{nice(x[at] / x[at - 1]) if x[at - 1] else 0.0:.6g}" for x in both]
            yield (
                "schedule", f"at step {at} your side's rate is multiplied by {by[0]}, torch's by "
                f"{by[1]}",
                "give both the same factors: optax.piecewise_constant_schedule multiplies by one "
                "after the other, and takes no rates",
            )  # fmt: skip
        every = [period_of(at) for at in stairs]
        if all(every):
            yield (
                "schedule-length", f"your side's rate changes every {every[0]} steps, torch's "
                f"every {every[1]}", "give transition_steps torch's step_size",
            )  # fmt: skip
        shown = [", ".join(map(str, at[:6])) + (", …" if at[6:] else "") for at in stairs]
        yield (
            "schedule", f"your side's rate changes at step {shown[0]}, torch's at {shown[1]}",
            "give both the same boundaries: torch's milestones, or each multiple of step_size",
        )  # fmt: skip
    yield "schedule", ANOTHER, COMPARE
