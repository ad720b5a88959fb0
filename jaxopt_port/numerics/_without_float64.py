"""A program's float64 scalars as pairs of float32, operation by operation, from its jaxpr."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._compat import carried_by
from . import _pairs
from ._pairs import Pair

Function = TypeVar("Function", bound=Callable[..., Any])

# A jaxpr within a jaxpr that is called as it is, by the parameter that holds it.
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr"}
_CALLS |= {"custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}
# What only moves numbers about is done to both parts alike.
_MOVES = {
    *("broadcast_in_dim", "concatenate", "copy", "dynamic_slice", "dynamic_update_slice"),
    *("expand_dims", "gather", "reshape", "reshard", "scatter", "select_n", "slice", "split"),
    *("squeeze", "stack", "stop_gradient", "transpose", "unstack"),
}
_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "abs": _pairs.absolute,
    "add": _pairs.add,
    "add_any": _pairs.add,
    "cos": _pairs.cosine,
    "div": _pairs.divide,
    "eq": _pairs.equal,
    "exp": _pairs.exponential,
    "floor": _pairs.floor,
    "ge": lambda a, b: ~_pairs.less(a, b) & ~jnp.isnan(a.hi) & ~jnp.isnan(b.hi),
    "gt": lambda a, b: _pairs.less(b, a),
    "is_finite": lambda a: jnp.isfinite(a.hi),
    "jaxopt_port_fma": lambda a, y, x: _pairs.add(_pairs.multiply(a, y), x),
    "jaxopt_port_uncontracted": lambda a: a,
    "le": lambda a, b: ~_pairs.less(b, a) & ~jnp.isnan(a.hi) & ~jnp.isnan(b.hi),
    "log": _pairs.logarithm,
    "lt": _pairs.less,
    "max": _pairs.largest,
    "min": lambda a, b: _pairs.negative(_pairs.largest(_pairs.negative(a), _pairs.negative(b))),
    "mul": _pairs.multiply,
    "ne": lambda a, b: ~_pairs.equal(a, b),
    "neg": _pairs.negative,
    "pow": _pairs.power,
    "rem": _pairs.remainder,
    "sqrt": _pairs.square_root,
    "square": lambda a: _pairs.multiply(a, a),
    "sub": _pairs.subtract,
}


def without_float64(function: Function) -> Function:
    """Return a function whose program has no float64: each is a pair of float32 instead.

    For backends that have none, and for TPUs, where XLA emulates it. A step of this library
    calculates with numbers in float64 (learning rates, ``1 - beta ** step``) and rounds them to
    the parameters' type; here they have over 40 bits where float64 has 53, and float32's range.
    What is rounded to float32 is the same but for about one number in a hundred thousand.

    Args:
        function: of arrays, such as a step; it is traced anew for each call that is not under
            ``jax.jit``.

    Returns:
        The function, to be given to ``jax.jit``, or used within ``scan``.

    Raises:
        TypeError: an argument or a result that is a float64 array.
        NotImplementedError: an operation on a float64 that has no counterpart here, by its name.

    Example:
        >>> import jax, jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = jp.Adam(lr=0.5)
        >>> step = jp.without_float64(lambda p, s, g: jp.step(tx, g, s, p))
        >>> params, state = jax.jit(step)(params, tx.init(params), grads)
        >>> [round(float(x), 4) for x in params["weight"]]
        [0.5, 0.5]
    """

    @functools.wraps(function)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        jaxpr, shape = jax.make_jaxpr(function, return_shape=True)(*args, **kwargs)
        flat = jax.tree.leaves((args, kwargs))
        for place, avals in (("argument", jaxpr.in_avals), ("result", jaxpr.out_avals)):
            if any(_is_wide(aval) for aval in avals):
                raise TypeError(
                    f"one of the {place}s is a float64 array: cast it to float32 before"
                )
        return jax.tree.unflatten(jax.tree.structure(shape), _evaluated(jaxpr, flat))

    return replaced  # type: ignore[return-value]


def _is_wide(aval: Any) -> bool:
    return getattr(aval, "dtype", None) == np.float64


def _evaluated(jaxpr: Any, inputs: Sequence[Any]) -> list[Any]:
    """Evaluate a closed jaxpr; what is float64 in it is given, and returned, as pairs."""
    from jax.extend.core import Literal

    env: dict[Any, Any] = dict(zip(jaxpr.jaxpr.invars, inputs, strict=True))
    constants = zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True)
    env |= {var: _given(value, var.aval) for var, value in constants}

    def read(atom: Any) -> Any:
        return _given(atom.val, atom.aval) if isinstance(atom, Literal) else env[atom]

    for eqn in jaxpr.jaxpr.eqns:
        env |= zip(eqn.outvars, _applied(eqn, [read(v) for v in eqn.invars]), strict=True)
    return [read(atom) for atom in jaxpr.jaxpr.outvars]


def _given(value: Any, aval: Any) -> Any:
    """Return a constant, a float64 as a pair."""
    if not _is_wide(aval):
        return value
    # Unseen by XLA, which makes x of (c + x) - c.
    return _pairs.apart(Pair(*map(jnp.asarray, _pairs.constant(value))))


def _applied(eqn: Any, inputs: list[Any]) -> Sequence[Any]:
    """Return an operation's results."""
    name, params = eqn.primitive.name, eqn.params
    if not _has_wide(eqn):
        # Of the enclosing 64-bit context only the operations' own types are left.
        with jax.enable_x64(True):
            made = eqn.primitive.bind(*inputs, **params)
        return made if eqn.primitive.multiple_results else [made]
    if name in _CALLS:
        return _evaluated(params[_CALLS[name]], inputs)
    if name == "jaxopt_port_step":
        with jax.enable_x64(True):
            plain = jax.make_jaxpr(params["forms"].plain)(*(v.aval for v in eqn.invars))
        return _evaluated(plain, inputs)
    if name == "convert_element_type":
        return [_converted(inputs[0], eqn.outvars[0].aval)]
    if name == "reduce_sum":
        return [_summed(inputs[0], params["axes"])]
    if name == "integer_pow":
        exponent = _pairs.constant(params["y"])
        return [_pairs.power(inputs[0], Pair(*map(jnp.asarray, exponent)))]
    if name in _MOVES:
        parts = [[x[i] if isinstance(x, Pair) else x for x in inputs] for i in (0, 1)]
        high, low = (eqn.primitive.bind(*own, **params) for own in parts)
        return list(map(Pair, high, low)) if eqn.primitive.multiple_results else [Pair(high, low)]
    if name in _ARITHMETIC:
        wide = (x if isinstance(x, Pair) else _pairs.widened(x) for x in inputs)
        return [_ARITHMETIC[name](*wide)]
    if name in _LOOPS:
        return _LOOPS[name](eqn, inputs)
    raise NotImplementedError(
        f"{name} of a float64 has no counterpart in float32; calculate it in float32, or report it"
    )


def _has_wide(eqn: Any) -> bool:
    """Whether an operation, or one within it, has a float64."""
    if any(_is_wide(v.aval) for v in [*eqn.invars, *eqn.outvars]):
        return True
    inner = [p for p in jax.tree.leaves(tuple(eqn.params.values())) if hasattr(p, "eqns")]
    inner += [
        p.jaxpr
        for p in jax.tree.leaves(tuple(eqn.params.values()), is_leaf=lambda x: hasattr(x, "jaxpr"))
        if hasattr(p, "jaxpr")
    ]
    return any(_has_wide(e) for jaxpr in inner for e in jaxpr.eqns)


def _converted(x: Any, aval: Any) -> Any:
    if _is_wide(aval):
        return x if isinstance(x, Pair) else _pairs.widened(x)
    if jnp.issubdtype(aval.dtype, jnp.integer):
        whole = _pairs.floor(_pairs.absolute(x))
        with jax.enable_x64(True):
            size = whole.hi.astype(aval.dtype) + whole.lo.astype(aval.dtype)
            return jnp.where(x.hi < 0, -size, size)
    return x.hi.astype(aval.dtype)


def _summed(x: Pair, axes: Sequence[int]) -> Pair:
    for axis in sorted(axes, reverse=True):
        first, *others = (
            Pair(*(lax.index_in_dim(part, i, axis, keepdims=False) for part in x))
            for i in range(x.hi.shape[axis])
        )
        x = functools.reduce(_pairs.add, others, first)
    return x


def _scan(eqn: Any, inputs: list[Any]) -> Sequence[Any]:
    params = eqn.params
    consts, carry = carried_by(params)

    def body(carried: Any, xs: Any) -> Any:
        made = _evaluated(params["jaxpr"], [*inputs[:consts], *carried, *xs])
        return made[:carry], made[carry:]

    begin, xs = _arrays((inputs[consts : consts + carry], inputs[consts + carry :]))
    carried, ys = lax.scan(body, begin, xs, params["length"], params["reverse"])
    return [*carried, *ys]


def _while(eqn: Any, inputs: list[Any]) -> Sequence[Any]:
    params = eqn.params
    ends, of_body = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]

    def goes_on(carried: Any) -> Any:
        return _evaluated(params["cond_jaxpr"], [*inputs[:ends], *carried])[0]

    def body(carried: Any) -> Any:
        return _evaluated(params["body_jaxpr"], [*inputs[ends:of_body], *carried])

    made: Sequence[Any] = lax.while_loop(goes_on, body, _arrays(inputs[of_body:]))
    return made


def _cond(eqn: Any, inputs: list[Any]) -> Sequence[Any]:
    which, *operands = inputs
    branches = [
        lambda *operands, jaxpr=jaxpr: _evaluated(jaxpr, operands)
        for jaxpr in eqn.params["branches"]
    ]
    made: Sequence[Any] = lax.switch(which, branches, *_arrays(operands))
    return made


def _arrays(tree: Any) -> Any:
    return jax.tree.map(jnp.asarray, tree)


_LOOPS = {"scan": _scan, "while": _while, "cond": _cond}
