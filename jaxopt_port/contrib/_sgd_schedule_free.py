"""SGD without a schedule: the average of the way is what is evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import jax
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
from ..numerics.torch_ops import Scalar
from ..optim import decay as decays
from ..optim import ranges
from . import _schedule_free


def _problems(
    lr: Scalar, momentum: Scalar, weight_decay: Scalar, warmup_steps: int, **_: Any
) -> Iterator[Problem]:
    yield from ranges.learning_rate(lr)
    yield from ranges.at_least_zero("weight_decay", weight_decay)
    yield from ranges.whole("warmup_steps", warmup_steps)
    if not 0 < momentum < 1:
        yield Problem(
            f"Momentum must be between 0 and 1 exclusive: {momentum}", "set it to 0.9, say"
        )


def _init(param: jax.Array, **_: Any) -> LeafState:
    return {"z": param}


def _advance(
    shared: Shared, *, lr: jax.Array, momentum: jax.Array, warmup_steps: int, **options: Any
) -> tuple[Shared, Scalars]:
    rate = _schedule_free.warmed(shared, lr, warmup_steps)
    return _schedule_free.advanced(shared, rate=rate, beta=momentum, **options)


def _update(
    grad: jax.Array, param: jax.Array, state: LeafState, *, weight_decay: jax.Array, **scalars: Any
) -> tuple[Sum, LeafState]:
    grad = decays.l2(grad, param, weight_decay)
    return _schedule_free.moved(grad, param, state, **scalars)


@of_rule(Rule(_problems, _init, _update, _schedule_free.start, _advance, begins="k"))
def sgd_schedule_free(
    lr: Number = 1.0,
    momentum: Number = 0.9,
    weight_decay: Number = 0.0,
    warmup_steps: int = 0,
    r: Number = 0.0,
    weight_lr_power: Number = 2.0,
) -> optax.GradientTransformationExtraArgs:
    """SGD without a schedule: the average of the way is what is evaluated.

    The Optax spelling of :class:`SGDScheduleFree`, whose description, arguments, errors and
    example hold for it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(sgd_schedule_free, locals())


class SGDScheduleFree(Optimizer):
    """SGD without a schedule: the average of the way is what is evaluated.

    The counterpart of ``schedulefree.SGDScheduleFree``. The parameters are those of training
    (``y``); `schedule_free_eval_params` has those of evaluation.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, >= 0.
        momentum: how far the parameters of training are from the last step to the average, in (0,
            1).
        weight_decay: L2 penalty, at the parameters of training, >= 0.
        warmup_steps: steps over which the rate grows. Static.
        r: the power of the step that is a weight in the average.
        weight_lr_power: the power of the largest rate so far that is a weight in the average.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message.

    References:
        Defazio et al., 2024, *The Road Less Scheduled*; ``schedulefree``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import SGDScheduleFree
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = SGDScheduleFree(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([-0.5, -0.5], dtype=float32)
    """

    factory = staticmethod(sgd_schedule_free)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1.0,
        momentum: Number = 0.9,
        weight_decay: Number = 0.0,
        warmup_steps: int = 0,
        r: Number = 0.0,
        weight_lr_power: Number = 2.0,
    ) -> Self:
        return cls.with_options(params, locals())
