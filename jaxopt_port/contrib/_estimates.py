"""Estimates of the rate: what D-Adaptation and Prodigy have in common.

``d`` is one float64 number for all groups, as are those that it is estimated from; ``k`` counts the
steps that found one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from ..engine import Problem, Scalars, Shared
from ..numerics.torch_ops import Scalar, rounded, widened
from ..optim import ranges
from . import _wide
from ._sums import total


def arguments(
    lr: Scalar, d0: Scalar, weight_decay: Scalar, growth_rate: Scalar = math.inf, **_: Any
) -> Iterator[Problem]:
    if not d0 > 0.0:
        yield Problem(f"Invalid d0 value: {d0}", "d0 must be > 0")
    yield from ranges.learning_rate(lr)
    if not growth_rate >= 1.0:
        yield Problem(f"Invalid growth_rate value: {growth_rate}", "growth_rate must be >= 1")
    yield from ranges.at_least_zero("weight_decay", weight_decay)


def epsilon(eps: Scalar) -> Iterator[Problem]:
    if not eps > 0.0:
        yield Problem(f"Invalid epsilon value: {eps}", "eps must be > 0")


def common(*names: str) -> tuple[str, ...]:
    """Return the names of what all groups have in common, of float64 numbers."""
    return ("k", *(part for name in names for part in _wide.names(name)))


def begun(d0: jax.Array, *names: str) -> Shared:
    """Return what is shared before the first step: the first estimate, and zeros."""
    held = {"k": 0, **_wide.kept("d", d0)}
    for name in names:
        held |= _wide.kept(name, 0.0)
    return held


def followed(shared: Shared, known: jax.Array, **numbers: jax.Array) -> Shared:
    """Return what is shared after a step, where that has found out anything."""
    held = {"k": shared["k"] + known.astype(jnp.int32)}
    for name, new in numbers.items():
        held |= _wide.kept(name, jnp.where(known, new, _wide.read(shared, name)))
    return held


def larger(x: jax.Array, y: jax.Array) -> jax.Array:
    """``max(x, y)``, in Python, where NaN is not larger than anything."""
    return jnp.where(y > x, y, x)


def smaller(x: jax.Array, y: jax.Array) -> jax.Array:
    """``min(x, y)``, likewise."""
    return jnp.where(y < x, y, x)


def raised(d: jax.Array, d_hat: jax.Array, growth_rate: Scalar) -> jax.Array:
    """Return the next estimate: what was found, but not less, nor more than the growth allows."""
    return larger(d, smaller(d_hat, d * growth_rate))


def ratio(x: jax.Array, y: Scalar, known: jax.Array) -> jax.Array:
    """Return ``x / y``, and something where it is not known."""
    return x / jnp.where(known, y, 1.0)


def of_moving(lr: jax.Array, **parts: jax.Array) -> Scalars:
    """Return what a parameter adds to the sums, and to those that `rate_of_all` takes.

    Nothing where its group has a rate of zero.
    """
    own = {**parts, "rates": lr, "rated": jnp.ones_like(lr)}
    return {name: jnp.where(lr > 0, part, 0.0) for name, part in own.items()}


def rate_of_all(lr: jax.Array, rates: Scalar, rated: Scalar) -> jax.Array:
    """Return the rate of all groups, of which some may have a rate of zero.

    Args:
        lr: the group's own.
        rates: the sum of those of all parameters.
        rated: how many of them are not zero.
    """
    return jnp.where(lr > 0, lr, rates / jnp.maximum(rated, 1.0))


def item(x: jax.Array) -> jax.Array:
    """``x.sum().item()``."""
    return rounded(total(x), x.dtype).astype(jnp.float64)


def dot(x: jax.Array, y: jax.Array) -> jax.Array:
    """``torch.dot(x.flatten(), y.flatten()).item()``."""
    return rounded(total(widened(x) * widened(y)), x.dtype).astype(jnp.float64)
