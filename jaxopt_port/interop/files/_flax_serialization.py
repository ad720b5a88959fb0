"""What ``flax.serialization`` must know to write this library's states, and to read them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from flax import serialization

from ...engine import GroupsState, leaf_paths
from ...lr_scheduler import SchedulerState
from ...numerics import Float64
from ._group_descriptions import HINT, described, differences, tables, with_table


def _checked(state: Any, target: Any, *parts: str) -> Any:
    try:
        found = differences(json.loads(state["description"]), described(target))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("these bytes hold no state of this library: no 'description'") from error
    lacking = [name for name in parts if name not in state]
    if lacking:
        raise ValueError(f"the saved state is damaged: it has no {', '.join(lacking)}")
    if found:
        hint = [HINT] if isinstance(target, GroupsState) else []
        lines = "".join(f"\n  {line}" for line in [*found, *hint])
        raise ValueError(f"the saved state does not fit what it shall be restored as:{lines}")
    return state


def _groups_to_dict(state: GroupsState) -> dict[str, Any]:
    held = {name: serialization.to_state_dict(part) for name, part in _parts(state).items()}
    (table,) = tables(state)
    return {**held, "description": json.dumps(described(state)), "table": table}


def _parts(state: GroupsState) -> dict[str, Any]:
    return {
        "leaves": state.leaves,
        "scalars": state.scalars,
        "numbers": {name: value.parts for name, value in state.numbers.items()},
        "counts": state.counts,
        "others": state.others,
    }


def _groups_from_dict(target: GroupsState, state: dict[str, Any]) -> GroupsState:
    parts = _parts(target)
    saved = _checked(state, target, *parts)
    for name in ("leaves", "scalars"):
        if more := sorted(saved[name].keys() - parts[name].keys()):
            raise ValueError(
                f"the saved state has {', '.join(more)}, and that which it shall be restored as "
                "has not: make it by an optimizer with the numbers in use then, a momentum, say"
            )
    held = {
        name: serialization.from_state_dict(part, saved[name], name) for name, part in parts.items()
    }
    _check_arrays(held, parts)
    numbers = {name: Float64(parts) for name, parts in held.pop("numbers").items()}
    known = saved.get("table")  # an earlier version wrote none
    table = with_table(target.table, known) if known else target.table
    return GroupsState(**held, numbers=numbers, table=table)


def _check_arrays(held: dict[str, Any], parts: dict[str, Any]) -> None:
    """Raise for what was saved of parameters of other shapes or dtypes."""
    for name in ("leaves", "numbers", "counts"):
        wanted = dict(leaf_paths(parts[name]))
        for path, array in leaf_paths(held[name]):
            was, here = (
                f"{getattr(x, 'dtype', type(x).__name__)} of shape {np.shape(x)}"
                for x in (array, wanted.get(path, array))
            )
            if was != here:
                raise ValueError(
                    "the saved state does not fit what it shall be restored as:\n"
                    f'  {name}: "{path}" was saved as {was}; here it is {here}'
                )


def _scheduler_to_dict(state: SchedulerState) -> dict[str, Any]:
    return {
        "values": serialization.to_state_dict(state.values),
        "param_groups": serialization.to_state_dict(state.param_groups),
        "description": json.dumps(described(state)),
    }


def _scheduler_from_dict(target: SchedulerState, state: dict[str, Any]) -> SchedulerState:
    held = _checked(state, target, "values", "param_groups")
    return SchedulerState(
        serialization.from_state_dict(target.values, held["values"], "values"),
        serialization.from_state_dict(target.param_groups, held["param_groups"], "param_groups"),
        target.kind,
    )


def register() -> None:
    """Tell Flax; once is enough, and again does no harm."""
    tell: Any = serialization.register_serialization_state
    tell(GroupsState, _groups_to_dict, _groups_from_dict, override=True)
    tell(SchedulerState, _scheduler_to_dict, _scheduler_from_dict, override=True)
