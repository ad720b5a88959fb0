"""The vectors of L-BFGS, over all parameters: in torch's order and layouts, and in JAX's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .mapping import Entry

Array = NDArray[Any]

# One vector, or a list of them.
_NAMES = ("d", "prev_flat_grad", "old_dirs", "old_stps")


def is_in(held: Mapping[str, Any]) -> bool:
    """Whether a parameter's state holds such vectors."""
    return "prev_flat_grad" in held


def to_jax(
    held: Mapping[str, Any], names: Sequence[str], leaves: Sequence[Entry]
) -> dict[str, Any]:
    """Return torch's state with the vectors in the order of the leaves.

    Args:
        held: the state.
        names: torch's parameters in the order that they have in its vectors.
        leaves: the leaves in theirs.
    """
    order = _order(names, leaves)
    return _changed(held, lambda vector: vector[order])


def to_torch(
    held: Mapping[str, Any], names: Sequence[str], leaves: Sequence[Entry]
) -> dict[str, Any]:
    """Undo `to_jax`."""
    order = np.argsort(_order(names, leaves))
    return _changed(held, lambda vector: vector[order])


def _changed(held: Mapping[str, Any], change: Callable[[Array], Array]) -> dict[str, Any]:
    changed = {name: value for name, value in held.items() if name != "al"}  # torch's scratch
    for name in _NAMES:
        value = changed.get(name)
        if isinstance(value, list | tuple):
            changed[name] = [change(np.asarray(vector)) for vector in value]
        elif value is not None:
            changed[name] = change(np.asarray(value))
    return changed


def _order(names: Sequence[str], leaves: Sequence[Entry]) -> NDArray[np.int64]:
    """Return where each number of the vector over the leaves stands in torch's."""
    by_name = {entry.torch_name: entry for entry in leaves}
    starts, offset = {}, 0
    for name in names:
        starts[name] = offset
        offset += math.prod(by_name[name].torch_shape) * _width(by_name[name])
    order = []
    for entry in leaves:
        width = _width(entry)
        of_tensor = np.arange(math.prod(entry.torch_shape)).reshape(entry.torch_shape)
        places = entry.to_jax(of_tensor).ravel()[:, None] * width + np.arange(width)
        order.append(starts[entry.torch_name] + places.ravel())
    return np.concatenate(order)


def _width(entry: Entry) -> int:
    """How many reals a number of a tensor is."""
    return 2 if np.dtype(entry.dtype).kind == "c" else 1
