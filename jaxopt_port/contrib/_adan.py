"""Adan: averages of the gradient, of its change, and of their squares."""

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
from ..numerics.torch_ops import add, add_scalar, addcdiv, addcmul, div, lerp, mul, sqrt
from ..optim import ranges
from ._timm import cautious


def _init(param: jax.Array, **_: Any) -> LeafState:
    names = ("exp_avg", "exp_avg_sq", "exp_avg_diff", "neg_pre_grad")
    return {name: jnp.zeros_like(param) for name in names}


def _advance(
    shared: Shared, *, lr: jax.Array, betas: jax.Array, weight_decay: jax.Array, **_: Any
) -> tuple[Shared, Scalars]:
    step = shared["step"] + 1
    corrections = 1 - betas ** step.astype(jnp.float64)
    beta1, beta2, beta3 = betas
    return {"step": step}, {
        "first": step == 1,
        "weight1": 1 - beta1,
        "beta2": beta2,
        "weight2": 1 - beta2,
        "beta3": beta3,
        "weight3": 1 - beta3,
        "correction3_sqrt": jnp.sqrt(corrections[2]),
        "step_size": lr / corrections[0],
        "step_size_diff": lr * beta2 / corrections[1],
        "shrunk": 1 - lr * weight_decay,
        "grown": 1 + lr * weight_decay,
    }


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    eps: jax.Array,
    no_prox: bool,
    caution: bool,
    first: jax.Array,
    weight1: jax.Array,
    beta2: jax.Array,
    weight2: jax.Array,
    beta3: jax.Array,
    weight3: jax.Array,
    correction3_sqrt: jax.Array,
    step_size: jax.Array,
    step_size_diff: jax.Array,
    shrunk: jax.Array,
    grown: jax.Array,
    **_: Any,
) -> tuple[jax.Array, LeafState]:
    change = add(jnp.where(first, -grad, state["neg_pre_grad"]), grad)
    exp_avg = lerp(state["exp_avg"], grad, weight1)
    exp_avg_diff = add(mul(state["exp_avg_diff"], beta2), change, alpha=weight2)
    ahead = add(mul(change, beta2), grad)
    exp_avg_sq = addcmul(mul(state["exp_avg_sq"], beta3), ahead, ahead, value=weight3)
    denom = add_scalar(div(sqrt(exp_avg_sq), correction3_sqrt), eps)
    direction = cautious(exp_avg, grad) if caution else exp_avg
    param = mul(param, shrunk) if no_prox else param
    param = addcdiv(param, direction, denom, value=-step_size)
    param = addcdiv(param, exp_avg_diff, denom, value=-step_size_diff)
    param = param if no_prox else div(param, grown)
    return param, {
        "exp_avg": exp_avg,
        "exp_avg_sq": exp_avg_sq,
        "exp_avg_diff": exp_avg_diff,
        "neg_pre_grad": -grad,
    }


@of_rule(Rule(ranges.adam, _init, _update, step_count, _advance))
def adan(
    lr: Number = 1e-3,
    betas: tuple[Number, Number, Number] = (0.98, 0.92, 0.99),
    eps: Number = 1e-8,
    weight_decay: Number = 0.0,
    no_prox: bool = False,
    caution: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Adan: averages of the gradient, of its change, and of their squares.

    The Optax spelling of :class:`Adan`, whose description, arguments, errors and example hold for
    it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(adan, locals())


class Adan(Optimizer):
    """Adan: averages of the gradient, of its change, and of their squares.

    The counterpart of ``timm.optim.Adan``. timm counts the steps of a group, and here each
    parameter counts its own: the same where all have a gradient in each step.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, >= 0.
        betas: decay of the averages of the gradient, of its change, and of the squares, in [0, 1).
        eps: added to the denominator, outside the root, >= 0.
        weight_decay: decoupled weight decay, >= 0.
        no_prox: decay before the step, as AdamW does, instead of dividing after it.
        caution: leave out what is against the gradient (Liang et al., 2024, *Cautious
            Optimizers*).

    Raises:
        ValueError: a number out of its range, beginning with the package's own message.

    References:
        Xie et al., 2022, *Adan: Adaptive Nesterov Momentum Algorithm*; ``timm.optim.adan``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import Adan
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = Adan(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.49999994, 0.49999994], dtype=float32)
    """

    factory = staticmethod(adan)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-3,
        betas: tuple[Number, Number, Number] = (0.98, 0.92, 0.99),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        no_prox: bool = False,
        caution: bool = False,
    ) -> Self:
        return cls.with_options(params, locals())
