"""Numbers of arrays that lie on different devices, which JAX takes together nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding


def beside(like: Any, number: jax.Array) -> jax.Array:
    """Return a number on the devices that hold ``like``, as torch's ``to(like.device)`` does.

    As it is in a compiled program, and where one of the two may go with the other.
    """
    there, here = _place(like), _place(number)
    apart = there is not None and here not in (None, there)
    return jax.device_put(number, there) if apart else number


def stacked(numbers: Sequence[jax.Array]) -> jax.Array:
    """Return numbers as a vector on the devices of the first that was put on any."""
    first = next((x for x in numbers if _place(x) is not None), None)
    return jnp.stack([beside(first, x) for x in numbers])


def _place(x: Any) -> Sharding | None:
    """Return where a number lies that goes with ``x``; None where that is not decided."""
    if isinstance(x, jax.core.Tracer) or not isinstance(x, jax.Array) or not x.committed:
        return None
    if isinstance(x.sharding, NamedSharding):
        return NamedSharding(x.sharding.mesh, PartitionSpec())
    return x.sharding if isinstance(x.sharding, SingleDeviceSharding) else None
