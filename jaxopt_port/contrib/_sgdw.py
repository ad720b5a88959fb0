"""SGD with decoupled weight decay."""

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
from ..numerics.torch_ops import Scalar, add, mul
from ..optim import momentums, ranges
from ._left_out import LEFT_OUT
from ._timm import cautious, decay_rate, largest_rate, with_snapshot


def _problems(
    lr: Scalar,
    momentum: Scalar,
    dampening: Scalar,
    weight_decay: Scalar,
    nesterov: bool,
    **options: Any,
) -> Iterator[Problem]:
    yield from ranges.learning_rate(lr)
    yield from ranges.at_least_zero("momentum", momentum)
    yield from ranges.at_least_zero("weight_decay", weight_decay)
    yield from largest_rate(**options)
    yield from ranges.nesterov(nesterov, momentum, dampening)


def _advance(
    shared: Shared, *, lr: jax.Array, momentum: jax.Array, weight_decay: jax.Array, **options: Any
) -> tuple[Shared, Scalars]:
    after, scalars = momentums.begun(shared, momentum)
    return after, {**scalars, "decay": 1 - decay_rate(lr, **options) * weight_decay}


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    lr: jax.Array,
    momentum: jax.Array,
    dampening: jax.Array,
    nesterov: bool,
    caution: bool,
    maximize: bool,
    decay: jax.Array,
    begun: jax.Array | None = None,
    **_: Any,
) -> tuple[Sum, LeafState]:
    grad = -grad if maximize else grad
    if begun is not None:
        buf, state = momentums.averaged(
            grad, state, momentum=momentum, dampening=dampening, begun=begun
        )
        direction = add(grad, buf, alpha=momentum) if nesterov else buf
        direction = cautious(direction, grad) if caution else direction
        grad = jnp.where(momentum != 0, direction, grad)
    return Sum(mul(param, decay), grad, -lr), state


@of_rule(
    Rule(
        _problems,
        momentums.init,
        _update,
        momentums.start,
        _advance,
        momentums.holds,
        begins="has_momentum_buffer",
    )
)
def sgdw(
    lr: Number = 1e-3,
    momentum: Number = 0.0,
    dampening: Number = 0.0,
    weight_decay: Number = 0.0,
    nesterov: bool = False,
    *,
    caution: bool = False,
    corrected_weight_decay: bool = False,
    maximize: bool = False,
    max_lr_snapshot: Number | None = LEFT_OUT,
) -> optax.GradientTransformationExtraArgs:
    """SGD with decoupled weight decay.

    The Optax spelling of :class:`SGDW`, whose description, arguments, errors and example hold for
    it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(sgdw, with_snapshot(locals()))


class SGDW(Optimizer):
    """SGD with decoupled weight decay.

    The counterpart of ``timm.optim.SGDW``. Momentum is that of ``jp.SGD``.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, >= 0.
        momentum: momentum, >= 0; 0 keeps no buffer.
        dampening: what of a gradient does not enter the buffer, from the second step on.
        weight_decay: decoupled weight decay, >= 0: the parameter is multiplied by ``1 - lr *
            weight_decay``.
        nesterov: Nesterov momentum.
        caution: leave out what is against the gradient (Liang et al., 2024, *Cautious
            Optimizers*).
        corrected_weight_decay: scale weight decay by ``lr**2 / max_lr_snapshot`` instead of
            ``lr``.
        maximize: ascend instead of descend.
        max_lr_snapshot: the largest rate, for corrected weight decay; None, held as infinity, is
            the ``lr`` that the optimizer is made with.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message.

    References:
        Loshchilov and Hutter, 2019, *Decoupled Weight Decay Regularization*; ``timm.optim.sgdw``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import SGDW
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = SGDW(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([-0.5, -0.5], dtype=float32)
    """

    factory = staticmethod(sgdw)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-3,
        momentum: Number = 0.0,
        dampening: Number = 0.0,
        weight_decay: Number = 0.0,
        nesterov: bool = False,
        *,
        caution: bool = False,
        corrected_weight_decay: bool = False,
        maximize: bool = False,
        max_lr_snapshot: Number | None = LEFT_OUT,
    ) -> Self:
        return cls.with_options(params, with_snapshot(locals()))
