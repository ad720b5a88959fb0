from __future__ import annotations

from typing import Any

import jax
import optax

from ..engine import (
    Group,
    GroupsState,
    Optimizer,
    Table,
    find_groups_state,
    get_hyperparams,
    leaf_paths,
)
from ..numerics import own_value
from ._kinds import read_group
from ._structure import StateDict


def state_dict(tx: optax.GradientTransformation, state: Any, params: Any) -> StateDict:
    """Return the state of a grouped optimizer in torch's layout, with NumPy leaves.

    The counterpart of ``torch.optim.Optimizer.state_dict``, for every optimizer of this library and
    for `jp.param_groups` around a factory of Optax or of the user. Arrays keep the layout of their
    parameter here; `jaxopt_port.interop` carries them to torch's.

    Args:
        tx: an optimizer with groups, bare or within transformations that hold no arrays, as
            clipping is.
        state: its state.
        params: the parameters, or their shapes.

    Returns:
        ``{"state": {index: {name: array}}, "param_groups": [{option: value, "params": [index, …],
        "param_names": [path, …]}, …]}``. Indices count the leaves of group 0 first, in the order of
        ``jax.tree.leaves``. A parameter has no entry in ``state`` before torch would have made one.
        A frozen group has ``"frozen": True`` and no state; one that was frozen in mid-run has
        ``"resting": True`` and keeps it, or the paths of those of its parameters that rest.
        ``"update_count"`` is how many updates the group has taken, for Optax schedules.

    Raises:
        ValueError: no state of one grouped optimizer, other parameters, or other transformations
            that hold arrays of their own.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params = {"weight": jnp.ones(2)}
        >>> tx = jp.SGD(lr=0.5, momentum=0.9)
        >>> params, state = jp.step(tx, params, tx.init(params), params)
        >>> jp.state_dict(tx, state, params)["state"]
        {0: {'momentum_buffer': array([1., 1.], dtype=float32)}}
    """
    found = grouped_part(tx, state, "state_dict")
    found.table.check_paths(tuple(path for path, _ in leaf_paths(params)))
    indices = indices_of(found.table)
    states: dict[int, dict[str, Any]] = {}
    for group in found.table.trained:
        for path, held in read_group(found, group).items():
            if held:
                states[indices[path]] = held
    options = get_hyperparams(found)
    groups = []
    for i, group_options in enumerate(options):
        if i in found.table.resting:
            group_options["resting"] = group_options.pop("frozen")
        paths = found.table.paths_of(i)
        rest = [found.table.paths[k] for k in sorted(found.table.resting_leaves)]
        if i not in found.table.resting and set(rest) & set(paths):
            group_options["resting"] = [path for path in rest if path in set(paths)]
        groups.append(
            {
                **group_options,
                **_implied(found.table.groups[i]),
                **dict(found.table.groups[i].extras),
                **_count(found, i),
                "params": [indices[path] for path in paths],
                "param_names": paths,
            }
        )
    return {"state": dict(sorted(states.items())), "param_groups": groups}


def _implied(group: Group) -> dict[str, Any]:
    return {} if group.rule is None or group.frozen else dict(group.rule.implied)


def _count(found: GroupsState, group: int) -> dict[str, int]:
    if found.table.groups[group].frozen:
        return {}
    return {"update_count": int(own_value(found.counts)[group])}


def grouped_part(tx: optax.GradientTransformation, state: Any, caller: str) -> GroupsState:
    """Return the grouped state in a state, which must hold no arrays besides."""
    found = find_groups_state(state)
    if isinstance(tx, Optimizer):
        tx.definition.check_state(found)
    inside = len(jax.tree.leaves(found))
    outside = len(jax.tree.leaves(state)) - inside
    if outside:
        raise ValueError(
            f"{caller}: {outside} arrays of the state belong to transformations around the grouped "
            "optimizer, and torch's layout has no place for them; save the whole state with Orbax, "
            "or give the grouped optimizer and its state alone"
        )
    return found


def indices_of(table: Table) -> dict[str, int]:
    """Number the parameters as torch does: group by group."""
    paths = [path for i in range(len(table.groups)) for path in table.paths_of(i)]
    return {path: index for index, path in enumerate(paths)}
