"""The parameters as one vector: torch's ``_gather_flat_grad`` and ``_add_grad``.

The vector has the leaves in the order of ``jax.tree.leaves``, each in its own (row-major) layout; a
complex leaf counts as pairs of reals, as ``torch.view_as_real`` makes them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ...numerics.torch_ops import add

# One leaf each.
Leaves = Sequence[jax.Array]


def flat_dtype(leaves: Leaves) -> jnp.dtype:
    """Return the real dtype to which ``torch.cat`` promotes the leaves."""
    reals = [jnp.finfo(leaf.dtype).dtype for leaf in leaves]
    return jnp.dtype(functools.reduce(jnp.promote_types, reals or [jnp.dtype(jnp.float32)]))


def scalar_dtype(leaves: Leaves) -> jnp.dtype:
    """Return the dtype of what torch holds as Python floats: float64, or at least float32."""
    return jnp.dtype(jnp.promote_types(flat_dtype(leaves), jnp.float32))


def flat_size(leaves: Leaves) -> int:
    return sum(map(_size, leaves))


def _size(leaf: jax.Array) -> int:
    return math.prod(leaf.shape) * (2 if jnp.iscomplexobj(leaf) else 1)


def gathered(grads: Leaves) -> jax.Array:
    """Return gradients as one vector.

    Args:
        grads: of a real function, as `jax.grad` makes them. Of a complex parameter that is the
            conjugate of torch's gradient, which is the one that points uphill.
    """
    dtype = flat_dtype(grads)

    def view(grad: jax.Array) -> jax.Array:
        if jnp.iscomplexobj(grad):
            grad = jnp.stack([grad.real, -grad.imag], axis=-1)
        return jnp.ravel(grad).astype(dtype)

    return jnp.concatenate([view(grad) for grad in grads])


def moved(params: Leaves, d: jax.Array, t: jax.Array) -> list[jax.Array]:
    """Return ``params + t * d``, each leaf in its own dtype."""
    new, offset = [], 0
    for param in params:
        part = lax.slice_in_dim(d, offset, offset + _size(param))
        offset += _size(param)
        new.append(_moved_leaf(param, part, t))
    return new


def _moved_leaf(param: jax.Array, d: jax.Array, t: jax.Array) -> jax.Array:
    if jnp.iscomplexobj(param):
        pairs = _moved_leaf(jnp.stack([param.real, param.imag], axis=-1), d, t)
        return lax.complex(pairs[..., 0], pairs[..., 1])
    return add(param, d.reshape(param.shape), alpha=t)


def dot(x: jax.Array, y: jax.Array) -> jax.Array:
    # The default precision of a GPU or TPU is lower than torch's.
    product: jax.Array = jnp.dot(x, y, precision=lax.Precision.HIGHEST)
    return product
