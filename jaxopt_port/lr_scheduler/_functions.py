"""A user's function of a count: what torch saves of it, how it is called where it is traced."""

from __future__ import annotations

import functools
import os
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._arithmetic import RateError, Traced, Value, entry, is_traced, where

_LIBRARIES = (jax.__file__, np.__file__, __file__)
_NOT_THE_USERS = tuple(str(Path(file).parent) + os.sep for file in _LIBRARIES)


class UntraceableError(TypeError):
    """A user's function makes a Python number, or a choice, of what is traced."""


def attributes_of(function: Any) -> dict[str, Any] | None:
    """Return what torch saves of a user's function: the attributes of a callable object."""
    return None if isinstance(function, types.FunctionType) else vars(function).copy()


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
        raise UntraceableError(_what_to_do(function, error, remedy)) from error


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


def _what_to_do(function: Any, error: TypeError, remedy: str) -> str:
    own = function
    while isinstance(own, functools.partial):
        own = own.func
    name = getattr(own, "__qualname__", type(own).__qualname__)
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_NOT_THE_USERS)]
    place = f" (line {theirs[-1].lineno} of {theirs[-1].filename}: {theirs[-1].line})"
    return (
        f"{name}{place if theirs else ''} cannot be traced: under jit it is given a JAX integer, "
        "of which Python's if, and, or, min, max, math and int can make nothing. Write it with "
        f"jax.numpy (jnp.where for if, jnp.minimum for min){remedy}, or step the scheduler outside "
        "of the compiled function"
    )
