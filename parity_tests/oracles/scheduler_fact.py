"""What a fact of torch's own scheduler tests is, and the formulas that facts are made of."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# Of the initial rate and the step.
Formula = Callable[[float, int], float]
LRS = (0.05, 0.5)


@dataclass(frozen=True)
class Fact:
    """Torch's expectation.

    Attributes:
        make: the schedulers, given this library's module.
        lr: ``lr(initial, step)`` of a group; a tuple of two where the groups differ.
        momentum: the same of the momentum (or the first beta), or None where it does not move.
        steps: how many.
        lrs: the groups' rates.
        told: what each step is told: metrics, of which a plateau alone is told, or epochs.
        optimizer: ``SGD`` or ``Adam``.
    """

    make: Callable[[Any], Any]
    lr: Formula | tuple[Formula, Formula]
    momentum: Formula | tuple[Formula, Formula] | None = None
    steps: int = 10
    lrs: tuple[Any, Any] = LRS
    told: Sequence[float] | None = None
    optimizer: str = "SGD"


def passed(milestones: Sequence[int], i: int) -> int:
    return sum(i >= milestone for milestone in milestones)


def cosine(lr: float, i: float, length: float, floor: float = 1e-10) -> float:
    return floor + (lr - floor) * (1 + math.cos(math.pi * i / length)) / 2


def linear(i: int, start: float, end: float, length: int) -> float:
    return start + (end - start) * min(i, length) / length


def step(lr: float, i: int) -> float:
    return lr * 0.1 ** (i // 3)


def multistep(lr: float, i: int) -> float:
    return lr * 0.1 ** passed([2, 5, 9], i)


def restarted(i: float, first: int, factor: int) -> tuple[float, int]:
    """The epoch within its period, and the period's length."""
    while i >= first:
        i, first = i - first, first * factor
    return i, first


def height(i: int, up: int, down: int) -> float:
    at = i % (up + down)
    return at / up if at <= up else 1 - (at - up) / down


def between(points: Sequence[tuple[int, float]], i: int, turn: Callable[[float], float]) -> float:
    """What lies between given points, (step, value), on lines that ``turn`` bends."""
    for (a, low), (b, high) in itertools.pairwise(points):
        if i <= b:
            return low + (high - low) * turn((i - a) / (b - a))
    raise AssertionError("beyond the last point")


def straight(x: float) -> float:
    return x


def bent(x: float) -> float:
    return (1 - math.cos(math.pi * x)) / 2


def cyclic(
    scale: Callable[[int], float], up: int = 4, down: int = 4, low: float = 1, high: float = 5
) -> Formula:
    return lambda _, i: low + (high - low) * height(i, up, down) * scale(i)


def momentum_of(of_lr: Formula, low: float = 1, high: float = 5) -> Formula:
    return lambda lr, i: low + high - of_lr(lr, i)


def reduced(*after: int) -> Formula:
    """A tenth from each of these steps on; a metric is told before the first one is read."""
    return lambda lr, i: lr * 0.1 ** passed([step + 1 for step in after], i)


def annealed(
    lr: float, swa_lr: float, i: int, length: int, turn: Callable[[float], float]
) -> float:
    """0.9 to the power of the step for five steps, then to ``swa_lr`` in ``length`` more."""
    part = turn(min(max(i - 5, 0), length) / length)
    return lr * 0.9 ** min(i, 5) * (1 - part) + swa_lr * part
