"""Averaged stochastic gradient descent."""

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
    leafwise,
    of_rule,
)
from ..numerics import uncontracted
from ..numerics.torch_ops import Scalar, add, mul
from . import _ranges
from ._decay import l2


def _problems(lr: Scalar, weight_decay: Scalar, **_: Any) -> Iterator[Problem]:
    yield from _ranges.learning_rate(lr)
    yield from _ranges.at_least_zero("weight_decay", weight_decay)


def _init(param: jax.Array, **_: Any) -> LeafState:
    return {"ax": jnp.zeros_like(param)}


def _start(*, lr: jax.Array, **_: Any) -> Shared:
    return {"step": 0.0, "eta": lr, "mu": 1.0}


def _advance(
    shared: Shared, *, lr: jax.Array, lambd: jax.Array, alpha: jax.Array, t0: jax.Array, **_: Any
) -> tuple[Shared, Scalars]:
    step = shared["step"] + 1
    t = step.astype(jnp.float64)
    # torch makes its state in the first step, of the learning rate that then holds.
    first = uncontracted(lr.astype(jnp.float32))  # rounded, though it is widened again
    eta = jnp.where(step == 1, first, shared["eta"]).astype(jnp.float64)
    after = {
        "step": step,
        "eta": lr / (1 + lambd * lr * t) ** alpha,
        "mu": 1 / jnp.maximum(1.0, t - t0),
    }
    return after, {"eta": eta, "decay": 1 - lambd * eta, "mu": shared["mu"].astype(jnp.float64)}


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    weight_decay: jax.Array,
    maximize: bool,
    eta: jax.Array,
    decay: jax.Array,
    mu: jax.Array,
    **_: Any,
) -> tuple[jax.Array, LeafState]:
    if maximize:
        grad = -grad
    grad = l2(grad, param, weight_decay)
    new_param = add(mul(param, decay), grad, alpha=-eta)
    ax = state["ax"]
    averaged = add(ax, mul(add(new_param, ax, alpha=-1.0), mu))
    return new_param, {"ax": jnp.where(mu != 1, averaged, new_param)}


@of_rule(Rule(_problems, _init, _update, _start, _advance))
def asgd(
    lr: Number = 1e-2,
    lambd: Number = 1e-4,
    alpha: Number = 0.75,
    t0: Number = 1e6,
    weight_decay: Number = 0.0,
    *,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Averaged stochastic gradient descent.

    The counterpart of ``torch.optim.ASGD``. The average of the parameters is the state ``ax``;
    until step ``t0`` it is the parameter itself. As in torch, a learning rate set between steps
    acts one step late, since the rate of a step is calculated in the one before.

    A plain Optax transformation. A number may be a schedule, a callable of the update count.

    Args:
        lr: learning rate, >= 0.
        lambd: decay: the parameter is multiplied by ``1 - lambd * eta`` in each step.
        alpha: power of the rate's fall, ``eta = lr / (1 + lambd * lr * step) ** alpha``.
        t0: the step at which averaging starts.
        weight_decay: L2 penalty, >= 0, added to the gradient.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Polyak and Juditsky, 1992, *Acceleration of Stochastic Approximation by Averaging*;
        ``torch.optim.ASGD``, ``torch.optim.asgd._single_tensor_asgd``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.ones(2)}
        >>> tx = jp.asgd(lr=0.5, lambd=0.0)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.5, 0.5], dtype=float32)
    """
    return leafwise(asgd, locals())


class ASGD(Optimizer):
    """Averaged stochastic gradient descent.

    The counterpart of ``torch.optim.ASGD``. The average of the parameters is the state ``ax``;
    until step ``t0`` it is the parameter itself. As in torch, a learning rate set between steps
    acts one step late, since the rate of a step is calculated in the one before.

    With parameter groups; every number can be set between steps, by ``jp.set_hyperparams``, and may
    be a schedule, a callable of the update count.

    Args:
        params: parameter groups, as torch takes them: a list of dicts with ``"params"``, a selector
            (a path prefix, a glob, a compiled regex, a predicate ``(path, leaf) -> bool``, a
            boolean tree, a list of these, or ``jp.REST``), and options. A selector alone is one
            group; the default is all parameters.
        lr: learning rate, >= 0.
        lambd: decay: the parameter is multiplied by ``1 - lambd * eta`` in each step.
        alpha: power of the rate's fall, ``eta = lr / (1 + lambd * lr * step) ** alpha``.
        t0: the step at which averaging starts.
        weight_decay: L2 penalty, >= 0, added to the gradient.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Polyak and Juditsky, 1992, *Acceleration of Stochastic Approximation by Averaging*;
        ``torch.optim.ASGD``, ``torch.optim.asgd._single_tensor_asgd``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.ones(2)}
        >>> tx = jp.ASGD(lr=0.5, lambd=0.0)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.5, 0.5], dtype=float32)
    """

    factory = staticmethod(asgd)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-2,
        lambd: Number = 1e-4,
        alpha: Number = 0.75,
        t0: Number = 1e6,
        weight_decay: Number = 0.0,
        *,
        maximize: bool = False,
    ) -> Self:
        return cls.with_options(params, locals())
