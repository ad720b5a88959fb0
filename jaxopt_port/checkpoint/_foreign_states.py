"""The state of a factory of Optax or of the user's, told apart by path.

A leaf of the state whose path ends with that of a parameter belongs to it, and is named by what
comes before (``0/mu``); any other is kept with the group's first parameter under its whole path, as
torch keeps what L-BFGS shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from ..engine import GroupsState, in_place_of
from ..numerics import own_value
from ..trees import leaf_paths
from ._arrays import as_numpy, fitted


def read(found: GroupsState, group: int) -> dict[str, dict[str, Any]]:
    states: dict[str, dict[str, Any]] = {path: {} for path in found.table.paths_of(group)}
    for owner, name, leaf in _owned(found, group):
        states[owner][name] = as_numpy(leaf)
    return states


def _owned(found: GroupsState, group: int) -> list[tuple[str, str, Any]]:
    """Return (path of the parameter, name, leaf) for each leaf of the state."""
    paths = found.table.paths_of(group)
    longest_first = sorted(paths, key=len, reverse=True)
    owned = []
    for path, leaf in leaf_paths(found.others[str(group)]):
        # The parameters stand in a tuple of one.
        ends = ((p, f"0/{p}") for p in longest_first)
        owner, end = next(
            ((p, end) for p, end in ends if f"/{path}".endswith(f"/{end}")), (paths[0], "")
        )
        owned.append((owner, path.removesuffix(end).strip("/"), leaf))
    return owned


def write(
    found: GroupsState, group: int, states: Mapping[str, Mapping[str, Any]]
) -> tuple[GroupsState, list[str]]:
    owned = _owned(found, group)
    names: dict[str, set[str]] = {path: set() for path in found.table.paths_of(group)}
    for owner, name, _ in owned:
        names[owner].add(name)
    problems = []
    for path, expected in names.items():
        given = set(states.get(path, {}))
        problems += [f'the state of "{path}" has no {name!r}' for name in sorted(expected - given)]
        problems += [
            f'the state of "{path}" has {name!r}, which this optimizer does not hold'
            for name in sorted(given - expected)
        ]
    if problems:
        return found, problems
    leaves = [
        in_place_of(
            own_value(leaf), fitted(states[owner][name], leaf, f'{name} of "{owner}"', problems)
        )
        for owner, name, leaf in owned
    ]
    state = jax.tree.unflatten(jax.tree.structure(found.others[str(group)]), leaves)
    return found.with_others(group, state), problems
