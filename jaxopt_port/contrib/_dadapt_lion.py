"""Lion with D-Adaptation, which estimates its own rate."""

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
from ..numerics.torch_ops import Scalar, add, mul, sign
from ..optim import ranges
from . import _estimates as estimates
from . import _wide


def _problems(betas: tuple[Scalar, Scalar], **options: Any) -> Iterator[Problem]:
    yield from estimates.arguments(**options)
    yield from ranges.beta_pair(betas)


def _init(param: jax.Array, **_: Any) -> LeafState:
    return {"exp_avg": jnp.zeros_like(param), "s": jnp.zeros_like(param)}


def _start(*, d0: jax.Array, **_: Any) -> Shared:
    return {"begun": False, **estimates.begun(d0, "numerator_weighted")}


def _rates(shared: Shared, *, lr: jax.Array, betas: jax.Array, **_: Any) -> Scalars:
    """Return what a step begins with."""
    dlr, root = _wide.read(shared, "d") * lr, jnp.sqrt(betas[1])
    return {
        "dlr": dlr,
        "beta1": betas[0],
        "weight1": 1 - betas[0],
        "root": root,
        "into_s": (1 - root) * dlr,
    }


def _signs(
    grad: jax.Array,
    state: LeafState,
    *,
    beta1: jax.Array,
    weight1: jax.Array,
    root: jax.Array,
    into_s: jax.Array,
    **_: Any,
) -> tuple[jax.Array, jax.Array]:
    """Return the signs of a step, and ``s`` after it."""
    update = sign(add(mul(state["exp_avg"], beta1), grad, alpha=weight1))
    return update, add(mul(state["s"], root), update, alpha=into_s)


def _gathers(
    grad: jax.Array, param: jax.Array, state: LeafState, shared: Shared, **options: Any
) -> Scalars:
    scalars = _rates(shared, **options)
    update, s = _signs(grad, state, **scalars)
    along = scalars["dlr"] * estimates.dot(update, state["s"])
    return {"numerator": along, "size": estimates.item(jnp.abs(s))}


def _advance(
    shared: Shared,
    *,
    lr: jax.Array,
    betas: jax.Array,
    weight_decay: jax.Array,
    numerator: Scalar = 0.0,
    size: Scalar = 0.0,
    **_: Any,
) -> tuple[Shared, Scalars]:
    scalars = _rates(shared, lr=lr, betas=betas)
    d, dlr, root = _wide.read(shared, "d"), scalars["dlr"], scalars["root"]
    known = jnp.asarray(size) != 0
    weighted = root * _wide.read(shared, "numerator_weighted") + (1 - root) * numerator
    d_hat = estimates.ratio(weighted, (1 - root) * size, known)
    new = jnp.where(lr > 0, estimates.larger(d, d_hat), d)
    after = estimates.followed(shared, known, d=new, numerator_weighted=weighted)
    return {"begun": True, **after}, {
        **scalars,
        "decay": 1 - dlr * weight_decay,
        "beta2": betas[1],
        "weight2": (1 - betas[1]) * dlr,
    }


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    dlr: jax.Array,
    decay: jax.Array,
    beta2: jax.Array,
    weight2: jax.Array,
    **scalars: Any,
) -> tuple[Sum, LeafState]:
    update, s = _signs(grad, state, **scalars)
    exp_avg = add(mul(state["exp_avg"], beta2), grad, alpha=weight2)
    return Sum(mul(param, decay), update, -dlr), {"exp_avg": exp_avg, "s": s}


@of_rule(
    Rule(
        _problems,
        _init,
        _update,
        _start,
        _advance,
        gathers=_gathers,
        common=estimates.common("d", "numerator_weighted"),
        own_options=frozenset({"d0", "weight_decay"}),
        accepts=ranges.OnlyReal("DAdaptLion"),
        begins="begun",
        elementwise=False,
    )
)
def dadapt_lion(
    lr: Number = 1.0,
    betas: tuple[Number, Number] = (0.9, 0.99),
    weight_decay: Number = 0.0,
    d0: Number = 1e-6,
) -> optax.GradientTransformationExtraArgs:
    """Lion with D-Adaptation, which estimates its own rate.

    The Optax spelling of :class:`DAdaptLion`, whose description, arguments, errors and example hold
    for it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(dadapt_lion, locals())


class DAdaptLion(Optimizer):
    """Lion with D-Adaptation, which estimates its own rate.

    The counterpart of ``dadaptation.DAdaptLion``. The estimate is one for all groups; give them the
    same options, but for ``weight_decay``: a rate of 0 in one group is that of the others there.
    A parameter must be whole.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: what the estimate is multiplied by, >= 0.
        betas: weight of the average in a step, and decay of the average, in [0, 1).
        weight_decay: decoupled weight decay, >= 0.
        d0: the first estimate, > 0; of several groups, that of the first.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message; a
            parameter that is complex; an option that has to be that of the other groups.

    References:
        Defazio and Mishchenko, 2023, *Learning-Rate-Free Learning by D-Adaptation*;
        ``dadaptation``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import DAdaptLion
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = DAdaptLion(d0=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.5, 0.5], dtype=float32)
    """

    factory = staticmethod(dadapt_lion)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1.0,
        betas: tuple[Number, Number] = (0.9, 0.99),
        weight_decay: Number = 0.0,
        d0: Number = 1e-6,
    ) -> Self:
        return cls.with_options(params, locals())
