"""The two moving averages of Adam and its relatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ._rule import LeafState, Scalars
from .torch_ops import Scalar, addcmul, lerp, mul


def init(param: jax.Array) -> LeafState:
    return {"exp_avg": jnp.zeros_like(param), "exp_avg_sq": jnp.zeros_like(param)}


def scalars(betas: jax.Array) -> Scalars:
    """Return what `advanced` needs of the betas, in float64."""
    beta1, beta2 = betas
    return {"weight1": 1 - beta1, "beta2": beta2, "weight2": 1 - beta2}


def advanced(
    grad: jax.Array, state: LeafState, *, weight1: Scalar, beta2: Scalar, weight2: Scalar
) -> tuple[jax.Array, jax.Array]:
    """Return ``exp_avg`` and ``exp_avg_sq`` after a gradient."""
    exp_avg = lerp(state["exp_avg"], grad, weight1)
    exp_avg_sq = addcmul(mul(state["exp_avg_sq"], beta2), grad, grad, value=weight2)
    return exp_avg, exp_avg_sq
