"""Norms and means of whole arrays.

They are added up in float64. XLA on the CPU adds float32 one after the other, and is five units in
the last place off for 360 elements, where torch, which adds in vectors, is two.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ..numerics.torch_ops import Scalar, div, rounded, widened


def total(x: jax.Array, axis: int | None = None, keepdims: bool = False) -> jax.Array:
    """Return a sum in the type computed in."""
    wide = widened(x)
    added: jax.Array = jnp.sum(wide.astype(jnp.float64), axis=axis, keepdims=keepdims)
    return added.astype(wide.dtype)


def norm(x: jax.Array) -> jax.Array:
    """``x.norm(2)``."""
    wide = widened(x).astype(jnp.float64)
    return rounded(jnp.sqrt(jnp.sum(wide * wide)).astype(widened(x).dtype), x.dtype)


def mean(x: jax.Array, axis: int | None = None, keepdims: bool = False) -> jax.Array:
    """``x.mean()``, divided in the type computed in."""
    size = x.size if axis is None else x.shape[axis]
    return rounded(div(total(x, axis, keepdims), float(max(size, 1))), x.dtype)


def rms(x: jax.Array) -> jax.Array:
    """``x.norm(2) / x.numel() ** 0.5``."""
    return div(norm(x), max(x.size, 1) ** 0.5)


def clipped(update: jax.Array, threshold: Scalar) -> jax.Array:
    """Return an update whose root mean square is at most a threshold."""
    ratio = div(rms(update), threshold)
    return div(update, jnp.maximum(ratio, jnp.ones_like(ratio)))
