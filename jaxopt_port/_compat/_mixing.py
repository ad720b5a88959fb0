"""Whether a function treats each element of its arrays by itself, from its jaxpr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

# How the names begin of what mixes elements into as large a result; all else has another shape.
_MIXING = (
    "cum", "sort", "rev", "transpose", "dot_general", "gather", "scatter", "dynamic_", "fft",
    "conv_general", "reduce_window", "cholesky", "triangular_solve", "scan", "pure_callback",
    "io_callback", "ffi_call",
)  # fmt: skip
# What does as the programs in it do. That of a scatter or a reduce is of two numbers.
_CALLS = {"jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call"}
_CALLS |= {"custom_vjp_call_jaxpr", "remat", "checkpoint", "cond", "while"}
_RESHAPING = {"reshape", "squeeze", "expand_dims", "broadcast_in_dim"}


def mixes_elements(function: Callable[..., Any], *args: Any) -> bool:
    """Return whether elements of an array meet, so that an array's part has another result."""
    for equation in _equations(jax.make_jaxpr(function)(*args).jaxpr):
        name = equation.primitive.name
        shapes = {v.aval.shape for v in equation.invars if v.aval.shape}
        if not shapes or name in _RESHAPING:
            continue
        if name.startswith(_MIXING) or any(v.aval.shape not in shapes for v in equation.outvars):
            return True
    return False


def _equations(jaxpr: Jaxpr) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        if equation.primitive.name not in _CALLS:
            yield equation
            continue
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple) else (value,):
                if isinstance(inner, (Jaxpr, ClosedJaxpr)):
                    yield from _equations(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner)
