"""Adam with D-Adaptation, which estimates its own rate."""

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
from ..numerics.torch_ops import Scalar, add, add_scalar, addcdiv, addcmul, div, mul, sqrt
from ..optim import decay as decays
from ..optim import ranges
from . import _estimates as estimates
from . import _wide


def _problems(
    betas: tuple[Scalar, Scalar], eps: Scalar, layer_scale: Scalar, **options: Any
) -> Iterator[Problem]:
    yield from estimates.arguments(**options)
    yield from estimates.epsilon(eps)
    yield from ranges.beta_pair(betas)
    yield from ranges.at_least_zero("layer_scale", layer_scale)


def _init(param: jax.Array, **_: Any) -> LeafState:
    return {name: jnp.zeros_like(param) for name in ("s", "exp_avg", "exp_avg_sq")}


def _start(*, d0: jax.Array, **_: Any) -> Shared:
    return {"step": 0.0, **estimates.begun(d0, "numerator_weighted")}


def _rates(
    shared: Shared, *, lr: jax.Array, betas: jax.Array, use_bias_correction: bool, **_: Any
) -> Scalars:
    """Return what a step begins with."""
    corrections = 1 - betas ** (shared["k"] + 1).astype(jnp.float64)
    correction = jnp.sqrt(corrections[1]) / corrections[0] if use_bias_correction else 1.0
    d, root = _wide.read(shared, "d"), jnp.sqrt(betas[1])
    dlr = d * lr * correction
    return {"d": d, "dlr": dlr, "root": root, "into_s": dlr * (1 - root)}


def _gathers(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    shared: Shared,
    *,
    lr: jax.Array,
    eps: jax.Array,
    weight_decay: jax.Array,
    decouple: bool,
    layer_scale: jax.Array,
    **options: Any,
) -> Scalars:
    scalars = _rates(shared, lr=lr, **options)
    grad = grad if decouple else decays.l2(grad, param, weight_decay)
    denom = add_scalar(sqrt(state["exp_avg_sq"]), eps)
    s = add(mul(state["s"], scalars["root"]), grad, alpha=scalars["into_s"])
    along = layer_scale * scalars["dlr"] * estimates.dot(grad, div(state["s"], denom))
    return estimates.of_moving(lr, numerator=along, size=layer_scale * estimates.item(jnp.abs(s)))


def _advance(
    shared: Shared,
    *,
    lr: jax.Array,
    betas: jax.Array,
    weight_decay: jax.Array,
    growth_rate: jax.Array,
    layer_scale: jax.Array,
    numerator: Scalar = 0.0,
    size: Scalar = 0.0,
    rates: Scalar = 0.0,
    rated: Scalar = 0.0,
    **options: Any,
) -> tuple[Shared, Scalars]:
    rate = estimates.rate_of_all(lr, rates, rated)
    scalars = _rates(shared, lr=rate, betas=betas, **options)
    d, root, known = scalars["d"], scalars["root"], jnp.asarray(size) != 0
    weighted = root * _wide.read(shared, "numerator_weighted") + (1 - root) * numerator
    d_hat = estimates.ratio(weighted, (1 - root) * size, known)
    new = estimates.raised(d, d_hat, growth_rate)
    after = estimates.followed(shared, known, d=new, numerator_weighted=weighted)
    return {"step": shared["step"] + known.astype(jnp.float32), **after}, {
        **scalars,
        "moving": lr > 0,
        "known": known,
        "beta1": betas[0],
        "weight1": layer_scale * scalars["dlr"] * (1 - betas[0]),
        "beta2": betas[1],
        "weight2": 1 - betas[1],
        "decay": -weight_decay * scalars["dlr"],
    }


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    eps: jax.Array,
    weight_decay: jax.Array,
    decouple: bool,
    root: jax.Array,
    into_s: jax.Array,
    moving: jax.Array,
    known: jax.Array,
    beta1: jax.Array,
    weight1: jax.Array,
    beta2: jax.Array,
    weight2: jax.Array,
    decay: jax.Array,
    **_: Any,
) -> tuple[jax.Array, LeafState]:
    grad = grad if decouple else decays.l2(grad, param, weight_decay)
    after = {
        "s": add(mul(state["s"], root), grad, alpha=into_s),
        "exp_avg": add(mul(state["exp_avg"], beta1), grad, alpha=weight1),
        "exp_avg_sq": addcmul(mul(state["exp_avg_sq"], beta2), grad, grad, value=weight2),
    }
    after = {name: jnp.where(moving, new, state[name]) for name, new in after.items()}
    denom = add_scalar(sqrt(after["exp_avg_sq"]), eps)
    new = param
    if decouple:
        new = jnp.where(weight_decay != 0, add(param, param, alpha=decay), param)
    return jnp.where(known, addcdiv(new, after["exp_avg"], denom, value=-1.0), param), after


@of_rule(
    Rule(
        _problems,
        _init,
        _update,
        _start,
        _advance,
        gathers=_gathers,
        common=estimates.common("d", "numerator_weighted"),
        own_options=frozenset({"d0", "weight_decay", "eps", "layer_scale"}),
        zero_rates=True,
        accepts=ranges.OnlyReal("DAdaptAdam"),
        elementwise=False,
    )
)
def dadapt_adam(
    lr: Number = 1.0,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-8,
    weight_decay: Number = 0.0,
    decouple: bool = False,
    use_bias_correction: bool = False,
    d0: Number = 1e-6,
    growth_rate: Number = math.inf,
    layer_scale: Number = 1.0,
) -> optax.GradientTransformationExtraArgs:
    """Adam with D-Adaptation, which estimates its own rate.

    The Optax spelling of :class:`DAdaptAdam`, whose description, arguments, errors and example hold
    for it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(dadapt_adam, locals())


class DAdaptAdam(Optimizer):
    """Adam with D-Adaptation, which estimates its own rate.

    The counterpart of ``dadaptation.DAdaptAdam``. The estimate is one for all groups; give them the
    same options, but for ``weight_decay``, ``eps``, ``layer_scale``, and a rate of 0: a group that
    has it has no part in the estimate, and goes on by the averages that it has. A parameter must
    be whole.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: what the estimate is multiplied by, >= 0.
        betas: decay of the moving averages of the gradient and of its square, in [0, 1).
        eps: added to the denominator, > 0.
        weight_decay: weight decay, >= 0.
        decouple: decay the parameter instead of adding to the gradient.
        use_bias_correction: correct the moments for their beginning at zero.
        d0: the first estimate, > 0; of several groups, that of the first.
        growth_rate: what the estimate grows by in a step at most.
        layer_scale: what the rate of a group is multiplied by, >= 0; an entry of its group there.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message; a
            parameter that is complex; an option that has to be that of the other groups.

    References:
        Defazio and Mishchenko, 2023, *Learning-Rate-Free Learning by D-Adaptation*;
        ``dadaptation``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import DAdaptAdam
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = DAdaptAdam()
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.99999684, 0.99999684], dtype=float32)
    """

    factory = staticmethod(dadapt_adam)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1.0,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        decouple: bool = False,
        use_bias_correction: bool = False,
        d0: Number = 1e-6,
        growth_rate: Number = math.inf,
        layer_scale: Number = 1.0,
    ) -> Self:
        return cls.with_options(params, locals())
