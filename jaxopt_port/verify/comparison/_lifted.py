"""Runs a function of JAX in float64 throughout, whatever dtypes its code has fixed.

Given float64, most code calculates in float64. Some does not, by its framework's habit: an Optax
schedule makes float32 of an integer count, a Flax layer casts to the dtype that it was built with,
a recurrent carry is float32. Such a function is traced, and its program run again with float64 in
the place of every narrower dtype. A constant in it has been rounded before: what is restored is the
short decimal, the fraction or the root that must have been meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from ..._compat import carried_by
from ._meant import MODEL, OPTIMIZER, SMALL, Seen, is_rounded, is_table, meant, widened

# Their programs say how two numbers are combined; they are no calls.
_WITH_A_RULE = ("reduce", "scatter", "select_and")
_CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_DTYPES = ("new_dtype", "dtype", "preferred_element_type", "out_dtype")
# These read or make bits, or are no arithmetic of JAX: they keep their dtypes.
_AS_THEY_ARE = ("bitcast_convert_type", "ffi_call", "custom_call", "pure_callback", "io_callback")
_RANDOM = ("random_bits", "threefry2x32", "rng_bit_generator")


def lifted(
    function: Callable[..., Any],
    dtypes: Sequence[str],
    seen: Seen,
    own: str = "",
    disturbed: bool = False,
    traced: Sequence[str] = (),
) -> Callable[..., Any]:
    """Return a function of float64 trees that calculates in float64 throughout.

    Args:
        function: of trees of arrays.
        dtypes: those that are replaced.
        seen: is told what a trace shows.
        own: the dtype to trace it with where it does not take float64 (a carry that is float32).
        disturbed: whether all random bits are turned over.
        traced: the dtypes of all leaves that it is traced with, where its state has its own.
    """

    def run(*arguments: Any) -> Any:
        given = _like(arguments, traced) if traced else arguments
        try:
            closed, shape = jax.make_jaxpr(function, return_shape=True)(*given)
        except (TypeError, ValueError) as error:
            if not own:
                raise
            seen.fixed = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            narrow = jax.tree.map(lambda x: _cast_shape(x, own), arguments)
            closed, shape = jax.make_jaxpr(function, return_shape=True)(*narrow)
        seen.narrow |= set(_narrow(closed.jaxpr, dtypes))
        seen.random |= any(e.primitive.name in _RANDOM for e in equations(closed.jaxpr))
        seen.rounded |= any(map(is_rounded, _constants(closed)))
        seen.tables |= any(map(is_table, closed.consts))
        if not (seen.narrow or seen.rounded or disturbed):
            return function(*arguments)
        flat = _Lift(dtypes, seen, disturbed).closed(closed, jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shape), flat)

    return run


def _like(arguments: Any, dtypes: Sequence[str]) -> Any:
    leaves, structure = jax.tree.flatten(arguments)
    kinds = [  # but those of random keys, which NumPy does not know
        x.dtype if jnp.issubdtype(jnp.result_type(x), jax.dtypes.extended) else dtype
        for x, dtype in zip(leaves, dtypes, strict=True)
    ]
    shapes = [jax.ShapeDtypeStruct(jnp.shape(x), k) for x, k in zip(leaves, kinds, strict=True)]
    return jax.tree.unflatten(structure, shapes)


def _cast_shape(x: Any, dtype: str) -> Any:
    wide = jnp.result_type(x) == jnp.float64
    return jax.ShapeDtypeStruct(jnp.shape(x), dtype if wide else jnp.result_type(x))


def _inner(equation: Any) -> Iterator[Jaxpr]:
    for value in equation.params.values():
        for part in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(part, ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, Jaxpr):
                yield part


def equations(jaxpr: Jaxpr) -> Iterator[Any]:
    """Yield the equations of a program, those of the programs in it too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in _inner(equation):
            yield from equations(inner)


def _constants(program: ClosedJaxpr) -> Iterator[Any]:
    """Yield the constants of a program that have no axes, and its literals."""
    yield from program.consts
    for equation in equations(program.jaxpr):
        yield from (v.val for v in equation.invars if isinstance(v, Literal))


def _narrow(jaxpr: Jaxpr, dtypes: Sequence[str]) -> Iterator[str]:
    for equation in equations(jaxpr):
        for variable in equation.outvars:
            if (dtype := _dtype(variable)) in dtypes:
                yield dtype


def _dtype(variable: Any) -> str:
    return str(getattr(variable.aval, "dtype", ""))


class _Lift:
    """Evaluates a program with float64 in the place of narrower dtypes.

    Args:
        dtypes: those that are replaced.
        seen: is told of constants.
        disturbed: whether random bits are turned over.
    """

    def __init__(self, dtypes: Sequence[str], seen: Seen, disturbed: bool) -> None:
        self._dtypes, self._seen, self._disturbed = tuple(dtypes), seen, disturbed

    def closed(self, program: Any, arguments: Sequence[Any]) -> list[Any]:
        """Return what a program gives of float64 arguments."""
        constants = [self._constant(c) for c in program.consts]
        return self.run(program.jaxpr, constants, arguments)

    def run(self, jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
        """Likewise, of a program whose constants are given."""
        held: dict[Any, Any] = dict(zip(jaxpr.constvars, constants, strict=True))
        held |= dict(zip(jaxpr.invars, map(self._wide, arguments), strict=True))

        def value(atom: Any) -> Any:
            return self._constant(atom.val) if isinstance(atom, Literal) else held[atom]

        for equation in jaxpr.eqns:
            made = self._step(equation, [value(v) for v in equation.invars])
            held.update(zip(equation.outvars, made, strict=True))
        return [value(v) for v in jaxpr.outvars]

    def _replaced(self, dtype: Any) -> bool:
        return str(dtype) in self._dtypes

    def _wide(self, x: Any) -> Any:
        return jnp.asarray(x, jnp.float64) if self._replaced(jnp.result_type(x)) else x

    def _constant(self, x: Any) -> Any:
        if not hasattr(x, "dtype") or not self._replaced(x.dtype):
            return self._of_float64(x)
        if np.ndim(x) == 0 or self._dtypes == OPTIMIZER:
            if np.ndim(x) and not isinstance(x, jax.core.Tracer):  # a table of rates, say
                self._seen.inexact |= not all(meant(float(v))[1] for v in np.ravel(x)[:SMALL])
            return widened(x, self._dtypes, self._seen)
        return self._wide(x)  # of a model, data: torch's are widened as they are

    def _of_float64(self, x: Any) -> Any:
        """Return a number of float64 that float32 has rounded before as it was meant."""
        wide = isinstance(x, float) or str(getattr(x, "dtype", "")) == "float64"
        if not (wide and is_rounded(x)):
            return x
        value, clear = meant(float(x))
        # Both sides may share a number of the data; no optimizer of torch's has one in float32.
        self._seen.inexact |= not clear or self._dtypes == MODEL
        return x if self._dtypes == MODEL else value

    def _step(self, equation: Any, given: list[Any]) -> list[Any]:
        name, params = equation.primitive.name, equation.params
        if name == "scan":
            return self._scan(params, given)
        if name == "while":
            return self._while(params, given)
        if name == "cond":
            index, *operands = given
            branches = [self._branch(b) for b in params["branches"]]
            return list(jax.lax.switch(index, branches, *operands))
        if name in _AS_THEY_ARE or name.startswith(("shard_map", "custom_partition")):
            exact = [self._narrowed(x, v) for x, v in zip(given, equation.invars, strict=True)]
            return [self._wide(x) for x in self._bind(equation, exact, params)]
        if name == "reduce_precision" and self._dtypes == MODEL:
            return given
        for key in () if name.startswith(_WITH_A_RULE) else _CALLS:
            inner = params.get(key)
            if isinstance(inner, ClosedJaxpr):
                return self.closed(inner, given)
            if isinstance(inner, Jaxpr) and not inner.constvars:
                return self.run(inner, [], given)
        changed: dict[str, Any] = {
            key: np.dtype(np.float64) if key in _DTYPES and self._replaced(part) else part
            for key, part in params.items()
        }
        if isinstance(inner := changed.get("update_jaxpr"), Jaxpr):
            closed = self._retraced(inner, changed["update_consts"])
            changed |= {"update_jaxpr": closed.jaxpr, "update_consts": tuple(closed.consts)}
        made = self._bind(equation, given, changed)
        if self._disturbed and name in _RANDOM:
            made = [~x if jnp.issubdtype(x.dtype, jnp.unsignedinteger) else x for x in made]
        return made

    def _retraced(self, jaxpr: Any, constants: Sequence[Any]) -> Any:
        """Return the program by which a scatter adds two numbers, for float64."""
        wide = [np.float64 if self._replaced(_dtype(v)) else _dtype(v) for v in jaxpr.invars]
        like = [
            jax.ShapeDtypeStruct(v.aval.shape, d) for v, d in zip(jaxpr.invars, wide, strict=True)
        ]
        return jax.make_jaxpr(lambda *given: self.run(jaxpr, constants, given))(*like)

    def _bind(self, equation: Any, given: list[Any], params: dict[str, Any]) -> list[Any]:
        made = equation.primitive.bind(*given, **params)
        return list(made) if equation.primitive.multiple_results else [made]

    def _narrowed(self, x: Any, variable: Any) -> Any:
        dtype = _dtype(variable)
        return jnp.asarray(x, dtype) if self._replaced(dtype) else x

    def _branch(self, program: Any) -> Callable[..., Any]:
        return lambda *operands: self._same(program, self.closed(program, operands))

    def _same(self, program: Any, made: list[Any]) -> list[Any]:
        """Return results in the dtypes that all branches and rounds of a loop have."""
        return [
            jnp.asarray(x, jnp.float64) if self._replaced(_dtype(v)) else x
            for x, v in zip(made, program.jaxpr.outvars, strict=True)
        ]

    def _scan(self, params: dict[str, Any], given: list[Any]) -> list[Any]:
        fixed, carried = carried_by(params)
        constants, first, along = (
            given[:fixed], given[fixed : fixed + carried], given[fixed + carried :]
        )  # fmt: skip
        inner = params["jaxpr"]

        def body(carry: Any, x: Any) -> Any:
            made = self._same(inner, self.closed(inner, [*constants, *carry, *x]))
            return made[:carried], made[carried:]

        last, seen = jax.lax.scan(
            body, list(first), list(along), length=params["length"], reverse=params["reverse"]
        )
        return [*last, *seen]

    def _while(self, params: dict[str, Any], given: list[Any]) -> list[Any]:
        n, m = params["cond_nconsts"], params["body_nconsts"]
        of_test, of_body, first = given[:n], given[n : n + m], given[n + m :]
        test, body = params["cond_jaxpr"], params["body_jaxpr"]
        return list(
            jax.lax.while_loop(
                lambda carry: self.closed(test, [*of_test, *carry])[0],
                lambda carry: self._same(body, self.closed(body, [*of_body, *carry])),
                list(first),
            )
        )
