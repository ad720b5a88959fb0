"""Weight decay, in the gradient (an L2 penalty) or on the parameter (decoupled)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .torch_ops import Scalar, add, mul


def decayed(
    grad: jax.Array, param: jax.Array, *, lr: Scalar, weight_decay: Scalar, decoupled: bool
) -> tuple[jax.Array, jax.Array]:
    """Return gradient and parameter after weight decay: on the parameter, or in the gradient."""
    if decoupled:
        return grad, mul(param, 1 - lr * weight_decay)
    return l2(grad, param, weight_decay), param


def l2(grad: jax.Array, param: jax.Array, weight_decay: Scalar) -> jax.Array:
    """Return the gradient with ``weight_decay * param`` added, where that is not 0."""
    decaying = jnp.asarray(weight_decay) != 0
    return jnp.where(decaying, add(grad, param, alpha=weight_decay), grad)
