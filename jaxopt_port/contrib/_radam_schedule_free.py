"""RAdam without a schedule: the average of the way is what is evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax

from ..engine import (
    REST,
    Groups,
    Number,
    Optimizer,
    Problem,
    Rule,
    Scalars,
    Shared,
    leafwise,
    of_rule,
)
from ..numerics.torch_ops import Scalar
from ..optim import ranges
from . import _schedule_free


def _problems(betas: tuple[Scalar, Scalar], **options: Any) -> Iterator[Problem]:
    yield from ranges.adam(betas=betas, **options)
    yield from _schedule_free.first_beta(betas)


def _advance(
    shared: Shared, *, lr: jax.Array, betas: jax.Array, silent_sgd_phase: bool, **options: Any
) -> tuple[Shared, Scalars]:
    beta1, beta2 = betas
    t = (shared["k"] + 1).astype(jnp.float64)
    correction2 = 1 - beta2**t
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / correction2
    known = length > 4.0
    ratio = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    rectified = jnp.sqrt(jnp.where(known, ratio, 1.0))
    rate = lr * jnp.where(known, rectified, 0.0 if silent_sgd_phase else 1.0)
    after, scalars = _schedule_free.advanced(shared, rate=rate, beta=beta1, **options)
    moments = {"beta2": beta2, "weight2": 1 - beta2, "correction2": correction2, "known": known}
    return after, scalars | moments


@of_rule(
    Rule(
        _problems,
        _schedule_free.init_with_squares,
        _schedule_free.update_by_squares,
        _schedule_free.start,
        _advance,
        begins="k",
    )
)
def radam_schedule_free(
    lr: Number = 0.0025,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-8,
    weight_decay: Number = 0.0,
    r: Number = 0.0,
    weight_lr_power: Number = 2.0,
    silent_sgd_phase: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """RAdam without a schedule: the average of the way is what is evaluated.

    The Optax spelling of :class:`RAdamScheduleFree`, whose description, arguments, errors and
    example hold for it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(radam_schedule_free, locals())


class RAdamScheduleFree(Optimizer):
    """RAdam without a schedule: the average of the way is what is evaluated.

    The counterpart of ``schedulefree.RAdamScheduleFree``. The parameters are those of training
    (``y``); `schedule_free_eval_params` has those of evaluation.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, >= 0.
        betas: decay of the moving averages of the gradient and of its square, in [0, 1).
        eps: added to the denominator, outside the root, >= 0.
        weight_decay: weight decay, at the parameters of training.
        r: the power of the step that is a weight in the average.
        weight_lr_power: the power of the largest rate so far that is a weight in the average.
        silent_sgd_phase: rest while the variance is not known, instead of stepping by the
            gradient.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message.

    References:
        Defazio et al., 2024, *The Road Less Scheduled*; ``schedulefree``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import RAdamScheduleFree
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = RAdamScheduleFree(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([1., 1.], dtype=float32)
    """

    factory = staticmethod(radam_schedule_free)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 0.0025,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        r: Number = 0.0,
        weight_lr_power: Number = 2.0,
        silent_sgd_phase: bool = True,
    ) -> Self:
        return cls.with_options(params, locals())
