"""Muon as Keller Jordan writes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax

from .._compat import alternative, whole_on_each
from ..engine import (
    REST,
    Groups,
    LeafState,
    Number,
    Optimizer,
    Problem,
    Rule,
    Scalars,
    Shared,
    Sum,
    leafwise,
    of_rule,
)
from ..numerics.torch_ops import Scalar, add, add_scalar, div, lerp, mul, rounded, widened
from ..optim import ranges


def _problems(lr: Scalar, weight_decay: Scalar, momentum: Scalar) -> Iterator[Problem]:
    yield from ranges.learning_rate(lr)
    yield from ranges.at_least_zero("weight_decay", weight_decay)
    yield from ranges.below_one("momentum", momentum)


_BFLOAT16 = jnp.dtype(jnp.bfloat16)
_STEPS, _A, _B, _C = 5, 3.4445, -4.7750, 2.0315


def _accepts(param: jax.Array) -> Problem | None:
    if param.ndim < 2:
        return Problem(
            f"Muon steps matrices, and this parameter has the shape {param.shape}",
            "give it to another optimizer, jp.adamw say",
        )
    return ranges.OnlyReal("Muon")(param)


def _init(param: jax.Array, **_: Any) -> LeafState:
    return {"momentum_buffer": jnp.zeros_like(param)}


def _start(**_: Any) -> Shared:
    return {"begun": False}


def _advance(shared: Shared, **_: Any) -> tuple[Shared, Scalars]:
    return {"begun": True}, {}


def _matmul(x: jax.Array, y: jax.Array) -> jax.Array:
    return rounded(jnp.matmul(x, y, preferred_element_type=jnp.float32), _BFLOAT16)


def _zeropower(x: jax.Array) -> jax.Array:
    """Return nearly ``U V^T`` of ``x = U S V^T``, in bfloat16."""
    tall = x.shape[-2] > x.shape[-1]
    x = rounded(x, _BFLOAT16)
    x = jnp.swapaxes(x, -1, -2) if tall else x
    square = jnp.sum(widened(x) ** 2, axis=(-2, -1), keepdims=True)
    length = add_scalar(rounded(jnp.sqrt(square), _BFLOAT16), 1e-7)
    x = div(x, widened(length))
    for _ in range(_STEPS):
        # Behind a select, or XLA reads it transposed and adds up in another order than torch.
        across = jnp.swapaxes(x, -1, -2)
        gram = _matmul(x, jnp.where(across == across, across, jnp.nan))
        gram_update = add(mul(gram, _B), _matmul(mul(gram, _C), gram))
        x = add(mul(x, _A), _matmul(gram_update, x))
    return jnp.swapaxes(x, -1, -2) if tall else x


def _whole(update: jax.Array) -> list[jax.Array]:
    with jax.enable_x64(True):
        return [_zeropower(update)]


_FORMS = whole_on_each(_whole)


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    lr: jax.Array,
    weight_decay: jax.Array,
    momentum: jax.Array,
    **_: Any,
) -> tuple[Sum, LeafState]:
    buffer = lerp(state["momentum_buffer"], grad, 1 - momentum)
    update = lerp(grad, buffer, momentum)
    if update.ndim == 4:
        update = update.reshape(len(update), -1)
    # Of the gradient's last two axes, also where it is a kernel of four.
    longer = max(1.0, grad.shape[-2] / grad.shape[-1]) ** 0.5
    (update,) = alternative(_FORMS, [update], [jax.typeof(update).update(dtype=_BFLOAT16)])
    update = mul(update, longer).reshape(param.shape).astype(param.dtype)
    return Sum(mul(param, 1 - lr * weight_decay), update, -lr), {"momentum_buffer": buffer}


@of_rule(
    Rule(
        _problems,
        _init,
        _update,
        _start,
        _advance,
        accepts=_accepts,
        begins="begun",
        elementwise=False,
    )
)
def muon(
    lr: Number = 0.02,
    weight_decay: Number = 0.0,
    momentum: Number = 0.95,
) -> optax.GradientTransformationExtraArgs:
    """Muon as Keller Jordan writes it.

    The Optax spelling of :class:`Muon`, whose description, arguments, errors and example hold for
    it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(muon, locals())


class Muon(Optimizer):
    """Muon as Keller Jordan writes it.

    The counterpart of ``SingleDeviceMuon`` (and, on one process, ``Muon``) of
    github.com/KellerJordan/Muon. Kernels of convolutions count as matrices of their output
    channels; of three axes, the last two are a matrix. That package steps a parameter whose
    gradient is None by its momentum, and here it rests. ``jp.Muon`` is torch's. A parameter must
    be whole.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, >= 0.
        weight_decay: decoupled weight decay, >= 0: the parameter is multiplied by ``1 - lr *
            weight_decay``.
        momentum: decay of the average of gradients, in [0, 1).

    Raises:
        ValueError: a number out of its range, beginning with the package's own message.

    References:
        Jordan et al., 2024, *Muon: An optimizer for hidden layers in neural networks*.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import Muon
        >>> params, grads = {"weight": jnp.ones((2, 2))}, {"weight": jnp.eye(2)}
        >>> tx = Muon(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([[0.4453125, 1.       ],
               [1.       , 0.4453125]], dtype=float32)
    """

    factory = staticmethod(muon)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 0.02,
        weight_decay: Number = 0.0,
        momentum: Number = 0.95,
    ) -> Self:
        return cls.with_options(params, locals())
