"""Lion: steps by the sign of an average of gradients."""

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
from ..numerics.torch_ops import Scalar, add, lerp, mul, sign
from ..optim import ranges
from ._left_out import LEFT_OUT
from ._packages import of_another
from ._timm import cautious, decay_rate, largest_rate, with_snapshot


def _problems(
    lr: Scalar,
    betas: tuple[Scalar, Scalar],
    weight_decay: Scalar,
    caution: bool,
    corrected_weight_decay: bool,
    maximize: bool,
    decoupled_weight_decay: bool,
    max_lr_snapshot: Scalar,
    package: str,
    **_: Any,
) -> Iterator[Problem]:
    yield from ranges.learning_rate(lr)
    yield from ranges.beta_pair(betas)
    yield from ranges.at_least_zero("weight_decay", weight_decay)
    either = corrected_weight_decay or decoupled_weight_decay
    yield from largest_rate(max_lr_snapshot=max_lr_snapshot, corrected_weight_decay=either)
    if package not in ("timm", "lion-pytorch"):
        yield Problem(f"no package {package!r} has a Lion", 'it is "timm" or "lion-pytorch"')
    timms = {"caution": caution, "corrected_weight_decay": corrected_weight_decay}
    yield from of_another(package, "timm", maximize=maximize, **timms)
    yield from of_another(package, "lion-pytorch", decoupled_weight_decay=decoupled_weight_decay)


def _init(param: jax.Array, **_: Any) -> LeafState:
    return {"exp_avg": jnp.zeros_like(param)}


def _start(**_: Any) -> Shared:
    return {"begun": False}


def _advance(
    shared: Shared,
    *,
    lr: jax.Array,
    betas: jax.Array,
    weight_decay: jax.Array,
    decoupled_weight_decay: bool,
    max_lr_snapshot: jax.Array,
    **options: Any,
) -> tuple[Shared, Scalars]:
    if decoupled_weight_decay:
        weight_decay = weight_decay / max_lr_snapshot
    rate = decay_rate(lr, max_lr_snapshot=max_lr_snapshot, **options)
    return {"begun": True}, {
        "decay": 1 - rate * weight_decay,
        "weight1": 1 - betas[0],
        "weight2": 1 - betas[1],
    }


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    lr: jax.Array,
    betas: jax.Array,
    caution: bool,
    maximize: bool,
    package: str,
    decay: jax.Array,
    weight1: jax.Array,
    weight2: jax.Array,
    **_: Any,
) -> tuple[Sum, LeafState]:
    grad = -grad if maximize else grad
    exp_avg = state["exp_avg"]
    if package == "timm":
        ahead, after = lerp(exp_avg, grad, weight1), lerp(exp_avg, grad, weight2)
    else:
        ahead = add(mul(exp_avg, betas[0]), grad, alpha=weight1)
        after = add(mul(exp_avg, betas[1]), grad, alpha=weight2)
    update = cautious(sign(ahead), grad) if caution else sign(ahead)
    return Sum(mul(param, decay), update, -lr), {"exp_avg": after}


@of_rule(Rule(_problems, _init, _update, _start, _advance, begins="begun"))
def lion(
    lr: Number = 1e-4,
    betas: tuple[Number, Number] = (0.9, 0.99),
    weight_decay: Number = 0.0,
    caution: bool = False,
    corrected_weight_decay: bool = False,
    maximize: bool = False,
    decoupled_weight_decay: bool = False,
    max_lr_snapshot: Number | None = LEFT_OUT,
    package: str = "timm",
) -> optax.GradientTransformationExtraArgs:
    """Lion: steps by the sign of an average of gradients.

    The Optax spelling of :class:`Lion`, whose description, arguments, errors and example hold for
    it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(lion, with_snapshot(locals()))


class Lion(Optimizer):
    """Lion: steps by the sign of an average of gradients.

    The counterpart of ``timm.optim.Lion``, and of ``lion_pytorch.Lion``. The two round an average
    otherwise, so that a step that is nearly a tie may fall the other way: ``package`` says whose
    it is.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, >= 0.
        betas: weight of the average in the step, and its decay, in [0, 1).
        weight_decay: decoupled weight decay, >= 0: the parameter is multiplied by ``1 - lr *
            weight_decay``.
        caution: leave out what is against the gradient (Liang et al., 2024, *Cautious
            Optimizers*).
        corrected_weight_decay: scale weight decay by ``lr**2 / max_lr_snapshot`` instead of
            ``lr``.
        maximize: ascend instead of descend.
        decoupled_weight_decay: divide ``weight_decay`` by ``max_lr_snapshot`` first:
            lion_pytorch's argument.
        max_lr_snapshot: the largest rate, for corrected weight decay; None, held as infinity, is
            the ``lr`` that the optimizer is made with.
        package: whose rounding: ``"timm"`` or ``"lion-pytorch"``; the latter has no ``caution``,
            ``corrected_weight_decay`` and ``maximize``.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message.

    References:
        Chen et al., 2023, *Symbolic Discovery of Optimization Algorithms*; ``timm.optim.lion``;
        ``lion_pytorch``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import Lion
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = Lion(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.5, 0.5], dtype=float32)
    """

    factory = staticmethod(lion)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-4,
        betas: tuple[Number, Number] = (0.9, 0.99),
        weight_decay: Number = 0.0,
        caution: bool = False,
        corrected_weight_decay: bool = False,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        max_lr_snapshot: Number | None = LEFT_OUT,
        package: str = "timm",
    ) -> Self:
        return cls.with_options(params, with_snapshot(locals()))
