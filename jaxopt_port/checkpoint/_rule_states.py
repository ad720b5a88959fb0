"""The state of this library's rules and of the user's own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..engine._hyperparams import own_value
from ..engine._leaf_states import (
    members_of,
    program_leaf_states,
    with_program_leaf_states,
)
from ..engine._table import GroupsState
from ._arrays import as_numpy, equal, fitted

States = dict[str, dict[str, Any]]


def read(found: GroupsState, group: int) -> States:
    begins = _begins(found, group)
    return {
        path: _as_torch_holds({name: as_numpy(x) for name, x in held.items()}, begins)
        for path, held in program_leaf_states(found, group).items()
    }


def _begins(found: GroupsState, group: int) -> str | None:
    rule = found.table.groups[group].rule
    assert rule is not None
    return rule.begins if rule.begins in _shared(found, group) else None


def _shared(found: GroupsState, group: int) -> Mapping[str, Any]:
    scalars: Mapping[str, Any] = found.injected(group).inner_state.scalars
    return scalars


def _as_torch_holds(held: dict[str, Any], begins: str | None) -> dict[str, Any]:
    if begins is not None:
        if not held[begins]:
            return {}
        if held[begins].dtype == bool:
            del held[begins]
    # An integer count is a Python number in torch.
    return {k: int(v) if v.shape == () and v.dtype == np.int32 else v for k, v in held.items()}


def write(
    found: GroupsState, group: int, states: Mapping[str, Mapping[str, Any]]
) -> tuple[GroupsState, list[str]]:
    fresh = program_leaf_states(found, group)
    begins = _begins(found, group)
    shared = _shared(found, group)
    flag = begins if begins and own_value(shared[begins]).dtype == bool else None
    problems: list[str] = []
    new: States = {}
    for owner in dict.fromkeys(members_of(found, group).values()):
        paths = [path for path, its in members_of(found, group).items() if its == owner]
        label = found.table.groups[owner].label
        without = [path for path in paths if not states.get(path)]
        rule = found.table.groups[owner].rule
        if rule is not None and rule.begins is None and without:
            problems.append(f"{label}: no state for {_listed(without)}")
        if len(without) not in (0, len(paths)) and begins is not None:
            problems.append(
                f"{label}: some parameters have state and {_listed(without)} have none; the "
                "parameters of a group begin together here: put them into groups of their own"
            )
        for path in paths:
            given = states.get(path, {})
            if given:
                filled = {**given, flag: np.True_} if flag else given
                new[path] = _fitted(path, filled, fresh[path], problems)
            else:
                new[path] = fresh[path]
        begun = [path for path in paths if path not in without]
        problems += _unlike(label, {path: new[path] for path in begun}, set(shared))
    return (found if problems else with_program_leaf_states(found, group, new)), problems


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


def _unlike(label: str, states: States, shared: set[str]) -> Iterator[str]:
    """Yield the problems with what the parameters of one group should have in common."""
    if not states:
        return
    (first, held), *others = states.items()
    for name in shared:
        value = as_numpy(held[name])
        if name == "step" and not (math.isfinite(value) and value >= 0 and value == int(value)):
            yield f'{label}: step of "{first}" is {value}; it must be a whole number, not below 0'
        odd = [path for path, other in others if not equal(other[name], value)]
        if odd:
            yield (
                f'{label}: {name} is {value} for "{first}" and '
                f'{as_numpy(states[odd[0]][name])} for "{odd[0]}"'
                + (f" and {len(odd) - 1} more" if odd[1:] else "")
                + "; the parameters of a group have it in common here: put them into groups of "
                "their own"
            )


def _listed(names: list[str], limit: int = 6) -> str:
    shown = ", ".join(f'"{name}"' for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
