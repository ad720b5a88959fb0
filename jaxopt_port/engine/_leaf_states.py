"""What a grouped optimizer holds for each parameter, by torch's names, and a state made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ..numerics import own_value
from ..trees import is_nnx_variable
from ._hyperparams import find_groups_state, replace_groups_state
from ._table import GroupsState
from ._tables import put
from ._transform import is_not_held

State = TypeVar("State")


def leaf_states(state: Any) -> dict[str, dict[str, Any]]:
    """Return what a grouped optimizer of this library holds for each parameter.

    Args:
        state: the state of a grouped optimizer, bare or within other Optax states.

    Returns:
        By the parameter's path, torch's ``optimizer.state[param]``: arrays by torch's name, and
        scalars such as ``step``. A frozen parameter has no entry.

    Raises:
        ValueError: a group's optimizer is not of this library's rules.
    """
    found = find_groups_state(state)
    _check_rules(found)
    held = {
        path: of_leaf
        for group in found.table.trained
        for path, of_leaf in group_leaf_states(found, group).items()
    }
    return {path: held[path] for path in found.table.paths if path in held}


def with_leaf_states(state: State, states: Mapping[str, Mapping[str, Any]]) -> State:
    """Return a state that holds other things for its parameters: the inverse of `leaf_states`.

    Args:
        state: the state of a grouped optimizer, bare or within other Optax states.
        states: by path and by torch's name, arrays of the shapes and dtypes that ``state`` has.
            Those of a group whose scalars differ count their steps apart from then on.

    Raises:
        KeyError: a path or a name that ``state`` has is missing.
        ValueError: a shape that is not the state's; a group's optimizer is not of this library's.
    """
    new = find_groups_state(state)
    _check_rules(new)
    for group in new.table.trained:
        new = with_group_leaf_states(new, group, states)
    return replace_groups_state(state, lambda _: new)


def _check_rules(found: GroupsState) -> None:
    if any(found.table.groups[i].rule is None for i in found.table.trained):
        raise ValueError("the state of a foreign factory is not kept by torch's names")


def scalar_kinds(found: GroupsState, group: int) -> dict[str, Any]:
    """Return the types of what the leaves of a clock share, by torch's name."""
    program = found.table.groups[group].program
    assert program is not None
    shapes = [
        (name, () if arity is None else (arity,)) for name, arity in found.table.groups[group].given
    ]
    with jax.enable_x64(True):
        numbers = {name: jax.ShapeDtypeStruct(shape, jnp.float64) for name, shape in shapes}
        return {k: v.dtype for k, v in jax.eval_shape(program.start, numbers).items()}


def group_leaf_states(found: GroupsState, group: int) -> dict[str, dict[str, Any]]:
    """The same as `leaf_states` for the parameters of one group."""
    kinds = scalar_kinds(found, group)
    # What a group has come to hold since it was built is made in its next step.
    none = np.zeros(len(found.table.of_clocks))
    vectors = {name: own_value(found.scalars.get(name, none)) for name in kinds}
    members = found.table.members(group)
    flat = {name: leaves_up_to_held(tree) for name, tree in found.leaves.items()}
    return {
        found.table.paths[i]: {
            **{k: v[found.table.clocks[i]].astype(kinds[k]) for k, v in vectors.items()},
            **{name: leaves[i] for name, leaves in flat.items() if not is_not_held(leaves[i])},
        }
        for i in members
    }


def leaves_up_to_held(tree: Any) -> list[Any]:
    """Return the leaves of a tree, a `NotHeld` where there is none; a Variable is one."""
    leaves, _ = jax.tree.flatten(tree, is_leaf=lambda x: is_not_held(x) or is_nnx_variable(x))
    return list(leaves)


def with_group_leaf_states(
    found: GroupsState, group: int, states: Mapping[str, Mapping[str, Any]]
) -> GroupsState:
    """The same as `with_leaf_states` for the parameters of one group."""
    table, members = found.table, found.table.members(group)
    names = list(scalar_kinds(found, group))
    paths = {i: table.paths[i] for i in members}
    found = _with_clocks(found, group, {i: [states[p][n] for n in names] for i, p in paths.items()})
    table = found.table
    scalars = {name: found.scalars[name] for name in found.scalars}
    for clock, i in reversed([(table.clocks[i], i) for i in members]):
        for name in names:
            scalars[name] = put(scalars[name], clock, states[paths[i]][name])
    leaves = {}
    for name, tree in found.leaves.items():
        old = leaves_up_to_held(tree)
        for i, path in paths.items():
            if not is_not_held(old[i]):
                old[i] = _replaced(path, old[i], states[path][name])
        structure = jax.tree.structure(tree, is_leaf=lambda x: is_not_held(x) or is_nnx_variable(x))
        leaves[name] = jax.tree.unflatten(structure, old)
    return replace(found, scalars=scalars, leaves=leaves)


def _with_clocks(found: GroupsState, group: int, shared: Mapping[int, list[Any]]) -> GroupsState:
    """Return a state in which those leaves of a group have one clock that share the same."""
    if any(isinstance(x, jax.core.Tracer) for own in shared.values() for x in own):
        return found
    table = found.table
    keys = {i: tuple(np.asarray(own_value(x)).tobytes() for x in own) for i, own in shared.items()}
    clocks, of_clocks = list(table.clocks), list(table.of_clocks)
    known: dict[Any, int] = {}
    free = [c for c, g in enumerate(of_clocks) if g == group]
    for i, key in keys.items():
        if key not in known:
            known[key] = free.pop(0) if free else len(of_clocks)
            if known[key] == len(of_clocks):
                of_clocks.append(group)
        clocks[i] = known[key]
    more = len(of_clocks) - len(table.of_clocks)
    scalars = {
        name: _longer(vector, more) if more else vector for name, vector in found.scalars.items()
    }
    table = replace(table, clocks=tuple(clocks), of_clocks=tuple(of_clocks))
    return replace(found, scalars=scalars, table=table)


def _longer(vector: Any, more: int) -> Any:
    old = np.asarray(own_value(vector))
    return jnp.asarray(np.concatenate([old, np.zeros(more, old.dtype)]))


def _replaced(path: str, leaf: Any, array: Any) -> Any:
    old = own_value(leaf)
    if jnp.shape(array) != jnp.shape(old):
        raise ValueError(
            f'the state of "{path}" has shape {jnp.shape(array)}; {jnp.shape(old)} is needed'
        )
    with jax.enable_x64(True):
        new = jnp.asarray(own_copy(array), old.dtype)
    return leaf.replace(new) if is_nnx_variable(leaf) else new


def own_copy(array: Any) -> Any:
    """Return NumPy's arrays copied: JAX may alias them, and their owner (torch) overwrites them."""
    return np.array(array) if isinstance(array, np.ndarray) else array
