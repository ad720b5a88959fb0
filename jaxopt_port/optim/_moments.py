"""The two moving averages of Adam and its relatives."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..engine import LeafState, Scalars
from ..numerics.torch_ops import Scalar, addcmul, lerp, mul
from . import _decay


def init(param: jax.Array, *, amsgrad: bool = False, **_: Any) -> LeafState:
    state = {"exp_avg": jnp.zeros_like(param), "exp_avg_sq": jnp.zeros_like(param)}
    return state | {"max_exp_avg_sq": jnp.zeros_like(param)} if amsgrad else state


def scalars(betas: jax.Array) -> Scalars:
    """Return what `begun` needs of the betas, in float64."""
    beta1, beta2 = betas
    return {"weight1": 1 - beta1, "beta2": beta2, "weight2": 1 - beta2}


def begun(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    maximize: bool,
    weight_decay: Scalar,
    decay: Scalar,
    decoupled_weight_decay: bool,
    weight1: Scalar,
    beta2: Scalar,
    weight2: Scalar,
    **_: Any,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Begin a step as all of them do: weight decay, then the averages.

    Returns:
        Gradient and parameter after weight decay, ``exp_avg`` and ``exp_avg_sq`` after the
        gradient.
    """
    if maximize:
        grad = -grad
    if decoupled_weight_decay:
        param = mul(param, decay)
    else:
        grad = _decay.l2(grad, param, weight_decay)
    exp_avg = lerp(state["exp_avg"], grad, weight1)
    exp_avg_sq = addcmul(mul(state["exp_avg_sq"], beta2), grad, grad, value=weight2)
    return grad, param, exp_avg, exp_avg_sq
