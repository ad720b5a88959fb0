"""The primitives of `_rounding` in StableHLO, for each platform.

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
# where `_contraction.holds`: an exact fused multiply-add takes up to three times as long there.
SMALL = 512
WIDE = 16


def _types(shape: tuple[Any, ...], *kinds: Any) -> list[Any]:
    """Return the types of arrays of one shape in MLIR."""
    from jax.interpreters import mlir

    if not set(map(type, shape)) <= {int}:
        raise NotImplementedError(
            f"a step of arrays of symbolic shape, {shape}: give the shape in numbers"
        )
    of = mlir.ir.RankedTensorType.get
    return [of(shape, mlir.dtype_to_ir_type(np.dtype(kind))) for kind in kinds]


def _constant(kind: Any, value: float) -> Any:
    """Return an array of one number."""
    from jax.extend.mlir.dialects import stablehlo as hlo
    from jax.interpreters.mlir import ir

    element = kind.element_type
    is_integer = isinstance(element, ir.IntegerType)
    one = ir.IntegerAttr.get(element, value) if is_integer else ir.FloatAttr.get(element, value)
    return hlo.constant(ir.DenseElementsAttr.get_splat(kind, one))


def _spread(kind: Any, x: Any) -> Any:
    """Return a scalar as an array."""
    from jax.extend.mlir.dialects import stablehlo as hlo
    from jax.interpreters import mlir

    return x if x.type == kind else hlo.broadcast_in_dim(kind, x, mlir.dense_int_array([]))


def _kept(x: Any, integers: Any, taken: int = 1) -> Any:
    """Take away the largest of the integers that stand for a NaN, or as many as are ``taken``.

    No arithmetic makes these. So nothing is changed, but the bits have to be calculated; and with
    another number taken away, another value for the compiler.
    """
    from jax.extend.mlir.dialects import stablehlo as hlo

    largest = _constant(integers, 2 ** (integers.element_type.width - 1) - 1 - taken)
    return hlo.bitcast_convert(x.type, hlo.minimum(hlo.bitcast_convert(integers, x), largest))


def uncontracted(ctx: Any, x: Any, *, again: bool) -> Any:
    (aval,) = ctx.avals_out
    (integers,) = _types(aval.shape, f"i{aval.dtype.itemsize}")
    return [_kept(x, integers, taken=3 if again else 1)]


def contracted(ctx: Any, a: Any, y: Any, x: Any) -> Any:
    """A product and a sum, which LLVM may contract; no other product in ``x`` with the sum.

    The product is of this sum alone: LLVM contracts none that is used twice, so ``y`` is taken for
    another number than the same ``y`` in another product.
    """
    from jax.extend.mlir.dialects import stablehlo as hlo

    (aval,) = ctx.avals_out
    (integers,) = _types(aval.shape, f"i{aval.dtype.itemsize}")
    product = hlo.multiply(_kept(y, integers, taken=2), _spread(x.type, a))
    # In this order: XLA's schedule of a step of split parameters needs a copy less.
    return [hlo.add(_kept(x, integers), product)]


def uncontracted_on_tpu(ctx: Any, x: Any, *, again: bool) -> Any:
    """A float64 is two float32 there: it has no bits to take, and nothing to be contracted with."""
    (aval,) = ctx.avals_out
    return [x] if aval.dtype == np.float64 else uncontracted(ctx, x, again=again)


def fma_on_tpu(ctx: Any, a: Any, y: Any, x: Any) -> Any:
    from jax.extend.mlir.dialects import stablehlo as hlo

    (aval,) = ctx.avals_out
    if aval.dtype != np.float64:
        return contracted(ctx, a, y, x)
    return [hlo.add(x, hlo.multiply(y, _spread(x.type, a)))]


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
    below = hlo.shift_right_arithmetic(differing, _constant(integers, 63))
    odd = hlo.or_(hlo.add(bits, below), _constant(integers, 1))
    # (The error of an infinity is NaN, which is not above 0.)
    above = hlo.ComparisonDirectionAttr.get("GT")
    inexact = hlo.compare(hlo.abs(error), _constant(total.type, 0), above)
    return hlo.bitcast_convert(total.type, hlo.select(inexact, odd, bits))


def _exact_float32(shape: tuple[int, ...], a: Any, y: Any, x: Any) -> Any:
    """The fused multiply-add of float32 in float64.

    The product is exact there, so contracting it with a sum changes nothing.
    """
    from jax.extend.mlir.dialects import stablehlo as hlo

    wide, integers, narrow = _types(shape, "f8", "i8", "i4")
    (of_a,) = [wide] if a.type == x.type else _types((), "f8")
    product = hlo.multiply(_spread(wide, hlo.convert(of_a, a)), hlo.convert(wide, y))
    odd = _rounded_to_odd(*_two_sum(product, hlo.convert(wide, x)), integers)
    # (XLA may drop a pair of conversions, and so this rounding, where nothing is between them.)
    return _kept(hlo.convert(x.type, odd), narrow)


def _exact_float64(shape: tuple[int, ...], a: Any, y: Any, x: Any) -> Any:
    """The fused multiply-add of float64, from the product as two numbers (Dekker, 1971).

    Products of halves are exact, so contracting them changes nothing. Where one is beyond what
    float64 has, above 1e300, the product is rounded by itself.
    """
    from jax.extend.mlir.dialects import stablehlo as hlo

    wide, integers = _types(shape, "f8", "i8")

    def halves(v: Any) -> tuple[Any, Any]:
        bits = hlo.add(hlo.bitcast_convert(integers, v), _constant(integers, 2**26))
        high = hlo.bitcast_convert(wide, hlo.and_(bits, _constant(integers, -(2**27))))
        return high, hlo.subtract(v, high)

    a, y, x = (_kept(_spread(wide, v), integers) for v in (a, y, x))
    (a1, a2), (y1, y2) = halves(a), halves(y)
    product = _kept(hlo.multiply(a, y), integers)
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
    exact = _exact_float32 if aval.dtype == np.float32 else _exact_float64
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


def fma_on_cuda(ctx: Any, a: Any, y: Any, x: Any) -> Any:
    """Nvcc contracts in torch's kernels; whether XLA does is its version's."""
    (aval,) = ctx.avals_out
    exact = _exact_float32 if aval.dtype == np.float32 else _exact_float64
    return [exact(aval.shape, a, y, x)]


def _plain(name: str, ctx: Any, *operands: Any) -> Any:
    from jax.extend.mlir.dialects import stablehlo as hlo

    return getattr(hlo, name)(*operands)


def _in_float64(name: str, ctx: Any, *operands: Any) -> Any:
    """A quotient or a root of float32, correctly rounded, where XLA approximates those.

    What is rounded to float64 and then to float32 is as if rounded once, which has less than half
    the digits (Figueroa, 1995). LLVM sees that too, and would take float32's approximation.
    """
    from jax.extend.mlir.dialects import stablehlo as hlo

    (aval,) = ctx.avals_out
    if aval.dtype != np.float32:
        return _plain(name, ctx, *operands)
    wide, integers, narrow = _types(aval.shape, "f8", "i8", "i4")
    made = getattr(hlo, name)(*(hlo.convert(wide, x) for x in operands))
    return _kept(hlo.convert(operands[0].type, _kept(made, integers)), narrow)


def _hidden(x: Any, z: Any) -> Any:
    """The divisor of ``x``: XLA would make a product of a division by a scalar or by a root."""
    from jax.extend.mlir.dialects import stablehlo as hlo

    equal = hlo.compare(x, x, hlo.ComparisonDirectionAttr.get("EQ"))
    return hlo.select(equal, _spread(x.type, z), _constant(x.type, math.nan))


def _of(fused: Callable[..., Any], calculated: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """The lowerings of torch's kernels on a CPU, and of what is no kernel of torch's."""
    from jax.extend.mlir.dialects import stablehlo as hlo

    def addcmul(ctx: Any, v: Any, y: Any, z: Any, x: Any) -> Any:
        return fused(ctx, hlo.multiply(_spread(y.type, v), y), z, x)

    def quotient(ctx: Any, v: Any, z: Any, y: Any) -> Any:
        return [calculated("divide", ctx, hlo.multiply(_spread(y.type, v), y), z)]

    def addcdiv(ctx: Any, v: Any, y: Any, z: Any, x: Any) -> Any:
        return [hlo.add(x, *quotient(ctx, v, z, y))]

    def div(ctx: Any, z: Any, x: Any) -> Any:
        return [calculated("divide", ctx, x, _hidden(x, z))]

    def sqrt(ctx: Any, x: Any) -> Any:
        return [calculated("sqrt", ctx, x)]

    def rsqrt(ctx: Any, x: Any) -> Any:
        (aval,) = ctx.avals_out
        (integers,) = _types(aval.shape, f"i{aval.dtype.itemsize}")
        root = _kept(calculated("sqrt", ctx, x), integers)
        return [calculated("divide", ctx, _constant(x.type, 1.0), root)]

    return {
        **{"fma": fused, "addcmul": addcmul, "addcdiv": addcdiv, "quotient": quotient},
        **{"div": div, "div_number": div, "sqrt": sqrt, "rsqrt": rsqrt},
        "uncontracted": uncontracted,
    }


def _of_cuda() -> dict[str, Callable[..., Any]]:
    """The lowerings of torch's kernels on an NVIDIA GPU."""
    from jax.extend.mlir.dialects import stablehlo as hlo

    def addcmul(ctx: Any, v: Any, y: Any, z: Any, x: Any) -> Any:
        return fma_on_cuda(ctx, v, hlo.multiply(y, z), x)

    def quotient(ctx: Any, v: Any, z: Any, y: Any) -> Any:
        return [hlo.multiply(_spread(y.type, v), _in_float64("divide", ctx, y, z))]

    def addcdiv(ctx: Any, v: Any, y: Any, z: Any, x: Any) -> Any:
        return fma_on_cuda(ctx, v, _in_float64("divide", ctx, y, z), x)

    def div_number(ctx: Any, a: Any, x: Any) -> Any:
        """By the reciprocal, which torch calculates on the host."""
        a = _spread(x.type, a)
        return [hlo.multiply(x, _in_float64("divide", ctx, _constant(x.type, 1.0), a))]

    def rsqrt(ctx: Any, x: Any) -> Any:
        """An instruction of the GPU, at most two units off, as torch has it."""
        return [hlo.rsqrt(x)]

    every = _of(fma_on_cuda, _in_float64)
    return every | {
        **{"addcmul": addcmul, "addcdiv": addcdiv, "quotient": quotient},
        **{"div_number": div_number, "rsqrt": rsqrt},
    }


@functools.cache
def by_platform() -> dict[str | None, dict[str, Callable[..., Any]]]:
    """Return the lowerings of each primitive, by platform and by name; None for all others."""
    return {
        None: _of(contracted, _plain),
        "cpu": {name: _of(fma_on_cpu, _plain)[name] for name in ("fma", "addcmul")},
        "tpu": _of(fma_on_tpu, _plain) | {"uncontracted": uncontracted_on_tpu},
        "cuda": _of_cuda(),
    }
