"""``add_param_group``: another group in mid-run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from ._checks import check_params
from ._groups import Definition, GroupedTransformation
from ._hyperparams import find_groups_state, replace_groups_state, with_injected
from ._paths import leaf_paths
from ._selectors import REST, resolve
from ._table import GroupsState, Table

State = TypeVar("State")


def add_param_group(
    tx: GroupedTransformation, state: State, params: Any, group: Mapping[str, Any]
) -> tuple[GroupedTransformation, State]:
    """Add a parameter group in mid-run: torch's ``optimizer.add_param_group``.

    The new group may take parameters that were frozen, and parameters that ``params`` did not have
    when the state was made. Those that are trained already keep their group, their numbers and
    their state.

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
    if not isinstance(tx, GroupedTransformation):
        raise TypeError(
            "add_param_group needs an optimizer with groups, as the CapWords spellings and "
            f"jp.param_groups make them; got {type(tx).__name__}"
        )
    old = find_groups_state(state)
    definition = tx.definition.extended([group])
    check_params(params)
    table = definition.assigned(params, _assignment(definition, old.table, params))
    fresh = definition.init(params, table)
    new_tx = GroupedTransformation.of(definition)
    return new_tx, replace_groups_state(state, lambda _: _carry(old, fresh))


def _carry(old: GroupsState, fresh: GroupsState) -> GroupsState:
    """Return a fresh state with all that the old one holds, found by path.

    Old groups keep their places, so a vector over groups has the old entries in front.
    """
    before = dict(leaf_paths(old.inner))
    with jax.enable_x64(True):
        leaves = [_carried(path, before.get(path), leaf) for path, leaf in leaf_paths(fresh.inner)]
        inner = jax.tree.unflatten(jax.tree.structure(fresh.inner), leaves)
    state = GroupsState(inner, fresh.table)
    counts = [old.injected(i).count for i, g in enumerate(old.table.groups) if not g.frozen]
    newest = fresh.table.groups[-1]
    if counts and not newest.frozen:  # schedules count the optimizer's updates, not the group's
        injected = state.injected(-1)._replace(count=jax.tree.leaves(counts[0])[0])
        state = with_injected(state, newest.program, injected)
    return state


def _carried(path: str, old: Any, new: Any) -> Any:
    if old is None or new.shape == old.shape:
        return new if old is None else old
    if "/hyperparams/" in path or "/scalars/" in path:
        return new.at[: old.shape[0]].set(old)
    raise ValueError(f"{path} has shape {old.shape} in the state, {new.shape} by the parameters")


def _assignment(definition: Definition, old: Table, params: Any) -> tuple[int, ...]:
    """Return who is in which group: the old ones where they were, the rest by selectors."""
    labels = [group.label for group in definition.groups]
    newest = len(labels) - 1
    before = dict(zip(old.paths, old.assignment, strict=True))
    chosen = resolve(
        [definition.members[newest].selector, REST], [labels[newest], "the others"], params
    )
    assignment = []
    for (path, _), pick in zip(leaf_paths(params), chosen, strict=True):
        owner = before.get(path)
        trained = owner is not None and not definition.groups[owner].frozen
        if pick == 0 and trained:
            raise ValueError(
                "some parameters appear in more than one parameter group: "
                f'"{path}" is in {labels[owner]} and in {labels[newest]}'
            )
        if pick == 0:
            owner = newest
        elif owner is None:
            owner = _rest_of(definition, path)
        assignment.append(owner)
    missing = set(before) - {path for path, _ in leaf_paths(params)}
    if missing:
        raise ValueError(f'the parameters have lost "{min(missing)}", which the state was made for')
    return tuple(assignment)


def _rest_of(definition: Definition, path: str) -> int:
    for index, member in enumerate(definition.members):
        if member.selector is REST:
            return index
    raise ValueError(
        f'"{path}" is new and in no parameter group; select it, or have a group of jp.REST'
    )
