"""The primitives of `_rounding` on NVIDIA's GPUs: torch's CUDA kernels, in StableHLO."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ._emitted import constant, contracted, exact_float32, exact_float64, kept, lowerings, spread
from ._emitted import types as types_of

SWITCH = "JAXOPT_PORT_CUDA_BITS"
# Compute capabilities with half of float32's rate in float64; others have a 32nd, or a 64th.
_FLOAT64 = {"6.0", "7.0", "8.0", "9.0", "10.0"}


@functools.cache
def has_bits() -> bool:
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


def _is_float32(x: Any) -> bool:
    from jax.interpreters.mlir import ir

    return isinstance(x.type.element_type, ir.F32Type)


def _rounded(x: Any) -> Any:
    """A float32 that was a float64, or becomes one: XLA drops two such conversions of a number."""
    (integers,) = types_of(tuple(x.type.shape), "i4")
    return kept(x, integers)


def _fused(ctx: Any, a: Any, y: Any, x: Any) -> Any:
    """Nvcc contracts in torch's kernels; whether XLA does is its version's."""
    (aval,) = ctx.avals_out
    if aval.dtype != np.float32:
        return [exact_float64(aval.shape, a, y, x)]
    if not has_bits():
        return contracted(ctx, a, y, x)
    return [_rounded(exact_float32(aval.shape, _rounded(a), y, x))]


def _in_float64(operation: Callable[..., Any], *operands: Any) -> Any:
    """A quotient or a root of float32, correctly rounded, where XLA approximates those.

    What is rounded to float64 and then to float32 is as if rounded once, which has less than half
    the digits (Figueroa, 1995). LLVM sees that too, and would take float32's approximation.
    """
    from jax.extend.mlir.dialects import stablehlo as hlo

    if not _is_float32(operands[0]) or not has_bits():
        return operation(*operands)
    narrow = operands[0].type
    wide, integers = types_of(tuple(narrow.shape), "f8", "i8")
    made = operation(*(hlo.convert(wide, _rounded(x)) for x in operands))
    return _rounded(hlo.convert(narrow, kept(made, integers)))


def cuda_lowerings() -> dict[str, Callable[..., Any]]:
    """Return the lowering of each primitive."""
    from jax.extend.mlir.dialects import stablehlo as hlo

    divide = functools.partial(_in_float64, hlo.divide)

    def addcmul(ctx: Any, v: Any, y: Any, z: Any, x: Any) -> Any:
        return _fused(ctx, v, hlo.multiply(y, z), x)

    def quotient(ctx: Any, v: Any, z: Any, y: Any) -> Any:
        return [hlo.multiply(spread(y.type, v), divide(y, z))]

    def addcdiv(ctx: Any, v: Any, y: Any, z: Any, x: Any) -> Any:
        return _fused(ctx, v, divide(y, z), x)

    def div_number(ctx: Any, a: Any, x: Any) -> Any:
        """By the reciprocal, which torch calculates on the host."""
        return [hlo.multiply(x, spread(x.type, divide(constant(a.type, 1.0), a)))]

    def rsqrt(ctx: Any, x: Any) -> Any:
        """An instruction of the GPU, at most two units off, as torch has it."""
        return [hlo.rsqrt(x)]

    every = lowerings(_fused, divide, functools.partial(_in_float64, hlo.sqrt))
    return every | {
        **{"addcmul": addcmul, "addcdiv": addcdiv, "quotient": quotient},
        **{"div_number": div_number, "rsqrt": rsqrt},
    }
