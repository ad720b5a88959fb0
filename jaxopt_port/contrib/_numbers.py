"""Numbers that are given to functions which make schedules, or stand in their state dicts."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np

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


def read_rates(state_dict: Mapping[str, Any], name: str) -> np.ndarray[Any, Any]:
    """Return the numbers of a state dict's groups, or raise ValueError."""
    try:
        rates = np.array(state_dict[name], np.float64)
    except (TypeError, ValueError):
        rates = np.zeros(())
    if rates.ndim != 1 or not rates.size:
        raise ValueError(
            f"{name} in the state dict must be a list of numbers; got {state_dict[name]!r}"
        )
    return rates


def read_number(state_dict: Mapping[str, Any], name: str) -> float:
    """Return a number of a state dict, or raise ValueError."""
    try:
        return float(state_dict[name])
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} in the state dict must be a number; got {state_dict[name]!r}"
        ) from None
