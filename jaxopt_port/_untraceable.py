"""What to say where a user's function of a count cannot be traced."""

from __future__ import annotations

import functools
import os
import traceback
from pathlib import Path
from typing import Any

import jax
import numpy as np

_NOT_THE_USERS = (
    str(Path(__file__).parent) + os.sep,
    *(str(Path(str(module.__file__)).parent) + os.sep for module in (jax, np)),
)


def name_of(function: Any) -> str:
    """Return a function's name, of a partial the function's within."""
    function = _within(function)
    return getattr(function, "__qualname__", type(function).__qualname__)


def _within(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def why(function: Any, error: TypeError) -> str:
    """Return what there is to say: the function, its line, and how it is to be written.

    Args:
        function: the user's.
        error: what it has raised; all of JAX's errors about traced values are TypeErrors.

    Raises:
        TypeError: that error, where the function is this library's own and none of the user's was
            called.
    """
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_NOT_THE_USERS)]
    place = ""
    if theirs:
        place = f" (line {theirs[-1].lineno} of {theirs[-1].filename}: {theirs[-1].line})"
    elif str(getattr(_within(function), "__module__", "")).startswith(f"{__package__}."):
        raise error
    return (
        f"{name_of(function)}{place} cannot be traced: in a compiled program it "
        "is given a JAX integer, of which Python's if, and, or, min, max, math and int can make "
        "nothing. Write it with jax.numpy (jnp.where for if, jnp.minimum for min)"
    )
