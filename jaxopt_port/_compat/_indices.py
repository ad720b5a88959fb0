"""Programs traced with float64 and lowered without it: JAX lowers their argmax wrongly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

_INDICES = ("argmax", "argmin")


def with_narrow_indices(function: Callable[[Any], Any], argument: Any) -> Any:
    """Return what a function gives of a tracer, its indices of int64 made from int32.

    ``jnp.select`` and ``jnp.argmax`` give int64 under x64; what lowers them looks at the setting
    again, which is the user's by then, and the program does not verify.
    """
    if not isinstance(argument, jax.core.Tracer):
        return function(argument)
    closed, shape = jax.make_jaxpr(function, return_shape=True)(argument)
    if not any(name in _INDICES for name in _names(closed.jaxpr)):
        return function(argument)
    made = _run(closed.jaxpr, closed.consts, [argument])
    return jax.tree.unflatten(jax.tree.structure(shape), made)


def _called(equation: Any) -> ClosedJaxpr | None:
    inner = equation.params.get("jaxpr")
    known = equation.primitive.name in ("jit", "pjit")
    return inner if known and isinstance(inner, ClosedJaxpr) else None


def _names(jaxpr: Jaxpr) -> Iterator[str]:
    for equation in jaxpr.eqns:
        inner = _called(equation)
        if inner is None:
            yield equation.primitive.name
        else:
            yield from _names(inner.jaxpr)


def _run(jaxpr: Jaxpr, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    held: dict[Any, Any] = dict(zip(jaxpr.constvars, constants, strict=True))
    held |= dict(zip(jaxpr.invars, arguments, strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else held[atom]

    for equation in jaxpr.eqns:
        given, inner = [value(v) for v in equation.invars], _called(equation)
        if inner is not None:
            made = _run(inner.jaxpr, inner.consts, given)
        elif equation.primitive.name in _INDICES:
            wide = equation.params["index_dtype"]
            params = {**equation.params, "index_dtype": jnp.dtype(jnp.int32)}
            made = [jax.lax.convert_element_type(equation.primitive.bind(*given, **params), wide)]
        else:
            result = equation.primitive.bind(*given, **equation.params)
            made = list(result) if equation.primitive.multiple_results else [result]
        held.update(zip(equation.outvars, made, strict=True))
    return [value(v) for v in jaxpr.outvars]
