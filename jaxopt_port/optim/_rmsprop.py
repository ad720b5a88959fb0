"""RMSprop, centered or not, with momentum of the scaled gradient."""

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
from ..numerics.torch_ops import Scalar, add_scalar, addcdiv, addcmul, lerp, mul, sqrt
from . import _ranges
from ._decay import l2_twice


def _problems(
    lr: Scalar, alpha: Scalar, eps: Scalar, weight_decay: Scalar, momentum: Scalar, **_: Any
) -> Iterator[Problem]:
    yield from _ranges.learning_rate(lr)
    yield from _ranges.epsilon(eps)
    yield from _ranges.at_least_zero("momentum", momentum)
    yield from _ranges.at_least_zero("weight_decay", weight_decay)
    yield from _ranges.at_least_zero("alpha", alpha)


def _init(param: jax.Array, *, centered: bool, **_: Any) -> LeafState:
    names = ("square_avg", "momentum_buffer", *(("grad_avg",) if centered else ()))
    return {name: jnp.zeros_like(param) for name in names}


def _holds(*, momentum: float, **_: Any) -> frozenset[str] | None:
    return frozenset({"step", "square_avg", "grad_avg"}) if momentum == 0 else None


def _advance(shared: Shared, *, alpha: jax.Array, **_: Any) -> tuple[Shared, Scalars]:
    return {"step": shared["step"] + 1}, {"weight": 1 - alpha}


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    lr: jax.Array,
    alpha: jax.Array,
    eps: jax.Array,
    weight_decay: jax.Array,
    momentum: jax.Array,
    centered: bool,
    maximize: bool,
    weight: jax.Array,
) -> tuple[Sum, LeafState]:
    grad, again = l2_twice(-grad if maximize else grad, param, weight_decay)
    square_avg = addcmul(mul(state["square_avg"], alpha), grad, grad, value=weight)
    after = {"square_avg": square_avg}
    if centered:
        grad_avg = after["grad_avg"] = lerp(state["grad_avg"], grad, weight)
        square_avg = addcmul(square_avg, grad_avg, grad_avg, value=-1.0)
    avg = add_scalar(sqrt(square_avg), eps)
    if "momentum_buffer" not in state:
        return Sum(param, again, -lr, over=avg), after
    # A momentum set to 0 in mid-run rests the buffer and leaves it as it is; the step is then
    # torch's to a rounding.
    moving, held = momentum > 0, state["momentum_buffer"]
    kept = mul(jnp.where(moving, held, jnp.zeros_like(held)), momentum)
    buf = after["momentum_buffer"] = jnp.where(moving, addcdiv(kept, again, avg, value=1.0), held)
    # The buffer that is kept goes into the parameter, so that XLA need not calculate it twice.
    avg = add_scalar(sqrt(uncontracted(square_avg, again=True)), eps)
    alone = addcdiv(jnp.zeros_like(kept), again, avg, value=1.0)
    return Sum(param, jnp.where(moving, buf, alone), -lr), after


@of_rule(Rule(_problems, _init, _update, step_count, _advance, _holds))
def rmsprop(
    lr: Number = 1e-2,
    alpha: Number = 0.99,
    eps: Number = 1e-8,
    weight_decay: Number = 0.0,
    momentum: Number = 0.0,
    centered: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """RMSprop, centered or not, with momentum of the scaled gradient.

    The counterpart of ``torch.optim.RMSprop``: eps is added outside the root (Optax's default is
    inside), the average decays by 0.99 (Optax: 0.9), and the learning rate multiplies the momentum
    buffer when it is applied.

    A plain Optax transformation. A number may be a schedule, a callable of the update count.

    Args:
        lr: learning rate, >= 0.
        alpha: decay of the averages, >= 0.
        eps: added to the root, >= 0.
        weight_decay: L2 penalty, >= 0, added to the gradient.
        momentum: factor of the momentum buffer, >= 0. At 0 no buffer is held.
        centered: divide by the standard deviation: subtract the squared average gradient.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Hinton, 2012, lecture 6e; Graves, 2013, *Generating Sequences With Recurrent Neural
        Networks*; ``torch.optim.RMSprop``, ``torch.optim.rmsprop._single_tensor_rmsprop``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = jp.rmsprop(lr=0.05)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"].round(3)
        Array([0.5, 0.5], dtype=float32)
    """
    return leafwise(rmsprop, locals())


class RMSprop(Optimizer):
    """RMSprop, centered or not, with momentum of the scaled gradient.

    The counterpart of ``torch.optim.RMSprop``: eps is added outside the root (Optax's default is
    inside), the average decays by 0.99 (Optax: 0.9), and the learning rate multiplies the momentum
    buffer when it is applied.

    With parameter groups; every number can be set between steps, by ``jp.set_hyperparams``, and may
    be a schedule, a callable of the update count.

    Args:
        params: parameter groups, as torch takes them: a list of dicts with ``"params"``, a selector
            (a path prefix, a glob, a compiled regex, a predicate ``(path, leaf) -> bool``, a
            boolean tree, a list of these, or ``jp.REST``), and options. A selector alone is one
            group; the default is all parameters.
        lr: learning rate, >= 0.
        alpha: decay of the averages, >= 0.
        eps: added to the root, >= 0.
        weight_decay: L2 penalty, >= 0, added to the gradient.
        momentum: factor of the momentum buffer, >= 0. At 0 no buffer is held.
        centered: divide by the standard deviation: subtract the squared average gradient.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Hinton, 2012, lecture 6e; Graves, 2013, *Generating Sequences With Recurrent Neural
        Networks*; ``torch.optim.RMSprop``, ``torch.optim.rmsprop._single_tensor_rmsprop``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = jp.RMSprop(lr=0.05)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"].round(3)
        Array([0.5, 0.5], dtype=float32)
    """

    factory = staticmethod(rmsprop)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-2,
        alpha: Number = 0.99,
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        momentum: Number = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> Self:
        return cls.with_options(params, locals())
