"""Adam with the infinity norm in place of the second moment."""

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
from ..numerics.torch_ops import add_scalar, lerp, mul
from . import _decay, _ranges


def _init(param: jax.Array, **_: Any) -> LeafState:
    return {"exp_avg": jnp.zeros_like(param), "exp_inf": jnp.zeros_like(param)}


def _advance(
    shared: Shared, *, lr: jax.Array, betas: jax.Array, **_: Any
) -> tuple[Shared, Scalars]:
    beta1, beta2 = betas
    step = shared["step"] + 1
    clr = lr / (1 - beta1 ** step.astype(jnp.float64))
    return {"step": step}, {"weight1": 1 - beta1, "beta2": beta2, "clr": clr}


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    eps: jax.Array,
    weight_decay: jax.Array,
    maximize: bool,
    weight1: jax.Array,
    beta2: jax.Array,
    clr: jax.Array,
    **_: Any,
) -> tuple[Sum, LeafState]:
    if maximize:
        grad = -grad
    grad = _decay.l2(grad, param, weight_decay)
    exp_avg = lerp(state["exp_avg"], grad, weight1)
    exp_inf = jnp.maximum(mul(state["exp_inf"], beta2), add_scalar(jnp.abs(grad), eps))
    return Sum(param, exp_avg, -clr, over=exp_inf), {"exp_avg": exp_avg, "exp_inf": exp_inf}


@of_rule(Rule(_ranges.adam, _init, _update, step_count, _advance))
def adamax(
    lr: Number = 2e-3,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-8,
    weight_decay: Number = 0.0,
    *,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Adam with the infinity norm in place of the second moment.

    The counterpart of ``torch.optim.Adamax``: eps is added to the gradient's magnitude before the
    maximum is taken, not to the denominator.

    A plain Optax transformation. A number may be a schedule, a callable of the update count.

    Args:
        lr: learning rate, >= 0.
        betas: decay of the average of the gradient and of its infinity norm, in [0, 1).
        eps: added to the magnitude of the gradient, >= 0.
        weight_decay: L2 penalty, >= 0, added to the gradient.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Kingma and Ba, 2015, *Adam: A Method for Stochastic Optimization*, section 7.1;
        ``torch.optim.Adamax``, ``torch.optim.adamax._single_tensor_adamax``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = jp.adamax(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.5, 0.5], dtype=float32)
    """
    return leafwise(adamax, locals())


class Adamax(Optimizer):
    """Adam with the infinity norm in place of the second moment.

    The counterpart of ``torch.optim.Adamax``: eps is added to the gradient's magnitude before the
    maximum is taken, not to the denominator.

    With parameter groups; every number can be set between steps, by ``jp.set_hyperparams``, and may
    be a schedule, a callable of the update count.

    Args:
        params: parameter groups, as torch takes them: a list of dicts with ``"params"``, a selector
            (a path prefix, a glob, a compiled regex, a predicate ``(path, leaf) -> bool``, a
            boolean tree, a list of these, or ``jp.REST``), and options. A selector alone is one
            group; the default is all parameters.
        lr: learning rate, >= 0.
        betas: decay of the average of the gradient and of its infinity norm, in [0, 1).
        eps: added to the magnitude of the gradient, >= 0.
        weight_decay: L2 penalty, >= 0, added to the gradient.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Kingma and Ba, 2015, *Adam: A Method for Stochastic Optimization*, section 7.1;
        ``torch.optim.Adamax``, ``torch.optim.adamax._single_tensor_adamax``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = jp.Adamax(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.5, 0.5], dtype=float32)
    """

    factory = staticmethod(adamax)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 2e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        *,
        maximize: bool = False,
    ) -> Self:
        return cls.with_options(params, locals())
