"""MADGRAD: dual averaging with a cube root and momentum."""

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
    leafwise,
    of_rule,
    step_count,
)
from ..numerics.torch_ops import (
    Scalar,
    add,
    add_scalar,
    addcdiv,
    addcmul,
    constant,
    mul,
    rounded,
    widened,
)
from ..optim import decay as decays


def _problems(
    lr: Scalar, momentum: Scalar, weight_decay: Scalar, eps: Scalar, **_: Any
) -> Iterator[Problem]:
    if not 0 <= momentum < 1:
        yield Problem(f"Momentum {momentum} must be in the range [0,1]", "it must be below 1")
    if not lr >= 0:
        yield Problem(f"Learning rate {lr} must be positive", "lr must be >= 0")
    if not weight_decay >= 0:
        yield Problem(f"Weight decay {weight_decay} must be non-negative", "set it to 0, say")
    if not eps >= 0:
        yield Problem("Eps must be non-negative", f"got {eps}")


def _check_default(lr: Number) -> None:
    """Raise ValueError for a rate of 0, which the package takes of a group or a schedule alone."""
    if isinstance(lr, int | float) and lr == 0:
        raise ValueError(
            f"Learning rate {lr} must be positive: lr must be > 0 where the optimizer is made; "
            "of a group it may be 0, and a schedule or jp.set_hyperparams may set it"
        )


def _init(param: jax.Array, **_: Any) -> LeafState:
    zeros = jnp.zeros_like(param)
    return {"grad_sum_sq": zeros, "s": zeros, "x0": param}


def _holds(*, momentum: float, **_: Any) -> frozenset[str] | None:
    return frozenset({"step", "grad_sum_sq", "s"}) if momentum == 0 else None


def _advance(
    shared: Shared,
    *,
    lr: jax.Array,
    momentum: jax.Array,
    weight_decay: jax.Array,
    eps: jax.Array,
    **_: Any,
) -> tuple[Shared, Scalars]:
    step = shared["step"] + 1
    ck = 1 - momentum
    return {"step": step}, {
        "lamb": (lr + eps) * jnp.sqrt(step.astype(jnp.float64)),
        "decay": 1 - lr * weight_decay,
        "ck": ck,
        "rest": 1 - ck,
        "first": step == 1,
    }


def _cube_root(x: jax.Array, eps: jax.Array) -> jax.Array:
    """``x.pow(1 / 3).add(eps)``; rounded correctly, where torch's may be a unit off."""
    third = constant(1 / 3, x).astype(jnp.float64)
    root = x.astype(jnp.float64) ** third
    return add_scalar(rounded(root.astype(widened(x).dtype), x.dtype), eps)


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    eps: jax.Array,
    momentum: jax.Array,
    weight_decay: jax.Array,
    decoupled_decay: bool,
    lamb: jax.Array,
    decay: jax.Array,
    ck: jax.Array,
    rest: jax.Array,
    first: jax.Array,
    **_: Any,
) -> tuple[jax.Array, LeafState]:
    before = param  # what torch keeps of it, it keeps before it decays
    grad, param = decays.decayed(
        grad, param, weight_decay=weight_decay, decay=decay, decoupled=decoupled_decay
    )
    s, grad_sum_sq = state["s"], state["grad_sum_sq"]
    found = addcdiv(param, s, _cube_root(grad_sum_sq, eps), value=1.0)
    grad_sum_sq = addcmul(grad_sum_sq, grad, grad, value=lamb)
    s = add(s, grad, alpha=lamb)
    rms, after = _cube_root(grad_sum_sq, eps), {"grad_sum_sq": grad_sum_sq, "s": s}
    plain = addcdiv(found, s, rms, value=-1.0)
    if "x0" not in state:
        return plain, after
    x0 = jnp.where(first, before, state["x0"])
    z = addcdiv(x0, s, rms, value=-1.0)
    moved = add(mul(param, rest), z, alpha=ck)
    return jnp.where(momentum == 0, plain, moved), {**after, "x0": x0}


@of_rule(Rule(_problems, _init, _update, step_count, _advance, _holds))
def madgrad(
    lr: Number = 1e-2,
    momentum: Number = 0.9,
    weight_decay: Number = 0.0,
    eps: Number = 1e-6,
    decoupled_decay: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """MADGRAD: dual averaging with a cube root and momentum.

    The Optax spelling of :class:`MADGRAD`, whose description, arguments, errors and example hold
    for it; a number may be a schedule, a callable of the update count.
    """
    _check_default(lr)
    return leafwise(madgrad, locals())


class MADGRAD(Optimizer):
    """MADGRAD: dual averaging with a cube root and momentum.

    The counterpart of ``timm.optim.MADGRAD``. Gradients that are sparse are refused.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, > 0; that of a group may be 0, and a schedule may set it.
        momentum: momentum, in [0, 1); 0 does not keep the first parameter.
        weight_decay: L2 penalty, >= 0.
        eps: added to the rate and to the denominator, outside the root, >= 0.
        decoupled_decay: decay the parameter instead of adding to the gradient.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message.

    References:
        Defazio and Jelassi, 2021, *Adaptivity without Compromise*; ``timm.optim.madgrad``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import MADGRAD
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = MADGRAD(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.90914387, 0.90914387], dtype=float32)
    """

    factory = staticmethod(madgrad)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-2,
        momentum: Number = 0.9,
        weight_decay: Number = 0.0,
        eps: Number = 1e-6,
        decoupled_decay: bool = False,
    ) -> Self:
        _check_default(lr)
        return cls.with_options(params, locals())
