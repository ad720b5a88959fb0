"""Gradient clipping: torch's ``torch.nn.utils.clip_grad``, as functions and as transformations.

Here the gradients are a tree, not the parameters' ``.grad``, and they are returned, not changed.
Leaves that are None are left out, as torch leaves out parameters without a gradient. Gradients of
frozen parameters count in the norm if they are in the tree; in torch such parameters have none.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax

from .rules import torch_ops
from .rules.torch_ops import add_scalar, mul, reciprocal

Grads = TypeVar("Grads")


def get_total_norm(
    grads: Any, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> jax.Array:
    """Return the norm of all gradients together: torch's ``get_total_norm``.

    Args:
        grads: a tree of gradients.
        norm_type: the p of the norm; ``inf``, ``-inf`` and 0 too.
        error_if_nonfinite: whether to raise where the norm is no finite number. Within ``jit``
            nothing can raise, unless the program is made by ``checkify.checkify``.

    Returns:
        A scalar in the gradients' dtype.

    Raises:
        RuntimeError: the norm is not finite.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> float(jp.get_total_norm({"a": jnp.array([3.0]), "b": jnp.array([4.0])}))
        5.0
    """
    norm_type = float(norm_type)
    leaves = jax.tree.leaves(grads)
    if not leaves:
        return jnp.zeros(())
    norms = jnp.stack([_norm(leaf, norm_type) for leaf in leaves])
    total_norm = _norm(norms, norm_type)
    if error_if_nonfinite:
        _check_finite(total_norm, norm_type)
    return total_norm


def _norm(x: jax.Array, norm_type: float) -> jax.Array:
    """Return ``torch.linalg.vector_norm``, which calculates in float32 at least."""
    size = jnp.abs(x)
    dtype = size.dtype
    size = size.astype(jnp.promote_types(dtype, jnp.float32)).ravel()
    if norm_type == math.inf:
        norm = jnp.max(size, initial=0.0)
    elif norm_type == -math.inf:
        norm = jnp.min(size)
    elif norm_type == 0:
        norm = jnp.sum(size != 0).astype(size.dtype)
    elif norm_type == 1:
        norm = jnp.sum(size)
    elif norm_type == 2:
        norm = torch_ops.norm(size)
    else:
        norm = jnp.sum(size**norm_type) ** (1 / norm_type)
    return norm.astype(dtype)


def _check_finite(total_norm: jax.Array, norm_type: float) -> None:
    message = (
        f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, so it "
        "cannot be clipped. To disable this error and scale the gradients by the non-finite norm "
        "anyway, set `error_if_nonfinite=False`"
    )
    if isinstance(total_norm, jax.core.Tracer):
        from jax.experimental import checkify  # at need: it takes a few milliseconds

        checkify.check(jnp.isfinite(total_norm), message)
    elif not math.isfinite(float(total_norm)):
        raise RuntimeError(message)


def clip_grads_with_norm(grads: Grads, max_norm: float, total_norm: jax.Array) -> Grads:
    """Scale gradients whose norm is known: torch's ``clip_grads_with_norm_``.

    Args:
        grads: a tree of gradients.
        max_norm: the norm that is allowed.
        total_norm: the norm that they have, from `get_total_norm`.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> jp.clip_grads_with_norm(jnp.array([3.0, 4.0]), 10.0, jnp.array(5.0))
        Array([3., 4.], dtype=float32)
    """
    # torch's `max_norm / tensor` is the reciprocal times max_norm, rounded twice.
    clip_coef = mul(reciprocal(add_scalar(total_norm, 1e-6)), float(max_norm))
    clip_coef = jnp.minimum(clip_coef, 1.0).astype(total_norm.dtype)
    clipped: Grads = jax.tree.map(lambda grad: mul(grad, clip_coef), grads)
    return clipped


def clip_grad_norm(
    grads: Grads,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> tuple[Grads, jax.Array]:
    """Clip gradients by their norm: torch's ``clip_grad_norm_``.

    The norm is that of all gradients together, over all groups. They are multiplied by
    ``min(1, max_norm / (norm + 1e-6))``.

    Args:
        grads: a tree of gradients.
        max_norm: the norm that is allowed.
        norm_type: the p of the norm; ``inf``, ``-inf`` and 0 too.
        error_if_nonfinite: whether to raise where the norm is no finite number. Within ``jit``
            nothing can raise, unless the program is made by ``checkify.checkify``.

    Returns:
        The clipped gradients, and the norm that they had.

    Raises:
        RuntimeError: the norm is not finite.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> grads, norm = jp.clip_grad_norm({"weight": jnp.array([3.0, 4.0])}, max_norm=1.0)
        >>> [round(float(x), 4) for x in grads["weight"]], float(norm)
        ([0.6, 0.8], 5.0)
    """
    total_norm = get_total_norm(grads, norm_type, error_if_nonfinite)
    return clip_grads_with_norm(grads, max_norm, total_norm), total_norm


def clip_grad_value(grads: Grads, clip_value: float) -> Grads:
    """Clip each element of the gradients: torch's ``clip_grad_value_``.

    Args:
        grads: a tree of gradients.
        clip_value: the largest absolute value that is allowed.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> jp.clip_grad_value(jnp.array([-3.0, 0.5]), 1.0)
        Array([-1. ,  0.5], dtype=float32)
    """
    value = float(clip_value)

    def clipped(grad: jax.Array) -> jax.Array:
        return jnp.minimum(jnp.maximum(grad, jnp.asarray(-value, grad.dtype)), value).astype(
            grad.dtype
        )

    result: Grads = jax.tree.map(clipped, grads)
    return result


def clip_by_grad_norm(
    max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> optax.GradientTransformation:
    """`clip_grad_norm` as an Optax transformation, to be chained before an optimizer.

    ``optax.clip_by_global_norm`` lacks torch's ``+ 1e-6`` and its other norms.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp, optax
        >>> tx = optax.chain(jp.clip_by_grad_norm(1.0), jp.SGD(lr=0.1))
        >>> params = {"weight": jnp.zeros(2)}
        >>> grads = {"weight": jnp.array([3.0, 4.0])}
        >>> jp.step(tx, grads, tx.init(params), params)[0]["weight"].round(4)
        Array([-0.06, -0.08], dtype=float32)
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return clip_grad_norm(updates, max_norm, norm_type, error_if_nonfinite)[0], state

    return optax.GradientTransformation(optax.init_empty_state, update)


def clip_by_grad_value(clip_value: float) -> optax.GradientTransformation:
    """`clip_grad_value` as an Optax transformation, to be chained before an optimizer.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp, optax
        >>> tx = optax.chain(jp.clip_by_grad_value(1.0), jp.SGD(lr=0.5))
        >>> params = jnp.zeros(2)
        >>> jp.step(tx, jnp.array([-3.0, 0.5]), tx.init(params), params)[0]
        Array([ 0.5 , -0.25], dtype=float32)
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return clip_grad_value(updates, clip_value), state

    return optax.GradientTransformation(optax.init_empty_state, update)
