"""The factors of PSGD-Kron, one for each axis: triangular or diagonal, fitted to noise."""

from __future__ import annotations

import math
import string

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..numerics.torch_ops import add, add_scalar, div, mul, rounded, widened
from ._sums import norm

_TINY = float(jnp.finfo(jnp.bfloat16).tiny)


def draws(seed: int, step: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return a step's key of the noise, and its two numbers in [0, 1)."""
    # Named, and uint32: whatever is the default here, and where it is lowered.
    words = jnp.array([seed >> 32, seed & 0xFFFFFFFF], jnp.uint32)
    first = jax.random.wrap_key_data(words, impl="threefry2x32")
    key, *others = jax.random.split(jax.random.fold_in(first, step), 3)
    return key, *(jax.random.uniform(key, dtype=jnp.float32) for key in others)


def noise(key: jax.Array, like: jax.Array) -> jax.Array:
    """Return the noise of an array of this shape, the same numbers in each type."""
    return jax.random.normal(key, like.shape, jnp.float32).astype(like.dtype)


def seen(
    shape: tuple[int, ...], flatten: bool, flatten_start_dim: int, flatten_end_dim: int
) -> tuple[int, ...]:
    """Return the shape of a parameter with the axes that it is flattened to."""
    start, n = flatten_start_dim, len(shape)
    end = min(flatten_end_dim + (n if flatten_end_dim < 0 else 0), n - 1)
    if not flatten or n <= start or start > end:
        return shape
    return *shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]


def triangular_axes(
    shape: tuple[int, ...],
    max_size_triangular: int,
    min_ndim_triangular: int,
    memory_save_mode: str | None,
) -> list[bool]:
    """Return which axes have a triangular matrix, and not a diagonal one."""
    if not shape or memory_save_mode == "all_diag":
        return [False] * max(len(shape), 1)
    *_, second, longest = 0, 0, *np.argsort(shape)
    saved = memory_save_mode == "one_diag" or (
        memory_save_mode == "smart_one_diag" and len(shape) > 1 and shape[longest] > shape[second]
    )
    whole = len(shape) >= min_ndim_triangular
    return [
        whole and 1 < size <= max_size_triangular and not (saved and axis == longest)
        for axis, size in enumerate(shape)
    ]


# Of each axis, the letters of a gradient, of the rows of its factor, and of what comes out.
_OF_GRAD, _OF_ROWS, _OF_RESULT = (string.ascii_letters[i : i + 13] for i in (0, 13, 26))


def _contracted(subscripts: str, *arrays: jax.Array) -> jax.Array:
    """``torch.einsum``, whose pairs are those that opt_einsum finds."""
    best = lax.Precision.HIGHEST
    found: jax.Array = jnp.einsum(subscripts, *arrays, optimize="auto-hq", precision=best)
    return found


def _multiplied(factors: list[jax.Array], grad: jax.Array) -> jax.Array:
    """Return the gradient with each axis multiplied by its factor."""
    axes = list(zip(_OF_GRAD, _OF_ROWS, factors, strict=False))
    given = [row + own if q.ndim > 1 else own[: q.ndim] for own, row, q in axes]
    out = "".join(row if q.ndim > 1 else own for own, row, q in axes)
    n = grad.ndim
    return _contracted(f"{','.join(given)},{_OF_GRAD[:n]}->{out[:n]}", *factors, grad)


def preconditioned(factors: list[jax.Array], grad: jax.Array) -> jax.Array:
    """Return the gradient with each axis multiplied by its factor, and by that transposed."""
    axes = list(zip(_OF_GRAD, _OF_ROWS, _OF_RESULT, factors, strict=False))
    first = [row + new if q.ndim > 1 else own[: q.ndim] for own, row, new, q in axes]
    second = [row + own if q.ndim > 1 else own[: q.ndim] for own, row, _, q in axes]
    out, n = "".join(new if q.ndim > 1 else own for own, _, new, q in axes), grad.ndim
    subscripts = f"{','.join((*first, *second))},{_OF_GRAD[:n]}->{out[:n]}"
    return _contracted(subscripts, *factors, *factors, grad)


def _divided(factors: list[jax.Array], drawn: jax.Array) -> jax.Array:
    """Return noise with each axis divided by its factor, the first axis being the last before."""
    last = drawn.ndim - 1
    drawn = jnp.moveaxis(drawn, 0, -1) if drawn.ndim else drawn
    for i, q in enumerate(factors):
        drawn = div(drawn, q) if q.ndim < 2 else _solved(drawn, q)
        drawn = jnp.swapaxes(drawn, i, last) if i < last else drawn
    return drawn


def _solved(x: jax.Array, q: jax.Array) -> jax.Array:
    """``x @ inv(q)``, in float32 there, of float64 too: here it is rounded to it once."""
    given = [lax.reduce_precision(widened(y), 8, 23) for y in (q, x.reshape(-1, len(q)))]
    found = lax.linalg.triangular_solve(*given, left_side=False, lower=False)
    return rounded(lax.reduce_precision(found, 8, 23), x.dtype).reshape(x.shape)


def _outer(x: jax.Array, axis: int, matrix: bool) -> jax.Array:
    """Return the products of an array with itself, over all axes but one."""
    own = _OF_GRAD[: x.ndim]
    if not matrix:
        return _contracted(f"{own},{own}->{own[axis : axis + 1]}", x, x)
    row = _OF_ROWS[axis]
    other = own.replace(own[axis], row)
    return _contracted(f"{own},{other}->{own[axis]}{row}", x, x)


def _largest(x: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(x), initial=0)


def _at_most(x: jax.Array) -> jax.Array:
    """Return a lower bound of the largest singular value of a symmetric matrix."""
    largest = _largest(x)
    scaled = div(x, largest)
    squares = mul(scaled, scaled)
    # Of int32 by name: it may be lowered where x64 is off.
    row = lax.dynamic_index_in_dim(
        scaled, lax.argmax(jnp.sum(squares, axis=1), 0, np.int32), keepdims=False
    )
    along = _contracted("ij,j->i", scaled, row)
    found = norm(_contracted("ij,i->j", scaled, div(along, norm(along))))
    return jnp.where(largest > 0, mul(found, largest), largest)


def fitted(
    factors: list[jax.Array],
    grad: jax.Array,
    drawn: jax.Array,
    precond_lr: jax.Array,
    balances: jax.Array,
) -> list[jax.Array]:
    """Return the factors after a step towards those that whiten a gradient."""
    if grad.ndim > 1:
        sizes = jnp.stack([_largest(q) for q in factors])
        middle = widened(jnp.prod(sizes)) ** (1 / len(factors))
        ratios = div(jnp.full_like(sizes, rounded(middle, sizes.dtype)), sizes)
        ratios = jnp.where(balances, ratios, jnp.ones_like(ratios))
        factors = [mul(q, ratio) for q, ratio in zip(factors, ratios, strict=True)]
    multiplied, divided = _multiplied(factors, grad), _divided(factors, drawn)
    made = []
    for axis, q in enumerate(factors):
        terms = [_outer(x, axis, q.ndim > 1) for x in (multiplied, divided)]
        both = add(*terms)
        change = mul(add(*terms, alpha=-1.0), precond_lr)
        if q.ndim < 2:
            change = div(mul(change, q), add_scalar(_largest(both), _TINY))
        else:
            upper = np.triu(np.ones(q.shape, bool))
            change = jnp.where(upper, change, jnp.zeros_like(change))
            change = div(change, add_scalar(_at_most(both), _TINY))
            change = _contracted("ij,jk->ik", change, q)
        made.append(add(q, change, alpha=-1.0))
    return made
