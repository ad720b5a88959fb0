"""muP's parameter groups: rates by how much wider a model is than another one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..engine import leaf_paths
from ._param_groups import Group, named_leaves

Shape = tuple[int, ...]

# What has two axes in the same order as torch's; a "kernel" has them in the other.
_AS_TORCH = ("embedding", "weight")


# By torch's axes of a parameter, how many times wider than its base; None where it is fixed.
Widths: TypeAlias = tuple[float | None, ...]


class _Scale(NamedTuple):
    """What kind of parameter, in muP's order, and what the rate is multiplied and divided by."""

    rank: int
    times: float = 1
    over: float = 1


def param_groups_mup(
    params: Any,
    base: Any,
    delta: Any = None,
    *,
    lr: float,
    weight_decay: float = 0.0,
    optimizer: str = "MuAdam",
    groups: Sequence[Group] | None = None,
    param_map: Any = None,
) -> list[Group]:
    """Return groups whose rates go with the width of a model: muP's optimizers.

    The counterpart of what ``mup.MuAdam``, ``mup.MuAdamW`` and ``mup.MuSGD`` make of a model to
    which ``mup.set_base_shapes(model, base, delta=delta)`` was applied. The model's part of muP
    (multipliers, how it is initialised) is the model's own.

    Args:
        params: the parameters, or their shapes (``jax.eval_shape``).
        base: those of the base model, which has the same leaves.
        delta: those of a model that differs from the base in what is called width; by default
            ``params``.
        lr: learning rate of groups that have none.
        weight_decay: weight decay of groups that have none.
        optimizer: ``"MuAdam"``, ``"MuAdamW"`` or ``"MuSGD"``.
        groups: groups to be split, with paths as ``"params"``, as `param_groups_weight_decay`
            returns them; by default one of all parameters.
        param_map: from `jaxopt_port.interop.param_map`, for torch's names, axes and order. Without
            it a ``kernel`` has its inputs and outputs as its last two axes.

    Returns:
        Groups, as any optimizer here takes them.

    Raises:
        ValueError: leaves or axes that are not in both models, a parameter of more than two wide
            axes, or one of which it cannot be told without a map which axis is its input.

    References:
        Yang et al., 2022, *Tensor Programs V*.

    Example:
        >>> import jax, jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import param_groups_mup
        >>> def model(width):
        ...     return {
        ...         "hidden": {"kernel": jnp.ones((width, width)), "bias": jnp.ones(width)},
        ...         "head": {"kernel": jnp.ones((width, 10))},
        ...     }
        >>> params = model(256)
        >>> groups = param_groups_mup(params, model(64), model(128), lr=0.1)
        >>> [(group["params"], group["lr"]) for group in groups]
        [(['hidden/kernel'], 0.025), (['head/kernel', 'hidden/bias'], 0.1)]
        >>> state = jp.Adam(groups, lr=0.1).init(params)
    """
    if optimizer not in ("MuAdam", "MuAdamW", "MuSGD"):
        raise ValueError(f"optimizer is 'MuAdam', 'MuAdamW' or 'MuSGD'; got {optimizer!r}")
    widths = _widths(params, base, delta, param_map)
    for path, of in widths.items():
        if len(_wide(of)) > 2:
            raise ValueError(f"more than 2 inf dimensions: {path!r} is {of} times as wide")
    scaled = _scaled_sgd if optimizer == "MuSGD" else _scaled_adam
    split: list[Group] = []
    given: Sequence[Group] = [{"params": list(widths)}] if groups is None else groups
    for group in given:
        unknown = [path for path in group["params"] if path not in widths]
        if unknown:
            raise ValueError(
                "groups have paths of leaves, as param_groups_weight_decay returns them; there is "
                f"no leaf {', '.join(map(repr, unknown))}"
            )
        if group.get("frozen"):
            split.append(dict(group))
            continue
        parts: dict[_Scale, list[str]] = defaultdict(list)
        for path in group["params"]:
            parts[scaled(widths[path])].append(path)
        rate, decay = group.get("lr", lr), group.get("weight_decay", weight_decay)
        for scale in sorted(parts, key=lambda scale: scale.rank):
            numbers = {
                "lr": rate * scale.times / scale.over,
                "weight_decay": decay / scale.times * scale.over,
            }
            split.append({**group, **numbers, "params": parts[scale]})
    return split


def _wide(widths: Widths) -> list[float]:
    return [axis for axis in widths if axis is not None]


def _scaled_adam(widths: Widths) -> _Scale:
    wide = _wide(widths)
    return _Scale(0, over=wide[-1]) if len(wide) == 2 else _Scale(1)


def _scaled_sgd(widths: Widths) -> _Scale:
    wide = _wide(widths)
    if len(wide) == 2:
        fan_out, fan_in = (1 if axis is None else axis for axis in widths[:2])
        return _Scale(0, over=fan_in / fan_out)
    return _Scale(1, times=wide[0]) if wide else _Scale(2)


def _widths(params: Any, base: Any, delta: Any, param_map: Any) -> dict[str, Widths]:
    """Return by path, in torch's order, how much wider each axis of torch's is."""
    shapes = _shapes(params)
    narrow = _same_leaves("base", _shapes(base), shapes)
    other = shapes if delta is None else _same_leaves("delta", _shapes(delta), shapes)
    entries = {} if param_map is None else {entry.path: entry for entry in param_map.entries}
    found: dict[str, Widths] = {}
    for path in (leaf.path for leaf in named_leaves(params, param_map)):
        three = [shapes[path], narrow[path], other[path]]
        if path in entries:
            three = [_in_torch(path, shape, entries[path]) for shape in three]
        elif path.rsplit("/", 1)[-1] == "kernel" and len(shapes[path]) > 1:
            three = [(*reversed(shape[-2:]), *shape[:-2]) for shape in three]
        found[path] = tuple(
            None if least == varied else size / least
            for size, least, varied in zip(*three, strict=True)
        )
        if path not in entries:
            _check_axes(path, found[path])
    return found


def _shapes(tree: Any) -> dict[str, Shape]:
    return {path: np.shape(leaf) for path, leaf in leaf_paths(tree)}


def _same_leaves(name: str, shapes: dict[str, Shape], wanted: dict[str, Shape]) -> dict[str, Shape]:
    for path in {**wanted, **shapes}:
        if path not in wanted or path not in shapes:
            which = "has no" if path not in shapes else "has another"
            raise ValueError(f"{name} must have the leaves of params, and {which} leaf {path!r}")
        if len(shapes[path]) != len(wanted[path]):
            raise ValueError(
                f"{path!r} has the shape {wanted[path]}, and in {name} {shapes[path]}: models that "
                "differ in width have the same axes"
            )
    return shapes


def _in_torch(path: str, shape: Shape, entry: Any) -> Shape:
    """Return what torch's shape is where a leaf of the map has this one."""
    axes = range(len(shape)) if entry.axes is None else entry.axes
    viewed = [shape[list(axes).index(i)] for i in range(len(shape))]
    if entry.view is None:
        return tuple(viewed)
    # An axis of torch's is one or several of the view's, one after the other.
    rows = (
        entry.torch_shape
        if entry.rows is None
        else (
            entry.rows[1] - entry.rows[0],
            *entry.torch_shape[1:],
        )
    )
    found, i = [], 0
    for length in rows:
        j = i + 1
        while j < len(entry.view) and math.prod(entry.view[i:j]) < length:
            j += 1
        if math.prod(entry.view[i:j]) != length:
            raise ValueError(f"{path!r} is a view {entry.view} of torch's {entry.torch_shape}")
        found.append(math.prod(viewed[i:j]))
        i = j
    return tuple(found)


def _check_axes(path: str, widths: Widths) -> None:
    name, wide = path.rsplit("/", 1)[-1], _wide(widths)
    is_plain = name in _AS_TORCH or (name == "kernel" and not _wide(widths[2:]))
    if len(wide) > 1 and not is_plain:
        raise ValueError(
            f"{path!r} is {widths} times as wide, and of which axes are its inputs a tree alone "
            "does not tell; give param_map, of jaxopt_port.interop.param_map"
        )
