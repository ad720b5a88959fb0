"""Stochastic gradient descent, with momentum as torch defines it."""

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
    Rows,
    Rule,
    Scalars,
    Shared,
    Sum,
    leafwise,
    of_rule,
)
from ..numerics.torch_ops import Scalar, add, mul
from . import _momentum, _ranges
from ._decay import l2_twice
from ._rows import coalesced, dense, is_sparse, undecayed


def _problems(
    lr: Scalar, momentum: Scalar, dampening: Scalar, weight_decay: Scalar, nesterov: bool, **_: Any
) -> Iterator[Problem]:
    yield from _ranges.learning_rate(lr)
    yield from _ranges.at_least_zero("momentum", momentum)
    yield from _ranges.at_least_zero("weight_decay", weight_decay)
    yield from _ranges.nesterov(nesterov, momentum, dampening)


def _advance(shared: Shared, *, momentum: jax.Array, **_: object) -> tuple[Shared, Scalars]:
    return _momentum.begun(shared, momentum)


def _update(
    grad: Any,
    param: jax.Array,
    state: LeafState,
    *,
    lr: jax.Array,
    momentum: jax.Array,
    dampening: jax.Array,
    weight_decay: jax.Array,
    nesterov: bool,
    maximize: bool,
    begun: jax.Array | None = None,
) -> tuple[Sum | Rows, LeafState]:
    if is_sparse(grad):
        indices, values = coalesced(grad, param)
        values = undecayed(-values if maximize else values, weight_decay)
        if begun is None:
            return Rows(indices, mul(values, -lr)), state
        grad = again = dense(indices, values, param)
    else:
        grad, again = l2_twice(-grad if maximize else grad, param, weight_decay)

    if begun is not None:
        buf, state = _momentum.averaged(
            grad, state, momentum=momentum, dampening=dampening, begun=begun
        )
        direction = add(again, buf, alpha=momentum) if nesterov else buf
        grad = jnp.where(momentum != 0, direction, again)

    return Sum(param, grad, -lr), state


@of_rule(
    Rule(
        _problems,
        _momentum.init,
        _update,
        _momentum.start,
        _advance,
        _momentum.holds,
        sparse=None,
        begins="has_momentum_buffer",
    )
)
def sgd(
    lr: Number = 1e-3,
    momentum: Number = 0.0,
    dampening: Number = 0.0,
    weight_decay: Number = 0.0,
    nesterov: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Stochastic gradient descent, with momentum as torch defines it.

    The counterpart of ``torch.optim.SGD``: the buffer starts as the first gradient (not scaled by
    ``1 - dampening``), weight decay is added to the gradient before momentum, and the learning
    rate multiplies the buffer when it is applied, so that a change of rate acts at once. A gradient
    may be row-sparse, a ``BCOO`` or a pair ``(indices, values)``, without weight decay as in torch
    (with it: NaN); with momentum each row moves in every step.

    A plain Optax transformation. A number may be a schedule, a callable of the update count.

    Args:
        lr: learning rate, >= 0.
        momentum: factor of the momentum buffer, >= 0. At 0 no buffer is held.
        dampening: the gradient enters the buffer times ``1 - dampening``.
        weight_decay: L2 penalty, >= 0: ``weight_decay * param`` is added to the gradient.
        nesterov: Nesterov's momentum; needs ``momentum > 0`` and ``dampening == 0``.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Sutskever et al., 2013, *On the importance of initialization and momentum in deep
        learning*; ``torch.optim.SGD``, ``torch.optim.sgd._single_tensor_sgd``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp, optax
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.ones(2)}
        >>> tx = jp.sgd(lr=0.5, momentum=0.9)
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> optax.apply_updates(params, updates)["weight"]
        Array([0.5, 0.5], dtype=float32)
    """
    return leafwise(sgd, locals())


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum as torch defines it.

    The counterpart of ``torch.optim.SGD``: the buffer starts as the first gradient (not scaled by
    ``1 - dampening``), weight decay is added to the gradient before momentum, and the learning
    rate multiplies the buffer when it is applied, so that a change of rate acts at once. A gradient
    may be row-sparse, a ``BCOO`` or a pair ``(indices, values)``, without weight decay as in torch
    (with it: NaN); with momentum each row moves in every step.

    With parameter groups; every number can be set between steps, by ``jp.set_hyperparams``, and may
    be a schedule, a callable of the update count.

    Args:
        params: parameter groups, as torch takes them: a list of dicts with ``"params"``, a selector
            (a path prefix, a glob, a compiled regex, a predicate ``(path, leaf) -> bool``, a
            boolean tree, a list of these, or ``jp.REST``), and options. A selector alone is one
            group; the default is all parameters.
        lr: learning rate, >= 0.
        momentum: factor of the momentum buffer, >= 0. At 0 no buffer is held.
        dampening: the gradient enters the buffer times ``1 - dampening``.
        weight_decay: L2 penalty, >= 0: ``weight_decay * param`` is added to the gradient.
        nesterov: Nesterov's momentum; needs ``momentum > 0`` and ``dampening == 0``.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Sutskever et al., 2013, *On the importance of initialization and momentum in deep
        learning*; ``torch.optim.SGD``, ``torch.optim.sgd._single_tensor_sgd``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp, optax
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.ones(2)}
        >>> tx = jp.SGD(lr=0.5, momentum=0.9)
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> optax.apply_updates(params, updates)["weight"]
        Array([0.5, 0.5], dtype=float32)
    """

    factory = staticmethod(sgd)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-3,
        momentum: Number = 0.0,
        dampening: Number = 0.0,
        weight_decay: Number = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> Self:
        return cls.with_options(params, locals())
