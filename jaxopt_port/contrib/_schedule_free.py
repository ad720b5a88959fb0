"""What the schedule-free optimizers share, and the parameters to evaluate.

A parameter in training is ``y``, between the last step ``z`` and the weighted average ``x`` of all
steps; ``x`` is what is evaluated, and is not kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from ..engine import (
    LeafState,
    Problem,
    Scalars,
    Shared,
    Sum,
    find_groups_state,
    get_hyperparams,
    leaf_paths,
    leaf_states,
)
from ..numerics.torch_ops import Scalar, add, add_scalar, addcmul, div, lerp, mul, sqrt
from ..optim import decay as decays
from . import _wide


def start(**_: Any) -> Shared:
    return {"k": 0, **_wide.kept("weight_sum", 0.0), **_wide.kept("lr_max", -1.0)}


def first_beta(betas: tuple[Scalar, Scalar]) -> Iterator[Problem]:
    if betas[0] == 0:
        yield Problem(
            f"betas[0] must be above 0: {betas[0]}",
            "of what is trained without an average, that to evaluate cannot be had",
        )


def warmed(shared: Shared, lr: jax.Array, warmup_steps: int) -> jax.Array:
    """Return the rate of a step, which grows over the first of them."""
    if not warmup_steps:
        return lr
    k = shared["k"].astype(jnp.float64)
    return lr * jnp.where(k < warmup_steps, (k + 1) / warmup_steps, 1.0)


def advanced(
    shared: Shared,
    *,
    rate: jax.Array,
    beta: jax.Array,
    r: jax.Array,
    weight_lr_power: jax.Array,
    **_: Any,
) -> tuple[Shared, Scalars]:
    """Return what is shared after a step, and what `moved` needs."""
    k = shared["k"] + 1
    lr_max = jnp.maximum(rate, _wide.read(shared, "lr_max"))
    weight = k.astype(jnp.float64) ** r * lr_max**weight_lr_power
    total = _wide.read(shared, "weight_sum") + weight
    share = jnp.where(total != 0, weight / jnp.where(total != 0, total, 1.0), 0.0)
    after = {"k": k, **_wide.kept("weight_sum", total), **_wide.kept("lr_max", lr_max)}
    return after, {
        "first": k == 1,
        "share": share,
        "y_step": rate * (beta * (1 - share) - 1),
        "z_step": -rate,
    }


def moved(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    first: jax.Array,
    share: jax.Array,
    y_step: jax.Array,
    z_step: jax.Array,
    **_: Any,
) -> tuple[Sum, LeafState]:
    z = jnp.where(first, param, state["z"])
    return Sum(lerp(param, z, share), grad, y_step), {"z": add(z, grad, alpha=z_step)}


def init_with_squares(param: jax.Array, **_: Any) -> LeafState:
    return {"z": param, "exp_avg_sq": jnp.zeros_like(param)}


def update_by_squares(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    eps: jax.Array,
    weight_decay: jax.Array,
    beta2: jax.Array,
    weight2: jax.Array,
    correction2: jax.Array,
    known: jax.Array | bool = True,
    **scalars: Any,
) -> tuple[Sum, LeafState]:
    """Step by a gradient over the root of its average square, where that is known."""
    exp_avg_sq = addcmul(mul(state["exp_avg_sq"], beta2), grad, grad, value=weight2)
    normed = div(grad, add_scalar(sqrt(div(exp_avg_sq, correction2)), eps))
    grad = decays.l2(jnp.where(known, normed, grad), param, weight_decay)
    new, after = moved(grad, param, state, **scalars)
    return new, {**after, "exp_avg_sq": exp_avg_sq}


def schedule_free_eval_params(state: Any, params: Any) -> Any:
    """Return the parameters to evaluate, of those in training.

    The counterpart of ``optimizer.eval()`` of schedulefree, which overwrites the parameters; here
    those in training are kept, and are what the next step takes. What another optimizer steps, in
    a group of its own, is left as it is.

    Args:
        state: of an optimizer with groups.
        params: the parameters in training.

    Returns:
        A tree like ``params``.

    Raises:
        ValueError: no group is stepped by a schedule-free optimizer, or ``params`` are others than
            those of the state.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import SGDScheduleFree, schedule_free_eval_params
        >>> tx, params = SGDScheduleFree(lr=0.5), {"weight": jnp.ones(2)}
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     params, state = jp.step(tx, {"weight": jnp.ones(2)}, state, params)
        >>> schedule_free_eval_params(state, params)["weight"]
        Array([0.25, 0.25], dtype=float32)
    """
    return _between(state, params, lambda beta: 1 - 1 / beta)


def schedule_free_train_params(state: Any, params: Any) -> Any:
    """Return the parameters in training, of those to evaluate: undoes the other.

    The counterpart of ``optimizer.train()`` of schedulefree. The arguments are those of
    `schedule_free_eval_params`, but for ``params``, which are those to evaluate.
    """
    return _between(state, params, lambda beta: 1 - beta)


def _between(state: Any, params: Any, weight: Any) -> Any:
    found = find_groups_state(state)
    held, options = leaf_states(state), get_hyperparams(state)
    betas: dict[str, float] = {}
    for group in found.table.trained:
        own = options[group]
        stepped = [p for p in found.table.paths_of(group) if "weight_sum" in held.get(p, ())]
        if stepped:
            beta = own["momentum"] if "momentum" in own else own["betas"][0]
            betas |= dict.fromkeys(stepped, beta)
    if not betas:
        raise ValueError("no parameter is stepped by a schedule-free optimizer")
    leaves, new = dict(leaf_paths(params)), []
    missing = [path for path in betas if path not in leaves]
    # Where the state is a part of another, there may be what others step.
    unknown = [path for path in leaves if path not in found.table.paths and state is found]
    if missing or unknown:
        raise ValueError(
            "the parameters are not those of the state: they "
            + (f'have no "{missing[0]}"' if missing else f'have a "{unknown[0]}", which it has not')
        )
    for path, leaf in leaves.items():
        if path in betas:
            own = held[path]
            with jax.enable_x64(True):
                moved = lerp(leaf, own["z"], weight(betas[path]))
            leaf = jnp.where(own["k"] > 0, moved, leaf)
        new.append(leaf)
    return jax.tree.unflatten(jax.tree.structure(params), new)
