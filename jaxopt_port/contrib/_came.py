"""CAME: Adafactor whose step is scaled by the confidence in it."""

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
from ..numerics.torch_ops import Scalar, add, add_scalar, div, lerp, mul, reciprocal, rsqrt
from ..optim import decay as decays
from ..optim import ranges
from . import _pytorch_optimizer as package
from ._sums import clipped, mean, rms


def _problems(
    lr: Scalar,
    betas: tuple[Scalar, Scalar, Scalar],
    weight_decay: Scalar,
    clip_threshold: Scalar,
    eps1: Scalar,
    eps2: Scalar,
    **_: Any,
) -> Iterator[Problem]:
    yield from package.learning_rate(lr)
    yield from package.decays(betas)
    yield from package.at_least_zero("weight_decay", weight_decay)
    yield from ranges.above_zero("clip_threshold", clip_threshold)
    yield from package.at_least_zero("eps1", eps1)
    yield from package.at_least_zero("eps2", eps2)


def _init(param: jax.Array, *, ams_bound: bool, **_: Any) -> LeafState:
    zeros = jnp.zeros_like(param)
    state = {"exp_avg": zeros, "RMS": jnp.zeros((), param.dtype)}
    if ams_bound:
        state["exp_avg_sq_hat"] = zeros
    if param.ndim < 2:
        return {**state, "exp_avg_sq": zeros}
    of_rows, of_columns = jnp.sum(zeros, -1), jnp.sum(zeros, -2)  # also on an explicit mesh
    for name in ("exp_avg_sq", "exp_avg_res"):
        state |= {f"{name}_row": of_rows, f"{name}_col": of_columns}
    return state


def _advance(
    shared: Shared,
    *,
    lr: jax.Array,
    betas: jax.Array,
    weight_decay: jax.Array,
    fixed_decay: bool,
    **_: Any,
) -> tuple[Shared, Scalars]:
    return {"step": shared["step"] + 1}, {
        "weight1": 1 - betas[0],
        "beta2": betas[1],
        "weight2": 1 - betas[1],
        "beta3": betas[2],
        "weight3": 1 - betas[2],
        "decay": package.shrinking(lr, weight_decay, fixed_decay),
    }


def _factored(
    state: LeafState, name: str, square: jax.Array, beta: jax.Array, weight: jax.Array
) -> tuple[jax.Array, LeafState]:
    """Return one over the root of an average of squares, and the averages of rows and columns."""
    row, column = f"{name}_row", f"{name}_col"
    rows = add(mul(state[row], beta), mean(square, -1), alpha=weight)
    columns = add(mul(state[column], beta), mean(square, -2), alpha=weight)
    of_row = rsqrt(div(rows, mean(rows, -1, keepdims=True)))
    factor = mul(jnp.expand_dims(of_row, -1), jnp.expand_dims(rsqrt(columns), -2))
    return factor, {row: rows, column: columns}


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    lr: jax.Array,
    weight_decay: jax.Array,
    weight_decouple: bool,
    clip_threshold: jax.Array,
    ams_bound: bool,
    eps1: jax.Array,
    eps2: jax.Array,
    maximize: bool,
    weight1: jax.Array,
    beta2: jax.Array,
    weight2: jax.Array,
    beta3: jax.Array,
    weight3: jax.Array,
    decay: jax.Array,
    **_: Any,
) -> tuple[Sum, LeafState]:
    grad = -grad if maximize else grad
    after = {"RMS": rms(param)}
    grad, param = decays.decayed(
        grad, param, weight_decay=weight_decay, decay=decay, decoupled=weight_decouple
    )
    square = add_scalar(mul(grad, grad), eps1)
    if param.ndim >= 2:
        factor, averages = _factored(state, "exp_avg_sq", square, beta2, weight2)
    else:
        averages = {"exp_avg_sq": add(mul(state["exp_avg_sq"], beta2), square, alpha=weight2)}
        factor = rsqrt(averages["exp_avg_sq"])
    if ams_bound:
        bound = jnp.maximum(state["exp_avg_sq_hat"], reciprocal(factor))
        factor, after["exp_avg_sq_hat"] = rsqrt(div(bound, beta2)), bound
    update = clipped(mul(factor, grad), clip_threshold)
    exp_avg = lerp(state["exp_avg"], update, weight1)
    after |= {"exp_avg": exp_avg, **averages}
    if param.ndim < 2:
        return Sum(param, exp_avg, -lr), after
    apart = add(update, exp_avg, alpha=-1.0)
    instability = add_scalar(mul(apart, apart), eps2)
    factor, averages = _factored(state, "exp_avg_res", instability, beta3, weight3)
    return Sum(param, mul(factor, exp_avg), -lr), after | averages


def _oriented(shape: tuple[int, ...], **_: Any) -> bool:
    # Rows and columns are the same of a transposed matrix; of a convolution others are factored.
    return len(shape) > 2


@of_rule(
    Rule(
        _problems,
        _init,
        _update,
        step_count,
        _advance,
        accepts=ranges.OnlyReal("CAME"),
        elementwise=False,
        oriented=_oriented,
    )
)
def came(
    lr: Number = 2e-4,
    betas: tuple[Number, Number, Number] = (0.9, 0.999, 0.9999),
    weight_decay: Number = 0.0,
    weight_decouple: bool = True,
    fixed_decay: bool = False,
    clip_threshold: Number = 1.0,
    ams_bound: bool = False,
    eps1: Number = 1e-30,
    eps2: Number = 1e-16,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """CAME: Adafactor whose step is scaled by the confidence in it.

    The Optax spelling of :class:`CAME`, whose description, arguments, errors and example hold for
    it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(came, locals())


class CAME(Optimizer):
    """CAME: Adafactor whose step is scaled by the confidence in it.

    The counterpart of ``pytorch_optimizer.CAME``. The last two axes of a parameter are factored; it
    must be whole.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, >= 0.
        betas: decay of the averages of the update and of the gradient's square, in [0, 1), and of
            the squared distance between an update and its average, in [0, 1].
        weight_decay: weight decay, >= 0: the parameter is multiplied by ``1 - lr * weight_decay``.
        weight_decouple: whether it is; otherwise weight decay is an L2 penalty.
        fixed_decay: by ``1 - weight_decay``.
        clip_threshold: the largest root mean square of an update, > 0. One for all groups there.
        ams_bound: hold on to the largest second moment (of which the package keeps the root).
        eps1: added to the square of a gradient, >= 0. One for all groups there.
        eps2: added to that squared distance, >= 0. One for all groups there.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message; a
            parameter that is complex.

    References:
        Luo et al., 2023, *CAME: Confidence-guided Adaptive Memory Efficient Optimization*;
        ``pytorch_optimizer.optimizer.came``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import CAME
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = CAME(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.95, 0.95], dtype=float32)
    """

    factory = staticmethod(came)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 2e-4,
        betas: tuple[Number, Number, Number] = (0.9, 0.999, 0.9999),
        weight_decay: Number = 0.0,
        weight_decouple: bool = True,
        fixed_decay: bool = False,
        clip_threshold: Number = 1.0,
        ams_bound: bool = False,
        eps1: Number = 1e-30,
        eps2: Number = 1e-16,
        maximize: bool = False,
    ) -> Self:
        return cls.with_options(params, locals())
