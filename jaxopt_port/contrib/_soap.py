"""SOAP: Adam in the eigenbases of Shampoo's preconditioner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from ..numerics.torch_ops import Scalar, add, add_scalar, div, lerp, mul, rounded, sqrt, widened
from ..optim import moments, ranges
from . import _pytorch_optimizer as package
from ._left_out import LEFT_OUT, without_none
from ._sums import mean, total


def _problems(
    lr: Scalar,
    betas: tuple[Scalar, Scalar],
    shampoo_beta: Scalar,
    weight_decay: Scalar,
    precondition_frequency: int,
    max_precondition_dim: int,
    eps: Scalar,
    **_: Any,
) -> Iterator[Problem]:
    yield from package.learning_rate(lr)
    yield from package.decays(betas)
    yield from package.at_least_zero("shampoo_beta", shampoo_beta)
    if 1.0 <= shampoo_beta < LEFT_OUT:
        yield Problem(f"no gradient has a part at shampoo_beta={shampoo_beta}", "it must be < 1")
    yield from package.at_least_zero("weight_decay", weight_decay)
    yield from ranges.whole("precondition_frequency", precondition_frequency, 1)
    yield from ranges.whole("max_precondition_dim", max_precondition_dim, 1)
    yield from package.at_least_zero("eps", eps)


def _axes(
    shape: tuple[int, ...], max_precondition_dim: int, precondition_1d: bool
) -> dict[int, str]:
    """Return the axes that have a preconditioner, and how their part of the state ends."""
    if len(shape) == 1 and not precondition_1d:
        return {}
    return {i: f"_{i}" for i, size in enumerate(shape) if 0 < size <= max_precondition_dim}


def _init(
    param: jax.Array, *, max_precondition_dim: int, precondition_1d: bool, **_: Any
) -> LeafState:
    state = moments.init(param)
    for axis, end in _axes(param.shape, max_precondition_dim, precondition_1d).items():
        square = jnp.zeros((param.shape[axis],) * 2, param.dtype)
        state |= {f"GG{end}": square, f"Q{end}": square}
    return state


def _advance(
    shared: Shared,
    *,
    lr: jax.Array,
    betas: jax.Array,
    shampoo_beta: jax.Array,
    weight_decay: jax.Array,
    precondition_frequency: int,
    correct_bias: bool,
    **_: Any,
) -> tuple[Shared, Scalars]:
    # The first gradient makes the bases, and no step.
    step = shared["step"]
    first = step == 0
    corrections = jnp.where(first, 1.0, 1 - betas ** step.astype(jnp.float64))
    scale = jnp.sqrt(corrections[1]) / corrections[0] if correct_bias else 1.0
    return {"step": step + 1}, {
        "first": first,
        "turns": ~first & (step % precondition_frequency == 0),
        "weight1": 1 - betas[0],
        "weight2": 1 - betas[1],
        "weight_gg": 1 - jnp.where(shampoo_beta == LEFT_OUT, betas[1], shampoo_beta),
        "step_size": lr * scale,
        "decay": 1 - weight_decay * lr,
    }


def _product(x: jax.Array, y: jax.Array, over: tuple[list[int], list[int]]) -> jax.Array:
    """``torch.tensordot(x, y, over)``."""
    kind, best = widened(x).dtype, lax.Precision.HIGHEST
    return rounded(jnp.tensordot(x, y, over, precision=best, preferred_element_type=kind), x.dtype)


def _turned(x: jax.Array, bases: Mapping[int, jax.Array], *, back: bool = False) -> jax.Array:
    """Return an array in the bases of its axes, or out of them; each axis goes to the end once."""
    for axis in range(x.ndim):
        basis = bases.get(axis)
        x = jnp.moveaxis(x, 0, -1) if basis is None else _product(x, basis, ([0], [int(back)]))
    return x


def _eigenvectors(gram: jax.Array) -> jax.Array:
    """Return the first basis; which sign a vector has does not matter to a step."""
    # torch has no decomposition in low precision, and takes float64 for it.
    wide = gram if widened(gram) is gram else gram.astype(jnp.float64)
    found = jnp.linalg.eigh(
        wide + 1e-30 * jnp.eye(len(gram), dtype=wide.dtype), symmetrize_input=False
    )
    return jnp.flip(found[1], 1).astype(gram.dtype)


def _power_iterated(gram: jax.Array, basis: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the next basis, and the order of its vectors, the largest eigenvalue first."""
    product = _product(gram, basis, ([1], [0]))
    eigenvalues = rounded(total(mul(basis, product), 0), gram.dtype)
    order = jnp.argsort(eigenvalues, descending=True)
    # Decomposed in float32 there, of float64 too: here it is rounded to it once.
    narrow = lax.reduce_precision(widened(product[:, order]), 8, 23)
    basis = lax.reduce_precision(jnp.linalg.qr(narrow)[0], 8, 23)
    return basis.astype(gram.dtype), order


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    max_precondition_dim: int,
    precondition_1d: bool,
    normalize_gradient: bool,
    eps: jax.Array,
    maximize: bool,
    first: jax.Array,
    turns: jax.Array,
    weight1: jax.Array,
    weight2: jax.Array,
    weight_gg: jax.Array,
    step_size: jax.Array,
    decay: jax.Array,
    **_: Any,
) -> tuple[jax.Array, LeafState]:
    grad = -grad if maximize else grad
    axes = _axes(param.shape, max_precondition_dim, precondition_1d)
    bases = {axis: state[f"Q{end}"] for axis, end in axes.items()}
    exp_avg = lerp(state["exp_avg"], grad, weight1)
    turned = _turned(grad, bases)
    exp_avg_sq = lerp(state["exp_avg_sq"], mul(turned, turned), weight2)
    denom = add_scalar(sqrt(exp_avg_sq), eps)
    update = _turned(div(_turned(exp_avg, bases), denom), bases, back=True)
    if normalize_gradient:
        update = div(update, add_scalar(sqrt(mean(mul(update, update))), eps))
    new = mul(add(param, update, alpha=-step_size), decay)  # decayed after the step
    grams = {}
    for axis, end in axes.items():
        others = [i for i in range(grad.ndim) if i != axis]
        outer = _product(grad, grad, (others, others))
        grams[axis] = lerp(state[f"GG{end}"], outer, weight_gg)

    def begun() -> tuple[dict[int, jax.Array], jax.Array]:
        return {axis: _eigenvectors(gram) for axis, gram in grams.items()}, state["exp_avg_sq"]

    def turning() -> tuple[dict[int, jax.Array], jax.Array]:
        found, squares = {}, exp_avg_sq
        for axis, gram in grams.items():
            found[axis], order = _power_iterated(gram, bases[axis])
            squares = jnp.take(squares, order, axis)
        return found, squares

    case = jnp.where(first, 0, jnp.where(turns, 1, 2))
    next_bases, squares = lax.switch(case, [begun, turning, lambda: (bases, exp_avg_sq)])
    after = {f"GG{end}": grams[axis] for axis, end in axes.items()}
    after |= {f"Q{end}": next_bases[axis] for axis, end in axes.items()}
    moved = {"exp_avg": jnp.where(first, state["exp_avg"], exp_avg), "exp_avg_sq": squares}
    return jnp.where(first, param, new), after | moved


@of_rule(
    Rule(
        _problems,
        _init,
        _update,
        step_count,
        _advance,
        accepts=ranges.OnlyReal("SOAP"),
        elementwise=False,
    )
)
def soap(
    lr: Number = 3e-3,
    betas: tuple[Number, Number] = (0.95, 0.95),
    shampoo_beta: Number | None = LEFT_OUT,
    weight_decay: Number = 1e-2,
    precondition_frequency: int = 10,
    max_precondition_dim: int = 10000,
    precondition_1d: bool = False,
    correct_bias: bool = True,
    normalize_gradient: bool = False,
    eps: Number = 1e-8,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """SOAP: Adam in the eigenbases of Shampoo's preconditioner.

    The Optax spelling of :class:`SOAP`, whose description, arguments, errors and example hold for
    it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(soap, without_none(locals(), "shampoo_beta"))


class SOAP(Optimizer):
    """SOAP: Adam in the eigenbases of Shampoo's preconditioner.

    The counterpart of ``pytorch_optimizer.SOAP``, without ``merge_dims``, which fails there where
    all axes merge into one. The first gradient makes the bases and no step. Where an axis is longer
    by two or more than what the first gradient has of rank (a bias with ``precondition_1d``, a
    kernel of (20, 12)), the rest of its basis is whatever the machine's LAPACK makes of rounding
    errors, there as here: such a run is torch's own from a state that is taken over, and not from
    the beginning. A parameter must be whole.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, >= 0.
        betas: decay of the moving averages of the gradient and of its square, in [0, 1).
        shampoo_beta: decay of the preconditioner's average, in [0, 1); None, held as infinity, is
            ``betas[1]``.
        weight_decay: decoupled weight decay, >= 0: the parameter is multiplied by ``1 - lr *
            weight_decay``, after its step.
        precondition_frequency: steps from one basis to the next. Static.
        max_precondition_dim: an axis that is longer has no preconditioner. Static.
        precondition_1d: whether parameters of one axis have one.
        correct_bias: correct the moments for their beginning at zero.
        normalize_gradient: divide a step by its root mean square.
        eps: added to the denominators, outside the root, >= 0.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message; a
            parameter that is complex.

    References:
        Vyas et al., 2024, *SOAP: Improving and Stabilizing Shampoo using Adam*;
        ``pytorch_optimizer.optimizer.soap``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import SOAP
        >>> params = {"weight": jnp.ones((2, 2))}
        >>> grads = {"weight": jnp.diag(jnp.array([3.0, 1.0]))}
        >>> tx = SOAP(lr=0.5, weight_decay=0.0)
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     params, state = jp.step(tx, grads, state, params)
        >>> params["weight"].round(2)
        Array([[0.5, 1. ],
               [1. , 0.5]], dtype=float32)
    """

    factory = staticmethod(soap)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 3e-3,
        betas: tuple[Number, Number] = (0.95, 0.95),
        shampoo_beta: Number | None = LEFT_OUT,
        weight_decay: Number = 1e-2,
        precondition_frequency: int = 10,
        max_precondition_dim: int = 10000,
        precondition_1d: bool = False,
        correct_bias: bool = True,
        normalize_gradient: bool = False,
        eps: Number = 1e-8,
        maximize: bool = False,
    ) -> Self:
        return cls.with_options(params, without_none(locals(), "shampoo_beta"))
