"""What torch rounds once, and what it rounds twice, in any program that XLA makes of it.

XLA lets LLVM contract a product and a sum into a fused multiply-add. Whether LLVM does so depends
on the processor, and on how it has unrolled and vectorised the loop, so on the shape. `fma` is one
rounding, and `uncontracted` keeps a product from being contracted with what is added to it, both
independently of that. The two are primitives of JAX: a program shows what is meant, and each
backend, and each writer of kernels, says how it is done.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from .._compat import varying_alike
from . import _emitted


def fma(a: Any, y: jax.Array, x: jax.Array) -> jax.Array:
    """``a * y + x``, in float32 on the CPU rounded once; elsewhere as the compiler has it.

    Args:
        a: a scalar, or an array that is broadcast to ``x``; cast to its dtype.
        y: an array of the shape and dtype of ``x``.
        x: an array.
    """
    a = jnp.asarray(a, x.dtype)
    a = a if a.shape in ((), x.shape) else jnp.broadcast_to(a, x.shape)
    fused: jax.Array = _primitives()[0].bind(*varying_alike(a, y, x))
    return fused


def uncontracted(x: jax.Array, *, again: bool = False) -> jax.Array:
    """``x``, rounded to its type whatever is done with it next.

    Args:
        x: an array.
        again: as another number, for the compiler, than ``x`` is elsewhere. What follows from it is
            calculated a second time where it is wanted, and not held in memory in between: XLA
            keeps what two loops read, which costs as much as a parameter.
    """
    kept: jax.Array = _primitives()[1].bind(x, again=again)
    return kept


def _fma_tangent(primals: Any, tangents: Any) -> jax.Array:
    (a, y, _), (da, dy, dx) = primals, tangents
    tangent: jax.Array = da * y + a * dy + dx
    return tangent


def _batched(primitive: Any, args: Any, dims: Any, **params: Any) -> Any:
    *_, last = zip(args, dims, strict=True)
    (size,) = {x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None}
    shape = (size, *(n for i, n in enumerate(last[0].shape) if i != last[1]))

    def along(x: jax.Array, d: int | None) -> jax.Array:
        x = x[None] if d is None else jnp.moveaxis(x, d, 0)
        return jnp.broadcast_to(x.reshape(x.shape + (1,) * (len(shape) - x.ndim)), shape)

    return primitive.bind(*map(along, args, dims), **params), 0


@functools.cache
def _primitives() -> tuple[Any, Any]:
    # Not at import time: jax.extend brings Pallas along.
    from jax.extend.core import Primitive
    from jax.interpreters import ad, batching, mlir

    def primitive(name: str, tangent: Any) -> Any:
        made = Primitive(name)
        bind = lambda *xs, **params: made.bind(*xs, **params)  # noqa: E731
        made.def_impl(jax.jit(bind, static_argnames="again"))
        made.def_abstract_eval(lambda *avals, **_: avals[-1].update(weak_type=False))

        def jvp(primals: Any, tangents: Any, **params: Any) -> Any:
            moved = tangent(primals, list(map(ad.instantiate_zeros, tangents)))
            return made.bind(*primals, **params), moved

        ad.primitive_jvps[made] = jvp
        batching.primitive_batchers[made] = functools.partial(_batched, made)
        return made

    fused = primitive("jaxopt_port_fma", _fma_tangent)
    mlir.register_lowering(fused, _emitted.contracted)
    mlir.register_lowering(fused, _emitted.fma_on_cpu, platform="cpu")
    mlir.register_lowering(fused, _emitted.fma_on_tpu, platform="tpu")
    kept = primitive("jaxopt_port_uncontracted", lambda _, tangents: tangents[0])
    mlir.register_lowering(kept, _emitted.uncontracted)
    mlir.register_lowering(kept, _emitted.uncontracted_on_tpu, platform="tpu")
    return fused, kept
