"""Adafactor: a second moment of rows and columns, and steps relative to the parameter."""

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
    step_count,
)
from ..numerics.torch_ops import Scalar, constant, div, lerp, mul, norm, rounded, rsqrt, widened
from . import _ranges


def _problems(
    lr: Scalar,
    beta2_decay: Scalar,
    eps: tuple[Scalar | None, Scalar],
    d: Scalar,
    weight_decay: Scalar,
    **_: Any,
) -> Iterator[Problem]:
    if not lr >= 0.0:
        yield Problem(f"Learning rate should be >= 0 but is: {lr}", "lr must be >= 0")
    if not beta2_decay <= 0.0:
        yield Problem(f"beta2_decay should be <= 0 but is: {beta2_decay}", "set it to -0.8, say")
    if eps[0] is not None and not eps[0] >= 0.0:
        yield Problem(f"epsilon1 should be >= 0 but is: {eps[0]}", "None is the dtype's own eps")
    if eps[1] is None or not eps[1] >= 0.0:
        yield Problem(f"epsilon2 should be >= 0 but is: {eps[1]}", "set it to 1e-3, say")
    if not d >= 1.0:
        yield Problem(f"Clipping threshold d should be >= 1 but is: {d}", "d must be >= 1")
    if not weight_decay >= 0.0:
        yield Problem(
            f"weight_decay should be >= 0 but is: {weight_decay}", "weight_decay must be >= 0"
        )


def _init(param: jax.Array, **_: Any) -> LeafState:
    if param.ndim < 2:
        return {"variance": jnp.zeros_like(param)}
    return {
        "row_var": jnp.zeros((*param.shape[:-1], 1), param.dtype),
        "col_var": jnp.zeros((*param.shape[:-2], 1, param.shape[-1]), param.dtype),
    }


def _advance(
    shared: Shared,
    *,
    lr: jax.Array,
    beta2_decay: jax.Array,
    eps: jax.Array,
    weight_decay: jax.Array,
    **_: Any,
) -> tuple[Shared, Scalars]:
    step = shared["step"] + 1
    t = step.astype(jnp.float64)
    eps1, eps2 = eps
    return {"step": step}, {
        "one_minus_beta2_t": t**beta2_decay,
        "rho_t": jnp.minimum(lr, 1 / t**0.5),
        "decay": 1 - lr * weight_decay,
        "eps1": eps1,
        "eps2": eps2,
    }


def _mean_of_squares(grad: jax.Array, axis: int) -> jax.Array:
    length = norm(grad, axis=axis, keepdims=True)
    return div(mul(length, length), float(grad.shape[axis]))


def _factored(
    grad: jax.Array, state: LeafState, *, weight: jax.Array, eps1: jax.Array
) -> tuple[jax.Array, LeafState]:
    row_var = lerp(state["row_var"], _mean_of_squares(grad, -1), weight)
    col_var = lerp(state["col_var"], _mean_of_squares(grad, -2), weight)
    mean = rounded(jnp.mean(widened(row_var), axis=-2, keepdims=True), grad.dtype)
    variance = div(mul(row_var, col_var), jnp.maximum(mean, constant(eps1, grad)))
    return variance, {"row_var": row_var, "col_var": col_var}


def _root_mean_square(x: jax.Array) -> jax.Array:
    # A Python float in torch, so what is done with it is done in float64.
    mean: jax.Array = norm(x).astype(jnp.float64) / max(x.size, 1) ** 0.5
    return mean


def _max(a: Scalar, b: jax.Array) -> jax.Array:
    """Python's ``max``, which is ``a`` where ``b`` is NaN."""
    first = jnp.asarray(a, b.dtype)
    return jnp.where(b > first, b, first)


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    d: jax.Array,
    maximize: bool,
    one_minus_beta2_t: jax.Array,
    rho_t: jax.Array,
    decay: jax.Array,
    eps1: jax.Array,
    eps2: jax.Array,
    **_: Any,
) -> tuple[Sum, LeafState]:
    if maximize:
        grad = -grad
    # A negative number stands for None.
    eps1 = jnp.where(eps1 < 0, float(jnp.finfo(param.dtype).eps), eps1)
    alpha = _max(eps2, _root_mean_square(param)) * rho_t.astype(jnp.float64)
    param = mul(param, decay)
    if grad.ndim > 1:
        variance, after = _factored(grad, state, weight=one_minus_beta2_t, eps1=eps1)
    else:
        variance = lerp(state["variance"], mul(grad, grad), one_minus_beta2_t)
        after = {"variance": variance}
    update = mul(rsqrt(jnp.maximum(variance, constant(eps1 * eps1, grad))), grad)
    denom = _max(1.0, _root_mean_square(update) / d)
    return Sum(param, update, -alpha / denom), after


def _oriented(shape: tuple[int, ...], **_: Any) -> bool:
    # Rows and columns are the same of a transposed matrix; of a convolution others are factored.
    return len(shape) > 2


@of_rule(
    Rule(
        _problems,
        _init,
        _update,
        step_count,
        _advance,
        accepts=_ranges.OnlyReal("Adafactor"),
        elementwise=False,
        oriented=_oriented,
    )
)
def adafactor(
    lr: Number = 1e-2,
    beta2_decay: Number = -0.8,
    eps: tuple[Number | None, Number] = (None, 1e-3),
    d: Number = 1.0,
    weight_decay: Number = 0.0,
    *,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Adafactor: a second moment of rows and columns, and steps relative to the parameter.

    The counterpart of ``torch.optim.Adafactor``. A parameter of two or more axes has its last two
    factored: state of shapes ``(…, n, 1)`` and ``(…, 1, m)`` instead of ``(…, n, m)``. torch and
    Flax lay kernels out differently: a transposed Dense kernel gives the same numbers, but of a
    convolution torch factors the two spatial axes, and a Flax kernel's last two are its channels:
    ``init`` warns of it, and ``tx = jaxopt_port.interop.in_torch_layout(tx, params)`` shows the
    rule torch's layout.

    A plain Optax transformation. A number may be a schedule, a callable of the update count.

    Args:
        lr: upper bound of the relative step size, >= 0.
        beta2_decay: the second moment's weight of step t is ``t ** beta2_decay``, <= 0.
        eps: the least root of the second moment, None for the parameter dtype's own ``eps``; and
            the least root mean square of the parameter that the step is scaled by. Both >= 0.
        d: the root mean square above which an update is clipped, >= 1.
        weight_decay: decay of the parameter per step in units of ``lr``, >= 0.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, or a complex parameter, beginning with torch's own
            message.

    References:
        Shazeer and Stern, 2018, *Adafactor: Adaptive Learning Rates with Sublinear Memory Cost*;
        ``torch.optim.Adafactor``, ``torch.optim._adafactor._single_tensor_adafactor``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"kernel": jnp.ones((2, 3))}, {"kernel": jnp.ones((2, 3))}
        >>> tx = jp.adafactor(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["kernel"][0]
        Array([0.5, 0.5, 0.5], dtype=float32)
    """
    return leafwise(adafactor, locals())


class Adafactor(Optimizer):
    """Adafactor: a second moment of rows and columns, and steps relative to the parameter.

    The counterpart of ``torch.optim.Adafactor``. A parameter of two or more axes has its last two
    factored: state of shapes ``(…, n, 1)`` and ``(…, 1, m)`` instead of ``(…, n, m)``. torch and
    Flax lay kernels out differently: a transposed Dense kernel gives the same numbers, but of a
    convolution torch factors the two spatial axes, and a Flax kernel's last two are its channels:
    ``init`` warns of it, and ``tx = jaxopt_port.interop.in_torch_layout(tx, params)`` shows the
    rule torch's layout.

    With parameter groups; every number can be set between steps, by ``jp.set_hyperparams``, and may
    be a schedule, a callable of the update count.

    Args:
        params: parameter groups, as torch takes them: a list of dicts with ``"params"``, a selector
            (a path prefix, a glob, a compiled regex, a predicate ``(path, leaf) -> bool``, a
            boolean tree, a list of these, or ``jp.REST``), and options. A selector alone is one
            group; the default is all parameters.
        lr: upper bound of the relative step size, >= 0.
        beta2_decay: the second moment's weight of step t is ``t ** beta2_decay``, <= 0.
        eps: the least root of the second moment, None for the parameter dtype's own ``eps``; and
            the least root mean square of the parameter that the step is scaled by. Both >= 0.
        d: the root mean square above which an update is clipped, >= 1.
        weight_decay: decay of the parameter per step in units of ``lr``, >= 0.
        maximize: ascend instead of descend.

    Raises:
        ValueError: a number out of its range, or a complex parameter, beginning with torch's own
            message.

    References:
        Shazeer and Stern, 2018, *Adafactor: Adaptive Learning Rates with Sublinear Memory Cost*;
        ``torch.optim.Adafactor``, ``torch.optim._adafactor._single_tensor_adafactor``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params, grads = {"kernel": jnp.ones((2, 3))}, {"kernel": jnp.ones((2, 3))}
        >>> tx = jp.Adafactor(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["kernel"][0]
        Array([0.5, 0.5, 0.5], dtype=float32)
    """

    factory = staticmethod(adafactor)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1e-2,
        beta2_decay: Number = -0.8,
        eps: tuple[Number | None, Number] = (None, 1e-3),
        d: Number = 1.0,
        weight_decay: Number = 0.0,
        *,
        maximize: bool = False,
    ) -> Self:
        return cls.with_options(params, locals())
