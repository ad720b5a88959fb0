"""The curvature pairs that L-BFGS remembers, and the direction that follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from ._flat import dot


class History(NamedTuple):
    """A ring of the last pairs; torch's lists of the same names shift instead.

    The i-th oldest pair is in row ``(oldest + i) % history_size``; rows that hold none are zero.
    `oldest_first` and `history_from` are the way to torch's order and back.

    Attributes:
        old_dirs: differences of gradients, y, ``[history_size, n]``.
        old_stps: steps, s, ``[history_size, n]``.
        ro: ``1 / (y · s)``, ``[history_size]``.
        num_old: how many pairs there are, int32.
        oldest: the row of the oldest, int32.
    """

    old_dirs: jax.Array
    old_stps: jax.Array
    ro: jax.Array
    num_old: jax.Array
    oldest: jax.Array


def empty_history(history_size: int, n: int, dtype: jnp.dtype) -> History:
    def vectors() -> jax.Array:  # of its own each, so that a state can be donated
        return jnp.zeros((history_size, n), dtype)

    return History(
        vectors(),
        vectors(),
        jnp.zeros(history_size, dtype),
        jnp.zeros((), jnp.int32),
        jnp.zeros((), jnp.int32),
    )


def remember(
    history: History, h_diag: jax.Array, y: jax.Array, s: jax.Array
) -> tuple[History, jax.Array]:
    """Add a pair in place of the oldest, unless its curvature is too small.

    Args:
        history: the pairs so far.
        h_diag: the scale of the initial inverse Hessian.
        y: the difference of the last two gradients.
        s: the last step.

    Returns:
        The history and the scale, both as they were where ``y · s`` is not above 1e-10.
    """
    size = history.ro.shape[0]
    ys = dot(y, s)
    accept = ys > 1e-10
    row = (history.oldest + history.num_old) % size
    full = history.num_old == size

    def put(rows: jax.Array, new: jax.Array) -> jax.Array:
        # A select of one row leaves the rest of the array in place, as lax.cond might not.
        return rows.at[row].set(jnp.where(accept, new, _row(rows, row)))

    return History(
        put(history.old_dirs, y),
        put(history.old_stps, s),
        put(history.ro, 1.0 / ys),
        history.num_old + (accept & ~full).astype(history.num_old.dtype),
        jnp.where(accept & full, (history.oldest + 1) % size, history.oldest),
    ), jnp.where(accept, ys / dot(y, y), h_diag)


def direction(history: History, h_diag: jax.Array, flat_grad: jax.Array) -> jax.Array:
    """Return minus the inverse Hessian times the gradient: the two-loop recursion."""
    size = history.ro.shape[0]

    def pair(i: jax.Array) -> list[jax.Array]:
        row = (history.oldest + i) % size
        return [_row(x, row) for x in (history.old_dirs, history.old_stps, history.ro)]

    def from_newest(k: jax.Array, carry: tuple[jax.Array, jax.Array]) -> Any:
        q, al = carry
        i = history.num_old - 1 - k
        y, s, ro = pair(i)
        al_i = dot(s, q) * ro
        return q - al_i * y, al.at[i].set(al_i)

    def from_oldest(i: jax.Array, r: jax.Array) -> Any:
        y, s, ro = pair(i)
        be_i = dot(y, r) * ro
        return r + (al[i] - be_i) * s

    q, al = lax.fori_loop(0, history.num_old, from_newest, (-flat_grad, jnp.zeros_like(history.ro)))
    d: jax.Array = lax.fori_loop(0, history.num_old, from_oldest, q * h_diag)
    return d


def _row(rows: jax.Array, row: jax.Array) -> jax.Array:
    found: jax.Array = lax.dynamic_index_in_dim(rows, row, keepdims=False)
    return found


def oldest_first(
    history: History,
) -> tuple[list[NDArray[Any]], list[NDArray[Any]], list[NDArray[Any]]]:
    """Return torch's lists ``old_dirs``, ``old_stps`` and ``ro``, NumPy."""
    size = history.ro.shape[0]
    rows = [(int(history.oldest) + i) % size for i in range(int(history.num_old))]
    lists = (history.old_dirs, history.old_stps, history.ro)
    old_dirs, old_stps, ro = ([np.array(np.asarray(x)[row]) for row in rows] for x in lists)
    return old_dirs, old_stps, ro


def history_from(
    old_dirs: Sequence[Any], old_stps: Sequence[Any], ro: Sequence[Any], like: History
) -> History:
    """Undo `oldest_first`.

    Args:
        old_dirs: differences of gradients, oldest first.
        old_stps: steps.
        ro: reciprocal curvatures.
        like: a history of the wanted shape and dtype.

    Raises:
        ValueError: the lists differ in length, or are longer than the history.
    """
    lengths = len(old_dirs), len(old_stps), len(ro)
    size = like.ro.shape[0]
    if len(set(lengths)) > 1 or max(lengths) > size:
        raise ValueError(
            f"old_dirs, old_stps and ro have lengths {', '.join(map(str, lengths))}; they must be "
            f"of one length, and at most history_size={size}"
        )

    def rows(entries: Sequence[Any], like: jax.Array) -> jax.Array:
        array = np.zeros(like.shape, like.dtype)
        for i, entry in enumerate(entries):
            array[i] = np.asarray(entry)
        return jnp.asarray(array)

    return History(
        rows(old_dirs, like.old_dirs),
        rows(old_stps, like.old_stps),
        rows(ro, like.ro),
        jnp.asarray(len(ro), jnp.int32),
        jnp.zeros((), jnp.int32),
    )
