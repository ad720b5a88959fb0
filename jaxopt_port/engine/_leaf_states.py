"""What a grouped optimizer holds for each parameter, by torch's names, and a state made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ._hyperparams import find_groups_state, own_value, put, replace_groups_state, with_injected
from ._paths import leaf_paths
from ._table import GroupsState
from ._transform import RuleState

State = TypeVar("State")


def leaf_states(state: Any) -> dict[str, dict[str, Any]]:
    """Return what a grouped optimizer of this library holds for each parameter.

    Args:
        state: the state of a grouped optimizer, bare or within other Optax states.

    Returns:
        By the parameter's path, torch's ``optimizer.state[param]``: arrays by torch's name, and the
        group's scalars. A frozen parameter has no entry.

    Raises:
        ValueError: a group's optimizer is not of this library's rules.
    """
    found = find_groups_state(state)
    held = {
        path: of_leaf
        for group in programs_of(found).values()
        for path, of_leaf in program_leaf_states(found, group).items()
    }
    return {path: held[path] for path in found.table.paths if path in held}


def with_leaf_states(state: State, states: Mapping[str, Mapping[str, Any]]) -> State:
    """Return a state that holds other things for its parameters: the inverse of `leaf_states`.

    Args:
        state: the state of a grouped optimizer, bare or within other Optax states.
        states: by path and by torch's name, arrays of the shapes and dtypes that ``state`` has.
            What the leaves of a group share is read from the first of them.

    Raises:
        KeyError: a path or a name that ``state`` has is missing.
        ValueError: a shape that is not the state's; a group's optimizer is not of this library's.
    """
    new = find_groups_state(state)
    for group in programs_of(new).values():
        new = with_program_leaf_states(new, group, states)
    return replace_groups_state(state, lambda _: new)


def programs_of(found: GroupsState) -> dict[str, int]:
    """By program, one of its groups."""
    return {g.program: i for i, g in reversed([*enumerate(found.table.groups)]) if not g.frozen}


def members_of(found: GroupsState, group: int) -> dict[str, int]:
    """By path, the group of each parameter that shares the program of ``group``."""
    table = found.table
    program = table.groups[group].program
    owners = zip(table.paths, table.assignment, strict=True)
    return {path: owner for path, owner in owners if table.groups[owner].program == program}


def program_leaf_states(found: GroupsState, group: int) -> dict[str, dict[str, Any]]:
    """The same as `leaf_states` for the parameters that share the program of ``group``."""
    held = _rule_state(found, group)
    scalars = {name: own_value(vector) for name, vector in held.scalars.items()}
    states: dict[str, dict[str, Any]] = {
        path: {name: v[found.table.groups[owner].position] for name, v in scalars.items()}
        for path, owner in members_of(found, group).items()
    }
    for name, (tree,) in held.leaves.items():
        for path, leaf in leaf_paths(tree):
            states[path][name] = leaf
    return states


def with_program_leaf_states(
    found: GroupsState, group: int, states: Mapping[str, Mapping[str, Any]]
) -> GroupsState:
    """The same as `with_leaf_states` for the parameters that share the program of ``group``."""
    old = _rule_state(found, group)
    scalars = dict(old.scalars)
    members = members_of(found, group)
    for path, owner in reversed(members.items()):
        position = found.table.groups[owner].position
        for name, vector in scalars.items():
            scalars[name] = put(vector, position, states[path][name])
    leaves = {
        name: _replaced(tree, {p: states[p][name] for p in members if name in states[p]})
        for name, tree in old.leaves.items()
    }
    injected = found.injected(group)._replace(inner_state=RuleState(scalars, leaves))
    return with_injected(found, found.table.groups[group].program, injected)


def _replaced(boxed: Any, arrays: Mapping[str, Any]) -> Any:
    (tree,) = boxed
    leaves = []
    with jax.enable_x64(True):
        for path, old in leaf_paths(tree):
            if jnp.shape(arrays[path]) != jnp.shape(old):
                raise ValueError(
                    f'the state of "{path}" has shape {jnp.shape(arrays[path])}; '
                    f"{jnp.shape(old)} is needed"
                )
            leaves.append(jnp.asarray(own_copy(arrays[path]), old.dtype))
    return (jax.tree.unflatten(jax.tree.structure(tree), leaves),)


def own_copy(array: Any) -> Any:
    """Return NumPy's arrays copied: JAX may alias them, and their owner (torch) overwrites them."""
    return np.array(array) if isinstance(array, np.ndarray) else array


def _rule_state(found: GroupsState, group: int) -> RuleState:
    if found.table.groups[group].rule is None:
        raise ValueError("the state of a foreign factory is not kept by torch's names")
    held: RuleState = found.injected(group).inner_state
    return held
