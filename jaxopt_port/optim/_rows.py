"""Row-sparse gradients: a ``BCOO``, or a pair of indices and rows."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def is_sparse(grad: Any) -> bool:
    return not isinstance(grad, jax.Array)


def coalesced(grad: Any, param: jax.Array) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """Return sorted indices without repetition, one array per indexed axis, and their rows.

    There are as many as in the gradient; those of rows that were summed into others are out of
    bounds, and so are those that were negative: -1, too, is padding.
    """
    from jax.experimental import sparse  # which would double the time of an import at the top

    if isinstance(grad, tuple | list):
        indices, values = grad
        axes = param.ndim - values.ndim + 1
        grad = sparse.BCOO((values, indices.reshape(len(values), axes)), shape=param.shape)
    if not grad.nse:
        return tuple(grad.indices.T), grad.data
    sizes = jnp.asarray(param.shape[: grad.indices.shape[1]], grad.indices.dtype)
    outside = (grad.indices < 0).any(axis=1, keepdims=True)
    indices = jnp.where(outside, sizes, grad.indices)
    grad = sparse.BCOO((grad.data, indices), shape=param.shape)
    grad = grad.sum_duplicates(nse=grad.nse)
    return tuple(grad.indices.T), grad.data


def dense(indices: tuple[jax.Array, ...], values: jax.Array, param: jax.Array) -> jax.Array:
    """Return the gradient of the whole parameter."""
    zeros = jnp.zeros_like(param)
    return zeros.at[indices].set(values, mode="drop", indices_are_sorted=True, unique_indices=True)


def undecayed(values: jax.Array, weight_decay: jax.Array) -> jax.Array:
    """Return rows as they are; NaN with a weight decay, which torch refuses for sparse gradients.

    A compiled program, which may be given another weight decay in each step, cannot raise.
    """
    return jnp.where(weight_decay == 0, values, jnp.nan)
