"""Adadelta: steps in the units of the parameter, from two averages of squares."""

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
from ..numerics.torch_ops import Scalar, add_scalar, addcmul, div, mul, sqrt
from . import _ranges
from ._decay import l2


def _problems(
    lr: Scalar, rho: Scalar, eps: Scalar, weight_decay: Scalar, **_: Any
) -> Iterator[Problem]:
    yield from _ranges.learning_rate(lr)
    if not 0.0 <= rho <= 1.0:
        yield Problem(f"Invalid rho value: {rho}", "rho must be in [0, 1]")
    yield from _ranges.epsilon(eps)
    yield from _ranges.at_least_zero("weight_decay", weight_decay)


def _init(param: jax.Array, **_: Any) -> LeafState:
    return {"square_avg": jnp.zeros_like(param), "acc_delta": jnp.zeros_like(param)}


def _advance(shared: Shared, *, rho: jax.Array, **_: Any) -> tuple[Shared, Scalars]:
    return {"step": shared["step"] + 1}, {"weight": 1 - rho}


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    lr: jax.Array,
    rho: jax.Array,
    eps: jax.Array,
    weight_decay: jax.Array,
    maximize: bool,
    weight: jax.Array,
) -> tuple[Sum, LeafState]:
    if maximize:
        grad = -grad
    grad = l2(grad, param, weight_decay)
    square_avg = addcmul(mul(state["square_avg"], rho), grad, grad, value=weight)
    std = sqrt(add_scalar(square_avg, eps))
    delta = mul(div(sqrt(add_scalar(state["acc_delta"], eps)), std), grad)
    acc_delta = addcmul(mul(state["acc_delta"], rho), delta, delta, value=weight)
    return Sum(param, delta, -lr), {"square_avg": square_avg, "acc_delta": acc_delta}


@of_rule(Rule(_problems, _init, _update, step_count, _advance))
def adadelta(
    lr: Number = 1.0,
    rho: Number = 0.9,
    eps: Number = 1e-6,
    weight_decay: Number = 0.0,
    *,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Adadelta: steps in the units of the parameter, from two averages of squares.

    The counterpart of ``torch.optim.Adadelta``: eps stands inside both roots, and the learning
    rate is not in the average of the steps.

    A plain Optax transformation. A number may be a schedule, a callable of the update count.

    Args:
        lr: factor of each step, >= 0.
        rho: decay of both averages, in [0, 1].
        eps: added to the averages before their roots, >= 0.
        weight_decay: L2 penalty, >= 0, added to the gradient.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Zeiler, 2012, *ADADELTA: An Adaptive Learning Rate Method*; ``torch.optim.Adadelta``,
        ``torch.optim.adadelta._single_tensor_adadelta``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = jp.adadelta(lr=100.0)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"].round(3)
        Array([0.684, 0.684], dtype=float32)
    """
    return leafwise(adadelta, locals())


class Adadelta(Optimizer):
    """Adadelta: steps in the units of the parameter, from two averages of squares.

    The counterpart of ``torch.optim.Adadelta``: eps stands inside both roots, and the learning
    rate is not in the average of the steps.

    With parameter groups; every number can be set between steps, by ``jp.set_hyperparams``, and may
    be a schedule, a callable of the update count.

    Args:
        params: parameter groups, as torch takes them: a list of dicts with ``"params"``, a selector
            (a path prefix, a glob, a compiled regex, a predicate ``(path, leaf) -> bool``, a
            boolean tree, a list of these, or ``jp.REST``), and options. A selector alone is one
            group; the default is all parameters.
        lr: factor of each step, >= 0.
        rho: decay of both averages, in [0, 1].
        eps: added to the averages before their roots, >= 0.
        weight_decay: L2 penalty, >= 0, added to the gradient.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Zeiler, 2012, *ADADELTA: An Adaptive Learning Rate Method*; ``torch.optim.Adadelta``,
        ``torch.optim.adadelta._single_tensor_adadelta``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = jp.Adadelta(lr=100.0)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"].round(3)
        Array([0.684, 0.684], dtype=float32)
    """

    factory = staticmethod(adadelta)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1.0,
        rho: Number = 0.9,
        eps: Number = 1e-6,
        weight_decay: Number = 0.0,
        *,
        maximize: bool = False,
    ) -> Self:
        return cls.with_options(params, locals())
