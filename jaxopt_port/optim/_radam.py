"""Adam whose adaptive rate is rectified, and off in the first steps."""

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
    Sum,
    leafwise,
    of_rule,
    step_count,
)
from ..numerics.torch_ops import add_scalar, div, mul, reciprocal, sqrt
from . import _decay, _moments, _ranges


def _advance(
    shared: Shared, *, lr: jax.Array, betas: jax.Array, weight_decay: jax.Array, **_: Any
) -> tuple[Shared, Scalars]:
    _, beta2 = betas
    step = shared["step"] + 1
    t = step.astype(jnp.float64)
    bias_correction1, bias_correction2 = 1 - betas**t
    # The greatest and the present length of the second moment's average.
    rho_inf = 2 / (1 - beta2) - 1
    rho_t = rho_inf - 2 * t * beta2**t / bias_correction2
    rectified = rho_t > 5.0
    rho = jnp.where(rectified, rho_t, jnp.maximum(rho_inf, 6.0))  # a root that has a derivative
    rect = ((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)) ** 0.5
    return {"step": step}, {
        **_moments.scalars(betas),
        **_decay.scalars(lr, weight_decay),
        "bias_correction1": bias_correction1,
        "bias_correction2_sqrt": jnp.sqrt(bias_correction2),
        "rectified": rectified,
        "rect": rect,
    }


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    lr: jax.Array,
    eps: jax.Array,
    bias_correction1: jax.Array,
    bias_correction2_sqrt: jax.Array,
    rectified: jax.Array,
    rect: jax.Array,
    **common: Any,
) -> tuple[Sum, LeafState]:
    _, param, exp_avg, exp_avg_sq = _moments.begun(grad, param, state, **common)
    bias_corrected = mul(div(exp_avg, bias_correction1), lr)
    # torch's `scalar / tensor` is two operations.
    adaptive_lr = mul(reciprocal(add_scalar(sqrt(exp_avg_sq), eps)), bias_correction2_sqrt)
    adapted = mul(mul(bias_corrected, adaptive_lr), rect)
    step = jnp.where(rectified, adapted, bias_corrected)
    return Sum(param, step, -1.0), {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}


@of_rule(Rule(_ranges.adam, _moments.init, _update, step_count, _advance))
def radam(
    lr: Number = 1e-3,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-8,
    weight_decay: Number = 0.0,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Adam whose adaptive rate is rectified, and off in the first steps.

    The counterpart of ``torch.optim.RAdam``: the step is not divided by the second moment until
    the length of its average, ``rho_t``, is above 5 (``optax.radam`` starts at 5 and corrects for
    bias before it adds eps).

    A plain Optax transformation. A number may be a schedule, a callable of the update count.

    Args:
        lr: learning rate, >= 0.
        betas: decay of the moving averages of the gradient and of its square, in [0, 1).
        eps: added to the root of the uncorrected second moment, >= 0.
        weight_decay: L2 penalty, >= 0, added to the gradient unless decoupled.
        decoupled_weight_decay: decay the parameter instead, as ``adamw`` does.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Liu et al., 2020, *On the Variance of the Adaptive Learning Rate and Beyond*;
        ``torch.optim.RAdam``, ``torch.optim.radam._single_tensor_radam``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = jp.radam(lr=0.1)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> round(float(params["weight"][0]), 3)
        0.7
    """
    return leafwise(radam, locals())


class RAdam(Optimizer):
    """Adam whose adaptive rate is rectified, and off in the first steps.

    The counterpart of ``torch.optim.RAdam``: the step is not divided by the second moment until
    the length of its average, ``rho_t``, is above 5 (``optax.radam`` starts at 5 and corrects for
    bias before it adds eps).

    With parameter groups; every number can be set between steps, by ``jp.set_hyperparams``, and may
    be a schedule, a callable of the update count.

    Args:
        params: parameter groups, as torch takes them: a list of dicts with ``"params"``, a selector
            (a path prefix, a glob, a compiled regex, a predicate ``(path, leaf) -> bool``, a
            boolean tree, a list of these, or ``jp.REST``), and options. A selector alone is one
            group; the default is all parameters.
        lr: learning rate, >= 0.
        betas: decay of the moving averages of the gradient and of its square, in [0, 1).
        eps: added to the root of the uncorrected second moment, >= 0.
        weight_decay: L2 penalty, >= 0, added to the gradient unless decoupled.
        decoupled_weight_decay: decay the parameter instead, as ``adamw`` does.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Liu et al., 2020, *On the Variance of the Adaptive Learning Rate and Beyond*;
        ``torch.optim.RAdam``, ``torch.optim.radam._single_tensor_radam``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = jp.RAdam(lr=0.1)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> round(float(params["weight"][0]), 3)
        0.7
    """

    factory = staticmethod(radam)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> Self:
        return cls.with_options(params, locals())
