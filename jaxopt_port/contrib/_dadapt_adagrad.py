"""Adagrad with D-Adaptation, which estimates its own rate."""

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
from ..optim import decay as decays
from ..optim import ranges
from . import _estimates as estimates
from . import _wide


def _problems(momentum: Scalar, eps: Scalar, **options: Any) -> Iterator[Problem]:
    yield from estimates.arguments(**options)
    yield from ranges.below_one("momentum", momentum)
    yield from estimates.epsilon(eps)


def _init(param: jax.Array, **_: Any) -> LeafState:
    return {"alphak": jnp.full_like(param, 1e-6), "sk": jnp.zeros_like(param), "x0": param}


_SUMS = ("gsq_weighted", "sksq_weighted", "skl1")


def _start(*, d0: jax.Array, **_: Any) -> Shared:
    return {"begun": False, **estimates.begun(d0, *_SUMS)}


def _added(
    grad: jax.Array, param: jax.Array, state: LeafState, weight_decay: Scalar, dlr: jax.Array
) -> tuple[jax.Array, LeafState]:
    """Return the gradient after weight decay, and the sums with it added."""
    grad = decays.l2(grad, param, weight_decay)
    sums = {
        "alphak": add(state["alphak"], mul(grad, grad)),
        "sk": add(state["sk"], grad, alpha=dlr),
    }
    return grad, sums


def _denom(state: LeafState, eps: jax.Array) -> jax.Array:
    return add_scalar(sqrt(state["alphak"]), eps)


def _gathers(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    shared: Shared,
    *,
    lr: jax.Array,
    weight_decay: jax.Array,
    eps: jax.Array,
    **_: Any,
) -> Scalars:
    grad, after = _added(grad, param, state, weight_decay, _wide.read(shared, "d") * lr)

    def weighted(x: jax.Array, held: LeafState) -> jax.Array:
        return estimates.item(div(mul(x, x), _denom(held, eps)))

    def size(held: LeafState) -> jax.Array:
        return estimates.item(jnp.abs(held["sk"]))

    return {
        "g_sq": weighted(grad, after),
        "sksq": weighted(after["sk"], after) - weighted(state["sk"], state),
        "longer": size(after) - size(state),
    }


def _advance(
    shared: Shared,
    *,
    lr: jax.Array,
    momentum: jax.Array,
    growth_rate: jax.Array,
    g_sq: Scalar = 0.0,
    sksq: Scalar = 0.0,
    longer: Scalar = 0.0,
    **_: Any,
) -> tuple[Shared, Scalars]:
    d = _wide.read(shared, "d")
    gsq_weighted, sksq_weighted, skl1 = (_wide.read(shared, name) for name in _SUMS)
    sksq_weighted, skl1 = sksq_weighted + sksq, skl1 + longer
    dlr, known = d * lr, skl1 != 0
    gsq_weighted = gsq_weighted + dlr * dlr * g_sq
    d_hat = estimates.ratio(sksq_weighted - gsq_weighted, skl1, known)
    new = jnp.where(lr > 0, estimates.raised(d, d_hat, growth_rate), d)
    sums = dict(zip(_SUMS, (gsq_weighted, sksq_weighted, skl1), strict=True))
    return {"begun": True, **estimates.followed(shared, known, d=new, **sums)}, {
        "taken": shared["begun"],
        "known": known,
        "dlr": dlr,
        "old_part": 1 - (1 - momentum),
        "new_part": 1 - momentum,
    }


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    momentum: jax.Array,
    weight_decay: jax.Array,
    eps: jax.Array,
    taken: jax.Array,
    known: jax.Array,
    dlr: jax.Array,
    old_part: jax.Array,
    new_part: jax.Array,
    **_: Any,
) -> tuple[jax.Array, LeafState]:
    after = _added(grad, param, state, weight_decay, dlr)[1]
    x0 = jnp.where(taken, state["x0"], param)
    z = add(x0, div(after["sk"], _denom(after, eps)), alpha=-1.0)
    slower = add(mul(param, old_part), z, alpha=new_part)
    new = jnp.where(momentum != 0, slower, z)
    return jnp.where(known, new, param), {**after, "x0": x0}


@of_rule(
    Rule(
        _problems,
        _init,
        _update,
        _start,
        _advance,
        gathers=_gathers,
        common=estimates.common("d", *_SUMS),
        own_options=frozenset({"d0", "weight_decay", "eps"}),
        accepts=ranges.OnlyReal("DAdaptAdaGrad"),
        begins="begun",
        elementwise=False,
    )
)
def dadapt_adagrad(
    lr: Number = 1.0,
    momentum: Number = 0.0,
    weight_decay: Number = 0.0,
    eps: Number = 1e-6,
    d0: Number = 1e-6,
    growth_rate: Number = math.inf,
) -> optax.GradientTransformationExtraArgs:
    """Adagrad with D-Adaptation, which estimates its own rate.

    The Optax spelling of :class:`DAdaptAdaGrad`, whose description, arguments, errors and example
    hold for it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(dadapt_adagrad, locals())


class DAdaptAdaGrad(Optimizer):
    """Adagrad with D-Adaptation, which estimates its own rate.

    The counterpart of ``dadaptation.DAdaptAdaGrad``, for gradients that are not sparse. The
    estimate is one for all groups; give them the same options, but for ``weight_decay`` and
    ``eps``: the first group's count for all there. A parameter must be whole.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: what the estimate is multiplied by, >= 0.
        momentum: what is left of the parameter in a step, in [0, 1).
        weight_decay: L2 penalty, added to the gradient, >= 0.
        eps: added to the denominator, > 0.
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
        >>> from jaxopt_port.contrib import DAdaptAdaGrad
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = DAdaptAdaGrad(d0=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.50000024, 0.50000024], dtype=float32)
    """

    factory = staticmethod(dadapt_adagrad)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1.0,
        momentum: Number = 0.0,
        weight_decay: Number = 0.0,
        eps: Number = 1e-6,
        d0: Number = 1e-6,
        growth_rate: Number = math.inf,
    ) -> Self:
        return cls.with_options(params, locals())
