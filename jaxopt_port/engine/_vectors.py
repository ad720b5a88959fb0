"""One number of several groups as a vector, for what sets it at each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..numerics import encoded, own_value
from ._hyperparams import check_names, get_hyperparams, values_of
from ._table import GroupsState
from ._tables import row, written


def read_number(state: GroupsState, groups: Sequence[int], name: str) -> Any:
    """Return a number of several groups as one float64 array: NumPy, or JAX where it is traced."""
    value = values_of(state)[name]
    kinds = [dict(state.table.groups[i].numbers)[name] for i in groups]
    with jax.enable_x64(True):
        if kinds[0] is None:
            return value[np.array(groups)] if value.ndim == 1 else value[np.array(groups), 0]
        return value[np.array(groups), : kinds[0]]


def write_number(state: GroupsState, groups: Sequence[int], name: str, values: Any) -> GroupsState:
    """Write a number of several groups, unchecked, as torch's ``param_groups`` takes it."""
    width = state.table.widths[name]
    rows = [encoded(row(_parts(values[k]), width)) for k in range(len(groups))]
    return replace(state, numbers={**state.numbers, name: written(state, name, groups, rows)})


def _parts(value: Any) -> Any:
    return list(value) if jnp.ndim(value) else value


def settable(state: GroupsState, groups: Sequence[int], name: str) -> GroupsState:
    """Return the state in which a number may be set to anything in each of the groups.

    A group that was built without the state that the number may need (SGD's momentum_buffer) holds
    it from the next step on, which makes it, as torch does.

    Raises:
        ValueError: a number that cannot be set.
    """
    current, new = get_hyperparams(state), list(state.table.groups)
    for i in groups:
        check_names(state, i, [name])
        group = new[i]
        if group.rule is None or group.holds is None:
            continue
        with_nan = jax.tree.map(lambda _: math.nan, current[i][name])
        needed = group.rule.holds(**{**current[i], name: with_nan})
        if needed is None or not needed <= group.holds:
            new[i] = replace(group, holds=None)
    return replace(state, table=replace(state.table, groups=tuple(new)))


def updates_taken(state: GroupsState, group: int) -> Any:
    """Return how many updates a group has taken; traced where the state is."""
    return own_value(state.counts)[group]
