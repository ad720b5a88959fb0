"""AdaBelief: Adam with the variance of the gradient about its average."""

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
from ..numerics.torch_ops import (
    add,
    add_scalar,
    addcdiv,
    addcmul,
    div,
    lerp,
    mul,
    rounded,
    sqrt,
    widened,
)
from ..optim import decay as decays
from ..optim import moments, ranges


def _init(param: jax.Array, *, amsgrad: bool, **_: Any) -> LeafState:
    zeros = jnp.zeros_like(widened(param))
    state = {"exp_avg": zeros, "exp_avg_var": zeros}
    return state | {"max_exp_avg_var": zeros} if amsgrad else state


def _advance(
    shared: Shared,
    *,
    lr: jax.Array,
    betas: jax.Array,
    weight_decay: jax.Array,
    fixed_decay: bool,
    rectify: bool,
    degenerated_to_sgd: bool,
    **_: Any,
) -> tuple[Shared, Scalars]:
    step = shared["step"] + 1
    t = step.astype(jnp.float64)
    beta1, beta2 = betas
    correction1, correction2 = 1 - beta1**t, 1 - beta2**t
    scalars = {
        "decay": 1 - (weight_decay if fixed_decay else lr * weight_decay),
        **moments.scalars(betas),
        "correction2_sqrt": jnp.sqrt(correction2),
        "step_size": lr / correction1,
    }
    if rectify:
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * t * beta2**t / correction2
        known = length >= 5
        ratio = (length - 4) / (longest - 4) * (length - 2) / length * longest / (longest - 2)
        # The root is not taken of what is negative while the variance is not known.
        factor = jnp.sqrt(jnp.where(known, correction2 * ratio, 1.0))
        plain = 1.0 if degenerated_to_sgd else 0.0
        scalars |= {
            "known": known,
            "step_size": jnp.where(known, factor, plain) / correction1 * lr,
        }
    return {"step": step}, scalars


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    eps: jax.Array,
    weight_decay: jax.Array,
    amsgrad: bool,
    decoupled_decay: bool,
    decay: jax.Array,
    weight1: jax.Array,
    beta2: jax.Array,
    weight2: jax.Array,
    correction2_sqrt: jax.Array,
    step_size: jax.Array,
    known: jax.Array | None = None,
    **_: Any,
) -> tuple[jax.Array, LeafState]:
    grad, wide = decays.decayed(
        widened(grad),
        widened(param),
        weight_decay=weight_decay,
        decay=decay,
        decoupled=decoupled_decay,
    )
    exp_avg = lerp(state["exp_avg"], grad, weight1)
    residual = add(grad, exp_avg, alpha=-1.0)
    exp_avg_var = addcmul(mul(state["exp_avg_var"], beta2), residual, residual, value=weight2)
    exp_avg_var = add_scalar(exp_avg_var, eps)
    after = {"exp_avg": exp_avg, "exp_avg_var": exp_avg_var}
    largest = exp_avg_var
    if amsgrad:
        largest = jnp.maximum(state["max_exp_avg_var"], exp_avg_var)
        after["max_exp_avg_var"] = largest
    if known is None:
        denom = add_scalar(div(sqrt(largest), correction2_sqrt), eps)
        new = addcdiv(wide, exp_avg, denom, value=-step_size)
    else:
        denom = add_scalar(sqrt(exp_avg_var), eps)
        rectified = addcdiv(wide, exp_avg, denom, value=-step_size)
        new = jnp.where(known, rectified, add(wide, exp_avg, alpha=-step_size))
    return rounded(new, param.dtype), after


@of_rule(Rule(ranges.adam, _init, _update, step_count, _advance))
def adabelief(
    lr: Number = 1e-3,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-16,
    weight_decay: Number = 0.0,
    amsgrad: bool = False,
    decoupled_decay: bool = True,
    fixed_decay: bool = False,
    rectify: bool = True,
    degenerated_to_sgd: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """AdaBelief: Adam with the variance of the gradient about its average.

    The Optax spelling of :class:`AdaBelief`, whose description, arguments, errors and example hold
    for it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(adabelief, locals())


class AdaBelief(Optimizer):
    """AdaBelief: Adam with the variance of the gradient about its average.

    The counterpart of ``timm.optim.AdaBelief``. The state of low-precision parameters is float32,
    and so is the step.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, >= 0.
        betas: decay of the moving averages of the gradient and of its square, in [0, 1).
        eps: added to the second moment in each step, and to the denominator, >= 0.
        weight_decay: decoupled weight decay, >= 0: the parameter is multiplied by ``1 - lr *
            weight_decay``.
        amsgrad: divide by the largest second moment so far, where the step is not rectified.
        decoupled_decay: decay the parameter instead of adding to the gradient.
        fixed_decay: do not scale decoupled weight decay by the rate.
        rectify: scale the step as RAdam does.
        degenerated_to_sgd: step by the average alone while the variance is not known.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message.

    References:
        Zhuang et al., 2020, *AdaBelief Optimizer*; ``timm.optim.adabelief``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import AdaBelief
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = AdaBelief(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([-0.50000006, -0.50000006], dtype=float32)
    """

    factory = staticmethod(adabelief)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-16,
        weight_decay: Number = 0.0,
        amsgrad: bool = False,
        decoupled_decay: bool = True,
        fixed_decay: bool = False,
        rectify: bool = True,
        degenerated_to_sgd: bool = True,
    ) -> Self:
        return cls.with_options(params, locals())
