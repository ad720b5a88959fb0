"""State dicts of optimizers in the forms that torch's tools give them, in that of torch.optim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ...checkpoint import StateDict


def is_optimizer(value: Any) -> bool:
    """Whether a value is an optimizer's state dict, of torch's or by names."""
    return (
        isinstance(value, Mapping)
        and {"state", "param_groups"} <= value.keys()
        and isinstance(value["state"], Mapping)
    )


def is_flattened(value: Any) -> bool:
    """Whether a dict is what ``flatten_optimizer_state_dict`` makes: no nesting at all."""
    return (
        isinstance(value, Mapping)
        and any(isinstance(k, str) and k.startswith("param_groups.") for k in value)
        and all(isinstance(k, str) and k.startswith(("state.", "param_groups.")) for k in value)
    )


def by_indices(optimizer: Mapping[str, Any]) -> StateDict:
    """Return a state dict with indices, and with ``"param_names"`` where it was keyed by names.

    Names are keys in ``torch.distributed.checkpoint.state_dict`` and in FSDP's full state;
    ``torch.distributed.checkpoint`` makes texts of indices.
    """
    if is_flattened(optimizer):
        optimizer = _nested(optimizer)
    groups = optimizer.get("param_groups")
    if (
        not is_optimizer(optimizer)
        or not isinstance(groups, list | tuple)
        or not all(isinstance(g, Mapping) for g in groups)
    ):
        return dict(optimizer)  # refused where it is checked
    listed = [g.get("params") for g in groups]
    if not all(isinstance(params, list | tuple) for params in listed):
        return dict(optimizer)
    keys = [key for params in listed for key in params]
    state = {_as_index(key): held for key, held in optimizer["state"].items()}
    if not all(isinstance(_as_index(key), int | str) for key in keys):
        return dict(optimizer)
    plain = [_as_index(key) for key in keys]
    if plain == list(range(len(plain))):
        restored = [{**g, "params": list(map(_as_index, g["params"]))} for g in groups]
        return {**optimizer, "state": state, "param_groups": restored}
    if not any(isinstance(key, str) for key in plain):
        return {**optimizer, "state": state}
    index = {key: i for i, key in reversed(list(enumerate(plain)))}
    named = [
        {
            **g,
            "params": [index[_as_index(key)] for key in g["params"]],
            "param_names": [str(key) for key in g["params"]],
        }
        for g in groups
    ]
    renamed = {index.get(key, key): held for key, held in state.items()}
    return {**optimizer, "state": renamed, "param_groups": named}


def _as_index(key: Any) -> Any:
    return int(key) if isinstance(key, str) and key.isdecimal() and len(key) < 10 else key


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return a flattened dict nested: parameters of equal options are a group."""
    names: dict[str, dict[str, Any]] = {}
    options: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        part, _, rest = key.partition(".")
        name, _, last = rest.rpartition(".")
        (names if part == "state" else options).setdefault(name, {})[last] = value
    groups: list[dict[str, Any]] = []
    for name, own in options.items():
        for group in groups:
            if _same_options(group, own):
                group["params"].append(name)
                break
        else:
            groups.append({**own, "params": [name]})
    return {"state": names, "param_groups": groups}


def _same_options(group: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    others = {key: value for key, value in group.items() if key != "params"}
    return others.keys() == own.keys() and all(np.array_equal(others[k], own[k]) for k in own)


def renamed(optimizer: Mapping[str, Any], names: Mapping[str, str]) -> StateDict:
    """Return a state dict whose parameters have other names, where they have any."""
    groups = [
        {**g, "param_names": [names.get(n, n) for n in g["param_names"]]}
        if isinstance(g.get("param_names"), list | tuple)
        else g
        for g in optimizer["param_groups"]
    ]
    return {**optimizer, "param_groups": groups}


def names_of(optimizer: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of its parameters, where it has them."""
    for group in optimizer["param_groups"]:
        names = group.get("param_names")
        if isinstance(names, list | tuple):
            yield from (name for name in names if isinstance(name, str))
