"""A Python function of a count, in a traced program too, with the same bits."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..lr_scheduler.arithmetic import Value, lift, raw
from ..numerics import encoded

# What a program holds as a constant at most: eight megabytes.
_LONGEST = 1 << 20


def looked_up(function: Callable[[int], Any], last: float, constant: bool) -> Callable[[Any], Any]:
    """Return a function that takes traced counts, too.

    There the values are looked up, so that a cosine has Python's bits and not XLA's. A count
    beyond the table goes back to Python, which a program on an accelerator waits for; what is
    refused there is NaN.

    Args:
        function: of a whole number from 0 on; a float, or a list of as many always.
        last: the last count that a run comes to; a fraction is rounded up.
        constant: whether the value at ``last`` is that of all later counts.
    """
    last = math.ceil(min(last, _LONGEST))
    # A partial has no attributes, and so leaves a state dict as the packages' own do.
    whole = constant and last < _LONGEST
    return functools.partial(_at, function, min(last, _LONGEST - 1), whole)


def _at(function: Callable[[int], Any], last: int, constant: bool, count: Any) -> Any:
    if not isinstance(count, jax.core.Tracer):
        return function(int(count))
    with jax.enable_x64(True):
        table = np.array([function(i) for i in range(last + 1)], np.float64)
        inside = jnp.asarray(table)[jnp.clip(count, 0, last)]
        if constant:
            return inside
        at = functools.partial(_in_parts, function)
        kind = jax.eval_shape(lambda: jnp.asarray(at(0)))

        def later() -> jax.Array:
            parts = jax.pure_callback(at, kind, count, vmap_method="sequential")
            return jnp.sum(parts.astype(jnp.float64), axis=-1)

        return jax.lax.cond(count > last, later, lambda: inside)


def _in_parts(function: Callable[[int], Any], count: Any) -> Any:
    try:
        value = function(int(count))
    except (ValueError, RuntimeError, ArithmeticError, LookupError):  # no count that it takes
        value = np.full(np.shape(function(0)), np.nan)
    # JAX makes float32 of what a callback returns, where x64 is off when the program runs.
    return encoded(np.asarray(value, np.float64))


def value_at(function: Callable[[int], float], last: float, constant: bool, count: Value) -> Value:
    """Return a scheduler's number: ``function(count)``, looked up where the count is traced.

    Args:
        function: of a whole number from 0 on.
        last: the last count that a run comes to.
        constant: whether the value at ``last`` is that of all later counts.
        count: Python's or traced.
    """
    known = raw(count)
    if known is count:
        return function(int(count))
    return lift(looked_up(function, last, constant)(known.astype(np.int64)))
