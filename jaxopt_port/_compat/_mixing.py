"""Whether a function treats each element of its arrays by itself, from its jaxpr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

# Of results as large as their operands; all others that mix elements have other shapes.
_MIXING = {"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "sort", "rev", "transpose"}
_MIXING |= {"dot_general", "gather", "scatter", "scatter-add", "dynamic_update_slice", "fft"}
_MIXING |= {"cholesky", "triangular_solve", "scan", "pure_callback", "io_callback", "ffi_call"}
_RESHAPING = {"reshape", "squeeze", "expand_dims", "broadcast_in_dim"}


def mixes_elements(function: Callable[..., Any], *args: Any) -> bool:
    """Return whether elements of an array meet, so that an array's part has another result."""
    for equation in _equations(jax.make_jaxpr(function)(*args).jaxpr):
        name = equation.primitive.name
        shapes = {v.aval.shape for v in equation.invars if v.aval.shape}
        if not shapes or name in _RESHAPING:
            continue
        if name in _MIXING or any(v.aval.shape not in shapes for v in equation.outvars):
            return True
    return False


def _equations(jaxpr: Jaxpr) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        found = [x for v in equation.params.values() for x in (v if isinstance(v, tuple) else [v])]
        inner = [x for x in found if isinstance(x, (Jaxpr, ClosedJaxpr))]
        if not inner or equation.primitive.name == "scan":
            yield equation
        for each in inner:
            yield from _equations(each.jaxpr if isinstance(each, ClosedJaxpr) else each)
