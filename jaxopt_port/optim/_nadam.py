"""Adam with Nesterov momentum, whose factor grows with the steps."""

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
)
from ..numerics.torch_ops import Scalar, add_scalar, addcdiv, div, sqrt
from . import _decay, _moments, _ranges


def _problems(
    lr: Scalar,
    betas: tuple[Scalar, Scalar],
    eps: Scalar,
    weight_decay: Scalar,
    momentum_decay: Scalar,
    **_: Any,
) -> Iterator[Problem]:
    yield from _ranges.adam(lr, betas, eps, weight_decay)
    yield from _ranges.at_least_zero("momentum_decay", momentum_decay)


def _start(**_: Any) -> Shared:
    return {"step": 0.0, "mu_product": 1.0}


def _advance(
    shared: Shared,
    *,
    lr: jax.Array,
    betas: jax.Array,
    weight_decay: jax.Array,
    momentum_decay: jax.Array,
    **_: Any,
) -> tuple[Shared, Scalars]:
    beta1, beta2 = betas
    step = shared["step"] + 1
    t = step.astype(jnp.float64)
    mu = beta1 * (1.0 - 0.5 * 0.96 ** (t * momentum_decay))
    mu_next = beta1 * (1.0 - 0.5 * 0.96 ** ((t + 1) * momentum_decay))
    # A float32 tensor in torch, of which Python makes float64 again.
    mu_product = shared["mu_product"] * mu.astype(jnp.float32)
    product = mu_product.astype(jnp.float64)
    return {"step": step, "mu_product": mu_product}, {
        **_moments.scalars(betas),
        **_decay.scalars(lr, weight_decay),
        "bias_correction2": 1 - beta2**t,
        "grad_step": -lr * (1.0 - mu) / (1.0 - product),
        "exp_avg_step": (-lr * mu_next) / (1.0 - product * mu_next),
    }


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    eps: jax.Array,
    bias_correction2: jax.Array,
    grad_step: jax.Array,
    exp_avg_step: jax.Array,
    **common: Any,
) -> tuple[Sum, LeafState]:
    grad, param, exp_avg, exp_avg_sq = _moments.begun(grad, param, state, **common)
    denom = add_scalar(sqrt(div(exp_avg_sq, bias_correction2)), eps)
    param = addcdiv(param, grad, denom, value=grad_step)
    new = Sum(param, exp_avg, exp_avg_step, over=denom)
    return new, {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}


@of_rule(Rule(_problems, _moments.init, _update, _start, _advance))
def nadam(
    lr: Number = 2e-3,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-8,
    weight_decay: Number = 0.0,
    momentum_decay: Number = 4e-3,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Adam with Nesterov momentum, whose factor grows with the steps.

    The counterpart of ``torch.optim.NAdam``, which keeps Dozat's momentum schedule
    (``momentum_decay``); ``optax.nadam`` has a constant momentum, and so other numbers.

    A plain Optax transformation. A number may be a schedule, a callable of the update count.

    Args:
        lr: learning rate, >= 0.
        betas: decay of the moving averages of the gradient and of its square, in [0, 1).
        eps: added to the denominator, outside the root, >= 0.
        weight_decay: L2 penalty, >= 0, added to the gradient unless decoupled.
        momentum_decay: the momentum at step t is ``beta1 * (1 - 0.96 ** (t * it) / 2)``, >= 0.
        decoupled_weight_decay: decay the parameter instead, as ``adamw`` does.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Dozat, 2016, *Incorporating Nesterov Momentum into Adam*; ``torch.optim.NAdam``,
        ``torch.optim.nadam._single_tensor_nadam``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = jp.nadam(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> round(float(params["weight"][0]), 3)
        0.472
    """
    return leafwise(nadam, locals())


class NAdam(Optimizer):
    """Adam with Nesterov momentum, whose factor grows with the steps.

    The counterpart of ``torch.optim.NAdam``, which keeps Dozat's momentum schedule
    (``momentum_decay``); ``optax.nadam`` has a constant momentum, and so other numbers.

    With parameter groups; every number can be set between steps, by ``jp.set_hyperparams``, and may
    be a schedule, a callable of the update count.

    Args:
        params: parameter groups, as torch takes them: a list of dicts with ``"params"``, a selector
            (a path prefix, a glob, a compiled regex, a predicate ``(path, leaf) -> bool``, a
            boolean tree, a list of these, or ``jp.REST``), and options. A selector alone is one
            group; the default is all parameters.
        lr: learning rate, >= 0.
        betas: decay of the moving averages of the gradient and of its square, in [0, 1).
        eps: added to the denominator, outside the root, >= 0.
        weight_decay: L2 penalty, >= 0, added to the gradient unless decoupled.
        momentum_decay: the momentum at step t is ``beta1 * (1 - 0.96 ** (t * it) / 2)``, >= 0.
        decoupled_weight_decay: decay the parameter instead, as ``adamw`` does.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Dozat, 2016, *Incorporating Nesterov Momentum into Adam*; ``torch.optim.NAdam``,
        ``torch.optim.nadam._single_tensor_nadam``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = jp.NAdam(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> round(float(params["weight"][0]), 3)
        0.472
    """

    factory = staticmethod(nadam)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 2e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        momentum_decay: Number = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> Self:
        return cls.with_options(params, locals())
