"""RMSprop as TensorFlow has it."""

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
from ..numerics import uncontracted
from ..numerics.torch_ops import Scalar, add, add_scalar, addcdiv, addcmul, mul, sqrt
from ..optim import decay as decays
from ..optim import ranges
from ._left_out import LEFT_OUT
from ._timm import cautious, decay_rate, largest_rate, with_snapshot


def _problems(
    lr: Scalar, alpha: Scalar, eps: Scalar, weight_decay: Scalar, momentum: Scalar, **options: Any
) -> Iterator[Problem]:
    yield from ranges.learning_rate(lr)
    yield from ranges.epsilon(eps)
    yield from ranges.at_least_zero("momentum", momentum)
    yield from ranges.at_least_zero("weight_decay", weight_decay)
    yield from ranges.at_least_zero("alpha", alpha)
    yield from largest_rate(**options)


def _init(param: jax.Array, *, centered: bool, **_: Any) -> LeafState:
    state = {"square_avg": jnp.ones_like(param), "momentum_buffer": jnp.zeros_like(param)}
    return state | {"grad_avg": jnp.zeros_like(param)} if centered else state


def _holds(*, momentum: float, centered: bool, **_: Any) -> frozenset[str] | None:
    names = {"step", "square_avg", *(["grad_avg"] if centered else [])}
    return frozenset(names) if momentum == 0 else None


def _advance(
    shared: Shared, *, lr: jax.Array, alpha: jax.Array, weight_decay: jax.Array, **options: Any
) -> tuple[Shared, Scalars]:
    decay = 1 - decay_rate(lr, **options) * weight_decay
    return {"step": shared["step"] + 1}, {"decay": decay, "weight": 1 - alpha}


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    lr: jax.Array,
    eps: jax.Array,
    weight_decay: jax.Array,
    momentum: jax.Array,
    centered: bool,
    decoupled_decay: bool,
    lr_in_momentum: bool,
    caution: bool,
    decay: jax.Array,
    weight: jax.Array,
    **_: Any,
) -> tuple[jax.Array | Sum, LeafState]:
    grad, param = decays.decayed(
        grad, param, weight_decay=weight_decay, decay=decay, decoupled=decoupled_decay
    )
    square_avg = state["square_avg"]
    square_avg = avg = add(square_avg, add(mul(grad, grad), square_avg, alpha=-1.0), alpha=weight)
    after = {"square_avg": square_avg}
    if centered:
        grad_avg = state["grad_avg"]
        grad_avg = add(grad_avg, add(grad, grad_avg, alpha=-1.0), alpha=weight)
        after["grad_avg"], avg = grad_avg, addcmul(avg, grad_avg, grad_avg, value=-1.0)
    # XLA would make a product of a division by a root.
    avg = uncontracted(sqrt(add_scalar(avg, eps)))
    if "momentum_buffer" not in state:
        return Sum(param, grad, -lr, over=avg), after
    held = state["momentum_buffer"]
    buf = addcdiv(mul(held, momentum), grad, avg, value=lr if lr_in_momentum else 1.0)
    after["momentum_buffer"] = jnp.where(momentum > 0, buf, held)
    direction = cautious(buf, grad) if caution else buf
    new = add(param, direction, alpha=-1.0 if lr_in_momentum else -lr)
    # A momentum set to 0 in mid-run rests the buffer and leaves it as it is.
    return jnp.where(momentum > 0, new, addcdiv(param, grad, avg, value=-lr)), after


@of_rule(Rule(_problems, _init, _update, step_count, _advance, _holds))
def rmsprop_tf(
    lr: Number = 1e-2,
    alpha: Number = 0.9,
    eps: Number = 1e-10,
    weight_decay: Number = 0.0,
    momentum: Number = 0.0,
    centered: bool = False,
    decoupled_decay: bool = False,
    corrected_weight_decay: bool = False,
    lr_in_momentum: bool = True,
    caution: bool = False,
    max_lr_snapshot: Number | None = LEFT_OUT,
) -> optax.GradientTransformationExtraArgs:
    """RMSprop as TensorFlow has it.

    The Optax spelling of :class:`RMSpropTF`, whose description, arguments, errors and example hold
    for it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(rmsprop_tf, with_snapshot(locals()))


class RMSpropTF(Optimizer):
    """RMSprop as TensorFlow has it.

    The counterpart of ``timm.optim.RMSpropTF``. ``eps`` is under the root, the second moment
    begins at one, and the rate enters the momentum.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, >= 0.
        alpha: decay of the second moment, >= 0.
        eps: added under the root, >= 0.
        weight_decay: L2 penalty, >= 0.
        momentum: momentum, >= 0; 0 keeps no buffer.
        centered: subtract the square of the gradient's average from the second moment.
        decoupled_decay: decay the parameter instead of adding to the gradient.
        corrected_weight_decay: scale weight decay by ``lr**2 / max_lr_snapshot`` instead of
            ``lr``.
        lr_in_momentum: scale what enters the momentum by the rate, as TensorFlow does, and not
            what leaves it.
        caution: leave out what is against the gradient (Liang et al., 2024, *Cautious
            Optimizers*).
        max_lr_snapshot: the largest rate, for corrected weight decay; None, held as infinity, is
            the ``lr`` that the optimizer is made with.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message.

    References:
        Tieleman and Hinton, 2012, lecture 6.5; ``timm.optim.rmsprop_tf``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import RMSpropTF
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = RMSpropTF(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([-0.11803401, -0.11803401], dtype=float32)
    """

    factory = staticmethod(rmsprop_tf)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-2,
        alpha: Number = 0.9,
        eps: Number = 1e-10,
        weight_decay: Number = 0.0,
        momentum: Number = 0.0,
        centered: bool = False,
        decoupled_decay: bool = False,
        corrected_weight_decay: bool = False,
        lr_in_momentum: bool = True,
        caution: bool = False,
        max_lr_snapshot: Number | None = LEFT_OUT,
    ) -> Self:
        return cls.with_options(params, with_snapshot(locals()))
