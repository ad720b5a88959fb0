"""The bounds of a verification run, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
from numpy.typing import NDArray

from ...numerics import relative, ulps


class Bound(NamedTuple):
    """A limit and why it is where it is."""

    limit: float
    reason: str


# Forward and gradient are sums of up to 25,088 products, which two frameworks add in different
# orders. Relative to the largest value of the tensor, in units of the dtype's epsilon. A gradient
# is judged by its median over the steps: where two inputs of a max pooling are equal but for
# rounding, either may take the gradient, and torch in float32 is then as far from torch in float64.
FORWARD = Bound(16, "two orders of summation: measured up to 5.7")
GRADIENT = Bound(64, "sums over a batch of 28×28 places: measured up to 22, in bfloat16 23")
# In float64 such ties do not occur: two free runs stay together, and every step counts.
# Measured: up to 9e-15 in 100 steps, 6.4e-11 in 1,000, whose last gradients are small.
EXACT = Bound(1e-9, "rounding of 1e-16, which training amplifies; a wrong formula is off by more")
SCHEDULE = Bound(0, "the same numbers by the same float64 operations: every bit must agree")
# Measured: up to 0.3% after 100 steps, 1.1% after 1,000 at momentum 0.9.
ACCURACY = Bound(0.02, "a tie broken the other way moves a few images across a class border")


class Judge(NamedTuple):
    """How parameters and buffers after a step are compared in a dtype.

    Attributes:
        distance: of two arrays.
        unit: of the distance.
        update: bound for torch's gradients fed to both optimizers.
        literal: bound for the literal Optax spelling against the CapWords one.
    """

    distance: Callable[[NDArray[Any], NDArray[Any]], float]
    unit: str
    update: Bound
    literal: Bound


def _epsilons(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    return relative(ours, theirs) / float(ml_dtypes.finfo(ours.dtype).eps)


_EVERY_BIT = Judge(
    ulps,
    "ulp",
    Bound(0, "torch's operations in torch's order: every bit must agree"),
    Bound(0, "the same rule under another spelling: every bit must agree"),
)

JUDGES = {
    "float32": _EVERY_BIT,
    "float64": _EVERY_BIT,
    "bfloat16": Judge(
        _epsilons,
        "ε",
        Bound(8, "torch rounds the last n % 32 elements twice, and momentum adds it up"),
        Bound(math.inf, "inject_hyperparams keeps the learning rate in bfloat16"),
    ),
}
