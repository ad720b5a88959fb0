"""`fma` and `uncontracted` in StableHLO.

Emitted, not traced as JAX: a step has several of them for each leaf, and its program is made in a
third of the time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import _contraction

# Larger arrays, whose loops run along an axis at least this long, are left to LLVM's contraction
# where `_contraction.holds`: an exact fused multiply-add takes up to three times as long there.
SMALL = 512
WIDE = 16


class _Shape:
    """Operations on arrays of one shape."""

    def __init__(self, shape: tuple[Any, ...]) -> None:
        from jax.extend.mlir.dialects import stablehlo
        from jax.interpreters import mlir

        if not all(isinstance(n, int) for n in shape):
            raise NotImplementedError(
                f"a step of arrays of symbolic shape, {shape}: give the shape in numbers"
            )
        self._shape, self._hlo, self._mlir = shape, stablehlo, mlir

    def _type(self, dtype: Any) -> Any:
        element = self._mlir.dtype_to_ir_type(np.dtype(dtype))
        return self._mlir.ir.RankedTensorType.get(self._shape, element)

    def spread(self, x: Any, dtype: Any) -> Any:
        """Return a scalar as an array."""
        if x.type == self._type(dtype):
            return x
        return self._hlo.broadcast_in_dim(self._type(dtype), x, self._mlir.dense_int_array([]))

    def constant(self, value: int, dtype: Any) -> Any:
        return self.spread(self._mlir.ir_constant(np.asarray(value, dtype)), dtype)

    def cast(self, x: Any, dtype: Any) -> Any:
        return self._hlo.convert(self._type(dtype), x)

    def bits(self, x: Any, dtype: Any) -> Any:
        return self._hlo.bitcast_convert(self._type(dtype), x)

    def uncontracted(self, x: Any, dtype: Any) -> Any:
        """Take away the largest of the integers that stand for a NaN.

        No arithmetic makes that one. So nothing is changed, but the bits have to be calculated.
        """
        integer = np.dtype(f"i{np.dtype(dtype).itemsize}")
        largest = self.constant(np.iinfo(integer).max - 1, integer)
        return self.bits(self._hlo.minimum(self.bits(x, integer), largest), dtype)


def uncontracted(ctx: Any, x: Any) -> Any:
    (aval,) = ctx.avals_out
    return [_Shape(aval.shape).uncontracted(x, aval.dtype)]


def contracted(ctx: Any, a: Any, y: Any, x: Any) -> Any:
    """A product and a sum, which LLVM may contract; no other product in ``x`` with the sum."""
    from jax.extend.mlir.dialects import stablehlo as hlo

    (aval,) = ctx.avals_out
    shape = _Shape(aval.shape)
    # In this order: XLA's schedule of a step of split parameters needs a copy less.
    product = hlo.multiply(y, shape.spread(a, aval.dtype))
    return [hlo.add(shape.uncontracted(x, aval.dtype), product)]


def uncontracted_on_tpu(ctx: Any, x: Any) -> Any:
    """A float64 is two float32 there: it has no bits to take, and nothing to be contracted with."""
    (aval,) = ctx.avals_out
    return [x] if aval.dtype == np.float64 else uncontracted(ctx, x)


def fma_on_tpu(ctx: Any, a: Any, y: Any, x: Any) -> Any:
    from jax.extend.mlir.dialects import stablehlo as hlo

    (aval,) = ctx.avals_out
    if aval.dtype != np.float64:
        return contracted(ctx, a, y, x)
    return [hlo.add(x, hlo.multiply(y, _Shape(aval.shape).spread(a, aval.dtype)))]


def _two_sum(x: Any, y: Any) -> tuple[Any, Any]:
    """Return a sum and its rounding error, exactly; neither may be a product that is rounded."""
    from jax.extend.mlir.dialects import stablehlo as hlo

    total = hlo.add(x, y)
    rest = hlo.subtract(total, x)
    error = hlo.add(hlo.subtract(x, hlo.subtract(total, rest)), hlo.subtract(y, rest))
    return total, error


def _rounded_to_odd(shape: _Shape, total: Any, error: Any) -> Any:
    """Return ``total + error`` rounded to odd, so that another rounding is as the only one.

    Boldo and Melquiond, 2008, *Emulation of FMA and correctly rounded sums*.
    """
    from jax.extend.mlir.dialects import stablehlo as hlo

    bits = shape.bits(total, "i8")
    # -1 where the error has the other sign: the total is then too large by less than a unit.
    differing = hlo.xor(bits, shape.bits(error, "i8"))
    below = hlo.shift_right_arithmetic(differing, shape.constant(63, "i8"))
    odd = hlo.or_(hlo.add(bits, below), shape.constant(1, "i8"))
    # (The error of an infinity is NaN, which is not above 0.)
    above = hlo.ComparisonDirectionAttr.get("GT")
    inexact = hlo.compare(hlo.abs(error), shape.constant(0, "f8"), above)
    return shape.bits(hlo.select(inexact, odd, bits), "f8")


def _exact_float32(shape: _Shape, a: Any, y: Any, x: Any) -> Any:
    """The fused multiply-add of float32 in float64.

    The product is exact there, so contracting it with a sum changes nothing.
    """
    from jax.extend.mlir.dialects import stablehlo as hlo

    a = shape.cast(a, "f8") if a.type == x.type else shape.spread(_Shape(()).cast(a, "f8"), "f8")
    product = hlo.multiply(a, shape.cast(y, "f8"))
    return shape.cast(_rounded_to_odd(shape, *_two_sum(product, shape.cast(x, "f8"))), "f4")


def _exact_float64(shape: _Shape, a: Any, y: Any, x: Any) -> Any:
    """The fused multiply-add of float64, from the product as two numbers (Dekker, 1971).

    Products of halves are exact, so contracting them changes nothing. Where one is beyond what
    float64 has, above 1e300, the product is rounded by itself.
    """
    from jax.extend.mlir.dialects import stablehlo as hlo

    def halves(v: Any) -> tuple[Any, Any]:
        bits = hlo.add(shape.bits(v, "i8"), shape.constant(2**26, "i8"))
        high = shape.bits(hlo.and_(bits, shape.constant(-(2**27), "i8")), "f8")
        return high, hlo.subtract(v, high)

    a, y, x = (shape.uncontracted(shape.spread(v, "f8"), "f8") for v in (a, y, x))
    (a1, a2), (y1, y2) = halves(a), halves(y)
    product = shape.uncontracted(hlo.multiply(a, y), "f8")
    low = hlo.subtract(hlo.multiply(a1, y1), product)
    for half in ((a1, y2), (a2, y1), (a2, y2)):
        low = hlo.add(low, hlo.multiply(*half))
    with_low, second = _two_sum(x, low)
    total, first = _two_sum(product, with_low)
    exact = hlo.add(total, _rounded_to_odd(shape, *_two_sum(first, second)))
    return hlo.select(hlo.is_finite(exact), exact, hlo.add(product, x))


def fma_on_cpu(ctx: Any, a: Any, y: Any, x: Any) -> Any:
    if not _is_exact(ctx):
        return contracted(ctx, a, y, x)
    (aval,) = ctx.avals_out
    exact = _exact_float32 if aval.dtype == np.float32 else _exact_float64
    return [exact(_Shape(aval.shape), a, y, x)]


def _is_exact(ctx: Any) -> bool:
    from jax.interpreters import mlir

    (aval,) = ctx.avals_out
    if getattr(ctx.module_context.lowering_parameters, "for_export", True):
        return True  # it is not known on which processor it will run
    context = ctx.module_context.axis_context
    # A shape is that of the whole; a device may have a part along any axis.
    devices = context.num_devices if isinstance(context, mlir.ShardingContext) else 1
    small = math.prod(aval.shape) <= SMALL * devices or aval.shape[-1] < WIDE * devices
    return small or not _contraction.holds()
