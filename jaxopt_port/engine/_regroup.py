"""``add_param_group``: another group in mid-run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from ..numerics import Float64, own_value
from ..trees import is_nnx_variable, leaf_paths
from ._checks import check_params
from ._definition import Definition
from ._groups import Optimizer
from ._hyperparams import find_groups_state, replace_groups_state
from ._selectors import REST, resolve
from ._table import GroupsState, Table
from ._tables import parts_of
from ._transform import as_trees, held_by

State = TypeVar("State")


def add_param_group(
    tx: Optimizer, state: State, params: Any, group: Mapping[str, Any]
) -> tuple[Optimizer, State]:
    """Add a parameter group in mid-run: torch's ``optimizer.add_param_group``.

    The new group may take parameters that were frozen, and parameters that ``params`` did not have
    when the state was made; of these, it must take all that a frozen group of ``jp.REST`` does not.
    Those that are trained already keep their group, their numbers and their state.

    Args:
        tx: a grouped optimizer.
        state: its state, bare or within other Optax states.
        params: the parameters, with any new ones in their place.
        group: the new group; options that it does not set take the optimizer's defaults.

    Returns:
        The new transformation and its state; the arguments still work together as before.

    Raises:
        ValueError: a parameter of the group is trained already, or a new one is in no group.
        TypeError: an unknown option, or a transformation without groups.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params = {"stem": jnp.ones(2), "head": jnp.ones(2)}
        >>> tx = jp.SGD([{"params": "head"}, {"params": jp.REST, "frozen": True}], lr=0.1)
        >>> state = tx.init(params)
        >>> tx, state = jp.add_param_group(tx, state, params, {"params": "stem", "lr": 1e-4})
        >>> [options.get("lr") for options in jp.get_hyperparams(state)]
        [0.1, None, 0.0001]
    """
    if not isinstance(tx, Optimizer):
        raise TypeError(
            "add_param_group needs an optimizer with groups, as the CapWords spellings and "
            f"jp.param_groups make them; got {type(tx).__name__}"
        )
    old = find_groups_state(state)
    tx.definition.check_state(old)
    definition = tx.definition.extended([group])
    check_params(params)
    paths = tuple(path for path, _ in leaf_paths(params))
    # The old ones may have come to hold more than they were built with.
    groups = (*old.table.groups, definition.groups[-1])
    table = Table.new(groups, paths, _assignment(definition, old.table, params))
    fresh = definition.init(params, table)
    new_tx = Optimizer.of(definition)
    return new_tx, replace_groups_state(state, lambda _: _carry(old, fresh))


def _carry(old: GroupsState, fresh: GroupsState) -> GroupsState:
    """Return a fresh state, of one group more, with all that the old one holds."""
    wrapped = any(map(is_nnx_variable, jax.tree.leaves(old, is_leaf=is_nnx_variable)))
    bare = jax.tree.map(own_value, old, is_leaf=is_nnx_variable) if wrapped else old
    numbers = {}
    for name, parts in parts_of(fresh).items():
        known = parts_of(bare).get(name)
        if known is not None:
            at = (
                (slice(len(known)), 0)
                if parts.ndim > known.ndim
                else ((slice(len(known)), *(slice(n) for n in known.shape[1:-1])))
            )
            parts = parts.at[at].set(known)
        numbers[name] = Float64(parts)
    counts = jnp.asarray(bare.counts)
    # Schedules count the optimizer's updates, not the group's.
    counts = jnp.concatenate([counts, counts[:1] if len(counts) else fresh.counts])
    table, scalars = _carried_clocks(bare, fresh)
    leaves = _carried_leaves(bare, fresh)
    others = {**fresh.others, **bare.others}
    resting = table.resting | old.table.resting
    state = GroupsState(leaves, scalars, numbers, counts, others, replace(table, resting=resting))
    if wrapped:  # the state of an nnx.Optimizer, which wraps each leaf
        made: GroupsState = sys.modules["flax.nnx.training.optimizer"].to_opt_state(state)
        return made
    return state


def _carried_clocks(old: GroupsState, fresh: GroupsState) -> tuple[Table, dict[str, Any]]:
    """Return the old clocks with that of the new group behind them."""
    before = dict(zip(old.table.paths, old.table.clocks, strict=True))
    n, newest = len(old.table.of_clocks), len(fresh.table.groups) - 1
    of_clocks = old.table.of_clocks
    if newest in fresh.table.of_clocks:
        of_clocks = (*of_clocks, newest)
    pairs = zip(fresh.table.paths, fresh.table.assignment, strict=True)
    clocks = tuple(
        (n if newest in fresh.table.of_clocks else -1) if owner == newest else before.get(path, -1)
        for path, owner in pairs
    )
    scalars = {}
    for name, start in fresh.scalars.items():
        known = old.scalars.get(name)
        own = jnp.zeros(n, start.dtype) if known is None else jnp.asarray(known).astype(start.dtype)
        new = start[-1:] if len(of_clocks) > n else start[:0]
        scalars[name] = jnp.concatenate([own, new])
    return replace(fresh.table, clocks=clocks, of_clocks=of_clocks), scalars


def _carried_leaves(old: GroupsState, fresh: GroupsState) -> dict[str, Any]:
    place = {path: i for i, path in enumerate(old.table.paths)}
    was, _ = held_by(old.leaves)
    now, structures = held_by(fresh.leaves)
    for i, path in enumerate(fresh.table.paths):
        held = was[place[path]] if was and path in place else {}
        for name, array in held.items():
            if name in now[i] and now[i][name].shape != array.shape:
                raise ValueError(
                    f'{name} of "{path}" has shape {array.shape} in the state, '
                    f"{now[i][name].shape} by the parameters"
                )
            now[i][name] = array
    return as_trees(now, structures)


def _assignment(definition: Definition, old: Table, params: Any) -> tuple[int, ...]:
    """Return who is in which group: the old ones where they were, the rest by selectors."""
    labels = [group.label for group in definition.groups]
    newest = len(labels) - 1
    selector = definition.members[newest].selector
    before = dict(zip(old.paths, old.assignment, strict=True))
    trained = {p: owner for p, owner in before.items() if not definition.groups[owner].frozen}
    # jp.REST stands for all that is not trained yet.
    chosen = resolve([selector] if selector is REST else [selector, REST], labels[-1:] * 2, params)
    assignment = []
    for (path, _), pick in zip(leaf_paths(params), chosen, strict=True):
        if path in trained:
            if pick == 0 and selector is not REST:
                raise ValueError(
                    "some parameters appear in more than one parameter group: "
                    f'"{path}" is in {labels[trained[path]]} and in {labels[newest]}'
                )
            assignment.append(trained[path])
        elif pick == 0:
            assignment.append(newest)
        else:
            assignment.append(before[path] if path in before else _frozen_rest(definition, path))
    missing = set(before) - {path for path, _ in leaf_paths(params)}
    if missing:
        raise ValueError(f'the parameters have lost "{min(missing)}", which the state was made for')
    return tuple(assignment)


def _frozen_rest(definition: Definition, path: str) -> int:
    for index, member in enumerate(definition.members):
        # A trained group has taken steps, and a step count, that a new parameter has not.
        if member.selector is REST and member.group.frozen:
            return index
    raise ValueError(
        f'"{path}" is new, and only the new group, or a frozen group of jp.REST, can take new '
        "parameters: select it"
    )
