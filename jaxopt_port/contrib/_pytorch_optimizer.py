"""What pytorch_optimizer's optimizers have in common: ranges, in its words, and weight decay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax

from ..engine import Problem
from ..numerics.torch_ops import Scalar


def learning_rate(lr: Scalar) -> Iterator[Problem]:
    if not lr >= 0.0:
        yield Problem(f"learning rate must be positive. ({lr} > 0)", "lr must be >= 0")


def at_least_zero(name: str, value: Scalar) -> Iterator[Problem]:
    if not value >= 0.0:
        yield Problem(f"{name} must be non-negative", f"got {value}")


def decays(betas: Sequence[Scalar]) -> Iterator[Problem]:
    """Yield the problems of betas; the third may be 1."""
    for i, beta in enumerate(betas, 1):
        if not (0.0 <= beta < 1.0 or (i == 3 and beta == 1.0)):
            end = "]" if i == 3 else ")"
            yield Problem(f"beta{i} must be in the range [0.0, 1.0{end}", f"got {beta}")


def shrinking(lr: jax.Array, weight_decay: jax.Array, fixed_decay: bool) -> jax.Array:
    """Return what decoupled weight decay multiplies a parameter by, in float64."""
    return 1 - weight_decay * (1.0 if fixed_decay else lr)
