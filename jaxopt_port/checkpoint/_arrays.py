"""Arrays of a state dict, checked against those that they take the place of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..numerics import own_value


def as_numpy(leaf: Any) -> NDArray[Any]:
    return np.asarray(own_value(leaf))


def fitted(value: Any, like: Any, what: str, problems: list[str]) -> NDArray[Any]:
    """Return a value as an array of the shape and dtype of ``like``, with no loss.

    Where that cannot be, a problem is noted, and ``like`` returned.
    """
    expected = np.asarray(own_value(like))
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        array = np.empty((), object)
    if expected.shape == () and array.size == 1 and array.dtype != object:
        array = array.reshape(())  # torch takes a step of shape (1,), too
    if array.dtype == object:
        kind, why = type(value).__name__, "not an array"
        if kind == "Tensor":
            why = "in a dtype that NumPy lacks; interop.optimizer_from_torch takes the state dict"
        problems.append(f"{what} is {kind}, {why}")
    elif array.shape != expected.shape:
        problems.append(f"{what} has shape {array.shape}; {expected.shape} is needed")
    elif array.dtype == expected.dtype:
        return array
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            cast = _cast(array, expected.dtype)
        if cast is not None:
            return cast
        problems.append(
            f"{what} is {array.dtype}, which {expected.dtype} cannot hold without loss; if "
            "that is meant, cast it, as torch's optimizer does: optimizer.load_state_dict(saved)"
        )
    return expected


def _cast(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """Return an array in another dtype, or None where the values would not survive."""
    if array.dtype.kind == "c" and dtype.kind != "c":
        return None
    cast = array.astype(dtype)
    back = cast.astype(array.dtype)
    same = (back == array) | ((back != back) & (array != array))
    return cast if bool(np.all(same)) else None
