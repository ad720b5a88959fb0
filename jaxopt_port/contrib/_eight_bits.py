"""Moments held as codes of eight bits, each block of them with a scale, as torchao has them.

A code stands for one of 256 numbers in [-1, 1] (of a second moment in [0, 1]), most of them near
zero: Dettmers' dynamic map. A block is a run of the flattened array, and its scale its largest
magnitude. What is small, or has no whole number of blocks, is held as it is.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from ..engine import LeafState
from ..numerics import uncontracted
from ..numerics.torch_ops import div, mul

_LEAST = 4096  # numbers that are worth it
_DECADES = 7


def is_held_as_codes(shape: tuple[int, ...], block_size: int) -> bool:
    size = int(np.prod(shape))
    return size >= _LEAST and size % block_size == 0


@functools.cache
def numbers(signed: bool) -> NDArray[np.float32]:
    """Return what the codes stand for, in order.

    Each decade is split into twice as many parts as the one below it, whose ends are
    ``torch.linspace(0.1, 1, n + 1)`` of its vector loop, which goes from both ends to the middle
    and rounds once; a code stands for the middle of a part.
    """
    f32 = np.float32
    found: list[NDArray[np.float32]] = [np.array([0, 1], f32)]
    for decade in range(_DECADES):
        n = 2**decade if signed else 2 ** (decade + 1)
        width, at = float((f32(1) - f32(0.1)) / f32(n)), np.arange(n + 1)
        exact = np.where(at < (n + 1) // 2, float(f32(0.1)) + width * at, 1 - width * (n - at))
        ends = exact.astype(f32)
        middles = np.asarray(
            (ends[:-1] + ends[1:]) / f32(2) * f32(10.0 ** (decade - _DECADES + 1)), f32
        )
        found += [middles, -middles] if signed else [middles]
    return np.sort(np.concatenate(found))


@functools.cache
def bounds(signed: bool) -> NDArray[np.float32]:
    """Return by code the least number that has the next one: the middle, as the reference rounds.

    A number between two codes has the upper one where ``number - lower >= (upper - lower) * 0.5``.
    """
    lower, upper = numbers(signed)[:-1], numbers(signed)[1:]
    half = (upper - lower) * np.float32(0.5)
    least = lower + half
    while np.any(short := least - lower < half):
        least = np.where(short, np.nextafter(least, upper), least)
    while np.any(far := (below := np.nextafter(least, lower)) - lower >= half):
        least = np.where(far, below, least)
    return np.append(np.minimum(least, upper), np.float32(np.inf))


@functools.cache
def first_codes(signed: bool) -> NDArray[np.uint8]:
    """Return the code of the least number with the same upper 16 bits, by these bits.

    No two bounds have the same, so that a number has this code or the next one. NaN has code 0, and
    a scale that is NaN.
    """
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    least = np.where(upper >> 31, upper | 0xFFFF, upper).astype(np.uint32).view(np.float32)
    codes = np.searchsorted(bounds(signed), least, side="right")
    return np.where(np.isnan(least), 0, codes).astype(np.uint8)


def zeros(name: str, param: jax.Array, block_size: int) -> LeafState:
    """Return the first state of a moment."""
    if not is_held_as_codes(param.shape, block_size):
        return {name: jnp.zeros_like(param)}
    scales = jnp.zeros(param.size // block_size, jnp.float32)
    return {name: jnp.zeros_like(param, dtype=jnp.uint8), f"{name}_scale": scales}


def read(name: str, state: LeafState) -> jax.Array:
    """Return a moment in float32."""
    held, scales = state[name], state.get(f"{name}_scale")
    if scales is None:
        wide: jax.Array = held.astype(jnp.float32)
        return wide
    found = _looked_up(numbers(_is_signed(name)), held)
    return mul(found.reshape(scales.size, -1), scales[:, None]).reshape(held.shape)


def written(name: str, moment: jax.Array, like: LeafState) -> LeafState:
    """Return the state of a moment in float32, held as ``like`` is."""
    held, scales = like[name], like.get(f"{name}_scale")
    if scales is None:
        return {name: moment.astype(held.dtype)}
    blocks = moment.reshape(scales.size, -1)
    # As integers, of which NaN is the largest: XLA's largest float may not be it.
    largest = jnp.max(lax.bitcast_convert_type(jnp.abs(blocks), jnp.int32), 1)
    scales = jnp.maximum(lax.bitcast_convert_type(largest, jnp.float32), np.float32(1e-12))
    scaled, signed = div(blocks, scales[:, None]), _is_signed(name)
    upper = lax.bitcast_convert_type(scaled, jnp.uint32) >> 16
    first = _looked_up(first_codes(signed), upper)
    codes = first + (scaled >= _looked_up(bounds(signed), first)).astype(jnp.uint8)
    return {name: codes.reshape(held.shape), f"{name}_scale": scales}


def _looked_up(table: NDArray[Any], index: jax.Array) -> jax.Array:
    found: jax.Array = jnp.asarray(table).at[index].get(mode="promise_in_bounds")
    return found


def _is_signed(name: str) -> bool:
    return name == "exp_avg"


def lerp(x: jax.Array, y: jax.Array, weight: Any) -> jax.Array:
    """``x.lerp(y, weight)`` of a compiled torch, in which the product is rounded by itself.

    Args:
        x: an array.
        y: another one.
        weight: below 0.5; or, where it is not, less 1.
    """
    moved: jax.Array = uncontracted((y - x) * jnp.asarray(weight, x.dtype))
    return jnp.where(weight >= 0, x, y) + moved
