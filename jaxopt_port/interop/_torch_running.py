"""The groups and the state that `TorchOptimizer` hands to JAX, from those that torch shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch

from ..checkpoint import load_state_dict, state_dict
from ..engine import (
    Arguments,
    Definition,
    Factory,
    Optimizer,
    Resumed,
    get_hyperparams,
    set_hyperparams,
)
from ._torch_groups import Paths, holds_more
from ._torch_state_dict import in_numpy

Step: TypeAlias = tuple[Optimizer, Any]
ParamGroups: TypeAlias = Sequence[dict[str, Any]]
# By path, "p" and the place of the parameter in all groups.
Tensors: TypeAlias = Mapping[str, torch.Tensor]


def number(value: Any) -> Any:
    """Return an option as a Python number, where torch lets it be a tensor."""
    if isinstance(value, tuple | list):
        return tuple(map(number, value))
    return value.item() if isinstance(value, torch.Tensor) else value


def _partition(param_groups: ParamGroups, tensors: Tensors) -> list[tuple[int, list[str]]]:
    """Return (torch's group, paths) of each group of which there are tensors."""
    groups: dict[int, list[str]] = {}
    owners = [i for i, group in enumerate(param_groups) for _ in group["params"]]
    for path in tensors:
        groups.setdefault(owners[int(path[1:])], []).append(path)
    return list(groups.items())


def imported(
    arguments: Arguments,
    factory: Factory,
    param_groups: ParamGroups,
    torch_state: Any,
    tensors: Tensors,
    params: Mapping[str, Any],
) -> Step:
    """Return the transformation for these parameters, and the state that torch shows."""
    partition = _partition(param_groups, tensors)
    indices = {path: i for i, path in enumerate(p for _, paths in partition for p in paths)}
    held = {indices[path]: torch_state.get(p) or {} for path, p in tensors.items()}
    groups = [
        {
            **{k: param_groups[owner][k] for k in arguments.names},
            "params": [indices[path] for path in paths],
            "param_names": paths,
        }
        for owner, paths in partition
    ]
    saved = in_numpy({"state": held, "param_groups": groups})
    resumed = {
        i: Resumed(
            holds_all=holds_more(
                arguments,
                {k: group[k] for k in arguments.names},
                {name for index in group["params"] for name in saved["state"].get(index, {})},
            )
        )
        for i, group in enumerate(saved["param_groups"])
    }
    definition = Definition(factory, arguments, {})
    own = [
        {**{k: g[k] for k in arguments.names}, "params": Paths(g["param_names"])}
        for g in saved["param_groups"]
    ]
    tx = Optimizer.of(definition.extended(own, resumed))
    fresh = state_dict(tx, tx.init(params), params)
    for group in fresh["param_groups"]:
        for index, path in zip(group["params"], group["param_names"], strict=True):
            new, old = fresh["state"].get(index, {}), saved["state"].get(indices[path])
            if old is None:
                saved["state"][indices[path]] = new
            elif arguments.rule is None:
                saved["state"][indices[path]] = {k: old[k] for k in new}
    return tx, load_state_dict(tx, saved, params)


def with_numbers(state: Any, param_groups: ParamGroups) -> Any:
    """Return the state with the numbers that torch's groups have now."""
    owners = [i for i, group in enumerate(param_groups) for _ in group["params"]]
    table = state.table
    first = dict(zip(reversed(table.assignment), reversed(table.paths), strict=True))
    new: dict[str, Any] = {}
    for i, current in enumerate(get_hyperparams(state)):
        group = param_groups[owners[int(first[i][1:])]]
        for name in dict(table.groups[i].numbers):
            if number(group[name]) != current[name]:
                new.setdefault(name, {})[i] = number(group[name])
    return set_hyperparams(state, **new) if new else state
