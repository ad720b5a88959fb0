"""Prodigy: Adam that estimates its own rate."""

from __future__ import annotations

import math
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
)
from ..numerics.torch_ops import (
    Scalar,
    add,
    add_scalar,
    addcdiv,
    addcmul,
    mul,
    sqrt,
)
from ..optim import decay as decays
from ..optim import ranges
from . import _estimates as estimates
from . import _wide
from ._left_out import LEFT_OUT, without_none


def _problems(
    betas: tuple[Scalar, Scalar],
    beta3: Scalar,
    eps: Scalar,
    d_coef: Scalar,
    slice_p: int,
    **options: Any,
) -> Iterator[Problem]:
    yield from estimates.arguments(**options)
    yield from estimates.epsilon(eps)
    yield from ranges.beta_pair(betas)
    if beta3 != LEFT_OUT:
        yield from ranges.below_one("beta3", beta3)
    yield from ranges.above_zero("d_coef", d_coef)
    yield from ranges.whole("slice_p", slice_p, 1)


def _init(param: jax.Array, *, slice_p: int, **_: Any) -> LeafState:
    zeros = jnp.zeros_like(param)
    part = _sliced(param, slice_p)
    return {"s": jnp.zeros_like(part), "p0": part, "exp_avg": zeros, "exp_avg_sq": zeros}


def _holds(*, betas: tuple[float, float], **_: Any) -> frozenset[str] | None:
    known = betas[0] == 0
    return frozenset({*_SHARED, "s", "p0", "exp_avg_sq"}) if known else None


_COMMON = estimates.common("d", "d_max", "d_numerator")
_SHARED = ("step", *_COMMON)


def _start(*, d0: jax.Array, **_: Any) -> Shared:
    return {"step": 0.0, **estimates.begun(d0, "d_numerator"), **_wide.kept("d_max", d0)}


def _sliced(x: jax.Array, slice_p: int) -> jax.Array:
    return x.reshape(-1)[::slice_p]


def _rates(
    shared: Shared,
    *,
    lr: jax.Array,
    betas: jax.Array,
    beta3: jax.Array,
    use_bias_correction: bool,
    safeguard_warmup: bool,
    d0: jax.Array,
    **_: Any,
) -> Scalars:
    """Return what a step begins with."""
    d = _wide.read(shared, "d")
    corrections = 1 - betas ** (shared["k"] + 1).astype(jnp.float64)
    correction = jnp.sqrt(corrections[1]) / corrections[0] if use_bias_correction else 1.0
    dlr = d * lr * correction
    return {
        "d": d,
        "dlr": dlr,
        "beta3": jnp.where(beta3 == LEFT_OUT, jnp.sqrt(betas[1]), beta3),
        "into_s": d / d0 * (d if safeguard_warmup else dlr),
        "first": shared["step"] == 0,
    }


def _estimated(
    grad: jax.Array, param: jax.Array, state: LeafState, slice_p: int, scalars: Scalars
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the slice of the gradient, the first parameter's, and ``s`` after the gradient."""
    part = _sliced(grad, slice_p)
    p0 = jnp.where(scalars["first"], _sliced(param, slice_p), state["p0"])
    s = add(mul(state["s"], scalars["beta3"]), part, alpha=scalars["into_s"])
    return part, p0, s


def _gathers(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    shared: Shared,
    *,
    lr: jax.Array,
    weight_decay: jax.Array,
    decouple: bool,
    d0: jax.Array,
    slice_p: int,
    **options: Any,
) -> Scalars:
    scalars = _rates(shared, lr=lr, d0=d0, **options)
    grad = grad if decouple else decays.l2(grad, param, weight_decay)
    part, p0, s = _estimated(grad, param, state, slice_p, scalars)
    away = add(p0, _sliced(param, slice_p), alpha=-1.0)
    along = scalars["d"] / d0 * scalars["dlr"] * estimates.dot(part, away)
    return estimates.of_moving(lr, delta_numerator=along, d_denom=estimates.item(jnp.abs(s)))


def _advance(
    shared: Shared,
    *,
    lr: jax.Array,
    betas: jax.Array,
    weight_decay: jax.Array,
    eps: jax.Array,
    d0: jax.Array,
    d_coef: jax.Array,
    growth_rate: jax.Array,
    delta_numerator: Scalar = 0.0,
    d_denom: Scalar = 0.0,
    rates: Scalar = 0.0,
    rated: Scalar = 0.0,
    **options: Any,
) -> tuple[Shared, Scalars]:
    rate = estimates.rate_of_all(lr, rates, rated)
    scalars = _rates(shared, lr=rate, betas=betas, d0=d0, **options)
    d, d_max = scalars["d"], _wide.read(shared, "d_max")
    # Where all gradients have been zero, nothing is known, and no step is taken.
    known = jnp.asarray(d_denom) != 0
    found = _wide.read(shared, "d_numerator") * scalars["beta3"] + delta_numerator
    d_hat = estimates.ratio(d_coef * found, d_denom, known)
    longest = estimates.larger(d_max, d_hat)
    grown = jnp.where(d == d0, estimates.larger(d, d_hat), d) * growth_rate
    new = jnp.where(known, estimates.smaller(longest, grown), d)
    after = estimates.followed(shared, known, d=new, d_max=longest, d_numerator=found)
    return {"step": shared["step"] + known.astype(jnp.float32), **after}, {
        **scalars,
        "beta1": betas[0],
        "weight1": d * (1 - betas[0]),
        "beta2": betas[1],
        "weight2": d * d * (1 - betas[1]),
        "least": new * eps,
        "decay": -weight_decay * scalars["dlr"],
        "step_size": -scalars["dlr"],
        "plain_step_size": -scalars["dlr"] * new,
        "moving": lr > 0,
        "known": known,
    }


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    weight_decay: jax.Array,
    decouple: bool,
    slice_p: int,
    beta1: jax.Array,
    weight1: jax.Array,
    beta2: jax.Array,
    weight2: jax.Array,
    least: jax.Array,
    decay: jax.Array,
    step_size: jax.Array,
    plain_step_size: jax.Array,
    known: jax.Array,
    moving: jax.Array,
    **scalars: Any,
) -> tuple[jax.Array, LeafState]:
    before = param
    grad = grad if decouple else decays.l2(grad, param, weight_decay)
    _, p0, s = _estimated(grad, param, state, slice_p, scalars)
    exp_avg_sq = addcmul(mul(state["exp_avg_sq"], beta2), grad, grad, value=weight2)
    after = {"s": s, "exp_avg_sq": exp_avg_sq}
    if "exp_avg" in state:
        after["exp_avg"] = add(mul(state["exp_avg"], beta1), grad, alpha=weight1)
    after = {name: jnp.where(moving, new, state[name]) for name, new in after.items()}
    denom = add_scalar(sqrt(after["exp_avg_sq"]), least)
    if decouple:
        param = jnp.where(weight_decay != 0, add(param, param, alpha=decay), param)
    if "exp_avg" in state:
        new = addcdiv(param, after["exp_avg"], denom, value=step_size)
    else:
        new = addcdiv(param, grad, denom, value=plain_step_size)
    return jnp.where(known, new, before), {**after, "p0": p0}


@of_rule(
    Rule(
        _problems,
        _init,
        _update,
        _start,
        _advance,
        _holds,
        gathers=_gathers,
        common=_COMMON,
        own_options=frozenset({"weight_decay", "eps", "safeguard_warmup", "slice_p"}),
        zero_rates=True,
        accepts=ranges.OnlyReal("Prodigy"),
        elementwise=False,
    )
)
def prodigy(
    lr: Number = 1.0,
    betas: tuple[Number, Number] = (0.9, 0.999),
    beta3: Number | None = LEFT_OUT,
    eps: Number = 1e-8,
    weight_decay: Number = 0.0,
    decouple: bool = True,
    use_bias_correction: bool = False,
    safeguard_warmup: bool = False,
    d0: Number = 1e-6,
    d_coef: Number = 1.0,
    growth_rate: Number = math.inf,
    slice_p: int = 1,
) -> optax.GradientTransformationExtraArgs:
    """Prodigy: Adam that estimates its own rate.

    The Optax spelling of :class:`Prodigy`, whose description, arguments, errors and example hold
    for it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(prodigy, without_none(locals(), "beta3"))


class Prodigy(Optimizer):
    """Prodigy: Adam that estimates its own rate.

    The counterpart of ``prodigyopt.Prodigy``. The estimate is one for all groups; give them the
    same options, but for ``weight_decay``, ``eps``, ``safeguard_warmup``, ``slice_p``, and a rate
    of 0: a group that has it has no part in the estimate, and goes on by the averages that it has.
    A parameter must be whole.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: what the estimate is multiplied by, >= 0.
        betas: decay of the moving averages of the gradient and of its square, in [0, 1).
        beta3: decay of the averages of the estimate; None, held as infinity, is the root of
            ``betas[1]``.
        eps: added to the denominator, times the estimate, > 0.
        weight_decay: weight decay, >= 0.
        decouple: decay the parameter instead of adding to the gradient.
        use_bias_correction: correct the moments for their beginning at zero.
        safeguard_warmup: leave the rate out of the estimate's denominator.
        d0: the first estimate, > 0.
        d_coef: what an estimate is multiplied by.
        growth_rate: what the estimate grows by in a step at most.
        slice_p: estimate from each entry of this number. Static.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message; an
            option that has to be that of the other groups.

    References:
        Mishchenko and Defazio, 2024, *Prodigy: An Expeditiously Adaptive Parameter-Free Learner*;
        ``prodigyopt``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import Prodigy
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = Prodigy()
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.99999684, 0.99999684], dtype=float32)
    """

    factory = staticmethod(prodigy)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1.0,
        betas: tuple[Number, Number] = (0.9, 0.999),
        beta3: Number | None = LEFT_OUT,
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        decouple: bool = True,
        use_bias_correction: bool = False,
        safeguard_warmup: bool = False,
        d0: Number = 1e-6,
        d_coef: Number = 1.0,
        growth_rate: Number = math.inf,
        slice_p: int = 1,
    ) -> Self:
        return cls.with_options(params, without_none(locals(), "beta3"))
