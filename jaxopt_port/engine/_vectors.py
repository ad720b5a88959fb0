"""One number of several groups as a vector, for what sets it at each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._hyperparams import (
    check_held,
    check_names,
    get_hyperparams,
    is_traced,
    own_value,
    program_number,
    put,
    with_injected,
)
from ._numbers import encoded
from ._table import GroupsState


def read_number(state: GroupsState, groups: Sequence[int], name: str) -> Any:
    """Return a number of several groups as one float64 array: NumPy, or JAX where it is traced."""
    table = state.table.groups
    members = {table[i].program: i for i in groups}
    programs = {program: program_number(state, i, name) for program, i in members.items()}
    (first, *others) = programs.values()
    places = [table[i].position for i in groups]
    if not others and first.shape[:1] == (len(groups),) and places == list(range(len(groups))):
        return first
    with jax.enable_x64(True):
        own = [programs[table[i].program] for i in groups]
        own = [v if at is None else v[at] for at, v in zip(places, own, strict=True)]
        return jnp.stack(own) if is_traced(own) else np.stack(own)


def write_number(state: GroupsState, groups: Sequence[int], name: str, values: Any) -> GroupsState:
    """Write a number of several groups, unchecked, as torch's ``param_groups`` takes it."""
    table, parts = state.table.groups, encoded(values)
    for program in dict.fromkeys(table[i].program for i in groups):
        own = [k for k, i in enumerate(groups) if table[i].program == program]
        positions = [table[groups[k]].position for k in own]
        injected = state.injected(groups[own[0]])
        at, rows = (..., own[0]) if positions == [None] else (np.array(positions), np.array(own))
        written = put(injected.hyperparams[name], at, parts[rows])
        numbers = {**injected.hyperparams, name: written}
        state = with_injected(state, program, injected._replace(hyperparams=numbers))
    return state


def check_settable(state: GroupsState, groups: Sequence[int], name: str) -> None:
    """Raise ValueError for a number that cannot be set in each of the groups."""
    current = get_hyperparams(state)
    for i in groups:
        with_nan = jax.tree.map(lambda _: math.nan, current[i][name])
        check_names(state, i, [name])
        options = {k: v for k, v in current[i].items() if k != "name"} | {name: with_nan}
        group = state.table.groups[i]
        check_held(group, group.rule, options, {name}, f" ({group.label})")


def updates_taken(state: GroupsState, group: int) -> Any:
    """Return how many updates a group has taken; traced where the state is."""
    return own_value(state.injected(group).count)
