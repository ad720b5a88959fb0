"""A user's function of a count: what torch saves of it, how it is called where it is traced."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._untraceable import why
from ._arithmetic import RateError, Traced, Value, entry, is_traced, where


class UntraceableError(TypeError):
    """A user's function makes a Python number, or a choice, of what is traced."""


def attributes_of(function: Any) -> dict[str, Any] | None:
    """Return what torch saves of a user's function: the attributes of a callable object.

    What wraps a function (``jax.jit``, ``functools.lru_cache``) is none.
    """
    if isinstance(function, types.FunctionType) or hasattr(function, "__wrapped__"):
        return None
    held: dict[str, Any] | None = getattr(function, "__dict__", None)
    return None if held is None else held.copy()


def called(function: Callable[[Any], Any], x: Value, remedy: str = "") -> Value:
    """Call a user's function of a count; in a traced program it is given a JAX integer.

    Raises:
        UntraceableError: it cannot be traced; ``remedy`` is what else its user may do.
    """
    if not isinstance(x, Traced):
        return float(function(x))
    try:
        value = function(x.value.astype(jnp.int64))
        return Traced(jnp.asarray(value, jnp.float64)) if is_traced(value) else float(value)
    except TypeError as error:  # as all of JAX's errors about traced values are
        outside = ", or step the scheduler outside of the compiled function"
        raise UntraceableError(why(function, error) + remedy + outside) from error


def tabled(function: Callable[[Any], Any], x: Value, total_steps: int) -> Value:
    """Call a user's function of a count up to ``total_steps``; where traced, all calls are made."""

    def too_many() -> Value:
        raise RateError(
            f"Tried to step {x} times. The specified number of total steps is {total_steps}"
        )

    def within() -> Value:
        if not isinstance(x, Traced):
            return float(function(x))
        return entry(_table(function, total_steps), x)

    return where((x >= 0) & (x <= total_steps), within, too_many)


def _table(function: Callable[[Any], Any], total_steps: int) -> list[float]:
    with jax.ensure_compile_time_eval():
        return [float(function(count)) for count in range(total_steps + 1)]
