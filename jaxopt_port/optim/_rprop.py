"""Resilient backpropagation: steps by the gradient's sign, of a size of each element's own."""

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
    step_count,
)
from ..numerics import uncontracted
from ..numerics.torch_ops import Scalar, add, constant, mul, sign, widened
from . import _ranges


def _problems(lr: Scalar, etas: tuple[Scalar, Scalar], **_: Any) -> Iterator[Problem]:
    yield from _ranges.learning_rate(lr)
    if not 0.0 < etas[0] < 1.0 < etas[1]:
        yield Problem(
            f"Invalid eta values: {etas[0]}, {etas[1]}", "they must be 0 < eta- < 1 < eta+"
        )


def _init(param: jax.Array, *, lr: jax.Array, **_: Any) -> LeafState:
    return {"prev": jnp.zeros_like(param), "step_size": jnp.full_like(param, lr)}


def _advance(
    shared: Shared, *, etas: jax.Array, step_sizes: jax.Array, **_: Any
) -> tuple[Shared, Scalars]:
    etaminus, etaplus = etas
    smallest, largest = step_sizes
    step = shared["step"] + 1
    return {"step": step}, {
        "etaminus": etaminus,
        "etaplus": etaplus,
        "smallest": smallest,
        "largest": largest,
        "first": step == 1,
    }


def _sign_of_product(x: jax.Array, y: jax.Array) -> jax.Array:
    """``x.mul(y).sign()``: 0 where torch's product is, which is no sooner than at a subnormal.

    XLA would flush those to zero on the CPU, so the product is formed a power of two larger.
    """
    least = jnp.finfo(x.dtype).smallest_subnormal
    up = -round(math.log2(float(least))) + 1  # a product of half of it is rounded to zero
    # XLA would multiply the powers by each other first, where the operands are scalars.
    a, b = (widened(jnp.abs(z)) * 2.0**k for z, k in ((x, up // 2), (y, up - up // 2)))
    scaled = uncontracted(a) * uncontracted(b)
    return sign(x) * sign(y) * (scaled > 1).astype(x.dtype)


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    lr: jax.Array,
    maximize: bool,
    etaminus: jax.Array,
    etaplus: jax.Array,
    smallest: jax.Array,
    largest: jax.Array,
    first: jax.Array,
    **_: Any,
) -> tuple[jax.Array, LeafState]:
    if maximize:
        grad = -grad
    # torch makes its state in the first step, of the learning rate that then holds.
    step_size = jnp.where(first, constant(lr, grad), state["step_size"])
    turn = _sign_of_product(grad, state["prev"])
    minus, plus = constant(etaminus, grad), constant(etaplus, grad)
    factor = jnp.where(turn > 0, plus, jnp.where(turn < 0, minus, jnp.ones_like(grad)))
    step_size = jnp.clip(mul(step_size, factor), constant(smallest, grad), constant(largest, grad))
    # Where the sign turned there is no step, and the next one is not compared with this gradient.
    grad = jnp.where(factor == minus, jnp.zeros_like(grad), grad)
    new_param = add(param, mul(sign(grad), step_size), alpha=-1.0)
    return new_param, {"prev": grad, "step_size": step_size}


@of_rule(Rule(_problems, _init, _update, step_count, _advance))
def rprop(
    lr: Number = 1e-2,
    etas: tuple[Number, Number] = (0.5, 1.2),
    step_sizes: tuple[Number, Number] = (1e-6, 50.0),
    *,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Resilient backpropagation: steps by the gradient's sign, of a size of each element's own.

    The counterpart of ``torch.optim.Rprop``: where the sign of the gradient turns, the step is made
    smaller and this gradient is taken as 0. (``optax.rprop`` changes the size one step late.)

    A plain Optax transformation. A number may be a schedule, a callable of the update count.

    Args:
        lr: the size that each element's step starts with, >= 0; read in the first step alone.
        etas: factors of the step size where the sign turns and where it stays, ``0 < eta- < 1 <
            eta+``.
        step_sizes: the least and the greatest step size.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Riedmiller and Braun, 1993, *A direct adaptive method for faster backpropagation learning:
        the RPROP algorithm*; ``torch.optim.Rprop``, ``torch.optim.rprop._single_tensor_rprop``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.array([3.0, -0.1])}
        >>> tx = jp.rprop(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.5, 1.5], dtype=float32)
    """
    return leafwise(rprop, locals())


class Rprop(Optimizer):
    """Resilient backpropagation: steps by the gradient's sign, of a size of each element's own.

    The counterpart of ``torch.optim.Rprop``: where the sign of the gradient turns, the step is made
    smaller and this gradient is taken as 0. (``optax.rprop`` changes the size one step late.)

    With parameter groups; every number can be set between steps, by ``jp.set_hyperparams``, and may
    be a schedule, a callable of the update count.

    Args:
        params: parameter groups, as torch takes them: a list of dicts with ``"params"``, a selector
            (a path prefix, a glob, a compiled regex, a predicate ``(path, leaf) -> bool``, a
            boolean tree, a list of these, or ``jp.REST``), and options. A selector alone is one
            group; the default is all parameters.
        lr: the size that each element's step starts with, >= 0; read in the first step alone.
        etas: factors of the step size where the sign turns and where it stays, ``0 < eta- < 1 <
            eta+``.
        step_sizes: the least and the greatest step size.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with torch's own message.

    References:
        Riedmiller and Braun, 1993, *A direct adaptive method for faster backpropagation learning:
        the RPROP algorithm*; ``torch.optim.Rprop``, ``torch.optim.rprop._single_tensor_rprop``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.array([3.0, -0.1])}
        >>> tx = jp.Rprop(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.5, 1.5], dtype=float32)
    """

    factory = staticmethod(rprop)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-2,
        etas: tuple[Number, Number] = (0.5, 1.2),
        step_sizes: tuple[Number, Number] = (1e-6, 50.0),
        *,
        maximize: bool = False,
    ) -> Self:
        return cls.with_options(params, locals())
