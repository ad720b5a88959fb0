"""ADOPT: Adam whose second moment does not know the gradient that it divides."""

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
    step_count,
)
from ..numerics.torch_ops import add, addcmul, constant, div, lerp, mul, sqrt
from ..optim import decay as decays
from ..optim import moments
from ._left_out import LEFT_OUT, without_none
from ._timm import adam, cautious, decay_rate, with_snapshot


def _advance(
    shared: Shared,
    *,
    lr: jax.Array,
    betas: jax.Array,
    weight_decay: jax.Array,
    clip_exp: jax.Array,
    **options: Any,
) -> tuple[Shared, Scalars]:
    step = shared["step"] + 1
    before = shared["step"].astype(jnp.float64)
    return {"step": step}, {
        **moments.scalars(betas),
        "first": step == 1,
        "clip": jnp.where(clip_exp == LEFT_OUT, LEFT_OUT, before**clip_exp),
        "decay": -decay_rate(lr, **options) * weight_decay,
    }


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    lr: jax.Array,
    eps: jax.Array,
    weight_decay: jax.Array,
    decoupled: bool,
    caution: bool,
    maximize: bool,
    first: jax.Array,
    weight1: jax.Array,
    beta2: jax.Array,
    weight2: jax.Array,
    clip: jax.Array,
    decay: jax.Array,
    **_: Any,
) -> tuple[jax.Array, LeafState]:
    grad = -grad if maximize else grad
    before = param
    if decoupled:
        param = jnp.where(weight_decay != 0, add(param, param, alpha=decay), param)
    else:
        grad = decays.l2(grad, param, weight_decay)
    exp_avg_sq = state["exp_avg_sq"]
    normed = div(grad, jnp.maximum(sqrt(exp_avg_sq), constant(eps, grad)))
    normed = jnp.clip(normed, constant(-clip, grad), constant(clip, grad))
    exp_avg = lerp(state["exp_avg"], normed, weight1)
    direction = cautious(exp_avg, grad) if caution else exp_avg
    new = add(param, direction, alpha=-lr)
    begun = addcmul(exp_avg_sq, grad, grad, value=1.0)
    later = addcmul(mul(exp_avg_sq, beta2), grad, grad, value=weight2)
    return jnp.where(first, before, new), {
        "exp_avg": jnp.where(first, state["exp_avg"], exp_avg),
        "exp_avg_sq": jnp.where(first, begun, later),
    }


@of_rule(Rule(adam, moments.init, _update, step_count, _advance))
def adopt(
    lr: Number = 1e-3,
    betas: tuple[Number, Number] = (0.9, 0.9999),
    eps: Number = 1e-6,
    clip_exp: Number | None = 0.333,
    weight_decay: Number = 0.0,
    decoupled: bool = False,
    corrected_weight_decay: bool = False,
    *,
    caution: bool = False,
    maximize: bool = False,
    max_lr_snapshot: Number | None = LEFT_OUT,
) -> optax.GradientTransformationExtraArgs:
    """ADOPT: Adam whose second moment does not know the gradient that it divides.

    The Optax spelling of :class:`Adopt`, whose description, arguments, errors and example hold for
    it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(adopt, with_snapshot(without_none(locals(), "clip_exp")))


class Adopt(Optimizer):
    """ADOPT: Adam whose second moment does not know the gradient that it divides.

    The counterpart of ``timm.optim.Adopt``. The first step sets the second moment, and nothing
    else.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, >= 0.
        betas: decay of the moving averages of the gradient and of its square, in [0, 1).
        eps: the least denominator, >= 0.
        clip_exp: a step's normed gradient is clipped at the number of steps before it to this
            power; None, held as infinity, does not clip.
        weight_decay: L2 penalty, >= 0.
        decoupled: decay the parameter instead of adding to the gradient.
        corrected_weight_decay: scale weight decay by ``lr**2 / max_lr_snapshot`` instead of
            ``lr``.
        caution: leave out what is against the gradient (Liang et al., 2024, *Cautious
            Optimizers*).
        maximize: ascend instead of descend.
        max_lr_snapshot: the largest rate, for corrected weight decay; None, held as infinity, is
            the ``lr`` that the optimizer is made with.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message.

    References:
        Taniguchi et al., 2024, *ADOPT: Modified Adam Can Converge with Any β2 with the Optimal
        Rate*; ``timm.optim.adopt``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import Adopt
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = Adopt(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([1., 1.], dtype=float32)
    """

    factory = staticmethod(adopt)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.9999),
        eps: Number = 1e-6,
        clip_exp: Number | None = 0.333,
        weight_decay: Number = 0.0,
        decoupled: bool = False,
        corrected_weight_decay: bool = False,
        *,
        caution: bool = False,
        maximize: bool = False,
        max_lr_snapshot: Number | None = LEFT_OUT,
    ) -> Self:
        return cls.with_options(params, with_snapshot(without_none(locals(), "clip_exp")))
