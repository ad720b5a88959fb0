"""MARS: a gradient corrected by its change, clipped, in AdamW or Lion."""

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
from ..numerics.torch_ops import Scalar, add, add_scalar, addcmul, div, mul, sign, sqrt
from ..optim import ranges
from ._left_out import LEFT_OUT, without_none
from ._sums import norm
from ._timm import cautious


def _problems(
    mars_type: str, lr_1d_factor: Scalar, betas_1d: tuple[Scalar, Scalar], **options: Any
) -> Iterator[Problem]:
    yield from ranges.adam(**options)
    yield from ranges.at_least_zero("lr_1d_factor", lr_1d_factor)
    if LEFT_OUT not in betas_1d:
        yield from ranges.beta_pair(betas_1d)
    if mars_type not in ("adamw", "lion"):
        yield Problem("MARS type not supported", f'it is "adamw" or "lion"; got {mars_type!r}')


def _init(param: jax.Array, **_: Any) -> LeafState:
    names = ("exp_avg", "last_grad", "exp_avg_sq")
    return {name: jnp.zeros_like(param) for name in names}


def _advance(
    shared: Shared,
    *,
    lr: jax.Array,
    betas: jax.Array,
    gamma: jax.Array,
    lr_1d_factor: jax.Array,
    betas_1d: jax.Array,
    **_: Any,
) -> tuple[Shared, Scalars]:
    step = shared["step"] + 1
    of_1d = jnp.where(betas_1d == LEFT_OUT, betas, betas_1d)
    scalars = {"first": step == 1, "step_size_1d": lr * lr_1d_factor}
    for name, (beta1, beta2) in (("", betas), ("_1d", of_1d)):
        correction1, correction2 = 1 - jnp.stack([beta1, beta2]) ** step.astype(jnp.float64)
        scalars |= {
            f"beta1{name}": beta1,
            f"weight1{name}": 1 - beta1,
            f"beta2{name}": beta2,
            f"weight2{name}": 1 - beta2,
            f"correction1{name}": correction1,
            f"correction2_sqrt{name}": jnp.sqrt(correction2),
        }
    return {"step": step}, {**scalars, "change": gamma * (betas[0] / (1 - betas[0]))}


def _corrected(
    grad: jax.Array, last_grad: jax.Array, first: jax.Array, change: jax.Array
) -> jax.Array:
    moved = add(mul(add(grad, last_grad, alpha=-1.0), change), grad)
    c_t = jnp.where(first, grad, moved)
    length = norm(c_t)
    return div(c_t, jnp.maximum(length, jnp.ones_like(length)))


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    lr: jax.Array,
    eps: jax.Array,
    weight_decay: jax.Array,
    mars_type: str,
    optimize_1d: bool,
    caution: bool,
    step_size_1d: jax.Array,
    first: jax.Array,
    change: jax.Array,
    **scalars: Any,
) -> tuple[Sum, LeafState]:
    corrects = optimize_1d or param.ndim >= 2
    end, rate = ("", lr) if corrects else ("_1d", step_size_1d)
    c_t = _corrected(grad, state["last_grad"], first, change) if corrects else grad
    exp_avg = mul(state["exp_avg"], scalars[f"beta1{end}"])
    exp_avg = add(exp_avg, c_t, alpha=scalars[f"weight1{end}"])
    after = {"exp_avg": exp_avg, "last_grad": grad, "exp_avg_sq": state["exp_avg_sq"]}
    direction = cautious(exp_avg, grad) if caution else exp_avg
    if corrects and mars_type == "lion":
        update = add(mul(param, weight_decay), sign(direction))
    else:
        exp_avg_sq = mul(state["exp_avg_sq"], scalars[f"beta2{end}"])
        exp_avg_sq = addcmul(exp_avg_sq, c_t, c_t, value=scalars[f"weight2{end}"])
        denom = add_scalar(div(sqrt(exp_avg_sq), scalars[f"correction2_sqrt{end}"]), eps)
        step = div(div(direction, scalars[f"correction1{end}"]), denom)
        update, after["exp_avg_sq"] = add(mul(param, weight_decay), step), exp_avg_sq
    return Sum(param, update, -rate), after


@of_rule(Rule(_problems, _init, _update, step_count, _advance, elementwise=False))
def mars(
    lr: Number = 3e-3,
    betas: tuple[Number, Number] = (0.9, 0.99),
    eps: Number = 1e-8,
    weight_decay: Number = 0.0,
    gamma: Number = 0.025,
    mars_type: str = "adamw",
    optimize_1d: bool = False,
    lr_1d_factor: Number = 1.0,
    betas_1d: tuple[Number, Number] | None = (LEFT_OUT, LEFT_OUT),
    caution: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """MARS: a gradient corrected by its change, clipped, in AdamW or Lion.

    The Optax spelling of :class:`Mars`, whose description, arguments, errors and example hold for
    it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(mars, without_none(locals(), pairs=("betas_1d",)))


class Mars(Optimizer):
    """MARS: a gradient corrected by its change, clipped, in AdamW or Lion.

    The counterpart of ``timm.optim.Mars``. A parameter of less than two axes is stepped by AdamW,
    unless ``optimize_1d``; the parameter must be whole.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, >= 0.
        betas: decay of the moving averages of the gradient and of its square, in [0, 1).
        eps: added to the denominator, outside the root, >= 0.
        weight_decay: decoupled weight decay, >= 0: the parameter is multiplied by ``1 - lr *
            weight_decay``.
        gamma: weight of the change.
        mars_type: ``"adamw"`` or ``"lion"``.
        optimize_1d: treat parameters of less than two axes likewise.
        lr_1d_factor: what the rate of those that AdamW steps is multiplied by.
        betas_1d: the betas of those that AdamW steps; None, held as infinity, is ``betas``.
        caution: leave out what is against the gradient (Liang et al., 2024, *Cautious
            Optimizers*).

    Raises:
        ValueError: a number out of its range, beginning with the package's own message.

    References:
        Yuan et al., 2024, *MARS: Unleashing the Power of Variance Reduction*; ``timm.optim.mars``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import Mars
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = Mars(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.49999994, 0.49999994], dtype=float32)
    """

    factory = staticmethod(mars)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 3e-3,
        betas: tuple[Number, Number] = (0.9, 0.99),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        gamma: Number = 0.025,
        mars_type: str = "adamw",
        optimize_1d: bool = False,
        lr_1d_factor: Number = 1.0,
        betas_1d: tuple[Number, Number] | None = (LEFT_OUT, LEFT_OUT),
        caution: bool = False,
    ) -> Self:
        return cls.with_options(params, without_none(locals(), pairs=("betas_1d",)))
