"""Numbers that are given to functions which make schedules."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from ..lr_scheduler.arithmetic import takes_no_optimizer

P = ParamSpec("P")
R = TypeVar("R")


def _check(name: str, kinds: str, value: Any) -> None:
    """Raise TypeError for what is annotated as a number, or as several, and is none."""
    one, several = (
        any(kinds.startswith(f"{of}{kind}") for kind in ("int", "float"))
        for of in ("", "Sequence[")
    )
    if value is None and kinds.endswith("None"):
        return
    if one and not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number; got {value!r}")
    if several and not (
        (isinstance(value, Sequence) or hasattr(value, "__array__"))
        and all(hasattr(each, "__float__") for each in value)
    ):
        raise TypeError(f"{name} must be a list of numbers; got {value!r}")


def check_fields(made: Any) -> None:
    """Raise TypeError for a dataclass's fields that are no numbers, and should be."""
    for field in dataclasses.fields(made):
        _check(field.name, str(field.type), getattr(made, field.name))


def takes_numbers(make: Callable[P, R]) -> Callable[P, R]:
    """Let a function that makes a schedule say what of its arguments is no number."""
    known = inspect.signature(make)

    @functools.wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = known.bind(*args, **kwargs).arguments
        except TypeError:  # as the call will say itself
            given = {}
        for name, value in given.items():
            _check(name, str(known.parameters[name].annotation), value)
        return make(*args, **kwargs)

    return takes_no_optimizer(made)
