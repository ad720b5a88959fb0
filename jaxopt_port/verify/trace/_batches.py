"""Batches as a trace describes them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes  # noqa: F401  (teaches NumPy "bfloat16")
import numpy as np

from ._steps import Array


def built(structure: Any, tensors: Mapping[str, Array]) -> Any:
    """Return a batch of stored arrays."""
    if structure is None:
        return None
    if "array" in structure:
        return tensors[f"batch/{structure['array']}"]
    if "dict" in structure:
        return {key: built(part, tensors) for key, part in structure["dict"]}
    parts = [built(part, tensors) for part in structure.get("tuple", structure.get("list"))]
    return tuple(parts) if "tuple" in structure else parts


def checked(structure: Any, given: Any, where: str) -> Any:
    """Return a batch as the module got it, once its hashes are those that were recorded.

    Args:
        structure: what was recorded.
        given: the batch, of NumPy arrays or what can be made into such.
        where: for messages, ``"step 3: batch"``.

    Raises:
        ValueError: it is another batch; which part differs is said.
    """
    if structure is None:
        if given is not None:
            raise ValueError(f"{where} is a {type(given).__name__}; None was recorded")
        return None
    if "array" in structure:
        return _array(structure, given, where)
    kind = next(iter(structure))
    parts = structure[kind]
    if kind == "dict":
        if not isinstance(given, Mapping) or {key for key, _ in parts} != set(given):
            raise ValueError(
                f"{where} {_shown(given)}; a dict with {[key for key, _ in parts]} was recorded"
            )
        return {key: checked(part, given[key], f"{where}[{key!r}]") for key, part in parts}
    if not isinstance(given, (tuple, list)) or len(given) != len(parts):
        raise ValueError(f"{where} {_shown(given)}; a {kind} of {len(parts)} was recorded")
    each = [checked(part, given[i], f"{where}[{i}]") for i, part in enumerate(parts)]
    return tuple(each) if kind == "tuple" else each


def _shown(given: Any) -> str:
    if isinstance(given, Mapping):
        return f"is a dict with {list(given)}"
    size = f" of {len(given)}" if isinstance(given, (tuple, list)) else ""
    return f"is a {type(given).__name__}{size}"


def _array(structure: Mapping[str, Any], given: Any, where: str) -> Array:
    array = np.asarray(given)
    if list(array.shape) != structure["shape"]:
        raise ValueError(
            f"{where} has shape {array.shape}; {tuple(structure['shape'])} was recorded: are the "
            "batches in another order, or of another size?"
        )
    cast = array.astype(np.dtype(structure["dtype"]))
    if hashlib.sha256(cast.tobytes()).hexdigest() != structure.get("sha256"):
        raise ValueError(
            f"{where} has other values than those that were recorded (its SHA-256 differs): are "
            "seed, order and preprocessing of the batches the same?"
        )
    return cast
