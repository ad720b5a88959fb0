"""Convolution that is quick on the CPU, and max pooling with torch's choice among equals."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_NHWC = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))

# The image is cut into tiles, and a row of the matrix product reads a window of whole tiles and
# yields a block of outputs, a tile's worth. Against one output a row, the rows are fewer and each
# copies long runs of numbers, at the price of products with zero: for LeNet at batch 256, a quarter
# of the time and of the memory. Wider products than this cost more than they save in copies.
_MAX_BLOCK_SIDE = 5
_MAX_BLOCK_COLUMNS = 160

# One program even where the caller is not compiled: else each slice would be a program of its own.
_compiled = functools.partial(jax.jit, inline=True)


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    **options: Any,
) -> jax.Array:
    """Convolve as ``lax.conv_general_dilated`` does, but quickly on the CPU.

    For the ``conv_general_dilated`` argument of ``nnx.Conv`` and ``nn.Conv``. On the CPU, a plain
    2-D convolution (unit strides, no padding, dilation or groups, NHWC images and HWIO kernel)
    becomes static slices and one matrix product. Everything else, and every other backend, is left
    to ``lax``, with the same arguments.

    The result may differ from that of ``lax`` in the order of summation, and in that an infinity or
    NaN in an image also reaches neighbouring outputs, whose windows do not hold it.

    Args:
        lhs: images, (N, H, W, C).
        rhs: kernel, (KH, KW, C, O).
        window_strides: as in ``lax``, like all that follow.
        padding: as in ``lax``.
        lhs_dilation: as in ``lax``.
        rhs_dilation: as in ``lax``.
        dimension_numbers: as in ``lax``.
        feature_group_count: as in ``lax``.
        batch_group_count: as in ``lax``.
        precision: as in ``lax``; here, that of the matrix product.
        preferred_element_type: as in ``lax``; here, that of the matrix product.
        **options: further keyword arguments of ``lax.conv_general_dilated``.

    Returns:
        (N, H - KH + 1, W - KW + 1, O) for the plain case, else what ``lax`` returns.
    """
    plain = (
        jax.default_backend() == "cpu"
        and dimension_numbers == _NHWC
        and lhs.ndim == rhs.ndim == 4
        and lhs.dtype == rhs.dtype
        and lhs.shape[3] == rhs.shape[2]
        and lhs.shape[1] >= rhs.shape[0] > 0
        and lhs.shape[2] >= rhs.shape[1] > 0
        and lhs.size > 0
        and _is_valid(padding)
        and all(_is_ones(steps) for steps in (window_strides, lhs_dilation, rhs_dilation))
        and feature_group_count == batch_group_count == 1
        and all(option is None for option in options.values())
    )
    if plain:
        out: jax.Array = _conv_by_matmul(lhs, rhs, precision, preferred_element_type)
        return out
    return lax.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        dimension_numbers,
        feature_group_count,
        batch_group_count,
        precision,
        preferred_element_type,
        **options,
    )


@_compiled
def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Take the maximum of each 2×2 window: torch's ``MaxPool2d(2)``.

    As in torch, the gradient of a window goes to one element: the first of equal ones in row-major
    order, the last NaN where there are several. (``jnp.max`` divides it among equals.) An odd last
    row or column is left out.

    Args:
        x: (N, H, W, C), any float dtype.

    Returns:
        (N, H // 2, W // 2, C), NaN where a window holds a NaN.
    """
    n, h, w, c = x.shape
    h, w = h // 2, w // 2
    x = x[:, : 2 * h, : 2 * w]
    # Columns before rows: of two equal elements on a diagonal, the one above comes first.
    x = x.reshape(n, 2 * h, w, 2, c)
    x = _later_if_greater(x[:, :, :, 0], x[:, :, :, 1])
    x = x.reshape(n, h, 2, w, c)
    return _later_if_greater(x[:, :, 0], x[:, :, 1])


def _later_if_greater(first: jax.Array, later: jax.Array) -> jax.Array:
    return jnp.where((later > first) | jnp.isnan(later), later, first)


def _is_valid(padding: str | Sequence[tuple[int, int]]) -> bool:
    if isinstance(padding, str):
        return padding.upper() == "VALID"
    return all(low == high == 0 for low, high in padding)


def _is_ones(steps: Sequence[int] | None) -> bool:
    return steps is None or all(step == 1 for step in steps)


@functools.partial(_compiled, static_argnums=(2, 3))
def _conv_by_matmul(
    images: jax.Array, kernel: jax.Array, precision: Any, preferred_element_type: Any
) -> jax.Array:
    n, h, w, c = images.shape
    kh, kw, _, o = kernel.shape
    out_h, out_w = h - kh + 1, w - kw + 1
    block_w = _largest_divisor(out_w, min(_MAX_BLOCK_SIDE, _MAX_BLOCK_COLUMNS // o))
    block_h = _largest_divisor(out_h, min(_MAX_BLOCK_SIDE, _MAX_BLOCK_COLUMNS // (block_w * o)))
    blocks_h, blocks_w = out_h // block_h, out_w // block_w
    # Tiles that a window of a block of outputs touches, along each axis, and tiles in an image.
    span_h, span_w = -(-(kh + block_h - 1) // block_h), -(-(kw + block_w - 1) // block_w)
    tiles_h, tiles_w = blocks_h + span_h - 1, blocks_w + span_w - 1

    images = jnp.pad(
        images, ((0, 0), (0, tiles_h * block_h - h), (0, tiles_w * block_w - w), (0, 0))
    )
    tiles = images.reshape(n, tiles_h, block_h, tiles_w, block_w * c).transpose(0, 1, 3, 2, 4)
    tiles = tiles.reshape(n, tiles_h, tiles_w, block_h * block_w * c)
    windows = jnp.concatenate(
        [
            tiles[:, top : top + blocks_h, left : left + blocks_w]
            for top in range(span_h)
            for left in range(span_w)
        ],
        axis=-1,
    )

    # (span_h * block_h, span_w * block_w, c, block_h, block_w, o), then in the order of windows.
    shifted = _shifted(_shifted(kernel, 1, block_w, span_w), 0, block_h, span_h)
    shifted = shifted.reshape(span_h, block_h, span_w, block_w, c, block_h * block_w * o)
    shifted = shifted.transpose(0, 2, 1, 3, 4, 5).reshape(-1, block_h * block_w * o)

    out = jnp.matmul(
        windows.reshape(-1, windows.shape[-1]),
        shifted,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    out = out.reshape(n, blocks_h, blocks_w, block_h, block_w, o)
    return out.transpose(0, 1, 3, 2, 4, 5).reshape(n, out_h, out_w, o)


def _shifted(kernel: jax.Array, axis: int, block: int, span: int) -> jax.Array:
    """Stack the kernel as each output of a block meets it in the window, as a new fourth axis."""
    pads = [(0, 0)] * kernel.ndim
    places = []
    for before in range(block):
        pads[axis] = (before, span * block - kernel.shape[axis] - before)
        places.append(jnp.pad(kernel, pads))
    return jnp.stack(places, axis=3)


def _largest_divisor(number: int, limit: int) -> int:
    return next((d for d in range(limit, 1, -1) if number % d == 0), 1)
