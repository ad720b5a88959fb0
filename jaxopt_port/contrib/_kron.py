"""PSGD with Kronecker factors: preconditioners that are fitted to noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax
from jax import lax

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
from ..numerics.torch_ops import Scalar, add, add_scalar, constant, div, mul, reciprocal, sqrt
from ..optim import decay as decays
from ..optim import ranges
from ._kron_factors import draws, fitted, noise, preconditioned, seen, triangular_axes
from ._left_out import LEFT_OUT, without_none
from ._sums import mean
from ._timm import decay_rate, largest_rate, with_snapshot

_OFTEN = "preconditioner_update_probability"
_MODES = (None, "one_diag", "smart_one_diag", "all_diag")


def _problems(
    lr: Scalar,
    momentum: Scalar,
    weight_decay: Scalar,
    preconditioner_update_probability: Scalar,
    max_size_triangular: int,
    min_ndim_triangular: int,
    memory_save_mode: str | None,
    precond_lr: Scalar,
    precond_init_scale: Scalar,
    flatten_start_dim: int,
    flatten_end_dim: int,
    seed: int,
    **options: Any,
) -> Iterator[Problem]:
    yield from ranges.learning_rate(lr)
    if not 0.0 <= momentum < 1.0:
        yield Problem(f"Invalid beta parameter: {momentum}", "momentum must be in [0, 1)")
    yield from ranges.at_least_zero("weight_decay", weight_decay)
    often = preconditioner_update_probability
    if not (0.0 < often <= 1.0 or often == LEFT_OUT):
        yield Problem(
            f"Invalid preconditioner_update_probability value: {often}", "it must be in (0, 1]"
        )
    yield from ranges.whole("max_size_triangular", max_size_triangular)
    yield from ranges.whole("min_ndim_triangular", min_ndim_triangular)
    if memory_save_mode not in _MODES:
        yield Problem(
            f"Invalid memory_save_mode: {memory_save_mode}", f"it must be one of {list(_MODES)}"
        )
    yield from ranges.at_least_zero("precond_lr", precond_lr)
    yield from ranges.above_zero("precond_init_scale", precond_init_scale)
    yield from largest_rate(**options)
    yield from ranges.whole("flatten_start_dim", flatten_start_dim)
    yield from ranges.whole("flatten_end_dim", flatten_end_dim, -8)
    yield from ranges.whole("seed", seed)
    if isinstance(seed, int) and seed >= 2**64:
        yield Problem(f"Invalid seed value: {seed}", "seed must be below 2**64")


def _accepts(param: jax.Array) -> Problem | None:
    if param.ndim > 13:
        return Problem(f"Got tensor with dim {param.ndim}", "at most 13 axes can be told apart")
    return ranges.OnlyReal("Kron")(param)


def _init(
    param: jax.Array,
    *,
    max_size_triangular: int,
    min_ndim_triangular: int,
    memory_save_mode: str | None,
    precond_init_scale: jax.Array,
    flatten: bool,
    flatten_start_dim: int,
    flatten_end_dim: int,
    **_: Any,
) -> LeafState:
    shape = seen(param.shape, flatten, flatten_start_dim, flatten_end_dim)
    kinds = triangular_axes(shape, max_size_triangular, min_ndim_triangular, memory_save_mode)
    scale = constant(precond_init_scale ** (1 / len(kinds)), param)
    state = {"momentum_buffer": jnp.zeros_like(param, shape=shape)}
    for i, triangular in enumerate(kinds):
        one = jnp.ones(shape[i : i + 1], param.dtype)
        state[f"Q_{i}"] = scale * (jnp.diag(one) if triangular else one)
    return state


def _start(**_: Any) -> Shared:
    return {"step": 0, "update_counter": 0}


def _seldom(step: jax.Array) -> jax.Array:
    """Return timm's schedule of the probability: 1 for 500 steps, 0.03 in the end; in float32."""
    falling = (jnp.float32(-0.001) * (step.astype(jnp.float32) - 500)).astype(jnp.float64)
    return jnp.clip(jnp.exp(falling).astype(jnp.float32), jnp.float32(0.03), jnp.float32(1))


def _advance(
    shared: Shared,
    *,
    lr: jax.Array,
    momentum: jax.Array,
    weight_decay: jax.Array,
    preconditioner_update_probability: jax.Array,
    stochastic_weight_decay: bool,
    seed: int,
    **options: Any,
) -> tuple[Shared, Scalars]:
    step, counter = shared["step"], shared["update_counter"] + 1
    often = preconditioner_update_probability
    between = jnp.where(often == LEFT_OUT, (1 / _seldom(step)).astype(jnp.float64), 1 / often)
    updates = counter.astype(jnp.float64) >= between
    balancing, decaying = draws(seed, step)[1:]
    if stochastic_weight_decay:
        weight_decay = 2 * decaying.astype(jnp.float64) * weight_decay
    return {"step": step + 1, "update_counter": jnp.where(updates, 0, counter)}, {
        "at": step,
        "updates": updates,
        "balances": balancing < 0.01,
        "weight": 1 - momentum,
        "correction": 1 - momentum ** (step + 1).astype(jnp.float64),
        "weight_decay": weight_decay,
        "decay": 1 - decay_rate(lr, **options) * weight_decay,
    }


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    lr: jax.Array,
    momentum: jax.Array,
    momentum_into_precond_update: bool,
    precond_lr: jax.Array,
    decoupled_decay: bool,
    seed: int,
    at: jax.Array,
    updates: jax.Array,
    balances: jax.Array,
    weight: jax.Array,
    correction: jax.Array,
    weight_decay: jax.Array,
    decay: jax.Array,
    **_: Any,
) -> tuple[Sum, LeafState]:
    buffer = state["momentum_buffer"]
    grad = grad.reshape(buffer.shape)
    factors = [state[f"Q_{i}"] for i in range(len(state) - 1)]
    buffer = add(mul(buffer, momentum), grad, alpha=weight)
    debiased = div(buffer, correction)
    given = debiased if momentum_into_precond_update else grad

    def next_factors() -> list[jax.Array]:
        drawn = noise(draws(seed, at)[0], grad)
        return fitted(factors, given, drawn, precond_lr, balances)

    factors = lax.cond(updates, next_factors, lambda: factors)
    update = preconditioned(factors, debiased)
    size = add_scalar(sqrt(mean(mul(update, update))), 1e-8)
    most = mul(reciprocal(size), 1.1)
    update = mul(update, jnp.minimum(most, jnp.ones_like(most))).reshape(param.shape)
    after = {f"Q_{i}": q for i, q in enumerate(factors)}
    if decoupled_decay:
        base = mul(param, decay)
    else:
        base, update = param, decays.l2(update, param, weight_decay)
    return Sum(base, update, -lr), {"momentum_buffer": buffer, **after}


@of_rule(Rule(_problems, _init, _update, _start, _advance, accepts=_accepts, elementwise=False))
def kron(
    lr: Number = 1e-3,
    momentum: Number = 0.9,
    weight_decay: Number = 0.0,
    preconditioner_update_probability: Number | None = LEFT_OUT,
    max_size_triangular: int = 2048,
    min_ndim_triangular: int = 2,
    memory_save_mode: str | None = None,
    momentum_into_precond_update: bool = True,
    precond_lr: Number = 0.1,
    precond_init_scale: Number = 1.0,
    decoupled_decay: bool = False,
    corrected_weight_decay: bool = False,
    max_lr_snapshot: Number | None = LEFT_OUT,
    flatten: bool = False,
    flatten_start_dim: int = 2,
    flatten_end_dim: int = -1,
    stochastic_weight_decay: bool = False,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """PSGD with Kronecker factors: preconditioners that are fitted to noise.

    The Optax spelling of :class:`Kron`, whose description, arguments, errors and example hold for
    it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(kron, with_snapshot(without_none(locals(), _OFTEN)))


class Kron(Optimizer):
    """PSGD with Kronecker factors: preconditioners that are fitted to noise.

    The counterpart of ``timm.optim.Kron``, whose numbers it has where it is given the same noise.
    The noise is another one: timm draws from torch's global generator, here it is
    ``jax.random``'s of ``seed`` and the step, so that a run repeats itself, under ``jit`` and on
    any device. Parameters of one shape are given the same. A parameter must be whole.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, >= 0.
        momentum: decay of the moving average of the gradient, in [0, 1).
        weight_decay: weight decay, >= 0, added to the step.
        preconditioner_update_probability: how often the factors are fitted: each time that one
            over it has passed in steps, in (0, 1]. None, held as infinity, is timm's schedule: in
            each of the first 500 steps, more and more seldom after.
        max_size_triangular: an axis that is longer has a diagonal factor. Static.
        min_ndim_triangular: parameters of fewer axes have diagonal factors. Static.
        memory_save_mode: None; ``"one_diag"``: the longest axis has a diagonal factor;
            ``"smart_one_diag"``: where one is the longest; ``"all_diag"``: all axes. Static.
        momentum_into_precond_update: fit to the average instead of the gradient.
        precond_lr: rate of the factors, >= 0.
        precond_init_scale: what the factors are at first, as one, > 0.
        decoupled_decay: decay the parameter instead: it is multiplied by ``1 - lr * weight_decay``.
        corrected_weight_decay: scale decoupled weight decay by ``lr**2 / max_lr_snapshot``.
        max_lr_snapshot: the largest rate; the one that the optimizer is made with by default.
        flatten: see axes ``flatten_start_dim`` to ``flatten_end_dim`` as one. Static.
        flatten_start_dim: the first of them. Static.
        flatten_end_dim: the last of them. Static.
        stochastic_weight_decay: multiply weight decay by a number from 0 to 2, drawn in each step.
        seed: of the noise, from 0 to ``2**64 - 1``. Static.

    Raises:
        ValueError: a number out of its range, beginning with timm's own message; a parameter that
            is complex.

    References:
        Li, 2018, *Preconditioned Stochastic Gradient Descent*; ``timm.optim.kron``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import Kron
        >>> params = {"weight": jnp.ones((2, 2))}
        >>> grads = {"weight": jnp.diag(jnp.array([3.0, 1.0]))}
        >>> tx = Kron(lr=0.1)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> [[round(float(x), 2) for x in row] for row in params["weight"]]
        [[0.8, 1.0], [1.0, 0.9]]
    """

    factory = staticmethod(kron)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-3,
        momentum: Number = 0.9,
        weight_decay: Number = 0.0,
        preconditioner_update_probability: Number | None = LEFT_OUT,
        max_size_triangular: int = 2048,
        min_ndim_triangular: int = 2,
        memory_save_mode: str | None = None,
        momentum_into_precond_update: bool = True,
        precond_lr: Number = 0.1,
        precond_init_scale: Number = 1.0,
        decoupled_decay: bool = False,
        corrected_weight_decay: bool = False,
        max_lr_snapshot: Number | None = LEFT_OUT,
        flatten: bool = False,
        flatten_start_dim: int = 2,
        flatten_end_dim: int = -1,
        stochastic_weight_decay: bool = False,
        seed: int = 0,
    ) -> Self:
        return cls.with_options(params, with_snapshot(without_none(locals(), _OFTEN)))
