"""Weight decay, in the gradient (an L2 penalty) or on the parameter (decoupled)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ..engine import Scalars
from ..numerics import uncontracted
from ..numerics.torch_ops import Scalar, add, mul


def scalars(lr: jax.Array, weight_decay: jax.Array) -> Scalars:
    """Return what `decayed` needs, in float64."""
    return {"weight_decay": weight_decay, "decay": 1 - lr * weight_decay}


def decayed(
    grad: jax.Array, param: jax.Array, *, weight_decay: Scalar, decay: Scalar, decoupled: bool
) -> tuple[jax.Array, jax.Array]:
    """Return gradient and parameter after weight decay: in the gradient, or on the parameter.

    Args:
        grad: the gradient.
        param: the parameter.
        weight_decay: what times the parameter is added to the gradient.
        decay: ``1 - lr * weight_decay``, by which a decoupled decay multiplies the parameter.
        decoupled: which of the two.
    """
    if decoupled:
        return grad, mul(param, decay)
    return l2(grad, param, weight_decay), param


def l2(grad: jax.Array, param: jax.Array, weight_decay: Scalar) -> jax.Array:
    """Return the gradient with ``weight_decay * param`` added, where that is not 0."""
    decaying = jnp.asarray(weight_decay) != 0
    return lax.select(decaying, add(grad, param, alpha=weight_decay), grad)


def l2_twice(
    grad: jax.Array, param: jax.Array, weight_decay: Scalar
) -> tuple[jax.Array, jax.Array]:
    """Return what `l2` does, for what goes into a state and for what goes into the parameter.

    The same numbers, calculated where each is wanted: see `uncontracted`. Both operands are others
    for the compiler, so that the products of the two are not one.
    """
    again = uncontracted(grad, again=True), uncontracted(param, again=True)
    return l2(grad, param, weight_decay), l2(*again, weight_decay)
