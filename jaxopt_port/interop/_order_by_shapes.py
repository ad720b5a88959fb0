"""Whose state is whose, where a state dict has numbers and no names."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..trees import users_level
from ._warnings import CheckpointWarning
from .mapping import ParamMap

_MOST = 2_000  # divisions that are followed at once, before the answer counts as unknown

Shape = tuple[int, ...]


def names_by_order(torch_dict: Mapping[str, Any], module: Any, sure: bool) -> list[str] | None:
    """Return the names of a state dict's parameters, group by group, from the module's order.

    Groups are nearly always made by going through ``module.named_parameters()`` and dividing: the
    names of each group are in the module's order. There may be one division only whose shapes are
    those of the state, and then it is it.

    Args:
        torch_dict: torch's, with NumPy arrays.
        module: torch's.
        sure: whether what wrote it is known to keep that order.

    Returns:
        None where there is no such division, or more than one.
    """
    shapes = [
        [shape_of(torch_dict["state"].get(index, {})) for index in group["params"]]
        for group in torch_dict["param_groups"]
    ]
    parameters = [(name, tuple(p.shape), p.requires_grad) for name, p in module.named_parameters()]
    total = sum(map(len, shapes))
    for candidates in (parameters, [each for each in parameters if each[2]]):
        if len(candidates) == total:
            sizes = [shape for _, shape, _ in candidates]
            owners = _only_division(sizes, shapes)
            if owners is None:
                # Of one group there is one division: the shapes are another network's, and what
                # compares them by name says which.
                return [name for name, _, _ in candidates] if len(shapes) == 1 else None
            names: list[list[str]] = [[] for _ in shapes]
            for (name, _, _), owner in zip(candidates, owners, strict=True):
                names[owner].append(name)
            # By the parameters' shapes: what has no state yet may be of any.
            if not sure and len(set(zip(owners, sizes, strict=True))) < total:
                warnings.warn(
                    "the state dict has no names; within each group its parameters were taken in "
                    "the order of module.named_parameters(), which their shapes allow. If the "
                    "optimizer was given them in another order, pass param_names",
                    CheckpointWarning,
                    stacklevel=users_level(),
                )
            return [name for group in names for name in group]
    return None


def check_order(torch_dict: Mapping[str, Any], names: Sequence[Any], param_map: ParamMap) -> None:
    """Raise ValueError for one list of names that is the module's order, where groups may not be.

    With equal shapes, the state of one would go to another without a word.
    """
    groups = [group["params"] for group in torch_dict["param_groups"] if group["params"]]
    known = {entry.torch_name: entry.torch_shape for entry in param_map.entries}
    total = sum(map(len, groups))
    if (
        len(groups) < 2
        or len(names) != total
        or not all(isinstance(name, str) and name in known for name in names)
    ):
        return
    given = set(names)
    if list(names) != [name for name in param_map.torch_names if name in given]:
        return
    shapes = [[shape_of(torch_dict["state"].get(i, {})) for i in group] for group in groups]
    if _only_division([known[name] for name in names], shapes) is None:
        raise ValueError(
            "param_names is in the module's order, and the optimizer has groups of "
            f"{[len(group) for group in groups]} parameters, whose shapes do not say that they "
            "are in that order too: a parameter would get the state of another. Give the names of "
            "each group in a list of its own: param_names=[[…], […]]"
        )


def shape_of(held: Mapping[str, Any]) -> Shape | None:
    """Return the shape of a parameter by what is held for it; None where that does not say."""
    if "row_var" in held and "col_var" in held:
        row, col = np.shape(held["row_var"]), np.shape(held["col_var"])
        return (*row[:-1], *col[-1:])
    if "exp_avg_sq_row" in held and "exp_avg_sq_col" in held:  # of other Adafactors
        return (*np.shape(held["exp_avg_sq_row"]), *np.shape(held["exp_avg_sq_col"])[-1:])
    shapes = {np.shape(value) for name, value in held.items() if name not in ("step", "al")}
    shapes -= {()}
    if len(shapes) > 1:
        shapes.discard((1,))  # of a number, such as ASGD's eta
    return shapes.pop() if len(shapes) == 1 else None


def _only_division(
    sizes: Sequence[Shape], groups: Sequence[Sequence[Shape | None]]
) -> list[int] | None:
    """Return the group of each parameter, where one division alone fits the shapes."""
    # By how many of each group have been given: how many ways lead there (two stand for more), and
    # the group that was given the last one.
    layers: list[dict[tuple[int, ...], tuple[int, int]]] = [{(0,) * len(groups): (1, -1)}]
    for size in sizes:
        layer: dict[tuple[int, ...], tuple[int, int]] = {}
        for done, (count, _) in layers[-1].items():
            for owner, group in enumerate(groups):
                k = done[owner]
                if k < len(group) and group[k] in (None, size):
                    after = (*done[:owner], k + 1, *done[owner + 1 :])
                    layer[after] = min(2, count + layer.get(after, (0, 0))[0]), owner
        if len(layer) > _MOST:
            return None
        layers.append(layer)
    done = tuple(map(len, groups))
    if layers[-1].get(done, (0, 0))[0] != 1:
        return None
    owners = []
    for layer in layers[:0:-1]:
        owner = layer[done][1]
        owners.append(owner)
        done = (*done[:owner], done[owner] - 1, *done[owner + 1 :])
    return owners[::-1]
