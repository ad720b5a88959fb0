"""What a pickle held, as plain values and arrays, of no more than the file's size allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ._pickled_kinds import Deferred, Unread

_DEEPEST = 100
_DENSEST = 16
_LEAST_LIMIT = 1 << 26
_END = object()


def finished(root: Any, size: int) -> Any:
    """Return a value with arrays for what stands for arrays; shared ones stay shared.

    Args:
        root: as `read_pickle` returns it.
        size: of the file, which says how much it may unfold to.

    Raises:
        ValueError: it holds itself, is nested too deep, or unfolds to far more than the file.
    """
    _check_extent(root, max(_DENSEST * size, _LEAST_LIMIT))
    made: dict[int, Any] = {}

    def finish(x: Any) -> Any:
        if isinstance(x, bytes | bytearray):
            return np.frombuffer(bytearray(x), np.uint8)  # no file has a place for bytes
        if not isinstance(x, dict | list | tuple | Deferred):
            return x
        if id(x) not in made:
            made[id(x)] = x, _finished(x, finish)
        return made[id(x)][1]

    return finish(root)


def _finished(x: Any, finish: Callable[[Any], Any]) -> Any:
    if isinstance(x, Deferred):
        return x.finish(finish)
    if isinstance(x, dict):
        pairs = {
            finish(key) if isinstance(key, Unread) else key: finish(value)
            for key, value in x.items()
        }
        return Counter(pairs) if isinstance(x, Counter) else pairs
    items = [finish(item) for item in x]
    return tuple(items) if isinstance(x, tuple) else items


def _check_extent(root: Any, limit: int) -> None:
    """Raise ValueError for values that are endless, or longer than the limit if written out."""
    extents: dict[int, tuple[int, int]] = {}  # bytes and depth
    open_: set[int] = set()
    todo: list[tuple[Any, Iterator[Any]]] = []
    kept = []  # so that no identity is used twice

    def enter(x: Any) -> None:
        if isinstance(x, dict | list | tuple | Deferred) and id(x) not in extents:
            if id(x) in open_:
                raise ValueError("a list or dict in it holds itself")
            if len(todo) > _DEEPEST:
                raise ValueError(f"it is nested more than {_DEEPEST} deep")
            open_.add(id(x))
            kept.append(x)
            todo.append((x, iter(_children(x))))

    enter(root)
    while todo:
        x, children = todo[-1]
        child = next(children, _END)
        if child is not _END:
            enter(child)
            continue
        todo.pop()
        open_.discard(id(x))
        own = [extents.get(id(c), (_bytes(c), 0)) for c in _children(x)]
        total = _bytes(x) + sum(size for size, _ in own)
        depth = 1 + max((deep for _, deep in own), default=0)
        if total > limit:
            raise ValueError(
                f"it unfolds to more than {limit} bytes: values in it stand in many places"
            )
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} deep")
        extents[id(x)] = total, depth


def _children(x: Any) -> list[Any]:
    if isinstance(x, Deferred):
        return x.children()
    if not isinstance(x, dict):
        return list(x)
    return [*x.values(), *(key for key in x if isinstance(key, Unread))]


def _bytes(x: Any) -> int:
    if isinstance(x, Deferred):
        return 64 + x.nbytes
    if isinstance(x, dict):
        return 64 + sum(64 + (len(key) if isinstance(key, str) else 0) for key in x)
    if isinstance(x, int) and not isinstance(x, bool):
        return 32 + x.bit_length() // 8
    return 32 + (len(x) if isinstance(x, str | bytes | bytearray) else 0)
