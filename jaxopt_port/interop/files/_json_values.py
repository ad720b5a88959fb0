"""Nested Python values as JSON and a list of arrays: exact, and back to the same types."""

from __future__ import annotations

import collections
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._pickled_kinds import Unread

Tensors = dict[str, NDArray[Any]]

# A dict with one of these keys stands for what JSON lacks.
_MARKS = ("$array", "$tuple", "$float", "$complex", "$dict", "$counter")


def encoded(value: Any, name: str, tensors: Tensors) -> Any:
    """Return a value as JSON has it, with its arrays put into ``tensors``.

    Args:
        value: dicts, lists, tuples, strings, numbers, None and arrays.
        name: of the value, which the names of its arrays begin with.
        tensors: is added to.

    Raises:
        TypeError: something else is in it; it is named by its place.
        ValueError: two arrays would have one name.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, np.ndarray):
        if name in tensors:
            raise ValueError(f"two arrays would be called {name!r} in the file")
        tensors[name] = value
        return {"$array": name}
    if isinstance(value, np.generic):
        return encoded(np.asarray(value), name, tensors)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        # JSON has no infinity and no NaN. Its repr of the others is exact.
        return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
    if isinstance(value, complex):
        parts = (value.real, value.imag)
        return {"$complex": [encoded(part, name, tensors) for part in parts]}
    if isinstance(value, list):
        return _items(value, name, tensors)
    if isinstance(value, tuple):
        return {"$tuple": _items(value, name, tensors)}
    if isinstance(value, Mapping):
        return _encoded_dict(value, name, tensors)
    raise TypeError(
        f"{name} is {type(value).__name__}, which has no place in a file; a checkpoint holds dicts,"
        " lists, tuples, strings, numbers, None and arrays"
    )


def _items(values: Any, name: str, tensors: Tensors) -> list[Any]:
    return [encoded(value, f"{name}/{i}", tensors) for i, value in enumerate(values)]


def _encoded_dict(value: Mapping[Any, Any], name: str, tensors: Tensors) -> Any:
    pairs = [(key, encoded(item, f"{name}/{key}", tensors)) for key, item in value.items()]
    if isinstance(value, collections.Counter):
        return {"$counter": [[encoded(key, name, {}), count] for key, count in pairs]}
    if all(isinstance(key, str) for key, _ in pairs) and not set(value) & set(_MARKS):
        return dict(pairs)
    return {"$dict": [[encoded(key, name, {}), item] for key, item in pairs]}


def decoded(value: Any, tensors: Mapping[str, NDArray[Any]]) -> Any:
    """Return the value that `encoded` was given.

    Raises:
        ValueError: what stands for an array or a float is none.
    """
    if isinstance(value, list):
        return [decoded(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    mark = next(iter(value), None)
    if mark not in _MARKS or len(value) != 1:
        return {key: decoded(item, tensors) for key, item in value.items()}
    held = value[mark]
    try:
        return _unmarked(mark, held, tensors)
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"{mark!r} with {_short(held)}: {error}") from error


def _unmarked(mark: str, held: Any, tensors: Mapping[str, NDArray[Any]]) -> Any:
    if mark == "$array":
        if held not in tensors:
            raise ValueError("the file has no array of that name")
        return tensors[held]
    if mark == "$float":
        return float(held)
    items = [decoded(item, tensors) for item in held]
    if mark == "$tuple":
        return tuple(items)
    if mark == "$complex":
        return complex(*items)
    return collections.Counter(dict(items)) if mark == "$counter" else dict(items)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."


def check_can_be_written(value: Any, name: str) -> None:
    """Raise TypeError or ValueError for what has no place in a file."""
    encoded(value, name, {})


def without_unread(value: Any, place: str) -> tuple[Any, list[tuple[str, str]]]:
    """Return nested values without the objects that were not read; and the place and name of each.

    An entry of a dict is left out; in a list None stands for it.
    """
    lost: list[tuple[str, str]] = []

    def kept(x: Any, at: str) -> Any:
        if isinstance(x, Mapping):
            for key, item in [*x.items()]:
                if isinstance(item, Unread) or isinstance(key, Unread):
                    lost.append((f"{at}/{key}", (item if isinstance(item, Unread) else key).name))
            pairs = {
                k: kept(v, f"{at}/{k}")
                for k, v in x.items()
                if not isinstance(v, Unread) and not isinstance(k, Unread)
            }
            return collections.Counter(pairs) if isinstance(x, collections.Counter) else pairs
        if isinstance(x, list | tuple):
            items = [kept(item, f"{at}/{i}") for i, item in enumerate(x)]
            return tuple(items) if isinstance(x, tuple) else items
        if isinstance(x, Unread):
            lost.append((at, x.name))
            return None
        return x

    return kept(value, place), lost


_LONGEST_JSON = 1 << 28


def json_of(path: Path) -> dict[str, Any]:
    """Return the dict in a JSON file.

    Raises:
        ValueError: it is no JSON, or no dict.
    """
    if path.stat().st_size > _LONGEST_JSON:
        raise ValueError(f"{path} has {path.stat().st_size} bytes; that is no record of a run")
    try:
        record = json.loads(path.read_text("utf-8"), object_pairs_hook=no_key_twice)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: it is not JSON ({error})") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} is damaged: it is {type(record).__name__}, not a dict")
    return record


def no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse JSON in which a key stands twice, for ``json.loads(object_pairs_hook=...)``."""
    twice = [
        key for key, count in collections.Counter(key for key, _ in pairs).items() if count > 1
    ]
    if twice:
        raise ValueError(f"the key {twice[0]!r} stands there twice")
    return dict(pairs)


def arrays_in(value: Any) -> Iterator[NDArray[Any]]:
    """Yield the arrays in nested values."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from arrays_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from arrays_in(item)
