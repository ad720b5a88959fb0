"""torch's ``scheduler.state_dict()``, both ways."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ._arithmetic import Value
from ._groups import Groups
from ._state import Own

if TYPE_CHECKING:
    from ._scheduler import LRScheduler


def schedulers_of(scheduler: Any) -> tuple[Any, ...]:
    schedulers: tuple[Any, ...] = getattr(scheduler, "schedulers", ())
    return schedulers


def state_dict(scheduler: LRScheduler, own: Own) -> dict[str, Any]:
    held = {name: _plain(value) for name, value in vars(own).items() if name != "_schedulers"}
    if "use_beta1" in held:
        held["use_beta1"] = bool(held["use_beta1"])
    # Groups that have joined since count among the rates that were set last alone.
    state = {**scheduler._arguments(len(held.get("base_lrs", held["_last_lr"]))), **held}
    if "_step_count" in held:
        state["_is_initial"] = False
        if not schedulers_of(scheduler):
            state["_get_lr_called_within_step"] = False
    if schedulers_of(scheduler):
        pairs = zip(schedulers_of(scheduler), own._schedulers, strict=True)
        state["_schedulers"] = [state_dict(*pair) for pair in pairs]
    return state


def _plain(value: Value) -> Any:
    if isinstance(value, np.ndarray):
        # A NaN at the end is a group that it has not met.
        set_ = np.flatnonzero(~np.isnan(value))
        return value[: set_[-1] + 1 if len(set_) else None].tolist()
    return int(value) if isinstance(value, float) and value.is_integer() else value


def check_state_dict(state_dict: object) -> None:
    """Raise TypeError for what is no dict, but a checkpoint that holds one, perhaps."""
    if not isinstance(state_dict, Mapping):
        kind, held = type(state_dict).__name__, getattr(state_dict, "schedulers", None)
        remedy = "" if held is None else "; it holds none of a scheduler"
        remedy = "; give its scheduler: load_state_dict(run.scheduler)" if held else remedy
        raise TypeError(f"a scheduler's state dict is a dict; got {kind}{remedy}")


def loaded(
    scheduler: LRScheduler,
    state_dict: Mapping[str, Any],
    param_groups: Sequence[Mapping[str, Any]] | None = None,
) -> tuple[Own, Groups]:
    """Return the attributes that a state dict sets, and groups with the schedulers' entries."""
    check_state_dict(state_dict)
    if "_last_lr" not in state_dict and "min_lrs" in state_dict and param_groups:
        # ReduceLROnPlateau of torch up to 2.2, before its first step.
        rates = [float(g["lr"]) for g in param_groups if "lr" in g and not g.get("frozen")]
        state_dict = {**state_dict, "_last_lr": rates}
    base_lrs = np.array(_first_lrs(state_dict), np.float64)
    groups = Groups(base_lrs, np.zeros_like(base_lrs), bool(_first(state_dict, "use_beta1")))
    with jax.enable_x64(True), np.errstate(all="ignore"):
        own = _as_new(scheduler)._construct(groups)
    _load(scheduler, own, state_dict)
    return own, groups


# What torch saves of a user's functions.
_OF_FUNCTIONS = ("lr_lambdas", "_scale_fn_custom")


def _first(state_dict: Mapping[str, Any], name: str) -> Any:
    """Return the value of the first scheduler, in the order in which they are made, that has it."""
    for inner in state_dict.get("_schedulers", ()):
        found = _first(inner, name)
        if found is not None:
            return found
    return state_dict.get(name)


def _first_lrs(state_dict: Mapping[str, Any]) -> Any:
    base_lrs = _first(state_dict, "base_lrs")
    lrs = state_dict.get("_last_lr") if base_lrs is None else base_lrs
    if base_lrs is None and lrs is not None and isinstance(state_dict.get("min_lrs"), list):
        lrs = lrs[: len(state_dict["min_lrs"])]  # without groups that have joined since
    if lrs is None:
        raise ValueError("the state dict is not that of a scheduler: it has no '_last_lr'")
    return lrs


def _as_new(scheduler: Any) -> Any:
    """Return the scheduler as it is without resuming, which needs no entries of the groups."""
    changes: dict[str, Any] = {}
    if schedulers_of(scheduler):
        changes["schedulers"] = tuple(map(_as_new, scheduler.schedulers))
    known = {field.name for field in dataclasses.fields(scheduler)}
    changes |= dict.fromkeys(known & {"last_epoch", "last_iter"}, -1)  # detectron2's name, too
    return dataclasses.replace(scheduler, **changes)


def _same(key: str, saved: Any, value: Any) -> bool:
    """Whether two arguments are equal; of functions, those of their attributes that torch saves.

    A ``functools.partial`` has none ({}), and neither has a function (None).
    """
    if key in _OF_FUNCTIONS:
        many = isinstance(saved, list) and isinstance(value, list)
        saved, value = (list(map(_memory, y if many else [y])) for y in (saved, value))
    return _equal(saved, value)


def _memory(attributes: Any) -> Any:
    """Return what a function remembers, or None: a wrapper's attributes are the function within."""
    wraps = isinstance(attributes, dict) and "__wrapped__" in attributes
    return None if wraps else attributes or None


def _equal(a: Any, b: Any) -> bool:
    """Whether two values are equal; they may hold arrays."""
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        a, b = ({str(key): x for key, x in each.items()} for each in (a, b))  # JSON's keys
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if hasattr(a, "shape") or hasattr(b, "shape"):
        return np.array_equal(np.asarray(a), np.asarray(b))
    return bool(a == b)


def _load(scheduler: Any, own: Own, state_dict: Mapping[str, Any]) -> None:
    name = type(scheduler).__name__
    for key in scheduler._arguments(1):
        saved = state_dict.get(key)
        value = scheduler._arguments(len(saved) if isinstance(saved, list) else 1)[key]
        if key in state_dict and not _same(key, saved, value):
            raise ValueError(
                f"the state dict was saved by a {name} with {key} {state_dict[key]!r}, this one "
                f"has {value!r}; make the scheduler with the arguments it was saved with"
                + ", a function that remembers something as it was then"
                * (key in _OF_FUNCTIONS)
            )
    for key, value in vars(own).items():
        if key not in state_dict:
            raise ValueError(f"the state dict is not that of a {name}: it has no {key!r}")
        if key == "_schedulers":
            inner = state_dict[key]
            if len(inner) != len(value):
                raise ValueError(
                    f"the state dict is that of a {name} of {len(inner)} schedulers, not of "
                    f"{len(value)}"
                )
            for part in zip(scheduler.schedulers, value, inner, strict=True):
                _load(*part)
        elif isinstance(value, np.ndarray):
            setattr(own, key, np.array(state_dict[key], np.float64))
        else:
            setattr(own, key, type(value)(state_dict[key]))
