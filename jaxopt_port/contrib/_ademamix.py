"""AdEMAMix: Adam with a slow average of gradients beside the fast one."""

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
from ..numerics.torch_ops import Scalar, add, add_scalar, addcdiv, div, lerp, sqrt, widened
from ..optim import moments, ranges
from . import _pytorch_optimizer as package
from ._left_out import LEFT_OUT, without_none


def _problems(
    lr: Scalar,
    betas: tuple[Scalar, Scalar, Scalar],
    weight_decay: Scalar,
    alpha: Scalar,
    t_alpha_beta3: Scalar,
    eps: Scalar,
    **_: Any,
) -> Iterator[Problem]:
    yield from package.learning_rate(lr)
    yield from package.decays(betas)
    yield from package.at_least_zero("alpha", alpha)
    yield from package.at_least_zero("t_alpha_beta3", t_alpha_beta3)
    yield from package.at_least_zero("weight_decay", weight_decay)
    yield from package.at_least_zero("eps", eps)
    if t_alpha_beta3 == 0.0 or (t_alpha_beta3 != LEFT_OUT and 0.0 in (betas[0], betas[2])):
        yield Problem(
            f"a warm-up over {t_alpha_beta3} steps, from a decay of {betas[0]} to {betas[2]}",
            "t_alpha_beta3 is None or a number > 0, and the decays are > 0 with it",
        )


def _init(param: jax.Array, **_: Any) -> LeafState:
    names = ("exp_avg", "exp_avg_sq", "exp_avg_slow")
    return {name: jnp.zeros_like(param) for name in names}


def _advance(
    shared: Shared,
    *,
    lr: jax.Array,
    betas: jax.Array,
    weight_decay: jax.Array,
    fixed_decay: bool,
    alpha: jax.Array,
    t_alpha_beta3: jax.Array,
    **_: Any,
) -> tuple[Shared, Scalars]:
    step = shared["step"] + 1
    t = step.astype(jnp.float64)
    beta1, beta2, beta3 = betas
    # By half-lives, from that of the fast average to the slow one's own.
    done, (log1, log3) = t / t_alpha_beta3, jnp.log(betas[::2])
    begun = jnp.exp(log1 * log3 / ((1 - done) * log3 + done * log1))
    warming = t_alpha_beta3 != LEFT_OUT
    beta3 = jnp.where(warming, jnp.minimum(begun, beta3), beta3)
    mixed = jnp.where(warming, jnp.minimum(t * alpha / t_alpha_beta3, alpha), alpha)
    return {"step": step}, {
        "alpha": mixed,
        **moments.scalars(betas[:2]),
        "weight3": 1 - beta3,
        "correction1": 1 - beta1**t,
        "correction2_sqrt": jnp.sqrt(1 - beta2**t),
        "decay": package.shrinking(lr, weight_decay, fixed_decay),
    }


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    lr: jax.Array,
    weight_decouple: bool,
    alpha: jax.Array,
    eps: jax.Array,
    weight3: jax.Array,
    correction1: jax.Array,
    correction2_sqrt: jax.Array,
    **common: Any,
) -> tuple[jax.Array | Sum, LeafState]:
    grad, param, exp_avg, exp_avg_sq = moments.begun(
        grad, param, state, decoupled_weight_decay=weight_decouple, **common
    )
    exp_avg_slow = lerp(state["exp_avg_slow"], grad, weight3)
    denom = add_scalar(div(sqrt(exp_avg_sq), correction2_sqrt), eps)
    update = add(div(exp_avg, correction1), exp_avg_slow, alpha=alpha)
    after = {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq, "exp_avg_slow": exp_avg_slow}
    if widened(param) is not param:  # the package rounds the quotient in low precision
        return Sum(param, div(update, denom), -lr), after
    return addcdiv(param, update, denom, value=-lr), after


@of_rule(Rule(_problems, _init, _update, step_count, _advance, accepts=ranges.OnlyReal("AdEMAMix")))
def ademamix(
    lr: Number = 1e-3,
    betas: tuple[Number, Number, Number] = (0.9, 0.999, 0.9999),
    weight_decay: Number = 0.0,
    weight_decouple: bool = False,
    fixed_decay: bool = False,
    alpha: Number = 5.0,
    t_alpha_beta3: Number | None = LEFT_OUT,
    eps: Number = 1e-8,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """AdEMAMix: Adam with a slow average of gradients beside the fast one.

    The Optax spelling of :class:`AdEMAMix`, whose description, arguments, errors and example hold
    for it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(ademamix, without_none(locals(), "t_alpha_beta3"))


class AdEMAMix(Optimizer):
    """AdEMAMix: Adam with a slow average of gradients beside the fast one.

    The counterpart of ``pytorch_optimizer.AdEMAMix``, without its keywords ``cautious`` and
    ``stable_adamw``.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, >= 0.
        betas: decay of the fast average of the gradient, of its square's, in [0, 1), and of the
            slow average, in [0, 1].
        weight_decay: weight decay, >= 0: an L2 penalty, unless ``weight_decouple``.
        weight_decouple: multiply the parameter by ``1 - lr * weight_decay`` instead.
        fixed_decay: by ``1 - weight_decay``.
        alpha: weight of the slow average, >= 0.
        t_alpha_beta3: steps over which that weight grows from 0, and the slow decay from the fast
            one; None, held as infinity, is none.
        eps: added to the denominator, outside the root, >= 0.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message; a
            parameter that is complex.

    References:
        Pagliardini et al., 2024, *The AdEMAMix Optimizer: Better, Faster, Older*;
        ``pytorch_optimizer.optimizer.ademamix``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import AdEMAMix
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = AdEMAMix(lr=0.5, alpha=0.0)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.5, 0.5], dtype=float32)
    """

    factory = staticmethod(ademamix)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-3,
        betas: tuple[Number, Number, Number] = (0.9, 0.999, 0.9999),
        weight_decay: Number = 0.0,
        weight_decouple: bool = False,
        fixed_decay: bool = False,
        alpha: Number = 5.0,
        t_alpha_beta3: Number | None = LEFT_OUT,
        eps: Number = 1e-8,
        maximize: bool = False,
    ) -> Self:
        return cls.with_options(params, without_none(locals(), "t_alpha_beta3"))
