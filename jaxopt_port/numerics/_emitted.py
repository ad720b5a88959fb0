"""The primitives of `_rounding` in StableHLO: torch's kernels on a CPU.

Emitted, not traced as JAX: a step has several of them for each leaf, and its program is made in a
third of the time.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._compat import devices_of
from . import _contraction

# Larger arrays, whose loops run along an axis at least this long, are left to LLVM's contraction
# where `_contraction.holds`: an exact fused multiply-add takes up to four times as long there.
SMALL = 512
WIDE = 16


def types(shape: tuple[Any, ...], *kinds: Any) -> list[Any]:
    """Return the types of arrays of one shape in MLIR."""
    from jax.interpreters import mlir

    if not set(map(type, shape)) <= {int}:
        raise NotImplementedError(
            f"a step of arrays of symbolic shape, {shape}: give the shape in numbers"
        )
    elements = map(mlir.dtype_to_ir_type, map(np.dtype, kinds))
    return list(map(functools.partial(mlir.ir.RankedTensorType.get, shape), elements))


def constant(kind: Any, value: float) -> Any:
    """Return an array of one number."""
    from jax.extend.mlir.dialects import stablehlo as hlo
    from jax.interpreters.mlir import ir

    element = kind.element_type
    is_integer = isinstance(element, ir.IntegerType)
    one = ir.IntegerAttr.get(element, value) if is_integer else ir.FloatAttr.get(element, value)
    return hlo.constant(ir.DenseElementsAttr.get_splat(kind, one))


def spread(kind: Any, x: Any) -> Any:
    """Return a scalar as an array."""
    from jax.extend.mlir.dialects import stablehlo as hlo
    from jax.interpreters import mlir

    return x if x.type == kind else hlo.broadcast_in_dim(kind, x, mlir.dense_int_array([]))


def kept(x: Any, integers: Any, taken: int = 1) -> Any:
    """Take away the largest of the integers that stand for a NaN, or as many as are ``taken``.

    No arithmetic makes these. So nothing is changed, but the bits have to be calculated; and with
    another number taken away, another value for the compiler.
    """
    from jax.extend.mlir.dialects import stablehlo as hlo

    largest = constant(integers, 2 ** (integers.element_type.width - 1) - 1 - taken)
    return hlo.bitcast_convert(x.type, hlo.minimum(hlo.bitcast_convert(integers, x), largest))


def uncontracted(ctx: Any, x: Any, *, again: bool) -> Any:
    (aval,) = ctx.avals_out
    (integers,) = types(aval.shape, f"i{aval.dtype.itemsize}")
    return [kept(x, integers, taken=3 if again else 1)]


def contracted(ctx: Any, a: Any, y: Any, x: Any) -> Any:
    """A product and a sum, which LLVM may contract; no other product in ``x`` with the sum.

    The product is of this sum alone: LLVM contracts none that is used twice, so ``y`` is taken for
    another number than the same ``y`` in another product.
    """
    from jax.extend.mlir.dialects import stablehlo as hlo

    (aval,) = ctx.avals_out
    (integers,) = types(aval.shape, f"i{aval.dtype.itemsize}")
    product = hlo.multiply(kept(y, integers, taken=2), spread(x.type, a))
    # In this order: XLA's schedule of a step of split parameters needs a copy less.
    return [hlo.add(kept(x, integers), product)]


def uncontracted_on_tpu(ctx: Any, x: Any, *, again: bool) -> Any:
    """A float64 is two float32 there: it has no bits to take, and nothing to be contracted with."""
    (aval,) = ctx.avals_out
    return [x] if aval.dtype == np.float64 else uncontracted(ctx, x, again=again)


def fma_on_tpu(ctx: Any, a: Any, y: Any, x: Any) -> Any:
    from jax.extend.mlir.dialects import stablehlo as hlo

    (aval,) = ctx.avals_out
    if aval.dtype != np.float64:
        return contracted(ctx, a, y, x)
    return [hlo.add(x, hlo.multiply(y, spread(x.type, a)))]


def _two_sum(x: Any, y: Any) -> tuple[Any, Any]:
    """Return a sum and its rounding error, exactly; neither may be a product that is rounded."""
    from jax.extend.mlir.dialects import stablehlo as hlo

    total = hlo.add(x, y)
    rest = hlo.subtract(total, x)
    error = hlo.add(hlo.subtract(x, hlo.subtract(total, rest)), hlo.subtract(y, rest))
    return total, error


def _rounded_to_odd(total: Any, error: Any, integers: Any) -> Any:
    """Return ``total + error`` rounded to odd, so that another rounding is as the only one.

    Boldo and Melquiond, 2008, *Emulation of FMA and correctly rounded sums*.
    """
    from jax.extend.mlir.dialects import stablehlo as hlo

    bits = hlo.bitcast_convert(integers, total)
    # -1 where the error has the other sign: the total is then too large by less than a unit.
    differing = hlo.xor(bits, hlo.bitcast_convert(integers, error))
    below = hlo.shift_right_arithmetic(differing, constant(integers, 63))
    odd = hlo.or_(hlo.add(bits, below), constant(integers, 1))
    # (The error of an infinity is NaN, which is not above 0.)
    above = hlo.ComparisonDirectionAttr.get("GT")
    inexact = hlo.compare(hlo.abs(error), constant(total.type, 0), above)
    return hlo.bitcast_convert(total.type, hlo.select(inexact, odd, bits))


def exact_float32(shape: tuple[int, ...], a: Any, y: Any, x: Any) -> Any:
    """The fused multiply-add of float32 in float64.

    The product is exact there, so contracting it with a sum changes nothing.
    """
    from jax.extend.mlir.dialects import stablehlo as hlo

    wide, integers = types(shape, "f8", "i8")
    (of_a,) = [wide] if a.type == x.type else types((), "f8")
    product = hlo.multiply(spread(wide, hlo.convert(of_a, a)), hlo.convert(wide, y))
    odd = _rounded_to_odd(*_two_sum(product, hlo.convert(wide, x)), integers)
    return hlo.convert(x.type, odd)


def exact_float64(shape: tuple[int, ...], a: Any, y: Any, x: Any) -> Any:
    """The fused multiply-add of float64, from the product as two numbers (Dekker, 1971).

    Products of halves are exact, so contracting them changes nothing. Where one is beyond what
    float64 has, above 1e300, the product is rounded by itself.
    """
    from jax.extend.mlir.dialects import stablehlo as hlo

    wide, integers = types(shape, "f8", "i8")

    def halves(v: Any) -> tuple[Any, Any]:
        bits = hlo.add(hlo.bitcast_convert(integers, v), constant(integers, 2**26))
        high = hlo.bitcast_convert(wide, hlo.and_(bits, constant(integers, -(2**27))))
        return high, hlo.subtract(v, high)

    a, y, x = (kept(spread(wide, v), integers) for v in (a, y, x))
    (a1, a2), (y1, y2) = halves(a), halves(y)
    product = kept(hlo.multiply(a, y), integers)
    low = hlo.subtract(hlo.multiply(a1, y1), product)
    for half in ((a1, y2), (a2, y1), (a2, y2)):
        low = hlo.add(low, hlo.multiply(*half))
    with_low, second = _two_sum(x, low)
    total, first = _two_sum(product, with_low)
    exact = hlo.add(total, _rounded_to_odd(*_two_sum(first, second), integers))
    return hlo.select(hlo.is_finite(exact), exact, hlo.add(product, x))


def fma_on_cpu(ctx: Any, a: Any, y: Any, x: Any) -> Any:
    if not _is_exact(ctx):
        return contracted(ctx, a, y, x)
    (aval,) = ctx.avals_out
    exact = exact_float32 if aval.dtype == np.float32 else exact_float64
    return [exact(aval.shape, a, y, x)]


def _is_exact(ctx: Any) -> bool:
    (aval,) = ctx.avals_out
    devices = devices_of(ctx)
    if devices is None:
        return True  # it is not known on which processor it will run
    # A shape is that of the whole; a device may have a part along any axis.
    devices = max(devices, 1)
    small = math.prod(aval.shape) <= SMALL * devices or aval.shape[-1] < WIDE * devices
    return small or not _contraction.holds()


def lowerings(
    fused: Callable[..., Any], divide: Callable[..., Any], root: Callable[..., Any]
) -> dict[str, Callable[..., Any]]:
    """Return the lowering of each primitive, of a platform's fma, quotient and root."""
    from jax.extend.mlir.dialects import stablehlo as hlo

    def addcmul(ctx: Any, v: Any, y: Any, z: Any, x: Any) -> Any:
        return fused(ctx, hlo.multiply(spread(y.type, v), y), z, x)

    def over(x: Any, z: Any) -> Any:
        # XLA would make a product of a division by a scalar, a root, a constant, or what `vmap` has
        # spread: a select hides it.
        equal = hlo.compare(x, x, hlo.ComparisonDirectionAttr.get("EQ"))
        return divide(x, hlo.select(equal, spread(x.type, z), x))

    def quotient(ctx: Any, v: Any, z: Any, y: Any) -> Any:
        return [over(hlo.multiply(spread(y.type, v), y), z)]

    def addcdiv(ctx: Any, v: Any, y: Any, z: Any, x: Any) -> Any:
        return [hlo.add(x, over(hlo.multiply(spread(y.type, v), y), z))]

    def div_number(ctx: Any, a: Any, x: Any) -> Any:
        return [over(x, a)]

    def div(ctx: Any, z: Any, x: Any) -> Any:
        # Of a constant the select is folded; its divisor may be a root all the same (Adadelta's).
        (aval,) = ctx.avals_out
        hidden = aval.dtype.itemsize < 8 and z.type == x.type  # a TPU's float64 has no bits to take
        return [over(x, kept(z, *types(aval.shape, f"i{aval.dtype.itemsize}")) if hidden else z)]

    def sqrt(ctx: Any, x: Any) -> Any:
        return [root(x)]

    def rsqrt(ctx: Any, x: Any) -> Any:
        (aval,) = ctx.avals_out
        (integers,) = types(aval.shape, f"i{aval.dtype.itemsize}")
        return [divide(constant(x.type, 1.0), kept(root(x), integers))]

    return {
        **{"fma": fused, "uncontracted": uncontracted, "addcmul": addcmul, "addcdiv": addcdiv},
        **{"quotient": quotient, "div": div, "div_number": div_number},
        **{"sqrt": sqrt, "rsqrt": rsqrt},
    }


def by_platform() -> dict[str | None, dict[str, Callable[..., Any]]]:
    """Return the lowerings of each primitive but on CUDA; None for all other platforms."""
    from jax.extend.mlir.dialects import stablehlo as hlo

    def of(fused: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
        return lowerings(fused, hlo.divide, hlo.sqrt)

    return {
        None: of(contracted),
        "cpu": of(fma_on_cpu),
        "tpu": of(fma_on_tpu) | {"uncontracted": uncontracted_on_tpu},
    }
