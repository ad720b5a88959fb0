"""Adagrad: each element's rate falls with the sum of its squared gradients."""

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
    step_count,
)
from ..numerics.torch_ops import Scalar, add_scalar, addcmul, div, mul, sqrt
from . import _ranges
from ._decay import l2
from ._rows import coalesced, is_sparse, undecayed


def _problems(
    lr: Scalar,
    lr_decay: Scalar,
    weight_decay: Scalar,
    initial_accumulator_value: Scalar,
    eps: Scalar,
    **_: Any,
) -> Iterator[Problem]:
    yield from _ranges.learning_rate(lr)
    yield from _ranges.at_least_zero("lr_decay", lr_decay)
    yield from _ranges.at_least_zero("weight_decay", weight_decay)
    yield from _ranges.at_least_zero("initial_accumulator_value", initial_accumulator_value)
    yield from _ranges.epsilon(eps)


def _init(param: jax.Array, *, initial_accumulator_value: jax.Array, **_: Any) -> LeafState:
    return {"sum": jnp.full_like(param, initial_accumulator_value)}


def _advance(
    shared: Shared, *, lr: jax.Array, lr_decay: jax.Array, **_: Any
) -> tuple[Shared, Scalars]:
    step = shared["step"] + 1
    clr = lr / (1 + (step.astype(jnp.float64) - 1) * lr_decay)
    return {"step": step}, {"clr": clr}


def _update(
    grad: Any,
    param: jax.Array,
    state: LeafState,
    *,
    eps: jax.Array,
    weight_decay: jax.Array,
    maximize: bool,
    clr: jax.Array,
    **_: Any,
) -> tuple[Sum | Rows, LeafState]:
    if is_sparse(grad):
        indices, values = coalesced(grad, param)
        values = undecayed(-values if maximize else values, weight_decay)
        old = state["sum"].at[indices].get(mode="fill", fill_value=0)
        rows = addcmul(old, values, values, value=1.0)
        std = add_scalar(sqrt(rows), eps)
        after = (
            state["sum"]
            .at[indices]
            .set(rows, mode="drop", indices_are_sorted=True, unique_indices=True)
        )
        return Rows(indices, mul(div(values, std), -clr)), {"sum": after}
    if maximize:
        grad = -grad
    grad = l2(grad, param, weight_decay)
    state_sum = addcmul(state["sum"], grad, grad, value=1.0)
    std = add_scalar(sqrt(state_sum), eps)
    return Sum(param, grad, -clr, over=std), {"sum": state_sum}


# torch gives each sum what the optimizer was made with, whatever a group says.
_OWN = frozenset({"lr", "lr_decay", "weight_decay", "eps", "maximize"})


@of_rule(
    Rule(
        _problems, _init, _update, step_count, _advance, own_options=_OWN, sparse=None, begins=None
    )
)
def adagrad(
    lr: Number = 1e-2,
    lr_decay: Number = 0.0,
    weight_decay: Number = 0.0,
    initial_accumulator_value: Number = 0.0,
    eps: Number = 1e-10,
    *,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Adagrad: each element's rate falls with the sum of its squared gradients.

    The counterpart of ``torch.optim.Adagrad``; a gradient may be row-sparse, a ``BCOO`` or a pair
    ``(indices, values)``, without weight decay as in torch (with it: NaN). The sum
    starts at 0, where Optax's starts at 0.1, and eps is added outside the root.

    A plain Optax transformation. A number may be a schedule, a callable of the update count.

    Args:
        lr: learning rate, >= 0.
        lr_decay: the rate of step t (from 1) is ``lr / (1 + (t - 1) * lr_decay)``, >= 0.
        weight_decay: L2 penalty, >= 0, added to the gradient.
        initial_accumulator_value: what the sum starts at, >= 0; read by ``init`` alone.
        eps: added to the root of the sum, >= 0.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Duchi et al., 2011, *Adaptive Subgradient Methods for Online Learning and Stochastic
        Optimization*; ``torch.optim.Adagrad``, ``torch.optim.adagrad._single_tensor_adagrad``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = jp.adagrad(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.5, 0.5], dtype=float32)
    """
    return leafwise(adagrad, locals())


class Adagrad(Optimizer):
    """Adagrad: each element's rate falls with the sum of its squared gradients.

    The counterpart of ``torch.optim.Adagrad``; a gradient may be row-sparse, a ``BCOO`` or a pair
    ``(indices, values)``, without weight decay as in torch (with it: NaN). The sum
    starts at 0, where Optax's starts at 0.1, and eps is added outside the root.

    With parameter groups; every number can be set between steps, by ``jp.set_hyperparams``, and may
    be a schedule, a callable of the update count.

    Args:
        params: parameter groups, as torch takes them: a list of dicts with ``"params"``, a selector
            (a path prefix, a glob, a compiled regex, a predicate ``(path, leaf) -> bool``, a
            boolean tree, a list of these, or ``jp.REST``), and options. A selector alone is one
            group; the default is all parameters.
        lr: learning rate, >= 0.
        lr_decay: the rate of step t (from 1) is ``lr / (1 + (t - 1) * lr_decay)``, >= 0.
        weight_decay: L2 penalty, >= 0, added to the gradient.
        initial_accumulator_value: what the sum starts at, >= 0; read by ``init`` alone.
        eps: added to the root of the sum, >= 0.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Duchi et al., 2011, *Adaptive Subgradient Methods for Online Learning and Stochastic
        Optimization*; ``torch.optim.Adagrad``, ``torch.optim.adagrad._single_tensor_adagrad``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = jp.Adagrad(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.5, 0.5], dtype=float32)
    """

    factory = staticmethod(adagrad)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-2,
        lr_decay: Number = 0.0,
        weight_decay: Number = 0.0,
        initial_accumulator_value: Number = 0.0,
        eps: Number = 1e-10,
        *,
        maximize: bool = False,
    ) -> Self:
        return cls.with_options(params, locals())
