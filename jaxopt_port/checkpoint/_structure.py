"""What every state dict of an optimizer must be, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from ..trees import raise_if

# {"state": {index: {name: value}}, "param_groups": [{option: value, "params": [index, …]}, …]}
StateDict: TypeAlias = dict[str, Any]


def check_structure(state_dict: Any) -> None:
    """Raise ValueError for what is not the state dict of an optimizer; all faults are listed."""
    raise_if(list(_faults(state_dict)), "not the state dict of an optimizer")


def _faults(state_dict: Any) -> Iterator[str]:
    if not isinstance(state_dict, Mapping):
        of_torch = hasattr(state_dict, "optimizers")  # a Checkpoint, or what is like one
        remedy = "; interop.optimizer_from_torch(run, params, module) takes a checkpoint of torch's"
        yield f"it is {type(state_dict).__name__}, not a dict" + (remedy if of_torch else "")
        return
    missing = [key for key in ("state", "param_groups") if key not in state_dict]
    if missing:
        found = ", ".join(map(repr, list(state_dict)[:6])) or "nothing"
        yield f"it has no {' and no '.join(map(repr, missing))}; it has {found}"
        return
    state, groups = state_dict["state"], state_dict["param_groups"]
    if not isinstance(state, Mapping):
        yield f"'state' is {type(state).__name__}, not a dict"
        return
    if not isinstance(groups, list | tuple) or not all(isinstance(g, Mapping) for g in groups):
        yield "'param_groups' is not a list of dicts"
        return
    indices: list[int] = []
    for i, group in enumerate(groups):
        yield from _group_faults(i, group, indices)
    if not groups:
        yield "'param_groups' is empty"
    twice = sorted({index for index in indices if indices.count(index) > 1})
    if twice:
        yield f"parameters {twice} are in 'param_groups' twice"
    elif sorted(indices) != list(range(len(indices))):
        yield f"the parameters in 'param_groups' are {indices}, not 0 to {len(indices) - 1}"
    for index, held in state.items():
        if index not in indices or isinstance(index, bool):
            yield f"'state' has an entry for {index!r}, which is in no group"
        elif not isinstance(held, Mapping):
            yield f"the state of parameter {index} is {type(held).__name__}, not a dict"


def _is_index(x: Any) -> bool:
    return isinstance(x, int | np.integer) and not isinstance(x, bool)


def _group_faults(i: int, group: Mapping[str, Any], indices: list[int]) -> Iterator[str]:
    params = group.get("params")
    if not isinstance(params, list | tuple) or not all(map(_is_index, params)):
        yield f"group {i} has no list of indices under 'params'"
        return
    indices.extend(params)
    names = group.get("param_names")
    if names is None:
        return
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
        yield f"'param_names' of group {i} is not a list of strings"
    elif len(names) != len(params):
        yield f"group {i} has {len(params)} parameters and {len(names)} names"
