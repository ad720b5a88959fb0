"""Adan with D-Adaptation, which estimates its own rate."""

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
from ..numerics.torch_ops import Scalar, add, add_scalar, div, mul, sqrt
from ..optim import ranges
from . import _estimates as estimates
from . import _wide


def _problems(
    betas: tuple[Scalar, Scalar, Scalar], eps: Scalar, **options: Any
) -> Iterator[Problem]:
    yield from estimates.arguments(**options)
    yield from estimates.epsilon(eps)
    yield from ranges.beta_pair(betas)


_AVERAGES = ("s", "exp_avg", "exp_avg_diff", "exp_avg_sq")


def _init(param: jax.Array, **_: Any) -> LeafState:
    return {name: jnp.zeros_like(param) for name in (*_AVERAGES, "pre_grad")}


def _start(*, d0: jax.Array, **_: Any) -> Shared:
    return {"step": 0.0, **estimates.begun(d0, "gsq_weighted")}


def _weights(shared: Shared, *, lr: jax.Array, betas: jax.Array, **_: Any) -> Scalars:
    """Return what the averages of a step are made with."""
    dlr = _wide.read(shared, "d") * lr
    return {
        "first": shared["step"] == 0,
        **{f"beta{i}": beta for i, beta in enumerate(betas, 1)},
        "weight1": dlr * (1 - betas[0]),
        "weight2": dlr * (1 - betas[1]),
        "weight3": 1 - betas[2],
        "into_s": dlr * (1 - betas[2]),
    }


def _averaged(
    grad: jax.Array,
    state: LeafState,
    *,
    first: jax.Array,
    beta1: jax.Array,
    weight1: jax.Array,
    beta2: jax.Array,
    weight2: jax.Array,
    beta3: jax.Array,
    weight3: jax.Array,
    into_s: jax.Array,
    **_: Any,
) -> LeafState:
    """Return the averages with a gradient in them."""
    change = jnp.where(first, jnp.zeros_like(grad), add(grad, state["pre_grad"], alpha=-1.0))
    ahead = add(grad, mul(change, beta2))
    return {
        "s": add(mul(state["s"], beta3), grad, alpha=into_s),
        "exp_avg": add(mul(state["exp_avg"], beta1), grad, alpha=weight1),
        "exp_avg_diff": add(mul(state["exp_avg_diff"], beta2), change, alpha=weight2),
        "exp_avg_sq": add(mul(state["exp_avg_sq"], beta3), mul(ahead, ahead), alpha=weight3),
    }


def _denom(held: LeafState, eps: jax.Array) -> jax.Array:
    return add_scalar(sqrt(held["exp_avg_sq"]), eps)


def _gathers(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    shared: Shared,
    *,
    eps: jax.Array,
    **options: Any,
) -> Scalars:
    after = _averaged(grad, state, **_weights(shared, **options))
    s, denom = after["s"], _denom(after, eps)
    return {
        "g_sq": estimates.item(div(mul(grad, grad), denom)),
        "sksq_weighted": estimates.item(div(mul(s, s), denom)),
        "size": estimates.item(jnp.abs(s)),
    }


def _advance(
    shared: Shared,
    *,
    lr: jax.Array,
    betas: jax.Array,
    weight_decay: jax.Array,
    growth_rate: jax.Array,
    g_sq: Scalar = 0.0,
    sksq_weighted: Scalar = 0.0,
    size: Scalar = 0.0,
    **_: Any,
) -> tuple[Shared, Scalars]:
    d, beta3, known = _wide.read(shared, "d"), betas[2], jnp.asarray(size) != 0
    dlr = d * lr
    gsq_weighted = beta3 * _wide.read(shared, "gsq_weighted") + g_sq * dlr**2 * (1 - beta3)
    d_hat = estimates.ratio(sksq_weighted / (1 - beta3) - gsq_weighted, size, known)
    new = jnp.where(lr > 0, estimates.raised(d, d_hat, growth_rate), d)
    after = estimates.followed(shared, known, d=new, gsq_weighted=gsq_weighted)
    return {"step": shared["step"] + known.astype(jnp.float32), **after}, {
        **_weights(shared, lr=lr, betas=betas),
        "known": known,
        "shrunk": 1 - dlr * weight_decay,
        "grown": 1 + dlr * weight_decay,
    }


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    eps: jax.Array,
    no_prox: bool,
    known: jax.Array,
    shrunk: jax.Array,
    grown: jax.Array,
    **scalars: Any,
) -> tuple[jax.Array, LeafState]:
    after = _averaged(grad, state, **scalars)
    ahead = add(after["exp_avg"], mul(after["exp_avg_diff"], scalars["beta2"]))
    update = div(ahead, _denom(after, eps))
    new = add(mul(param, shrunk) if no_prox else param, update, alpha=-1.0)
    new = new if no_prox else div(new, grown)
    pre_grad = jnp.where(known | scalars["first"], grad, state["pre_grad"])
    return jnp.where(known, new, param), {**after, "pre_grad": pre_grad}


@of_rule(
    Rule(
        _problems,
        _init,
        _update,
        _start,
        _advance,
        gathers=_gathers,
        common=estimates.common("d", "gsq_weighted"),
        own_options=frozenset({"d0", "weight_decay", "eps"}),
        accepts=ranges.OnlyReal("DAdaptAdan"),
        elementwise=False,
    )
)
def dadapt_adan(
    lr: Number = 1.0,
    betas: tuple[Number, Number, Number] = (0.98, 0.92, 0.99),
    eps: Number = 1e-8,
    weight_decay: Number = 0.02,
    no_prox: bool = False,
    d0: Number = 1e-6,
    growth_rate: Number = math.inf,
) -> optax.GradientTransformationExtraArgs:
    """Adan with D-Adaptation, which estimates its own rate.

    The Optax spelling of :class:`DAdaptAdan`, whose description, arguments, errors and example hold
    for it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(dadapt_adan, locals())


class DAdaptAdan(Optimizer):
    """Adan with D-Adaptation, which estimates its own rate.

    The counterpart of ``dadaptation.DAdaptAdan``. The estimate is one for all groups; give them the
    same options, but for ``weight_decay`` and ``eps``: the first group's count for all there. A
    parameter must be whole.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: what the estimate is multiplied by, >= 0.
        betas: decay of the moving averages of the gradient, of its change, and of their squares,
            in [0, 1).
        eps: added to the denominator, > 0.
        weight_decay: decoupled weight decay, >= 0.
        no_prox: decay the parameter before its step, instead of dividing it after.
        d0: the first estimate, > 0; of several groups, that of the first.
        growth_rate: what the estimate grows by in a step at most.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message; a
            parameter that is complex; an option that has to be that of the other groups.

    References:
        Defazio and Mishchenko, 2023, *Learning-Rate-Free Learning by D-Adaptation*;
        ``dadaptation``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import DAdaptAdan
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = DAdaptAdan(d0=0.1)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.978044, 0.978044], dtype=float32)
    """

    factory = staticmethod(dadapt_adan)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1.0,
        betas: tuple[Number, Number, Number] = (0.98, 0.92, 0.99),
        eps: Number = 1e-8,
        weight_decay: Number = 0.02,
        no_prox: bool = False,
        d0: Number = 1e-6,
        growth_rate: Number = math.inf,
    ) -> Self:
        return cls.with_options(params, locals())
