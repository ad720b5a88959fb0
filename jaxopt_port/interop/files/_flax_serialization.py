"""What ``flax.serialization`` must know to write this library's states, and to read them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from flax import serialization

from ...engine import GroupsState, Table
from ...lr_scheduler import SchedulerState
from ...numerics import Float64
from ._group_descriptions import HINT, described, differences


def _checked(state: Any, target: Any) -> Any:
    try:
        saved = json.loads(state["description"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("these bytes hold no state of this library: no 'description'") from error
    found = differences(saved, described(target))
    if found:
        hint = [HINT] if isinstance(target, GroupsState) else []
        lines = "".join(f"\n  {line}" for line in [*found, *hint])
        raise ValueError(f"the saved state does not fit what it shall be restored as:{lines}")
    return state


def _groups_to_dict(state: GroupsState) -> dict[str, Any]:
    held = {name: serialization.to_state_dict(part) for name, part in _parts(state).items()}
    table = {
        "clocks": state.table.clocks,
        "of_clocks": state.table.of_clocks,
        "resting": sorted(state.table.resting),
        "resting_leaves": sorted(state.table.resting_leaves),
    }
    return {**held, "description": json.dumps(described(state)), "table": json.dumps(table)}


def _parts(state: GroupsState) -> dict[str, Any]:
    return {
        "leaves": state.leaves,
        "scalars": state.scalars,
        "numbers": {name: value.parts for name, value in state.numbers.items()},
        "counts": state.counts,
        "others": state.others,
    }


def _groups_from_dict(target: GroupsState, state: dict[str, Any]) -> GroupsState:
    saved = _checked(state, target)
    held = {
        name: serialization.from_state_dict(part, saved[name], name)
        for name, part in _parts(target).items()
    }
    numbers = {name: Float64(parts) for name, parts in held.pop("numbers").items()}
    return GroupsState(**held, numbers=numbers, table=_table(target.table, saved.get("table")))


def _table(table: Table, saved: str | None) -> Table:
    """Return the table with what changes during a run: who counts with whom, who rests."""
    if saved is None:  # written by an earlier version
        return table
    found = json.loads(saved)
    return replace(
        table,
        clocks=tuple(found["clocks"]),
        of_clocks=tuple(found["of_clocks"]),
        resting=frozenset(found["resting"]),
        resting_leaves=frozenset(found["resting_leaves"]),
    )


def _scheduler_to_dict(state: SchedulerState) -> dict[str, Any]:
    return {
        "values": serialization.to_state_dict(state.values),
        "param_groups": serialization.to_state_dict(state.param_groups),
        "description": json.dumps(described(state)),
    }


def _scheduler_from_dict(target: SchedulerState, state: dict[str, Any]) -> SchedulerState:
    held = _checked(state, target)
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
