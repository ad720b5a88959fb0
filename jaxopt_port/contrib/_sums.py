"""Norms and means of whole arrays.

Sums are in float64, since XLA's of float32 are farther off than torch's: five units in the last
place of 360 elements. A norm is torch's own, to the bit, where one CPU has all of the array: its
kernel adds up the squares in eight lanes, one after the other, and of a million elements that is
hundreds of units from the true sum.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from .._compat import Forms, alternative
from ..numerics import fma, uncontracted
from ..numerics.torch_ops import Scalar, div, rounded, widened

_LANES = 8
# Rows of lanes that a loop adds at a time.
_ROWS = 16


def total(x: jax.Array, axis: int | None = None, keepdims: bool = False) -> jax.Array:
    """Return a sum in the type computed in."""
    wide = widened(x)
    added: jax.Array = jnp.sum(wide.astype(jnp.float64), axis=axis, keepdims=keepdims)
    return added.astype(wide.dtype)


def _norm_in_float64(x: jax.Array) -> list[jax.Array]:
    with jax.enable_x64(True):
        wide = x.astype(jnp.float64)
        return [jnp.sqrt(jnp.sum(wide * wide)).astype(x.dtype)]


def _norm_in_lanes(x: jax.Array) -> list[jax.Array]:
    """``vector_norm`` of torch's CPU kernel, of float32: eight sums, what is left over after them.

    Four of what is left over at a time have their squares rounded; the last three do not.
    """
    x = x.reshape(-1)
    rows, block = x.size // _LANES, _ROWS * _LANES
    lanes = jnp.zeros(_LANES, x.dtype)

    def added(lanes: jax.Array, part: jax.Array) -> jax.Array:
        squares = uncontracted(part * part).reshape(-1, _LANES)
        for row in range(len(squares)):
            lanes = lanes + squares[row]
        return lanes

    def body(i: jax.Array, lanes: jax.Array) -> jax.Array:
        return added(lanes, lax.dynamic_slice(x, (i * block,), (block,)))

    if blocks := rows // _ROWS:
        lanes = lax.fori_loop(0, blocks, body, lanes)
    lanes = added(lanes, x[blocks * block : rows * _LANES])
    rest = x[rows * _LANES :]
    summed = lanes[0]
    for lane in range(1, _LANES):
        summed = summed + lanes[lane]
    together = len(rest) // 4 * 4
    for square in uncontracted(rest[:together] * rest[:together]):
        summed = summed + square
    for number in rest[together:]:
        summed = fma(number, number, summed)
    return [jnp.sqrt(summed)]


_NORM = Forms(_norm_in_float64, one_cpu=_norm_in_lanes)


def norm(x: jax.Array) -> jax.Array:
    """``x.norm(2)``."""
    if x.dtype != jnp.float32:
        return rounded(_norm_in_float64(widened(x))[0], x.dtype)
    # Flat only in its form: a reshaped array that is split over devices would be gathered.
    found: jax.Array = alternative(_NORM, [x], [jax.typeof(x).update(shape=())])[0]
    return found


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
