"""AdamW with a Nesterov step of the first moment."""

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
from ..numerics.torch_ops import add_scalar, div, lerp, mul, sqrt
from ..optim import moments, ranges
from ._left_out import LEFT_OUT
from ._sums import rms
from ._timm import cautious, decay_rate, largest_rate, with_snapshot


def _problems(clipping_threshold: float | None, **options: Any) -> Iterator[Problem]:
    yield from ranges.adam(**options)
    yield from ranges.optional(ranges.above_zero, "clipping_threshold", clipping_threshold)
    yield from largest_rate(**options)


def _advance(
    shared: Shared, *, lr: jax.Array, betas: jax.Array, weight_decay: jax.Array, **options: Any
) -> tuple[Shared, Scalars]:
    step = shared["step"] + 1
    correction1, correction2 = 1 - betas ** step.astype(jnp.float64)
    return {"step": step}, {
        **moments.scalars(betas),
        "decay": 1 - decay_rate(lr, **options) * weight_decay,
        "step_size": lr / correction1,
        "correction2_sqrt": jnp.sqrt(correction2),
    }


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    eps: jax.Array,
    caution: bool,
    clipping_threshold: float | None,
    step_size: jax.Array,
    correction2_sqrt: jax.Array,
    **common: Any,
) -> tuple[Sum, LeafState]:
    grad, param, exp_avg, exp_avg_sq = moments.begun(
        grad, param, state, decoupled_weight_decay=True, **common
    )
    ahead = lerp(exp_avg, grad, common["weight1"])
    denom = add_scalar(div(sqrt(exp_avg_sq), correction2_sqrt), eps)
    if clipping_threshold is not None:
        ratio = div(rms(div(grad, denom)), clipping_threshold)
        denom = mul(denom, jnp.maximum(ratio, jnp.ones_like(ratio)))
    if caution:
        ahead = cautious(ahead, grad)
    return Sum(param, ahead, -step_size, over=denom), {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}


@of_rule(Rule(_problems, moments.init, _update, step_count, _advance))
def nadamw(
    lr: Number = 1e-3,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-8,
    weight_decay: Number = 1e-2,
    caution: bool = False,
    corrected_weight_decay: bool = False,
    maximize: bool = False,
    clipping_threshold: float | None = None,
    max_lr_snapshot: Number | None = LEFT_OUT,
) -> optax.GradientTransformationExtraArgs:
    """AdamW with a Nesterov step of the first moment.

    The Optax spelling of :class:`NAdamW`, whose description, arguments, errors and example hold
    for it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(nadamw, with_snapshot(locals()))


class NAdamW(Optimizer):
    """AdamW with a Nesterov step of the first moment.

    The counterpart of ``timm.optim.NAdamW``. ``jp.NAdam`` has another schedule of the momentum.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, >= 0.
        betas: decay of the moving averages of the gradient and of its square, in [0, 1).
        eps: added to the denominator, outside the root, >= 0.
        weight_decay: decoupled weight decay, >= 0: the parameter is multiplied by ``1 - lr *
            weight_decay``.
        caution: leave out what is against the gradient (Liang et al., 2024, *Cautious
            Optimizers*).
        corrected_weight_decay: scale weight decay by ``lr**2 / max_lr_snapshot`` instead of
            ``lr``.
        maximize: ascend instead of descend.
        clipping_threshold: the largest root mean square of a gradient over its denominator
            (StableAdamW); None does not clip. Static.
        max_lr_snapshot: the largest rate, for corrected weight decay; None, held as infinity, is
            the ``lr`` that the optimizer is made with.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message.

    References:
        Choi et al., 2019, *On Empirical Comparisons of Optimizers for Deep Learning*, table 1;
        Wortsman et al., 2023, *Stable and low-precision training*; ``timm.optim.nadamw``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import NAdamW
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = NAdamW(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.04500002, 0.04500002], dtype=float32)
    """

    factory = staticmethod(nadamw)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 1e-2,
        caution: bool = False,
        corrected_weight_decay: bool = False,
        maximize: bool = False,
        clipping_threshold: float | None = None,
        max_lr_snapshot: Number | None = LEFT_OUT,
    ) -> Self:
        return cls.with_options(params, with_snapshot(locals()))
