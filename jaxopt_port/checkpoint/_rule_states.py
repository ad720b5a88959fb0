"""The state of this library's rules and of the user's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from ..engine import GroupsState, group_leaf_states, scalar_kinds, with_group_leaf_states
from ..trees import listed
from ._arrays import as_numpy, fitted

# By path and by torch's name.
States: TypeAlias = dict[str, dict[str, Any]]


def read(found: GroupsState, group: int) -> States:
    rule = found.table.groups[group].rule
    assert rule is not None
    begins = _begins(found, group)
    states = {}
    for path, held in group_leaf_states(found, group).items():
        states[path] = _as_torch_holds({k: as_numpy(x) for k, x in held.items()}, begins)
        if rule.sparse and "step" in states[path]:  # torch's SparseAdam counts in Python
            states[path]["step"] = int(states[path]["step"])
    return states


def _begins(found: GroupsState, group: int) -> str | None:
    rule = found.table.groups[group].rule
    assert rule is not None
    return rule.begins if rule.begins in scalar_kinds(found, group) else None


def _as_torch_holds(held: dict[str, Any], begins: str | None) -> dict[str, Any]:
    if begins is not None:
        if not held[begins]:
            return {}
        if held[begins].dtype == bool:
            del held[begins]
    return held


def write(
    found: GroupsState, group: int, states: Mapping[str, Mapping[str, Any]]
) -> tuple[GroupsState, list[str]]:
    fresh = group_leaf_states(found, group)
    begins, kinds = _begins(found, group), scalar_kinds(found, group)
    flag = begins if begins and kinds[begins].kind == "b" else None
    info = found.table.groups[group]
    problems: list[str] = []
    new: States = {}
    for path, like in fresh.items():
        given = states.get(path, {})
        new[path] = like
        if given:
            filled = {**given, flag: np.True_} if flag else dict(given)
            for name, value in filled.items():
                # Python's numbers, which older torch kept, become float32 when torch loads them.
                if name in kinds and isinstance(value, float) and kinds[name].kind == "f":
                    filled[name] = np.asarray(value).astype(kinds[name])
            wrong: list[str] = []
            if "step" in kinds and "step" in filled:
                filled["step"] = _counted(info.label, path, filled["step"], wrong)
            new[path] = _fitted(path, filled, like, problems)
            problems += wrong
    return (found if problems else with_group_leaf_states(found, group, new)), problems


def _counted(label: str, path: str, step: Any, problems: list[str]) -> Any:
    """Return a step count as float32, as torch keeps it and rounds it, beyond 2**24."""
    try:
        value = float(np.asarray(step).item())
    except (TypeError, ValueError):
        return step  # said to be no scalar when it is fitted
    if not (math.isfinite(value) and value >= 0 and value == int(value)):
        problems.append(
            f'{label}: step of "{path}" is {value}; it must be a whole number, not below 0'
        )
    return np.float32(value)


def _fitted(
    path: str, given: Mapping[str, Any], like: Mapping[str, Any], problems: list[str]
) -> dict[str, Any]:
    missing = [name for name in like if name not in given]
    extra = [name for name in given if name not in like]
    if missing:
        problems.append(f'the state of "{path}" has no {_listed(missing)}')
    if extra:
        problems.append(
            f'the state of "{path}" has {_listed(extra)}, which this optimizer does not hold'
        )
    return {
        name: fitted(given[name], value, f'{name} of "{path}"', problems)
        if name in given
        else value
        for name, value in like.items()
    }


def _listed(names: list[str]) -> str:
    return listed([f'"{name}"' for name in names], 6)
