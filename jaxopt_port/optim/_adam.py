"""Adam, with AMSGrad and weight decay as torch has them."""

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
from ..numerics.torch_ops import add_scalar, div_each, sqrt
from . import _decay, _moments, _ranges


def _advance(
    shared: Shared,
    *,
    lr: jax.Array,
    betas: jax.Array,
    eps: jax.Array,
    weight_decay: jax.Array,
    **_: Any,
) -> tuple[Shared, Scalars]:
    step = shared["step"] + 1
    bias_correction1, bias_correction2 = 1 - betas ** step.astype(jnp.float64)
    return {"step": step}, {
        **_moments.scalars(betas),
        **_decay.scalars(lr, weight_decay),
        "eps": eps,
        "step_size": lr / bias_correction1,
        "bias_correction2_sqrt": jnp.sqrt(bias_correction2),
    }


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    eps: jax.Array,
    amsgrad: bool,
    step_size: jax.Array,
    bias_correction2_sqrt: jax.Array,
    **common: Any,
) -> tuple[Sum, LeafState]:
    _, param, exp_avg, exp_avg_sq = _moments.begun(grad, param, state, **common)
    after = {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
    if amsgrad:
        # The largest of the uncorrected averages, which this step's correction then divides.
        exp_avg_sq = jnp.maximum(state["max_exp_avg_sq"], exp_avg_sq)
        after["max_exp_avg_sq"] = exp_avg_sq
    denom = add_scalar(div_each(sqrt(exp_avg_sq), bias_correction2_sqrt), eps)
    return Sum(param, exp_avg, -step_size, over=denom), after


RULE = Rule(_ranges.adam, _moments.init, _update, step_count, _advance)


@of_rule(RULE)
def adam(
    lr: Number = 1e-3,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-8,
    weight_decay: Number = 0.0,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    decoupled_weight_decay: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Adam, with AMSGrad and weight decay as torch has them.

    The counterpart of ``torch.optim.Adam``: eps is added to the root of the bias-corrected second
    moment, weight decay is added to the gradient (see ``adamw`` for the other), and AMSGrad takes
    the largest second moment before it is corrected.

    A plain Optax transformation. A number may be a schedule, a callable of the update count.

    Args:
        lr: learning rate, >= 0.
        betas: decay of the moving averages of the gradient and of its square, in [0, 1).
        eps: added to the denominator, outside the root, >= 0.
        weight_decay: L2 penalty, >= 0: ``weight_decay * param`` is added to the gradient.
        amsgrad: divide by the largest second moment so far.
        maximize: ascend instead of descend.
        decoupled_weight_decay: decay the parameter instead, as ``adamw`` does.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Kingma and Ba, 2015, *Adam: A Method for Stochastic Optimization*; Reddi et al., 2018, *On
        the Convergence of Adam and Beyond*; ``torch.optim.Adam``,
        ``torch.optim.adam._single_tensor_adam``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = jp.adam(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.5, 0.5], dtype=float32)
    """
    return leafwise(adam, locals())


class Adam(Optimizer):
    """Adam, with AMSGrad and weight decay as torch has them.

    The counterpart of ``torch.optim.Adam``: eps is added to the root of the bias-corrected second
    moment, weight decay is added to the gradient (see ``adamw`` for the other), and AMSGrad takes
    the largest second moment before it is corrected.

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
        weight_decay: L2 penalty, >= 0: ``weight_decay * param`` is added to the gradient.
        amsgrad: divide by the largest second moment so far.
        maximize: ascend instead of descend.
        decoupled_weight_decay: decay the parameter instead, as ``adamw`` does.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Kingma and Ba, 2015, *Adam: A Method for Stochastic Optimization*; Reddi et al., 2018, *On
        the Convergence of Adam and Beyond*; ``torch.optim.Adam``,
        ``torch.optim.adam._single_tensor_adam``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = jp.Adam(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.5, 0.5], dtype=float32)
    """

    factory = staticmethod(adam)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ) -> Self:
        return cls.with_options(params, locals())
