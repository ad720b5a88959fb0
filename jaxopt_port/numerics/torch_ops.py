"""torch's elementwise primitives, with the rounding of torch's kernels on a CPU or on CUDA.

Scalars come as float64 and are rounded where they meet an array, as Python floats are in torch.
A bfloat16 or float16 operand is computed in float32 and rounded once per primitive. A fused
multiply-add is an `fma`, and a product that is rounded by itself is `uncontracted`: what XLA would
contract by itself is never left to it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ._rounding import LOW_PRECISION, of_torch, uncontracted
from ._rounding import rounded as rounded

Scalar = jax.Array | float


def widened(x: jax.Array) -> jax.Array:
    """Return ``x`` in the type torch computes in: float32 for bfloat16 and float16."""
    return x.astype(jnp.float32) if x.dtype in LOW_PRECISION else x


def _operand(a: Scalar, dtype: jnp.dtype) -> jax.Array:
    """Return a scalar or an array in the type computed in for arrays of ``dtype``."""
    return jnp.asarray(a, jnp.float32 if dtype in LOW_PRECISION else dtype)


def acting_alpha(alpha: Scalar, dtype: jnp.dtype) -> jax.Array:
    """Return the ``alpha`` of ``add``, in the type computed in.

    For bfloat16 and float16 torch's kernels on the CPU round it to the operand's type first (a
    learning rate of 0.1 acts as 0.10009765625); its CUDA kernels do not, and neither does any
    other scalar of any other primitive.
    """
    if dtype not in LOW_PRECISION:
        return jnp.asarray(alpha, dtype)
    acting: jax.Array = lax.platform_dependent(
        jnp.asarray(alpha, jnp.float32),
        cpu=lambda a: widened(rounded(a, dtype)),
        default=lambda a: a,
    )
    return acting


def add(x: jax.Array, y: jax.Array, *, alpha: Scalar = 1.0) -> jax.Array:
    """``x.add(y, alpha=alpha)``: fma(alpha, y, x)."""
    if isinstance(alpha, float) and abs(alpha) == 1.0:
        wide, addend = widened(x), widened(y)
        return rounded(wide + addend if alpha > 0 else wide - addend, x.dtype)
    return of_torch("fma", acting_alpha(alpha, x.dtype), y, x)


def add_scalar(x: jax.Array, c: Scalar) -> jax.Array:
    """``x.add(c)``; torch's CPU kernel rounds ``c`` to a low-precision dtype first."""
    if x.dtype in LOW_PRECISION:
        return rounded(widened(x) + acting_alpha(c, x.dtype), x.dtype)
    return x + jnp.asarray(c, x.dtype)


def mul(x: jax.Array, a: Scalar) -> jax.Array:
    """``x.mul(a)``: rounded before anything is added to it."""
    if x.dtype in LOW_PRECISION:
        return rounded(mul(widened(x), a), x.dtype)
    return uncontracted(x * jnp.asarray(a, x.dtype))


def div(x: jax.Array, a: Scalar) -> jax.Array:
    """``x.div(a)``: by the reciprocal of a number in torch's CUDA kernels, else a true division."""
    divisor = _operand(a, x.dtype)
    if divisor.shape == ():
        return of_torch("div_number", divisor, x)
    if divisor.shape != x.shape:  # laid out over devices, perhaps: broadcast_to keeps no layout
        divisor = jnp.where(x == x, divisor, jnp.nan)
    return of_torch("div", divisor, x)


def div_each(x: jax.Array, a: Scalar) -> jax.Array:
    """``torch._foreach_div([x], [a])``: a true division, in torch's CUDA kernels too."""
    return of_torch("div", a, x)


def lerp(x: jax.Array, y: jax.Array, weight: Scalar) -> jax.Array:
    """``x.lerp(y, weight)``: fma(w, y - x, x), or fma(w - 1, y - x, y) from w = 0.5 on."""
    if x.dtype in LOW_PRECISION:
        return rounded(lerp(widened(x), widened(y), weight), x.dtype)
    y, w = y.astype(x.dtype), jnp.asarray(weight, x.dtype)
    near = w < 0.5
    return of_torch("fma", lax.select(near, w, w - 1), y - x, lax.select(near, x, y))


def addcmul(x: jax.Array, y: jax.Array, z: jax.Array, *, value: Scalar) -> jax.Array:
    """``x.addcmul(y, z, value=value)``: fma(value * y, z, x); on CUDA fma(value, y * z, x)."""
    if isinstance(value, float) and value == 1.0:
        return of_torch("fma", y, z, x)
    return of_torch("addcmul", value, y, z, x)


def quotient(y: jax.Array, z: jax.Array, *, value: Scalar) -> jax.Array:
    """``value * y / z``, unrounded in low precision: the addend of `addcdiv`."""
    return of_torch("quotient", value, z, widened(y))


def addcdiv(x: jax.Array, y: jax.Array, z: jax.Array, *, value: Scalar) -> jax.Array:
    """``x.addcdiv(y, z, value=value)``: x + value * y / z; on CUDA fma(value, y / z, x)."""
    return of_torch("addcdiv", value, y, z, x)


def sqrt(x: jax.Array) -> jax.Array:
    """``x.sqrt()``, correctly rounded; torch's CPU build has MKL's, at most one unit away."""
    return of_torch("sqrt", x)


def rsqrt(x: jax.Array) -> jax.Array:
    """``x.rsqrt()``: 1 by the root in torch's CPU kernel, the GPU's instruction on CUDA."""
    return of_torch("rsqrt", x)


def reciprocal(x: jax.Array) -> jax.Array:
    """``x.reciprocal()``."""
    return of_torch("div", x, jnp.ones_like(x))


def norm(x: jax.Array, axis: int | None = None, keepdims: bool = False) -> jax.Array:
    """``x.norm(2)``, summed in the type computed in."""
    wide = widened(x)
    squares = jnp.sum(wide * wide, axis=axis, keepdims=keepdims)
    return rounded(of_torch("sqrt", squares), x.dtype)


def constant(c: Scalar, like: jax.Array) -> jax.Array:
    """Return a scalar rounded to the dtype of an array that it is compared or filled with."""
    return rounded(_operand(c, like.dtype), like.dtype)


def sign(x: jax.Array) -> jax.Array:
    """``x.sign()``: 0 for NaN."""
    return (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)
