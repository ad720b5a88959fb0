"""The state of L-BFGS: torch keeps all of it with the first parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ..engine import GroupsState, in_place_of
from ..optim import LBFGSState, history_from, oldest_first
from ._arrays import as_numpy, fitted

_COUNTS = ("func_evals", "n_iter")
_HELD = ("d", "t", "H_diag", "prev_flat_grad", "prev_loss")
_LISTS = ("old_dirs", "old_stps", "ro")


def _unwrapped(state: Any) -> LBFGSState:
    unwrapped: LBFGSState = state._replace(**{k: as_numpy(v) for k, v in state._asdict().items()})
    return unwrapped


def read(found: GroupsState, group: int) -> dict[str, dict[str, Any]]:
    state = _unwrapped(found.others[str(group)])
    held: dict[str, Any] = {}
    if state.func_evals:
        held = {name: int(getattr(state, name)) for name in _COUNTS}
    if state.n_iter:
        held |= {name: np.array(getattr(state, name)) for name in _HELD}
        held |= {name: float(held[name]) for name in ("t", "prev_loss")}
        held |= dict(zip(_LISTS, oldest_first(state.history), strict=True))
    paths = found.table.paths_of(group)
    return {path: held if path == paths[0] else {} for path in paths}


def write(
    found: GroupsState, group: int, states: Mapping[str, Mapping[str, Any]]
) -> tuple[GroupsState, list[str]]:
    first, *others = found.table.paths_of(group)
    fresh = found.others[str(group)]
    problems = [
        f'"{path}" has state; L-BFGS has it with "{first}"' for path in others if states.get(path)
    ]
    held = dict(states.get(first, {}))
    held.pop("al", None)  # torch's scratch of the last direction
    if not held:
        return found, problems
    begun = bool(held.get("n_iter"))
    names = {*_COUNTS, *(_HELD + _LISTS if begun else ())}
    problems += [f'the state of "{first}" has no {name!r}' for name in sorted(names - set(held))]
    problems += [f'the state of "{first}" has {name!r}' for name in sorted(set(held) - names)]
    if problems:
        return found, problems
    new = fresh._replace(
        **{
            name: fitted(held[name], getattr(fresh, name), f'{name} of "{first}"', problems)
            for name in names - set(_LISTS) - {"t"}
        }
    )
    problems += [
        f'{name} of "{first}" is {held[name]}; it must not be below 0'
        for name in _COUNTS
        if getattr(new, name) < 0
    ]
    if begun:
        # A Python float in torch, where it is the learning rate; here in the parameters' type.
        new = new._replace(t=np.asarray(held["t"], fresh.t.dtype))
        rows = {"old_dirs": fresh.old_dirs[0], "old_stps": fresh.old_stps[0], "ro": fresh.ro[0]}
        lists = [
            [fitted(x, rows[name], f"{name}[{i}]", problems) for i, x in enumerate(held[name])]
            for name in _LISTS
        ]
        try:
            old_dirs, old_stps, ro = lists
            history = history_from(old_dirs, old_stps, ro, fresh.history)
        except ValueError as error:
            problems.append(str(error))
        else:
            new = new._replace(**history._asdict())
    return _with(found, group, new), problems


def _with(found: GroupsState, group: int, new: LBFGSState) -> GroupsState:
    return found.with_others(group, jax.tree.map(in_place_of, found.others[str(group)], new))
