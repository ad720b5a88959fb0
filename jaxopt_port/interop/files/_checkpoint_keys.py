"""What is what in a dict that somebody gave to ``torch.save``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

ROLES = ("params", "optimizer", "scheduler")

# The names that are in use, without which several candidates are a matter of doubt.
_USUAL = {
    "params": (
        "model_state_dict", "state_dict", "model", "params", "module", "net", "network", "weights",
        "model_state",
    ),
    "optimizer": (
        "optimizer_state_dict", "optimizer", "optim", "optimizer_state", "optimizer_states",
        "optim_state_dict",
    ),
    "scheduler": (
        "scheduler_state_dict", "scheduler", "lr_scheduler", "lr_schedulers",
        "lr_scheduler_state_dict", "scheduler_state",
    ),
}  # fmt: skip


def is_params(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, np.ndarray) for k, v in value.items())
    )


def is_optimizer(value: Any) -> bool:
    return isinstance(value, Mapping) and {"state", "param_groups"} <= value.keys()


def is_scheduler(value: Any) -> bool:
    return isinstance(value, Mapping) and ("last_epoch" in value or "_step_count" in value)


_LOOKS: dict[str, Callable[[Any], bool]] = {
    "params": is_params,
    "optimizer": is_optimizer,
    "scheduler": is_scheduler,
}


def roles_in(found: Mapping[str, Any], keys: Mapping[str, str] | None) -> dict[str, str]:
    """Return which key has which role: those that were named, and those beyond doubt.

    Args:
        found: the dict, with NumPy arrays.
        keys: roles (``"params"``, ``"optimizer"``, ``"scheduler"``) and the keys that have them.

    Raises:
        ValueError: a role or key that there is not, several candidates, or none at all.
    """
    given = dict(keys or {})
    for role, key in given.items():
        if role not in ROLES:
            raise ValueError(f"keys names a role {role!r}; the roles are {', '.join(ROLES)}")
        if key not in found:
            raise ValueError(f"keys says that {role} is {key!r}; {contents(found)}")
    roles = dict(given)
    for role in ROLES:
        like = [
            key
            for key, value in found.items()
            if key not in given.values() and _is_like(role, key, _only(value))
        ]
        usual = [key for key in like if key in _USUAL[role]]
        if role in given or not like:
            continue
        candidates = usual or like
        if len(candidates) > 1:
            names = " and ".join(repr(key) for key in candidates)
            raise ValueError(
                f"{names} could each be the {role}; say which: "
                f"keys={{{role!r}: {candidates[0]!r}}}. {contents(found)}"
            )
        roles[role] = candidates[0]
    if "params" not in roles and "optimizer" not in roles:
        raise ValueError(
            "neither parameters nor an optimizer is recognised; if they are there, name them: "
            f'keys={{"params": …, "optimizer": …}}. {contents(found)}'
        )
    return roles


def _is_like(role: str, key: str, value: Any) -> bool:
    # Schedulers of others may keep anything.
    by_name = role == "scheduler" and key in _USUAL[role] and isinstance(value, Mapping)
    return by_name or _LOOKS[role](value)


def _only(value: Any) -> Any:
    """Return the one item of a list of one, as Lightning has optimizers, or the value."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def part(found: Mapping[str, Any], key: str) -> Any:
    """Return what has a role."""
    return _only(found[key])


def contents(found: Mapping[Any, Any]) -> str:
    """Say what a dict has: keys and kinds of values."""
    shown = [f"{key!r} ({_kind(value)})" for key, value in list(found.items())[:12]]
    more = f" and {len(found) - 12} more" if len(found) > 12 else ""
    return f"it has {', '.join(shown) or 'nothing'}{more}"


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"a tensor of shape {value.shape}"
    if is_optimizer(value):
        return "an optimizer's state dict"
    if is_params(value):
        return f"{len(value)} tensors"
    if isinstance(value, Mapping):
        return "a dict of " + (", ".join(repr(key) for key in list(value)[:4]) or "nothing")
    return type(value).__name__
