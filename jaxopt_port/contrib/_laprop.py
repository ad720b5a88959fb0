"""LaProp: momentum of gradients that are normed first."""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp
import optax

from ..engine import (
    REST,
    Groups,
    LeafState,
    Number,
    Optimizer,
    Rule,
    Scalars,
    Shared,
    leafwise,
    of_rule,
)
from ..numerics.torch_ops import add, add_scalar, addcmul, div, mul, sqrt
from ..optim import moments
from . import _wide
from ._left_out import LEFT_OUT
from ._timm import adam, cautious, decay_rate, with_snapshot


def _start(**_: Any) -> Shared:
    return {"step": 0.0, "exp_avg_lr_2": 0.0, **_wide.kept("exp_avg_lr_1", 0.0)}


def _advance(
    shared: Shared, *, lr: jax.Array, betas: jax.Array, weight_decay: jax.Array, **options: Any
) -> tuple[Shared, Scalars]:
    beta1, beta2 = betas
    rates = _wide.read(shared, "exp_avg_lr_1") * beta1 + (1 - beta1) * lr
    # A float32 tensor in timm, whose products are rounded.
    ones = add_scalar(mul(shared["exp_avg_lr_2"], beta2), 1 - beta2)
    after = {"step": shared["step"] + 1, "exp_avg_lr_2": ones}
    return {**after, **_wide.kept("exp_avg_lr_1", rates)}, {
        "beta1": beta1,
        "weight1": lr * (1 - beta1),
        "beta2": beta2,
        "weight2": 1 - beta2,
        "correction2": ones,
        "step_size": jnp.where(rates != 0, lr / jnp.where(rates != 0, rates, 1.0), 0.0),
        "decay": -decay_rate(lr, **options) * weight_decay,
    }


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    eps: jax.Array,
    weight_decay: jax.Array,
    caution: bool,
    beta1: jax.Array,
    weight1: jax.Array,
    beta2: jax.Array,
    weight2: jax.Array,
    correction2: jax.Array,
    step_size: jax.Array,
    decay: jax.Array,
    **_: Any,
) -> tuple[jax.Array, LeafState]:
    exp_avg_sq = addcmul(mul(state["exp_avg_sq"], beta2), grad, grad, value=weight2)
    denom = add_scalar(sqrt(div(exp_avg_sq, correction2)), eps)
    exp_avg = add(mul(state["exp_avg"], beta1), div(grad, denom), alpha=weight1)
    direction = cautious(exp_avg, grad) if caution else exp_avg
    param = add(param, direction, alpha=-step_size)
    param = jnp.where(weight_decay != 0, add(param, param, alpha=decay), param)
    return param, {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}


@of_rule(Rule(adam, moments.init, _update, _start, _advance))
def laprop(
    lr: Number = 4e-4,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-15,
    weight_decay: Number = 0.0,
    caution: bool = False,
    corrected_weight_decay: bool = False,
    max_lr_snapshot: Number | None = LEFT_OUT,
) -> optax.GradientTransformationExtraArgs:
    """LaProp: momentum of gradients that are normed first.

    The Optax spelling of :class:`LaProp`, whose description, arguments, errors and example hold
    for it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(laprop, with_snapshot(locals()))


class LaProp(Optimizer):
    """LaProp: momentum of gradients that are normed first.

    The counterpart of ``timm.optim.LaProp``. Its bias correction follows a rate that changes.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, >= 0.
        betas: decay of the moving averages of the gradient and of its square, in [0, 1).
        eps: added to the denominator, outside the root, >= 0.
        weight_decay: decoupled weight decay, >= 0, after the step.
        caution: leave out what is against the gradient (Liang et al., 2024, *Cautious
            Optimizers*).
        corrected_weight_decay: scale weight decay by ``lr**2 / max_lr_snapshot`` instead of
            ``lr``.
        max_lr_snapshot: the largest rate, for corrected weight decay; None, held as infinity, is
            the ``lr`` that the optimizer is made with.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message.

    References:
        Ziyin et al., 2020, *LaProp: Separating Momentum and Adaptivity in Adam*;
        ``timm.optim.laprop``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import LaProp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = LaProp(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.4999999, 0.4999999], dtype=float32)
    """

    factory = staticmethod(laprop)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 4e-4,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-15,
        weight_decay: Number = 0.0,
        caution: bool = False,
        corrected_weight_decay: bool = False,
        max_lr_snapshot: Number | None = LEFT_OUT,
    ) -> Self:
        return cls.with_options(params, with_snapshot(locals()))
