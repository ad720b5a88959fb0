"""LARS: SGD whose rate is scaled for each layer."""

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
from ..numerics.torch_ops import Scalar, add, add_scalar, div, mul
from ..optim import momentums, ranges
from ._sums import norm


def _problems(
    lr: Scalar,
    momentum: Scalar,
    dampening: Scalar,
    weight_decay: Scalar,
    nesterov: bool,
    trust_coeff: Scalar,
    eps: Scalar,
    **_: Any,
) -> Iterator[Problem]:
    yield from ranges.learning_rate(lr)
    yield from ranges.at_least_zero("momentum", momentum)
    yield from ranges.at_least_zero("weight_decay", weight_decay)
    yield from ranges.epsilon(eps)
    yield from ranges.above_zero("trust_coeff", trust_coeff)
    yield from ranges.nesterov(nesterov, momentum, dampening)


def _advance(shared: Shared, *, momentum: jax.Array, **_: Any) -> tuple[Shared, Scalars]:
    return momentums.begun(shared, momentum)


def _trust_ratio(
    param: jax.Array,
    grad: jax.Array,
    *,
    lr: jax.Array,
    weight_decay: jax.Array,
    trust_coeff: jax.Array,
    eps: jax.Array,
    trust_clip: bool,
) -> jax.Array:
    of_param, of_grad = norm(param), norm(grad)
    denom = add_scalar(add(of_grad, mul(of_param, weight_decay)), eps)
    ratio = div(mul(of_param, trust_coeff), denom)
    ratio = jnp.where((of_param > 0) & (of_grad > 0), ratio, jnp.ones_like(ratio))
    return jnp.minimum(div(ratio, lr), jnp.ones_like(ratio)) if trust_clip else ratio


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    lr: jax.Array,
    momentum: jax.Array,
    dampening: jax.Array,
    weight_decay: jax.Array,
    nesterov: bool,
    always_adapt: bool,
    begun: jax.Array | None = None,
    **ratio: Any,
) -> tuple[Sum, LeafState]:
    trust = _trust_ratio(param, grad, lr=lr, weight_decay=weight_decay, **ratio)
    adapted = mul(add(grad, param, alpha=weight_decay), trust)
    grad = adapted if always_adapt else jnp.where(weight_decay != 0, adapted, grad)
    if begun is not None:
        buf, state = momentums.averaged(
            grad, state, momentum=momentum, dampening=dampening, begun=begun
        )
        direction = add(grad, buf, alpha=momentum) if nesterov else buf
        grad = jnp.where(momentum != 0, direction, grad)
    return Sum(param, grad, -lr), state


@of_rule(
    Rule(
        _problems,
        momentums.init,
        _update,
        momentums.start,
        _advance,
        momentums.holds,
        begins="has_momentum_buffer",
        elementwise=False,
    )
)
def lars(
    lr: Number = 1.0,
    momentum: Number = 0.0,
    dampening: Number = 0.0,
    weight_decay: Number = 0.0,
    nesterov: bool = False,
    trust_coeff: Number = 0.001,
    eps: Number = 1e-8,
    trust_clip: bool = False,
    always_adapt: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """LARS: SGD whose rate is scaled for each layer.

    The Optax spelling of :class:`Lars`, whose description, arguments, errors and example hold for
    it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(lars, locals())


class Lars(Optimizer):
    """LARS: SGD whose rate is scaled for each layer.

    The counterpart of ``timm.optim.Lars``. A layer's gradient is scaled by the ratio of the norms
    of the parameter and of its gradient; the parameter must be whole.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, >= 0.
        momentum: momentum, >= 0; 0 keeps no buffer.
        dampening: what of a gradient does not enter the buffer, from the second step on.
        weight_decay: L2 penalty, >= 0; where it is 0, nothing is scaled.
        nesterov: Nesterov momentum.
        trust_coeff: the ratio's factor.
        eps: added to the ratio's denominator.
        trust_clip: LARC: let the scaled rate be at most ``lr``.
        always_adapt: scale without weight decay, too.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message.

    References:
        You et al., 2017, *Large Batch Training of Convolutional Networks*; ``timm.optim.lars``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import Lars
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = Lars(lr=0.5, weight_decay=0.1)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.9995, 0.9995], dtype=float32)
    """

    factory = staticmethod(lars)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1.0,
        momentum: Number = 0.0,
        dampening: Number = 0.0,
        weight_decay: Number = 0.0,
        nesterov: bool = False,
        trust_coeff: Number = 0.001,
        eps: Number = 1e-8,
        trust_clip: bool = False,
        always_adapt: bool = False,
    ) -> Self:
        return cls.with_options(params, locals())
