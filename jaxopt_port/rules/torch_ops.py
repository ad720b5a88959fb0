"""torch's elementwise primitives, with torch's rounding.

Scalars come as float64 and are rounded where they meet an array, as Python floats are in torch.
A bfloat16 or float16 operand is computed in float32 and rounded once per primitive. XLA contracts
a product and a sum into a fused multiply-add wherever it can; `add` and `scaled` count on that, and
`mul` prevents it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

Scalar = jax.Array | float

# The types that torch computes in float32.
_LOW_PRECISION = (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))


def widened(x: jax.Array) -> jax.Array:
    """Return ``x`` in the type torch computes in: float32 for bfloat16 and float16."""
    return x.astype(jnp.float32) if x.dtype in _LOW_PRECISION else x


def rounded(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Round a result to ``dtype``, so that no later operation sees more of it."""
    x = x.astype(dtype)
    # XLA may drop a pair of conversions (xla_allow_excess_precision) where nothing is between them.
    # Not reduce_precision, which flushes float16's subnormals: all below 6e-5.
    return _unfused(x) if dtype in _LOW_PRECISION else x


def _unfused(x: jax.Array) -> jax.Array:
    # Neither reduce_precision to float32 nor optimization_barrier stops XLA from contracting a
    # product on the CPU; a select between it and a NaN does, at no measurable cost.
    return jnp.where(x == x, x, jnp.nan)


def _alpha(alpha: Scalar, dtype: jnp.dtype) -> jax.Array:
    """Return the ``alpha`` of ``add``, in the type computed in.

    For bfloat16 and float16 torch's kernels on the CPU round it to the operand's type first (a
    learning rate of 0.1 acts as 0.10009765625); its CUDA kernels do not, and neither does any
    other scalar of any other primitive.
    """
    if dtype not in _LOW_PRECISION:
        return jnp.asarray(alpha, dtype)
    acting: jax.Array = lax.platform_dependent(
        jnp.asarray(alpha, jnp.float32),
        cpu=lambda a: widened(rounded(a, dtype)),
        default=lambda a: a,
    )
    return acting


def scaled(x: jax.Array, alpha: Scalar) -> jax.Array:
    """``alpha * x``, unrounded in low precision and free to be contracted: a ``Sum``'s delta."""
    return widened(x) * _alpha(alpha, x.dtype)


def add(x: jax.Array, y: jax.Array, *, alpha: Scalar) -> jax.Array:
    """``x.add(y, alpha=alpha)``: fma(alpha, y, x)."""
    return rounded(widened(x) + scaled(y, alpha), x.dtype)


def mul(x: jax.Array, a: Scalar) -> jax.Array:
    """``x.mul(a)``: rounded before anything is added to it."""
    wide = widened(x)
    product = wide * jnp.asarray(a, wide.dtype)
    return rounded(_unfused(product), x.dtype)
