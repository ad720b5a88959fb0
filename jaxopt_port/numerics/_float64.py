"""Float64 numbers in a program, and a state, without float64 arrays.

A float64 array does not survive where ``jax_enable_x64`` is off: Orbax, pickle, ``jnp.asarray`` and
``optax.MultiSteps`` make float32 of it. So a state holds each number as three float32 parts whose
sum is the number: exactly, for magnitudes from 1e-22 to 3e38 (below, the last parts are subnormal,
which XLA flushes to zero on the CPU).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PARTS = 3


@functools.partial(jax.tree_util.register_dataclass, data_fields=["parts"], meta_fields=[])
@dataclass(frozen=True, repr=False)
class Float64:
    """Float64 numbers as three float32 parts each: ``float(x)``, ``numpy.asarray(x)``.

    Attributes:
        parts: float32, of the numbers' shape and three.
    """

    parts: Any

    @property
    def value(self) -> Any:
        """The numbers: NumPy, or a traced JAX array."""
        return decoded(own_value(self.parts))

    def __float__(self) -> float:
        return float(np.asarray(self.value).item())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self.value, dtype)

    def __repr__(self) -> str:
        parts = own_value(self.parts)
        if isinstance(parts, jax.core.Tracer) or not hasattr(parts, "shape"):
            return f"Float64({parts})"
        return f"Float64({np.array2string(self.value, separator=', ')})"


def own_value(leaf: Any) -> Any:
    """See through a Variable, in which nnx.Optimizer wraps each leaf of its state."""
    return leaf.get_value() if hasattr(leaf, "get_value") else leaf


def encoded(value: Any) -> Any:
    """Return float32 parts in a new last axis: NumPy for NumPy and Python numbers, else JAX."""
    xp: Any = jnp if isinstance(value, jax.Array) else np
    parts = []
    with jax.enable_x64(True), np.errstate(over="ignore", invalid="ignore"):
        rest = xp.asarray(value, xp.float64)
        for _ in range(PARTS):
            part = rest.astype(xp.float32)
            parts.append(part)
            rest = xp.where(xp.isfinite(part), rest - part.astype(xp.float64), 0.0)
        return xp.stack(parts, axis=-1)


def decoded(parts: Any) -> Any:
    """Return float64 from its parts: NumPy for what is concrete, else a traced JAX array."""
    if isinstance(parts, jax.core.Tracer):
        with jax.enable_x64(True):
            return jnp.sum(parts.astype(jnp.float64), axis=-1)
    return np.sum(np.asarray(parts, np.float64), axis=-1)


def entries(vectors: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return ``vector[index]`` of each, such that the same kernel serves every index.

    XLA puts the constant of a static slice into each kernel, and compiles one for every leaf of
    every group; the index of a gather is an operand, as long as XLA cannot see one scalar in it.
    With 400 leaves in 100 groups, compilation on the CPU takes a fifth of the time.
    """
    indices = np.array([index, not index], np.int32)
    return {
        name: vector.at[indices].get(mode="promise_in_bounds")[0]
        if isinstance(vector, jax.Array) and len(vector) > 1
        else vector[index]
        for name, vector in vectors.items()
    }
