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
    if "_last_lr" not in state_dict:
        raise ValueError("the state dict is not that of a scheduler: it has no '_last_lr'")
    _check_kind(scheduler, state_dict)
    base_lrs = _first_lrs(state_dict)
    groups = Groups(base_lrs, np.zeros_like(base_lrs), bool(_first(state_dict, "use_beta1")))
    with jax.enable_x64(True), np.errstate(all="ignore"):
        own = _as_new(scheduler)._construct(groups)
    _load(scheduler, own, state_dict)
    return own, groups


# What torch saves of a user's functions.
_OF_FUNCTIONS = ("lr_lambdas", "_scale_fn_custom")

# Arguments that torch has not always saved.
_LATER = (
    "_anneal_func_type", "_anneal_strategy", "_schedule_phases", "_scale_fn_custom",
    "default_min_lr", "base_momentums", "max_momentums",
)  # fmt: skip
# What only others have, of those whose arguments are among the others'.
_OF_OTHERS = {
    "ExponentialLR": ("step_size", "milestones", "total_size"),
    "ChainedScheduler": ("_milestones",),
}
_RATES = np.zeros(0)


def _first(state_dict: Mapping[str, Any], name: str) -> Any:
    """Return the value of the first scheduler, in the order in which they are made, that has it."""
    for inner in state_dict.get("_schedulers", ()):
        found = _first(inner, name)
        if found is not None:
            return found
    return state_dict.get(name)


def _first_lrs(state_dict: Mapping[str, Any]) -> Any:
    base_lrs = _first(state_dict, "base_lrs")
    if base_lrs is not None:
        return read_value("base_lrs", base_lrs, _RATES)
    lrs, min_lrs = read_value("_last_lr", state_dict["_last_lr"], _RATES), state_dict.get("min_lrs")
    return lrs[: len(min_lrs)] if isinstance(min_lrs, list) else lrs  # without those joined since


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


def _check_kind(scheduler: LRScheduler, state_dict: Any) -> None:
    """Raise ValueError for a state dict of another kind of scheduler, or of other arguments."""
    name, parts = type(scheduler).__name__, schedulers_of(scheduler)
    arguments = scheduler._arguments(1)
    if not isinstance(state_dict, Mapping):
        raise ValueError(f"a {name} in _schedulers must have a dict; got {state_dict!r}")
    if parts:
        arguments = {"_schedulers": None, **arguments}
    for key in arguments:
        if key not in state_dict and key not in _LATER:
            raise ValueError(f"the state dict is not that of a {name}: it has no {key!r}")
    for key in _OF_OTHERS.get(name, ()):
        if key in state_dict:
            raise ValueError(f"the state dict is not that of a {name}: it has a {key!r}")
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
    inner = state_dict["_schedulers"] if parts else []
    if not isinstance(inner, list | tuple):
        raise ValueError(f"_schedulers in the state dict must be a list of dicts; got {inner!r}")
    if len(inner) != len(parts):
        raise ValueError(
            f"the state dict is that of a {name} of {len(inner)} schedulers, not of {len(parts)}"
        )
    for each in zip(parts, inner, strict=True):
        _check_kind(*each)


def _load(scheduler: LRScheduler, own: Own, state_dict: Mapping[str, Any]) -> None:
    for key, value in vars(own).items():
        if key not in state_dict:
            name = type(scheduler).__name__
            raise ValueError(f"the state dict is not that of a {name}: it has no {key!r}")
        if key == "_schedulers":
            for part in zip(schedulers_of(scheduler), value, state_dict[key], strict=True):
                _load(*part)
        else:
            setattr(own, key, read_value(key, state_dict[key], value))


def read_value(key: str, saved: Any, like: Value) -> Any:
    """Return a saved value as what is held there: rates of the groups, a count or a number."""
    try:
        made = np.array(_listed(saved))
    except (TypeError, ValueError, RuntimeError):
        made = np.array(None)
    what, right = "a number", made.dtype.kind in "biuf"
    if isinstance(like, np.ndarray):
        what, right = "a list of numbers", right and made.ndim > 0 and made.size == len(made)
    else:
        right = right and made.size == 1
        if isinstance(like, int):
            least = 1 if key == "T_i" else -(2**31)
            what = "a whole number" + " above 0" * (key == "T_i")
            right = right and bool(least <= made < 2**31 and made == np.floor(made))
    if not right:
        raise ValueError(f"{key} in the state dict must be {what}; got {saved!r}")
    if isinstance(like, np.ndarray):
        return made.astype(np.float64).reshape(-1)
    return type(like)(made.item())


def _listed(value: Any) -> Any:
    """Return a value without torch's tensors."""
    if isinstance(value, list | tuple):
        return list(map(_listed, value))
    return value.tolist() if hasattr(value, "tolist") else value
