"""What a grouped optimizer holds for each parameter, by torch's names, and a state made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from ._hyperparams import find_groups_state, replace_groups_state, with_injected
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
    states: dict[str, dict[str, Any]] = {}
    for path, group in _trained(found).items():
        scalars = _rule_state(found, group).scalars
        position = found.table.groups[group].position
        states[path] = {name: vector[position] for name, vector in scalars.items()}
    for group in _programs(found).values():
        for name, (tree,) in _rule_state(found, group).leaves.items():
            for path, leaf in leaf_paths(tree):
                states[path][name] = leaf
    return states


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
    found = find_groups_state(state)
    new = found
    for program, first in _programs(found).items():
        old = _rule_state(found, first)
        own = {p: g for p, g in _trained(found).items() if found.table.groups[g].program == program}
        scalars = dict(old.scalars)
        for path, group in reversed(own.items()):
            position = found.table.groups[group].position
            for name, vector in scalars.items():
                scalars[name] = vector.at[position].set(states[path][name])
        leaves = {
            name: _replaced(
                tree, {path: held[name] for path, held in states.items() if name in held}
            )
            for name, tree in old.leaves.items()
        }
        injected = new.injected(first)._replace(inner_state=RuleState(scalars, leaves))
        new = with_injected(new, program, injected)
    return replace_groups_state(state, lambda _: new)


def _replaced(boxed: Any, arrays: Mapping[str, Any]) -> Any:
    (tree,) = boxed
    leaves = []
    for path, old in leaf_paths(tree):
        if jnp.shape(arrays[path]) != jnp.shape(old):
            raise ValueError(
                f'the state of "{path}" has shape {jnp.shape(arrays[path])}; {jnp.shape(old)} is '
                "needed"
            )
        leaves.append(jnp.asarray(arrays[path], old.dtype))
    return (jax.tree.unflatten(jax.tree.structure(tree), leaves),)


def _trained(found: GroupsState) -> dict[str, int]:
    """By path, the group of each parameter that is trained."""
    owners = zip(found.table.paths, found.table.assignment, strict=True)
    return {path: group for path, group in owners if not found.table.groups[group].frozen}


def _programs(found: GroupsState) -> dict[str, int]:
    """By program, one of its groups."""
    return {g.program: i for i, g in enumerate(found.table.groups) if not g.frozen}


def _rule_state(found: GroupsState, group: int) -> RuleState:
    if found.table.groups[group].rule is None:
        raise ValueError("the state of a foreign factory is not kept by torch's names")
    held: RuleState = found.injected(group).inner_state
    return held
