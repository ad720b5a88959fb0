"""SGD with D-Adaptation, which estimates its own rate."""

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
from ..numerics.torch_ops import Scalar, add, mul
from ..optim import decay as decays
from ..optim import ranges
from . import _estimates as estimates
from . import _wide


def _problems(momentum: Scalar, **options: Any) -> Iterator[Problem]:
    yield from estimates.arguments(**options)
    yield from ranges.below_one("momentum", momentum)


def _init(param: jax.Array, **_: Any) -> LeafState:
    return {"z": param, "s": jnp.zeros_like(param), "x0": param}


def _start(*, d0: jax.Array, **_: Any) -> Shared:
    return {"begun": False, **estimates.begun(d0, "numerator_weighted", "g0_norm")}


def _gathers(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    shared: Shared,
    *,
    lr: jax.Array,
    weight_decay: jax.Array,
    **_: Any,
) -> Scalars:
    first = shared["k"] == 0
    dlr = estimates.ratio(_wide.read(shared, "d") * lr, _wide.read(shared, "g0_norm"), ~first)
    decayed = decays.l2(grad, param, weight_decay)
    s = add(state["s"], decayed, alpha=dlr)
    return estimates.of_moving(
        lr,
        # Of the gradient without weight decay, there too.
        g_sq=estimates.item(mul(grad, grad)),
        along=dlr * estimates.dot(decayed, state["s"]),
        sk_sq=estimates.item(mul(s, s)),
    )


def _advance(
    shared: Shared,
    *,
    lr: jax.Array,
    momentum: jax.Array,
    growth_rate: jax.Array,
    g_sq: Scalar = 0.0,
    along: Scalar = 0.0,
    sk_sq: Scalar = 0.0,
    **_: Any,
) -> tuple[Shared, Scalars]:
    first, d = shared["k"] == 0, _wide.read(shared, "d")
    # In the first step, s is the gradient's length, and nothing is along it.
    known = jnp.where(first, g_sq, sk_sq) != 0
    g0_norm = jnp.where(first, jnp.sqrt(g_sq), _wide.read(shared, "g0_norm"))
    weighted = _wide.read(shared, "numerator_weighted") + jnp.where(first, 0.0, along)
    d_hat = estimates.ratio(2 * weighted, jnp.sqrt(sk_sq), known & ~first)
    new = estimates.raised(d, d_hat, growth_rate)
    after = estimates.followed(shared, known, d=new, numerator_weighted=weighted, g0_norm=g0_norm)
    return {"begun": True, **after}, {
        "taken": shared["begun"],
        "moving": lr > 0,
        "known": known,
        "dlr": estimates.ratio(d * lr, g0_norm, known),
        "old_part": 1 - (1 - momentum),
        "new_part": 1 - momentum,
    }


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    weight_decay: jax.Array,
    taken: jax.Array,
    moving: jax.Array,
    known: jax.Array,
    dlr: jax.Array,
    old_part: jax.Array,
    new_part: jax.Array,
    **_: Any,
) -> tuple[jax.Array, LeafState]:
    s = add(state["s"], decays.l2(grad, param, weight_decay), alpha=dlr)
    s = jnp.where(moving, s, state["s"])
    x0 = jnp.where(taken, state["x0"], param)
    z = add(x0, s, alpha=-1.0)
    new = add(mul(param, old_part), z, alpha=new_part)
    unknown = {"z": jnp.where(taken, state["z"], param), "x0": x0, "s": s}
    return jnp.where(known, new, param), {**unknown, "z": jnp.where(known, z, unknown["z"])}


@of_rule(
    Rule(
        _problems,
        _init,
        _update,
        _start,
        _advance,
        gathers=_gathers,
        common=estimates.common("d", "numerator_weighted", "g0_norm"),
        own_options=frozenset({"d0"}),
        zero_rates=True,
        accepts=ranges.OnlyReal("DAdaptSGD"),
        begins="begun",
        elementwise=False,
    )
)
def dadapt_sgd(
    lr: Number = 1.0,
    momentum: Number = 0.0,
    weight_decay: Number = 0.0,
    d0: Number = 1e-6,
    growth_rate: Number = math.inf,
) -> optax.GradientTransformationExtraArgs:
    """SGD with D-Adaptation, which estimates its own rate.

    The Optax spelling of :class:`DAdaptSGD`, whose description, arguments, errors and example hold
    for it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(dadapt_sgd, locals())


class DAdaptSGD(Optimizer):
    """SGD with D-Adaptation, which estimates its own rate.

    The counterpart of ``dadaptation.DAdaptSGD``. The estimate is one for all groups; give them the
    same options, but for a rate of 0: a group that has it has no part in the estimate, and goes on
    by what it has added up. The first step needs a gradient that is not zero; the package divides
    by its length. A parameter must be whole.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: what the estimate is multiplied by, >= 0.
        momentum: what is left of the parameter in a step, in [0, 1).
        weight_decay: L2 penalty, added to the gradient, >= 0.
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
        >>> from jaxopt_port.contrib import DAdaptSGD
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = DAdaptSGD(lr=0.5, d0=1.0)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.6464466, 0.6464466], dtype=float32)
    """

    factory = staticmethod(dadapt_sgd)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1.0,
        momentum: Number = 0.0,
        weight_decay: Number = 0.0,
        d0: Number = 1e-6,
        growth_rate: Number = math.inf,
    ) -> Self:
        return cls.with_options(params, locals())
