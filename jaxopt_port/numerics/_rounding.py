"""What torch's kernels round, as they round it, in any program that XLA makes of it.

XLA lets LLVM contract a product and a sum into a fused multiply-add. Whether LLVM does so depends
on the processor, and on how it has unrolled and vectorised the loop, so on the shape; on a GPU,
quotients and roots are approximations. `fma` is one rounding, `uncontracted` keeps a product from
being contracted with what is added to it, and the others are what a kernel of torch does in one
piece, on a CPU and on a GPU. All are primitives of JAX: a program shows what is meant, and each
backend, and each writer of kernels, says how it is done.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .._compat import varying_alike
from ._cuda import cuda_lowerings
from ._emitted import by_platform

# The types that torch computes in float32.
LOW_PRECISION = (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))

# By name, what each is but for rounding.
_MEANT: dict[str, Callable[..., Any]] = {
    "fma": lambda a, y, x: a * y + x,
    "uncontracted": lambda x, again: x,
    "addcmul": lambda v, y, z, x: x + v * y * z,
    "addcdiv": lambda v, y, z, x: x + v * y / z,
    "quotient": lambda v, z, y: v * y / z,
    "div": lambda z, y: y / z,
    "div_number": lambda a, x: x / a,
    "sqrt": jnp.sqrt,
    "rsqrt": lax.rsqrt,
}


def fma(a: Any, y: jax.Array, x: jax.Array) -> jax.Array:
    """``a * y + x``, in float32 on a CPU and on NVIDIA's GPUs rounded once; else as compiled.

    Args:
        a: a scalar, or an array that is broadcast to ``x``; cast to its dtype.
        y: an array of the shape and dtype of ``x``.
        x: an array.
    """
    return of_torch("fma", a, y, x)


def uncontracted(x: jax.Array, *, again: bool = False) -> jax.Array:
    """``x``, rounded to its type whatever is done with it next.

    Args:
        x: an array.
        again: as another number, for the compiler, than ``x`` is elsewhere. What follows from it is
            calculated a second time where it is wanted, and not held in memory in between: XLA
            keeps what two loops read, which costs as much as a parameter.
    """
    kept: jax.Array = _primitives()["uncontracted"].bind(x, again=again)
    return kept


def of_torch(name: str, *operands: Any) -> jax.Array:
    """Return what one of torch's kernels makes of its operands, rounded once.

    Args:
        name: one of ``_MEANT``, which says what is calculated.
        operands: scalars, or arrays that are broadcast to the last of them, and cast to its dtype,
            or to float32 where that is of low precision.
    """
    last = operands[-1]
    low = last.dtype in LOW_PRECISION
    alike = []
    for operand in operands:
        x = jnp.asarray(operand, jnp.float32 if low else last.dtype)
        alike.append(x if x.shape in ((), last.shape) else jnp.broadcast_to(x, last.shape))
    if jax.sharding.get_abstract_mesh().manual_axes:
        alike = list(varying_alike(*alike))
    made: jax.Array = _primitives()[name].bind(*alike)
    return rounded(made, last.dtype) if low else made


def rounded(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Round a result to ``dtype``, so that no later operation sees more of it."""
    x = x.astype(dtype)
    # XLA may drop a pair of conversions (xla_allow_excess_precision) where nothing is between them.
    # Not reduce_precision, which flushes float16's subnormals: all below 6e-5.
    return uncontracted(x) if dtype in LOW_PRECISION else x


def _batched(primitive: Any, args: Any, dims: Any, **params: Any) -> Any:
    *_, last = zip(args, dims, strict=True)
    (size,) = {x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None}
    shape = (size, *(n for i, n in enumerate(last[0].shape) if i != last[1]))

    def along(x: jax.Array, d: int | None) -> jax.Array:
        x = x[None] if d is None else jnp.moveaxis(x, d, 0)
        return jnp.broadcast_to(x.reshape(x.shape + (1,) * (len(shape) - x.ndim)), shape)

    return primitive.bind(*map(along, args, dims), **params), 0


@functools.cache
def _primitives() -> dict[str, Any]:
    # Not at import time: jax.extend brings Pallas along.
    from jax.extend.core import Primitive
    from jax.interpreters import ad, batching, mlir

    platforms = by_platform() | {"cuda": cuda_lowerings()}

    def primitive(name: str, meant: Callable[..., Any]) -> Any:
        made = Primitive(f"jaxopt_port_{name}")

        def bind(*xs: Any, **params: Any) -> Any:
            return made.bind(*xs, **params)

        def jvp(primals: Any, tangents: Any, **params: Any) -> Any:
            along = tuple(map(ad.instantiate_zeros, tangents))
            moved = jax.jvp(functools.partial(meant, **params), primals, along)[1]
            return made.bind(*primals, **params), moved

        compiled = jax.jit(bind, static_argnames="again")

        def impl(*xs: Any, **params: Any) -> Any:
            with jax.disable_jit(False):  # without which it would be called again by itself
                return compiled(*xs, **params)

        made.def_impl(impl)
        made.def_abstract_eval(lambda *avals, **_: avals[-1].update(weak_type=False))
        ad.primitive_jvps[made] = jvp
        batching.primitive_batchers[made] = functools.partial(_batched, made)
        for platform, lowerings in platforms.items():
            mlir.register_lowering(made, lowerings[name], platform=platform)
        return made

    return {name: primitive(name, meant) for name, meant in _MEANT.items()}
