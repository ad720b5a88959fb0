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
    held: Mapping[str, Any], tensors: Sequence[Entry], leaves: Sequence[Entry]
) -> dict[str, Any]:
    """Return torch's state with the vectors in the order of the leaves.

    Args:
        held: the state.
        tensors: torch's parameters in the order that they have in its vectors, which are those
            that it was given: where one is not trained, there are zeros.
        leaves: the leaves that are trained, in theirs.

    Raises:
        ValueError: there are others than zeros: torch goes on moving what it trained before; or
            the vectors are of another length.
    """
    order, size = _order(tensors, leaves)
    rest = np.delete(np.arange(size), order)

    def change(vector: Array) -> Array:
        if vector.shape != (size,):
            raise ValueError(
                f"a vector of L-BFGS has the shape {vector.shape}, and the parameters that it was"
                f" given are {size} numbers"
            )
        if vector[rest].any():
            raise ValueError(
                "L-BFGS has trained a parameter that requires no gradient now, and moves it on by"
                " what it has seen of it: let it be trained, or make a new optimizer"
            )
        return vector[order]

    return _changed(held, change)


def to_torch(
    held: Mapping[str, Any], tensors: Sequence[Entry], leaves: Sequence[Entry]
) -> dict[str, Any]:
    """Undo `to_jax`."""
    order, size = _order(tensors, leaves)

    def change(vector: Array) -> Array:
        whole = np.zeros(size, vector.dtype)
        whole[order] = vector
        return whole

    return _changed(held, change)


def _changed(held: Mapping[str, Any], change: Callable[[Array], Array]) -> dict[str, Any]:
    changed = {name: value for name, value in held.items() if name != "al"}  # torch's scratch
    for name in _NAMES:
        value = changed.get(name)
        if isinstance(value, list | tuple):
            changed[name] = [change(np.asarray(vector)) for vector in value]
        elif value is not None:
            changed[name] = change(np.asarray(value))
    return changed


def _order(tensors: Sequence[Entry], leaves: Sequence[Entry]) -> tuple[NDArray[np.int64], int]:
    """Return where each number of the vector over the leaves stands in torch's, and its length."""
    starts, offset = {}, 0
    for entry in tensors:
        starts[entry.torch_name] = offset
        offset += math.prod(entry.torch_shape) * _width(entry)
    order = []
    for entry in leaves:
        width = _width(entry)
        of_tensor = np.arange(math.prod(entry.torch_shape)).reshape(entry.torch_shape)
        places = entry.to_jax(of_tensor).ravel()[:, None] * width + np.arange(width)
        order.append(starts[entry.torch_name] + places.ravel())
    return np.concatenate(order), offset


def _width(entry: Entry) -> int:
    """How many reals a number of a tensor is."""
    return 2 if np.dtype(entry.dtype).kind == "c" else 1
