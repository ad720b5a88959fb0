"""Adam whose moments are held in eight bits."""

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
    leafwise,
    of_rule,
    step_count,
)
from ..numerics.torch_ops import add_scalar, div, mul, rounded, sqrt
from ..optim import ranges
from . import _eight_bits


def _problems(
    amsgrad: bool, block_size: int, bf16_stochastic_round: bool, **options: Any
) -> Iterator[Problem]:
    yield from ranges.adam(**options)
    yield from ranges.whole("block_size", block_size, 1)
    if amsgrad:
        yield Problem(
            "amsgrad=True has no numbers to be compared with: torchao 0.18's step fails with it",
            "leave it out, or take jp.Adam",
        )
    if bf16_stochastic_round:
        yield Problem(
            "bf16_stochastic_round=True draws torch's random numbers, which are not had here",
            "leave it out: a bfloat16 parameter is rounded to the nearest",
        )


def _init(param: jax.Array, *, block_size: int, **_: Any) -> LeafState:
    exp_avg, exp_avg_sq = (
        _eight_bits.zeros(name, param, block_size) for name in ("exp_avg", "exp_avg_sq")
    )
    return exp_avg | exp_avg_sq


def _single(x: jax.Array) -> jax.Array:
    """Round to float32: rate and step are tensors of it there, and so is what follows from them."""
    return lax.reduce_precision(x, 8, 23)


def _advance(
    shared: Shared, *, lr: jax.Array, betas: jax.Array, weight_decay: jax.Array, **_: Any
) -> tuple[Shared, Scalars]:
    step = shared["step"] + 1
    corrections = _single(1 - _single(_single(betas) ** step.astype(jnp.float64)))
    weights = 1 - betas
    weights = jnp.where(weights < 0.5, weights, weights - 1)
    return {"step": step}, {
        "lr": _single(lr),
        "decay": _single(_single(lr) * _single(weight_decay)),
        "weight1": weights[0],
        "weight2": weights[1],
        "correction1": corrections[0],
        "correction2_root": _single(jnp.sqrt(corrections[1])),
    }


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    lr: jax.Array,
    eps: jax.Array,
    weight_decay: jax.Array,
    decay: jax.Array,
    weight1: jax.Array,
    weight2: jax.Array,
    correction1: jax.Array,
    correction2_root: jax.Array,
    decoupled: bool = False,
    **_: Any,
) -> tuple[jax.Array, LeafState]:
    # In float32, whatever the parameter is.
    wide, grad = param.astype(jnp.float32), grad.astype(jnp.float32)
    if decoupled:
        wide = wide - mul(wide, decay)
    else:
        grad = grad + mul(wide, weight_decay)
    exp_avg = _eight_bits.lerp(_eight_bits.read("exp_avg", state), grad, weight1)
    exp_avg_sq = _eight_bits.lerp(_eight_bits.read("exp_avg_sq", state), mul(grad, grad), weight2)
    after = _eight_bits.written("exp_avg", exp_avg, state)
    after |= _eight_bits.written("exp_avg_sq", exp_avg_sq, state)
    # The step is taken with the moments before they are rounded to codes.
    denom = add_scalar(div(sqrt(exp_avg_sq), correction2_root), eps)
    new = wide - div(mul(div(exp_avg, correction1), lr), denom)
    return rounded(new, param.dtype), after


def _oriented(shape: tuple[int, ...], block_size: int = 256, **_: Any) -> bool:
    # Other numbers share a block.
    return len(shape) > 1 and _eight_bits.is_held_as_codes(shape, block_size)


RULE = Rule(
    _problems,
    _init,
    _update,
    step_count,
    _advance,
    accepts=ranges.OnlyReal("8-bit Adam"),
    elementwise=False,
    oriented=_oriented,
)


@of_rule(RULE)
def adam8bit(
    lr: Number = 1e-3,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-8,
    weight_decay: Number = 0.0,
    amsgrad: bool = False,
    *,
    block_size: int = 256,
    bf16_stochastic_round: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Adam whose moments are held in eight bits.

    The Optax spelling of :class:`Adam8bit`, whose description, arguments, errors and example hold
    for it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(adam8bit, locals())


class Adam8bit(Optimizer):
    """Adam whose moments are held in eight bits.

    The counterpart of ``torchao.optim.Adam8bit``, whose weight decay is an L2 penalty. A parameter
    of 4096 numbers or more, in whole blocks, has its moments as codes: ``exp_avg`` (uint8, in the
    parameter's shape) and ``exp_avg_scale`` (float32, one a block); any other has them in its own
    type. The step is calculated in float32, also of a float64 parameter; rate, step count and bias
    corrections are float32, as they are there. Blocks run along the flattened parameter, which
    must be whole: under ``jax.jit`` it may be split over devices, with one device's numbers.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, >= 0.
        betas: decay of the averages of the gradient and of its square, in [0, 1).
        eps: added to the denominator, >= 0.
        weight_decay: L2 penalty, >= 0.
        amsgrad: False; there, a step fails where it is True.
        block_size: numbers that share a scale. One for all groups there.
        bf16_stochastic_round: False; there, True rounds bfloat16 parameters at random.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message; a
            parameter that is complex, or of which a device within ``jax.shard_map`` has a part.

    References:
        Dettmers et al., 2022, *8-bit Optimizers via Block-wise Quantization*; ``torchao.optim``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import Adam8bit
        >>> params = {"weight": jnp.ones((64, 64))}
        >>> tx = Adam8bit(lr=0.5)
        >>> params, state = jp.step(tx, params, tx.init(params), params)
        >>> state.leaves["exp_avg"]["weight"].dtype, state.leaves["exp_avg_scale"]["weight"].shape
        (dtype('uint8'), (16,))
    """

    factory = staticmethod(adam8bit)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        amsgrad: bool = False,
        *,
        block_size: int = 256,
        bf16_stochastic_round: bool = False,
    ) -> Self:
        return cls.with_options(params, locals())
