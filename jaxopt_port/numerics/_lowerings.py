"""What each primitive of `_rounding` is on each platform: torch's kernels, in StableHLO."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ._emitted import (
    constant,
    contracted,
    exact_float32,
    exact_float64,
    fma_on_cpu,
    fma_on_tpu,
    kept,
    spread,
    types,
    uncontracted,
    uncontracted_on_tpu,
)

SWITCH = "JAXOPT_PORT_CUDA_BITS"
# Compute capabilities with half of float32's rate in float64; others have a 32nd, or a 64th.
_FLOAT64 = {"6.0", "7.0", "8.0", "9.0", "10.0"}


@functools.cache
def _has_bits() -> bool:
    """Whether steps on CUDA have torch's bits: the variable JAXOPT_PORT_CUDA_BITS.

    Raises:
        ValueError: the variable is none of on, off and auto.
    """
    given = os.environ.get(SWITCH, "auto").strip().lower() or "auto"
    if given not in ("on", "off", "auto"):
        raise ValueError(f"{SWITCH} must be on, off or auto; got {given!r}")
    if given != "auto":
        return given == "on"
    devices = jax.local_devices() if jax.default_backend() == "gpu" else []
    return {str(getattr(d, "compute_capability", "")) for d in devices} <= _FLOAT64


def fma_on_cuda(ctx: Any, a: Any, y: Any, x: Any) -> Any:
    """Nvcc contracts in torch's kernels; whether XLA does is its version's."""
    (aval,) = ctx.avals_out
    if aval.dtype == np.float32 and not _has_bits():
        return contracted(ctx, a, y, x)
    exact = exact_float32 if aval.dtype == np.float32 else exact_float64
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
    if aval.dtype != np.float32 or not _has_bits():
        return _plain(name, ctx, *operands)
    wide, integers, narrow = types(aval.shape, "f8", "i8", "i4")
    made = getattr(hlo, name)(*(hlo.convert(wide, x) for x in operands))
    return kept(hlo.convert(operands[0].type, kept(made, integers)), narrow)


def _hidden(x: Any, z: Any) -> Any:
    """The divisor of ``x``: XLA would make a product of a division by a scalar or by a root."""
    from jax.extend.mlir.dialects import stablehlo as hlo

    equal = hlo.compare(x, x, hlo.ComparisonDirectionAttr.get("EQ"))
    return hlo.select(equal, spread(x.type, z), constant(x.type, math.nan))


def _of(fused: Callable[..., Any], calculated: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """The lowerings of torch's kernels on a CPU, and of what is no kernel of torch's."""
    from jax.extend.mlir.dialects import stablehlo as hlo

    def addcmul(ctx: Any, v: Any, y: Any, z: Any, x: Any) -> Any:
        return fused(ctx, hlo.multiply(spread(y.type, v), y), z, x)

    def quotient(ctx: Any, v: Any, z: Any, y: Any) -> Any:
        return [calculated("divide", ctx, hlo.multiply(spread(y.type, v), y), z)]

    def addcdiv(ctx: Any, v: Any, y: Any, z: Any, x: Any) -> Any:
        return [hlo.add(x, *quotient(ctx, v, z, y))]

    def div(ctx: Any, z: Any, x: Any) -> Any:
        return [calculated("divide", ctx, x, _hidden(x, z))]

    def sqrt(ctx: Any, x: Any) -> Any:
        return [calculated("sqrt", ctx, x)]

    def rsqrt(ctx: Any, x: Any) -> Any:
        (aval,) = ctx.avals_out
        (integers,) = types(aval.shape, f"i{aval.dtype.itemsize}")
        root = kept(calculated("sqrt", ctx, x), integers)
        return [calculated("divide", ctx, constant(x.type, 1.0), root)]

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
        return [hlo.multiply(spread(y.type, v), _in_float64("divide", ctx, y, z))]

    def addcdiv(ctx: Any, v: Any, y: Any, z: Any, x: Any) -> Any:
        return fma_on_cuda(ctx, v, _in_float64("divide", ctx, y, z), x)

    def div_number(ctx: Any, a: Any, x: Any) -> Any:
        """By the reciprocal, which torch calculates on the host."""
        a = spread(x.type, a)
        return [hlo.multiply(x, _in_float64("divide", ctx, constant(x.type, 1.0), a))]

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
