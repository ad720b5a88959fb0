"""``add_param_group``: another group in mid-run."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from ._checks import check_params
from ._definition import Definition
from ._groups import GroupedTransformation
from ._hyperparams import find_groups_state, replace_groups_state, with_injected
from ._paths import is_nnx_variable, leaf_paths
from ._selectors import REST, resolve
from ._table import GroupsState, Table

State = TypeVar("State")

# The paths of the vectors over groups in a PartitionState.
_OVER_GROUPS = re.compile(r"inner_states/\d+/inner_state/(hyperparams|inner_state/scalars)/")


def add_param_group(
    tx: GroupedTransformation, state: State, params: Any, group: Mapping[str, Any]
) -> tuple[GroupedTransformation, State]:
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
    if not isinstance(tx, GroupedTransformation):
        raise TypeError(
            "add_param_group needs an optimizer with groups, as the CapWords spellings and "
            f"jp.param_groups make them; got {type(tx).__name__}"
        )
    old = find_groups_state(state)
    tx.definition.check_state(old)
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
    leaves = [_carried(path, before.get(path), leaf) for path, leaf in leaf_paths(fresh.inner)]
    inner = jax.tree.unflatten(jax.tree.structure(fresh.inner), leaves)
    if any(map(is_nnx_variable, jax.tree.leaves(old.inner, is_leaf=is_nnx_variable))):
        # The state of an nnx.Optimizer, which wraps each leaf.
        inner = sys.modules["flax.nnx.training.optimizer"].to_opt_state(inner)
    state = GroupsState(inner, fresh.table)
    counts = [old.injected(i).count for i, g in enumerate(old.table.groups) if not g.frozen]
    newest = fresh.table.groups[-1]
    if counts and not newest.frozen:  # schedules count the optimizer's updates, not the group's
        # A copy: two leaves that are one buffer cannot be donated.
        count = jax.tree.map(lambda x: jnp.array(x, copy=True), counts[0])
        injected = state.injected(-1)._replace(count=count)
        state = with_injected(state, newest.program, injected)
    return state


def _carried(path: str, old: Any, new: Any) -> Any:
    if old is None or new.shape == old.shape:
        return new if old is None else old
    if _OVER_GROUPS.match(path):
        return new.at[: old.shape[0]].set(old)
    raise ValueError(f"{path} has shape {old.shape} in the state, {new.shape} by the parameters")


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
