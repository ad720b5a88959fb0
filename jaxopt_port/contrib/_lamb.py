"""LAMB: Adam whose rate is scaled for each layer."""

from __future__ import annotations

from collections.abc import Iterator
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
    Problem,
    Rule,
    Scalars,
    Shared,
    Sum,
    leafwise,
    of_rule,
    step_count,
)
from ..numerics.torch_ops import (
    Scalar,
    add,
    add_scalar,
    addcmul,
    constant,
    div,
    lerp,
    mul,
    sqrt,
)
from ..optim import moments, ranges
from ._left_out import LEFT_OUT, without_none
from ._sums import norm
from ._timm import cautious, decay_rate, largest_rate, with_snapshot


def _problems(max_grad_norm: Scalar, **options: Any) -> Iterator[Problem]:
    yield from ranges.adam(**options)
    if not max_grad_norm > 0:
        yield Problem(f"Invalid max_grad_norm value: {max_grad_norm}", "None does not clip")
    yield from largest_rate(**options)


def _gathers(grad: jax.Array, *_: Any, **__: Any) -> Scalars:
    return {"grad_square": norm(grad).astype(jnp.float64) ** 2}


def _advance(
    shared: Shared,
    *,
    lr: jax.Array,
    bias_correction: bool,
    betas: jax.Array,
    weight_decay: jax.Array,
    grad_averaging: bool,
    max_grad_norm: jax.Array,
    grad_square: jax.Array | float = 0.0,
    **options: Any,
) -> tuple[Shared, Scalars]:
    step = shared["step"] + 1
    correction1, correction2 = 1 - betas ** step.astype(jnp.float64)
    one = jnp.ones((), jnp.float64)
    return {"step": step}, {
        "clip": jnp.maximum(jnp.sqrt(grad_square) / max_grad_norm, 1.0),
        "beta1": betas[0],
        "weight1": 1 - betas[0] if grad_averaging else one,
        "beta2": betas[1],
        "weight2": 1 - betas[1],
        "correction1": correction1 if bias_correction else one,
        "correction2_sqrt": jnp.sqrt(correction2) if bias_correction else one,
        "decay": -decay_rate(lr, **options) * weight_decay,
    }


def _trust_ratio(param: jax.Array, update: jax.Array, trust_clip: bool) -> jax.Array:
    of_param, of_update = norm(param), norm(update)
    one = jnp.ones_like(of_param)
    ratio = jnp.where((of_param > 0) & (of_update > 0), div(of_param, of_update), one)
    return jnp.minimum(ratio, one) if trust_clip else ratio


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    lr: jax.Array,
    eps: jax.Array,
    weight_decay: jax.Array,
    grad_averaging: bool,
    trust_clip: bool,
    always_adapt: bool,
    caution: bool,
    decoupled_decay: bool,
    clip: jax.Array,
    beta1: jax.Array,
    weight1: jax.Array,
    beta2: jax.Array,
    weight2: jax.Array,
    correction1: jax.Array,
    correction2_sqrt: jax.Array,
    decay: jax.Array,
    **_: Any,
) -> tuple[Sum, LeafState]:
    grad = div(grad, constant(clip, grad))
    if grad_averaging:
        exp_avg = lerp(state["exp_avg"], grad, weight1)
    else:
        exp_avg = add(mul(state["exp_avg"], beta1), grad, alpha=weight1)
    exp_avg_sq = addcmul(mul(state["exp_avg_sq"], beta2), grad, grad, value=weight2)
    denom = add_scalar(div(sqrt(exp_avg_sq), correction2_sqrt), eps)
    update = div(div(exp_avg, correction1), denom)
    update = cautious(update, grad) if caution else update
    decays = weight_decay != 0
    if decoupled_decay:
        param = jnp.where(decays, add(param, param, alpha=decay), param)
    else:
        update = jnp.where(decays, add(update, param, alpha=weight_decay), update)
    adapted = mul(update, _trust_ratio(param, update, trust_clip))
    update = adapted if always_adapt else jnp.where(decays, adapted, update)
    return Sum(param, update, -lr), {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}


# All but max_grad_norm: timm clips by what the optimizer was made with, whatever a group says.
_OWN = frozenset({
    "lr", "bias_correction", "betas", "eps", "weight_decay", "grad_averaging", "trust_clip",
    "always_adapt", "caution", "decoupled_decay", "corrected_weight_decay", "max_lr_snapshot",
})  # fmt: skip


@of_rule(
    Rule(
        _problems,
        moments.init,
        _update,
        step_count,
        _advance,
        gathers=_gathers,
        own_options=_OWN,
        elementwise=False,
    )
)
def lamb(
    lr: Number = 1e-3,
    bias_correction: bool = True,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-6,
    weight_decay: Number = 0.01,
    grad_averaging: bool = True,
    max_grad_norm: Number | None = 1.0,
    trust_clip: bool = False,
    always_adapt: bool = False,
    caution: bool = False,
    decoupled_decay: bool = False,
    corrected_weight_decay: bool = False,
    max_lr_snapshot: Number | None = LEFT_OUT,
) -> optax.GradientTransformationExtraArgs:
    """LAMB: Adam whose rate is scaled for each layer.

    The Optax spelling of :class:`Lamb`, whose description, arguments, errors and example hold for
    it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(lamb, with_snapshot(without_none(locals(), "max_grad_norm")))


class Lamb(Optimizer):
    """LAMB: Adam whose rate is scaled for each layer.

    The counterpart of ``timm.optim.Lamb``. Gradients are first clipped by their norm over all
    groups. timm counts the steps of a group, and here each parameter counts its own: the same
    where all have a gradient in each step. A parameter must be whole.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, >= 0.
        bias_correction: correct the moments for their beginning at zero.
        betas: decay of the moving averages of the gradient and of its square, in [0, 1).
        eps: added to the denominator, outside the root, >= 0.
        weight_decay: L2 penalty of the step, >= 0; where it is 0, nothing is scaled.
        grad_averaging: weigh a gradient by ``1 - betas[0]`` in the first moment, and not by 1.
        max_grad_norm: what the norm of all gradients is clipped at; None, held as infinity, does
            not clip. One for all groups.
        trust_clip: let a layer's ratio be at most 1.
        always_adapt: scale without weight decay, too.
        caution: leave out what is against the gradient (Liang et al., 2024, *Cautious
            Optimizers*).
        decoupled_decay: decay the parameter before the step instead.
        corrected_weight_decay: scale weight decay by ``lr**2 / max_lr_snapshot`` instead of
            ``lr``.
        max_lr_snapshot: the largest rate, for corrected weight decay; None, held as infinity, is
            the ``lr`` that the optimizer is made with.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message.

    References:
        You et al., 2020, *Large Batch Optimization for Deep Learning*; ``timm.optim.lamb``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import Lamb
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = Lamb(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.5, 0.5], dtype=float32)
    """

    factory = staticmethod(lamb)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-3,
        bias_correction: bool = True,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-6,
        weight_decay: Number = 0.01,
        grad_averaging: bool = True,
        max_grad_norm: Number | None = 1.0,
        trust_clip: bool = False,
        always_adapt: bool = False,
        caution: bool = False,
        decoupled_decay: bool = False,
        corrected_weight_decay: bool = False,
        max_lr_snapshot: Number | None = LEFT_OUT,
    ) -> Self:
        return cls.with_options(params, with_snapshot(without_none(locals(), "max_grad_norm")))
