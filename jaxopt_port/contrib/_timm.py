"""What timm's optimizers have in common: caution, and weight decay that follows the rate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ..engine import Problem
from ..numerics.torch_ops import Scalar, constant, div, mul, sign, widened
from ..optim import ranges
from ._left_out import LEFT_OUT, without_none
from ._sums import mean


def cautious(update: jax.Array, grad: jax.Array) -> jax.Array:
    """Return an update without what is against the gradient, the rest enlarged for it.

    Liang et al., 2024, *Cautious Optimizers*. The share of what is kept is that of the whole array.
    """
    if update.dtype == jnp.float16:
        # Of what is above half its least number, torch's product is not rounded to zero.
        kept = widened(update) * widened(grad) > 2.0**-25
    else:
        # Signs, since the product of small numbers is flushed to zero here, and not in torch.
        kept = sign(update) * sign(grad) > 0
    share = jnp.maximum(mean(kept.astype(update.dtype)), constant(1e-3, update))
    return mul(update, div(kept.astype(update.dtype), share))


def decay_rate(
    lr: jax.Array,
    *,
    max_lr_snapshot: jax.Array,
    corrected_weight_decay: bool,
    unscaled_wd: bool = False,
    **_: Any,
) -> jax.Array:
    """Return the rate by which decoupled weight decay is scaled, in float64."""
    if unscaled_wd:
        return lr / max_lr_snapshot if corrected_weight_decay else jnp.ones_like(lr)
    return lr**2 / max_lr_snapshot if corrected_weight_decay else lr


def with_snapshot(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options in which the rate that the optimizer is made with is the largest."""
    options = without_none(options, "max_lr_snapshot")
    lr, given = options["lr"], options["max_lr_snapshot"]
    needed = options["corrected_weight_decay"] or options.get("decoupled_weight_decay", False)
    taken = needed and not callable(given) and given == LEFT_OUT and not callable(lr)
    return {**options, "max_lr_snapshot": lr if taken else given}


def adam(**options: Any) -> Iterator[Problem]:
    """Yield the problems of Adam's numbers, and of the largest rate."""
    yield from ranges.adam(**options)
    yield from largest_rate(**options)


def largest_rate(
    *, max_lr_snapshot: Scalar, corrected_weight_decay: bool, **_: Any
) -> Iterator[Problem]:
    if corrected_weight_decay and not 0.0 < max_lr_snapshot < LEFT_OUT:
        yield Problem(
            f"Corrected weight decay requires a positive max lr, got {max_lr_snapshot}",
            "make the optimizer with the largest lr, or give it as max_lr_snapshot",
        )
