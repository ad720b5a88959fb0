"""By how much convolutions pad, in torch and in Flax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Padding(NamedTuple):
    """Elements before and after each spatial axis; None where they depend on the input's size."""

    pairs: tuple[tuple[int, int], ...] | None
    mode: str = "zeros"

    def __str__(self) -> str:
        return f"{self.pairs} of {self.mode}"


def spread(value: Any, n: int) -> tuple[int, ...]:
    """Return a number, or None, for each of n axes."""
    if value is None:
        return (1,) * n
    return (int(value),) * n if isinstance(value, int) else tuple(int(each) for each in value)


def torch_padding(layer: Any) -> Padding:
    """Return what a convolution of torch pads; a transposed one counts as one of its stride 1."""
    n = len(layer.kernel_size)
    reach = _reach(layer.kernel_size, layer.dilation)
    if layer.transposed:
        pads = zip(reach, layer.padding, layer.output_padding, strict=True)
        return Padding(tuple((r - p, r - p + extra) for r, p, extra in pads))
    if layer.padding == "valid":
        return Padding(((0, 0),) * n, layer.padding_mode)
    if layer.padding == "same":
        return Padding(tuple((r // 2, r - r // 2) for r in reach), layer.padding_mode)
    return Padding(tuple((p, p) for p in spread(layer.padding, n)), layer.padding_mode)


def flax_padding(layer: Any, transposed: bool) -> Padding:
    """Return what a convolution of Flax, NNX or Linen, pads."""
    n = len(spread(layer.kernel_size, 1))
    reach = _reach(spread(layer.kernel_size, n), spread(layer.kernel_dilation, n))
    strides, padding = spread(layer.strides, n), layer.padding
    if not isinstance(padding, str):
        return Padding(pairs(padding, n))
    if padding == "CAUSAL":
        return Padding(tuple((r, 0) for r in reach))
    mode = {"CIRCULAR": "circular", "REFLECT": "reflect"}.get(padding, "zeros")
    if transposed:
        known = padding in ("SAME", "VALID")
        pads = tuple(_transposed(padding, r + 1, s) for r, s in zip(reach, strides, strict=True))
        return Padding(pads if known else None, mode)
    if padding == "VALID":
        return Padding(((0, 0),) * n)
    fixed = all(s == 1 or r == 0 for s, r in zip(strides, reach, strict=True))
    fixed = fixed or mode != "zeros"
    known = padding in ("SAME", "CIRCULAR", "REFLECT")
    return Padding(tuple((r // 2, r - r // 2) for r in reach) if known and fixed else None, mode)


def _reach(kernel_size: Sequence[int], dilation: Sequence[int]) -> list[int]:
    return [d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True)]


def pairs(padding: Any, n: int) -> tuple[tuple[int, int], ...]:
    """Return a padding in numbers as the elements before and after each axis."""
    each = (padding,) * n if isinstance(padding, int) else tuple(padding)
    return tuple((p, p) if isinstance(p, int) else (int(p[0]), int(p[1])) for p in each)


def _transposed(padding: str, size: int, stride: int) -> tuple[int, int]:
    """Return what ``jax.lax.conv_transpose`` makes of a name."""
    if padding == "VALID":
        return size - 1, stride - 1 + max(size - stride, 0)
    total = size + stride - 2
    low = size - 1 if stride > size - 1 else -(-total // 2)
    return low, total - low
