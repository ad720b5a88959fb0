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

_LOW_PRECISION = (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))


def widened(x: jax.Array) -> jax.Array:
    """Return ``x`` in the type torch computes in: float32 for bfloat16 and float16."""
    return x.astype(jnp.float32) if x.dtype in _LOW_PRECISION else x


def rounded(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Round a result to ``dtype``, so that no later operation sees more of it."""
    if dtype in _LOW_PRECISION:
        # A pair of conversions alone may be dropped (xla_allow_excess_precision); this may not.
        info = jnp.finfo(dtype)
        x = lax.reduce_precision(x, exponent_bits=info.nexp, mantissa_bits=info.nmant)
    return x.astype(dtype)


def scaled(x: jax.Array, alpha: Scalar) -> jax.Array:
    """``alpha * x``, unrounded in low precision and free to be contracted: a ``Sum``'s delta."""
    x = widened(x)
    return x * jnp.asarray(alpha, x.dtype)


def add(x: jax.Array, y: jax.Array, *, alpha: Scalar) -> jax.Array:
    """``x.add(y, alpha=alpha)``: fma(alpha, y, x)."""
    return rounded(widened(x) + scaled(y, alpha), x.dtype)


def mul(x: jax.Array, a: Scalar) -> jax.Array:
    """``x.mul(a)``: rounded before anything is added to it."""
    product = scaled(x, a)
    # Neither reduce_precision to float32 nor optimization_barrier stops the contraction on the
    # CPU; a select between the product and a NaN does, at no measurable cost.
    return rounded(jnp.where(product == product, product, jnp.nan), x.dtype)
