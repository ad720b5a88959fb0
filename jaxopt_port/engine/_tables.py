"""The numbers of all groups as one table: by option, a vector over groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..numerics import Float64, encoded, entry, own_value
from ._arguments import first_value
from ._table import GroupsState, Table


def first_numbers(members: Sequence[Mapping[str, Any]], table: Table) -> dict[str, Any]:
    """Return float64 vectors over groups of what groups were built with.

    NaN where a group has no such number, and for a number that was left out, as None.
    """
    made: dict[str, Any] = {}
    n = len(table.groups)
    for name, width in table.widths.items():
        shape = (n,) if width is None else (n, width)
        made[name] = np.full(shape, np.nan)
        for i, numbers in enumerate(members):
            if name in numbers:
                value = numbers[name]
                value = first_value(value) if callable(value) else value
                made[name][i] = row(value, width)
    return made


def row(value: Any, width: int | None) -> Any:
    """Return a group's number as an entry of its option's vector: NumPy, or JAX where traced."""
    parts = list(value) if isinstance(value, tuple | list) else [value]
    if any(isinstance(part, jax.Array) for part in parts):
        with jax.enable_x64(True):
            padded = [*parts, *[jnp.nan] * ((width or 1) - len(parts))]
            stacked = jnp.stack([jnp.asarray(part, jnp.float64) for part in padded])
            return stacked[0] if width is None else stacked
    # NumPy makes NaN of None.
    own = np.asarray([*parts, *[None] * ((width or 1) - len(parts))], np.float64)
    return own[0] if width is None else own


def parts_of(state: GroupsState) -> dict[str, Any]:
    """Return the float32 parts of the table, by option.

    A bare number that something has put in the place of a `Float64`, as ``optax.tree.set`` does, is
    taken for all groups.
    """
    n, widths = len(state.table.groups), state.table.widths
    found = {}
    for name, value in state.numbers.items():
        if isinstance(value, Float64):
            found[name] = own_value(value.parts)
            continue
        parts = encoded(own_value(value))
        shape = (n, 3) if widths[name] is None else (n, widths[name], 3)
        if parts.ndim < len(shape) and parts.shape != shape[1:]:
            parts = parts[..., None, :]
        found[name] = jnp.broadcast_to(parts, shape)
    return found


def of_group(numbers: Mapping[str, Any], table: Table, group: int) -> dict[str, Any]:
    """Return the numbers that a group's optimizer is given, from vectors over groups."""
    own = {}
    for name, arity in table.groups[group].given:
        vector = numbers[name]
        value = entry(vector, group) if isinstance(vector, jax.Array) else vector[group]
        own[name] = fitting(value, arity)
    return own


def fitting(value: Any, arity: int | None) -> Any:
    """Return a group's number from an entry of its option's vector, which may be wider."""
    width = len(value) if isinstance(value, list) else (np.shape(value) or (None,))[0]
    if width == arity or width is None:
        return value
    return value[0] if arity is None else value[:arity]


def of_groups(
    numbers: Mapping[str, jax.Array], table: Table, groups: Sequence[int]
) -> dict[str, jax.Array]:
    """Return vectors over some groups, all of one program, from vectors over all."""
    whole = list(groups) == list(range(len(table.groups)))
    at = np.array(groups, np.int32)
    made = {}
    for name, arity in table.groups[groups[0]].given:
        vector = numbers[name] if whole else numbers[name][at]
        if not _wide(numbers[name], arity):
            vector = vector[:, 0] if arity is None else vector[:, :arity]
        made[name] = vector
    return made


def _wide(vector: Any, arity: int | None) -> bool:
    """Whether a vector over groups is as wide as a group's number."""
    own: tuple[int, ...] = np.shape(vector)[1:]
    return own == (() if arity is None else (arity,))


def written(state: GroupsState, name: str, groups: Sequence[int], rows: Sequence[Any]) -> Float64:
    """Return an option's vector with other entries, given as float32 parts."""
    held = state.numbers[name]
    leaf = held.parts if isinstance(held, Float64) else parts_of(state)[name]
    stack = np.stack if all(isinstance(x, np.ndarray) for x in rows) else jnp.stack
    return Float64(put(leaf, np.array(groups), stack(rows)))


def put(leaf: Any, at: Any, parts: Any) -> Any:
    """Return a leaf of a state with other parts, where it was among the devices."""
    old = own_value(leaf)
    if is_traced((old, parts)):
        return _rewrap(leaf, jnp.asarray(old).at[at].set(parts))
    new = np.array(old)
    new[at] = parts
    if not isinstance(old, jax.Array):
        return _rewrap(leaf, new)
    return _rewrap(leaf, jax.device_put(new, old.sharding) if old.committed else jnp.asarray(new))


def _rewrap(leaf: Any, value: Any) -> Any:
    return leaf.replace(value) if hasattr(leaf, "get_value") else value


def is_traced(value: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))
