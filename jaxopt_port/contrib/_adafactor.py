"""Adafactor as Hugging Face and timm have it."""

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
    leafwise,
    of_rule,
    step_count,
)
from ..numerics.torch_ops import (
    Scalar,
    add,
    add_scalar,
    constant,
    div,
    lerp,
    mul,
    rounded,
    rsqrt,
    widened,
)
from ..optim import ranges
from ._left_out import LEFT_OUT, without_none
from ._packages import of_another
from ._sums import clipped, mean, rms
from ._timm import cautious


def _problems(
    lr: Scalar,
    eps: tuple[Scalar, Scalar],
    clip_threshold: Scalar,
    beta1: float | None,
    weight_decay: Scalar,
    relative_step: bool,
    warmup_init: bool,
    min_dim_size_to_factor: int,
    caution: bool,
    package: str,
    **_: Any,
) -> Iterator[Problem]:
    if lr != LEFT_OUT:
        yield from ranges.learning_rate(lr)
    for least in eps:
        yield from ranges.epsilon(least)
    yield from ranges.above_zero("clip_threshold", clip_threshold)
    yield from ranges.optional(ranges.below_one, "beta1", beta1)
    yield from ranges.at_least_zero("weight_decay", weight_decay)
    yield from ranges.whole("min_dim_size_to_factor", min_dim_size_to_factor)
    if lr != LEFT_OUT and relative_step:
        yield Problem(
            "Cannot combine manual `lr` and `relative_step=True` options",
            "give relative_step=False with a rate, or a schedule of it",
        )
    if warmup_init and not relative_step:
        yield Problem("`warmup_init=True` requires `relative_step=True`", "leave one of them out")
    if lr == LEFT_OUT and not relative_step:
        yield Problem("there is neither a relative step nor a rate", "give lr")
    if package not in ("transformers", "timm"):
        yield Problem(f"no package {package!r}", 'it is "transformers" or "timm"')
    long = min_dim_size_to_factor != 16
    yield from of_another(package, "timm", min_dim_size_to_factor=long, caution=caution)


def _factored(
    shape: tuple[int, ...], package: str, min_dim_size_to_factor: int
) -> tuple[int, int] | None:
    """Return the axes of columns and of rows."""
    ndim = len(shape)
    if ndim < 2:
        return None
    long = [n > min_dim_size_to_factor for n in shape]
    if package == "timm" and ndim > 2 and long[0] and long[1]:
        return 0, 1
    return None if package == "timm" and not (long[-2] and long[-1]) else (ndim - 2, ndim - 1)


def _init(
    param: jax.Array, *, beta1: float | None, package: str, min_dim_size_to_factor: int, **_: Any
) -> LeafState:
    zeros = jnp.zeros_like(widened(param))
    state = {"RMS": jnp.zeros((), zeros.dtype)}
    if beta1 is not None:
        state["exp_avg"] = zeros
    axes = _factored(param.shape, package, min_dim_size_to_factor)
    if axes is None:
        return {**state, "exp_avg_sq": zeros}
    column, row = axes
    return {
        **state,
        "exp_avg_sq_row": jnp.sum(zeros, axis=row),
        "exp_avg_sq_col": jnp.sum(zeros, axis=column),
    }


def _advance(
    shared: Shared,
    *,
    lr: jax.Array,
    decay_rate: jax.Array,
    relative_step: bool,
    warmup_init: bool,
    **_: Any,
) -> tuple[Shared, Scalars]:
    step = shared["step"] + 1
    t = step.astype(jnp.float64)
    if relative_step:
        lr = jnp.minimum(1e-6 * t if warmup_init else 1e-2, 1 / jnp.sqrt(t))
    beta2 = 1 - t**decay_rate
    return {"step": step}, {"rate": lr, "beta2": beta2, "weight2": 1 - beta2}


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    eps: jax.Array,
    clip_threshold: jax.Array,
    beta1: float | None,
    weight_decay: jax.Array,
    scale_parameter: bool,
    relative_step: bool,
    min_dim_size_to_factor: int,
    caution: bool,
    package: str,
    rate: jax.Array,
    beta2: jax.Array,
    weight2: jax.Array,
    **_: Any,
) -> tuple[jax.Array, LeafState]:
    def averaged(held: jax.Array, new: jax.Array, weight: Any, decay: Any) -> jax.Array:
        if package == "timm":
            return lerp(held, new, weight)
        return add(mul(held, decay), new, alpha=weight)

    grad, wide = widened(grad), widened(param)
    scale = rms(wide)
    lr, after = constant(rate, wide), {"RMS": scale}
    if scale_parameter and (relative_step or package == "transformers"):
        least = constant(eps[1], wide)
        lr = jnp.where(
            scale > least, mul(scale, rate), constant(eps[1] * rate.astype(eps.dtype), wide)
        )
    square = add_scalar(mul(grad, grad), eps[0])
    axes = _factored(param.shape, package, min_dim_size_to_factor)
    if axes is None:
        after["exp_avg_sq"] = averaged(state["exp_avg_sq"], square, weight2, beta2)
        update = mul(rsqrt(after["exp_avg_sq"]), grad)
    else:
        column, row = axes
        rows = averaged(state["exp_avg_sq_row"], mean(square, row), weight2, beta2)
        columns = averaged(state["exp_avg_sq_col"], mean(square, column), weight2, beta2)
        of_row = rsqrt(div(rows, mean(rows, column, keepdims=True)))
        of_column = rsqrt(columns)
        factors = mul(jnp.expand_dims(of_row, row), jnp.expand_dims(of_column, column))
        update, after = (
            mul(factors, grad),
            after | {"exp_avg_sq_row": rows, "exp_avg_sq_col": columns},
        )
    update = mul(clipped(update, clip_threshold), lr)
    if beta1 is not None:
        update = after["exp_avg"] = averaged(state["exp_avg"], update, 1 - beta1, beta1)
        update = cautious(update, grad) if caution else update
    decayed = add(wide, wide, alpha=mul(lr, -weight_decay))
    wide = jnp.where(weight_decay != 0, decayed, wide)
    return rounded(add(wide, update, alpha=-1.0), param.dtype), after


@of_rule(
    Rule(
        _problems,
        _init,
        _update,
        step_count,
        _advance,
        accepts=ranges.OnlyReal("Adafactor"),
        elementwise=False,
    )
)
def adafactor(
    lr: Number | None = LEFT_OUT,
    eps: tuple[Number, Number] = (1e-30, 1e-3),
    clip_threshold: Number = 1.0,
    decay_rate: Number = -0.8,
    beta1: float | None = None,
    weight_decay: Number = 0.0,
    scale_parameter: bool = True,
    relative_step: bool = True,
    warmup_init: bool = False,
    min_dim_size_to_factor: int = 16,
    caution: bool = False,
    package: str = "transformers",
) -> optax.GradientTransformationExtraArgs:
    """Adafactor as Hugging Face and timm have it.

    The Optax spelling of :class:`Adafactor`, whose description, arguments, errors and example hold
    for it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(adafactor, without_none(locals(), "lr"))


class Adafactor(Optimizer):
    """Adafactor as Hugging Face and timm have it.

    The counterpart of ``transformers.Adafactor``, and of ``timm.optim.Adafactor``. ``package``
    says which: timm averages by ``lerp``, factors other axes, and only where they are long, and
    scales by the parameter only where the step is relative. A parameter must be whole; a step and
    its state are float32 where the parameter is of low precision.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, where ``relative_step`` is False; None is held as infinity.
        eps: added to the square of a gradient; the least scale of a parameter (timm's
            ``eps_scale``).
        clip_threshold: the largest root mean square of an update.
        decay_rate: the power of the step that is a gradient's weight in the second moment.
        beta1: decay of an average of updates; None keeps none. Static.
        weight_decay: decoupled weight decay.
        scale_parameter: scale the rate by the root mean square of the parameter.
        relative_step: let the rate follow from the step.
        warmup_init: let a relative rate begin at 1e-6.
        min_dim_size_to_factor: timm's: only axes longer than this are factored. Static.
        caution: timm's: leave out what is against the gradient (Liang et al., 2024, *Cautious
            Optimizers*).
        package: whose: ``"transformers"`` or ``"timm"``.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message.

    References:
        Shazeer and Stern, 2018, *Adafactor: Adaptive Learning Rates with Sublinear Memory Cost*;
        ``transformers.optimization``; ``timm.optim.adafactor``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import Adafactor
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = Adafactor()
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.99, 0.99], dtype=float32)
    """

    factory = staticmethod(adafactor)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number | None = LEFT_OUT,
        eps: tuple[Number, Number] = (1e-30, 1e-3),
        clip_threshold: Number = 1.0,
        decay_rate: Number = -0.8,
        beta1: float | None = None,
        weight_decay: Number = 0.0,
        scale_parameter: bool = True,
        relative_step: bool = True,
        warmup_init: bool = False,
        min_dim_size_to_factor: int = 16,
        caution: bool = False,
        package: str = "transformers",
    ) -> Self:
        return cls.with_options(params, without_none(locals(), "lr"))
