"""A momentum buffer that begins as the first gradient, as torch's SGD has it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ..engine import LeafState, Scalars, Shared
from ..numerics.torch_ops import add, mul


def init(param: jax.Array, **_: object) -> LeafState:
    return {"momentum_buffer": jnp.zeros_like(param)}


def start(**_: object) -> Shared:
    return {"has_momentum_buffer": False}


def begun(shared: Shared, momentum: jax.Array) -> tuple[Shared, Scalars]:
    """Return what is shared after a step, and whether there was a buffer before it."""
    if not shared:
        return shared, {}
    before = shared["has_momentum_buffer"]
    return {"has_momentum_buffer": before | (momentum != 0)}, {"begun": before}


def holds(*, momentum: float, **_: object) -> frozenset[str] | None:
    return frozenset() if momentum == 0 else None


def averaged(
    grad: jax.Array,
    state: LeafState,
    *,
    momentum: jax.Array,
    dampening: jax.Array,
    begun: jax.Array,
) -> tuple[jax.Array, LeafState]:
    """Return the buffer after a gradient, and the state.

    torch clones the first gradient; dampening acts from the second step on. A momentum set to 0 in
    mid-run rests the buffer and leaves it as it is.
    """
    held = state["momentum_buffer"]
    buf = jnp.where(begun, add(mul(held, momentum), grad, alpha=1 - dampening), grad)
    # The one that is kept, and no other, is what goes into the parameter: what XLA has to calculate
    # of the old buffer a second time keeps it from writing in place, and costs a copy of both.
    buf = jnp.where(momentum != 0, buf, held)
    return buf, {"momentum_buffer": buf}
