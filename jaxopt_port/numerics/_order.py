"""One array after another, where XLA would have the scratch of all at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from .._compat import Forms, alternative


def later(arrays: Sequence[jax.Array], than: jax.Array) -> list[jax.Array]:
    """Return arrays as they are, not to be had before another one on a CPU.

    XLA takes optimization barriers out there before it orders what is left, so each array has a
    number added to its bits that is 0, and that only ``than`` can give. Programs for several
    devices, or for another platform, are left alone.

    Args:
        arrays: of any real type; at least one.
        than: what comes before them; one without elements comes before nothing.
    """
    if not than.size:
        return list(arrays)
    return alternative(_FORMS, (than, *arrays), [jax.typeof(x) for x in arrays])


def _unordered(than: jax.Array, *arrays: jax.Array) -> Sequence[jax.Array]:
    del than
    return arrays


def _ordered(than: jax.Array, *arrays: jax.Array) -> Sequence[jax.Array]:
    with jax.enable_x64(True):
        first = _bits(lax.slice(than, (0,) * than.ndim, (1,) * than.ndim)).reshape(())
        # All bits shifted out, in two steps: XLA would see through a single one.
        rest = lax.shift_right_logical(first, np.array(1, first.dtype))
        zero = lax.shift_right_logical(rest, np.array(first.dtype.itemsize * 8 - 1, first.dtype))
        made = []
        for x in arrays:
            bits = _bits(x)
            made.append(lax.bitcast_convert_type(bits + zero.astype(bits.dtype), x.dtype))
        return made


def _bits(x: Any) -> jax.Array:
    return lax.bitcast_convert_type(x, np.dtype(f"uint{jax.typeof(x).dtype.itemsize * 8}"))


_FORMS = Forms(_unordered, one_cpu=_ordered)
