"""Adafactor as big_vision has it, with momentum in a type of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

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
from ..numerics.torch_ops import Scalar, add_scalar, div, lerp, mul, rsqrt, widened
from ..optim import ranges
from ._left_out import LEFT_OUT, without_none
from ._sums import clipped, mean
from ._timm import cautious, largest_rate, with_snapshot
from ._timm import decay_rate as scaled_rate


def _problems(
    lr: Scalar,
    min_dim_size_to_factor: int,
    decay_rate: Scalar,
    decay_offset: int,
    beta2_cap: Scalar,
    momentum: Scalar,
    momentum_dtype: str,
    eps: float | None,
    weight_decay: Scalar,
    clipping_threshold: float | None,
    **options: Any,
) -> Iterator[Problem]:
    yield from ranges.learning_rate(lr)
    yield from ranges.at_least_zero("weight_decay", weight_decay)
    yield from ranges.whole("min_dim_size_to_factor", min_dim_size_to_factor)
    yield from ranges.at_least_zero("decay_rate", decay_rate)
    yield from ranges.whole("decay_offset", decay_offset)
    yield from ranges.at_least_zero("beta2_cap", beta2_cap)
    if momentum != LEFT_OUT:
        yield from ranges.below_one("momentum", momentum)
    yield from ranges.optional(ranges.at_least_zero, "eps", eps)
    yield from ranges.optional(ranges.above_zero, "clipping_threshold", clipping_threshold)
    yield from largest_rate(**options)
    if momentum_dtype not in ("bfloat16", "float16", "float32"):
        yield Problem(
            f"{momentum_dtype} dtype not supported", 'it is "bfloat16", "float16" or "float32"'
        )


def _factored(shape: tuple[int, ...], min_dim_size_to_factor: int) -> tuple[int, int] | None:
    """Return the second longest axis and the longest."""
    by_length = sorted((n, axis) for axis, n in enumerate(shape))
    if len(shape) < 2 or by_length[-2][0] < min_dim_size_to_factor:
        return None
    return by_length[-2][1], by_length[-1][1]


def _init(
    param: jax.Array, *, min_dim_size_to_factor: int, momentum_dtype: str, **_: Any
) -> LeafState:
    state = {"exp_avg": jnp.zeros(param.shape, momentum_dtype)}
    axes = _factored(param.shape, min_dim_size_to_factor)
    if axes is None:
        return {**state, "exp_avg_sq": jnp.zeros_like(param)}
    for name, axis in (("exp_avg_sq_r", axes[1]), ("exp_avg_sq_c", axes[0])):
        state[name] = jnp.sum(jnp.zeros_like(param), axis=axis, keepdims=True)
    return state


def _holds(*, momentum: float, **_: Any) -> frozenset[str] | None:
    names = ("step", "exp_avg_sq", "exp_avg_sq_r", "exp_avg_sq_c")
    return frozenset(names) if momentum == LEFT_OUT else None


def _advance(
    shared: Shared,
    *,
    lr: jax.Array,
    decay_rate: jax.Array,
    decay_offset: int,
    beta2_cap: jax.Array,
    weight_decay: jax.Array,
    **options: Any,
) -> tuple[Shared, Scalars]:
    step = shared["step"] + 1
    t = jnp.maximum(step.astype(jnp.float64) - decay_offset, 1.0)
    return {"step": step}, {
        "weight2": 1 - jnp.minimum(beta2_cap, 1 - t**-decay_rate),
        "decay": 1 - scaled_rate(lr, **options) * weight_decay,
    }


def _update(
    grad: jax.Array,
    param: jax.Array,
    state: LeafState,
    *,
    lr: jax.Array,
    min_dim_size_to_factor: int,
    momentum: jax.Array,
    eps: float | None,
    clipping_threshold: float | None,
    caution: bool,
    weight2: jax.Array,
    decay: jax.Array,
    **_: Any,
) -> tuple[Sum, LeafState]:
    least = (1e-7 if grad.dtype == jnp.float16 else 1e-30) if eps is None else eps
    square, after = add_scalar(mul(grad, grad), least), {}
    axes = _factored(param.shape, min_dim_size_to_factor)
    if axes is None:
        after["exp_avg_sq"] = lerp(state["exp_avg_sq"], square, weight2)
        update = mul(grad, widened(rsqrt(after["exp_avg_sq"])))
    else:
        column, row = axes
        rows = lerp(state["exp_avg_sq_r"], mean(square, row, keepdims=True), weight2)
        columns = lerp(state["exp_avg_sq_c"], mean(square, column, keepdims=True), weight2)
        after |= {"exp_avg_sq_r": rows, "exp_avg_sq_c": columns}
        of_row = rsqrt(div(rows, widened(mean(rows, column, keepdims=True))))
        update = mul(mul(grad, widened(of_row)), widened(rsqrt(columns)))
    if clipping_threshold is not None:
        update = clipped(update, clipping_threshold)
    if "exp_avg" in state:
        held = state["exp_avg"]
        after["exp_avg"] = lerp(held, update.astype(held.dtype), 1 - momentum)
        update = after["exp_avg"].astype(grad.dtype)
        update = cautious(update, grad) if caution else update
    return Sum(mul(param, decay), mul(update, lr), -1.0), after


def _held(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as they are held: the type of the momentum by its name."""
    dtype = options["momentum_dtype"]
    with contextlib.suppress(TypeError):  # no type, as will be said
        dtype = jnp.dtype(dtype).name
    return with_snapshot(without_none({**options, "momentum_dtype": dtype}, "momentum"))


@of_rule(
    Rule(
        _problems,
        _init,
        _update,
        step_count,
        _advance,
        _holds,
        accepts=ranges.OnlyReal("AdafactorBigVision"),
        elementwise=False,
    )
)
def adafactor_big_vision(
    lr: Number = 1.0,
    min_dim_size_to_factor: int = 16,
    decay_rate: Number = 0.8,
    decay_offset: int = 0,
    beta2_cap: Number = 0.999,
    momentum: Number | None = 0.9,
    momentum_dtype: DTypeLike = "bfloat16",
    eps: float | None = None,
    weight_decay: Number = 0.0,
    clipping_threshold: float | None = None,
    unscaled_wd: bool = False,
    caution: bool = False,
    corrected_weight_decay: bool = False,
    max_lr_snapshot: Number | None = LEFT_OUT,
) -> optax.GradientTransformationExtraArgs:
    """Adafactor as big_vision has it, with momentum in a type of its own.

    The Optax spelling of :class:`AdafactorBigVision`, whose description, arguments, errors and
    example hold for it; a number may be a schedule, a callable of the update count.
    """
    return leafwise(adafactor_big_vision, _held(locals()))


class AdafactorBigVision(Optimizer):
    """Adafactor as big_vision has it, with momentum in a type of its own.

    The counterpart of ``timm.optim.AdafactorBigVision``. A parameter must be whole.

    Args:
        params: parameter groups, as ``jp.Adam`` takes them; all parameters by default.
        lr: learning rate, >= 0.
        min_dim_size_to_factor: an array whose two longest axes are at least this long is factored.
            Static.
        decay_rate: the power of the step that is a gradient's weight in the second moment,
            negated.
        decay_offset: steps before the second moment's decay begins. Static.
        beta2_cap: the second moment's largest decay.
        momentum: decay of an average of updates; None, held as infinity, keeps none.
        momentum_dtype: its type: ``"bfloat16"``, ``"float16"`` or ``"float32"``; here, JAX's of
            these names, too.
        eps: added to the square of a gradient; None is 1e-30, or 1e-7 in float16. Static.
        weight_decay: decoupled weight decay, >= 0: the parameter is multiplied by ``1 - lr *
            weight_decay``.
        clipping_threshold: the largest root mean square of an update; None does not clip. Static.
        unscaled_wd: do not scale weight decay by the rate.
        caution: leave out what is against the gradient (Liang et al., 2024, *Cautious
            Optimizers*).
        corrected_weight_decay: scale weight decay by ``lr**2 / max_lr_snapshot`` instead of
            ``lr``.
        max_lr_snapshot: the largest rate, for corrected weight decay; None, held as infinity, is
            the ``lr`` that the optimizer is made with.

    Raises:
        ValueError: a number out of its range, beginning with the package's own message.

    References:
        Zhai et al., 2022, *Scaling Vision Transformers*; ``timm.optim.adafactor_bv``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import AdafactorBigVision
        >>> params, grads = {"weight": jnp.ones(2)}, {"weight": jnp.full(2, 3.0)}
        >>> tx = AdafactorBigVision(lr=0.5)
        >>> params, state = jp.step(tx, grads, tx.init(params), params)
        >>> params["weight"]
        Array([0.9499512, 0.9499512], dtype=float32)
    """

    factory = staticmethod(adafactor_big_vision)

    def __new__(
        cls,
        params: Groups = REST,
        lr: Number = 1.0,
        min_dim_size_to_factor: int = 16,
        decay_rate: Number = 0.8,
        decay_offset: int = 0,
        beta2_cap: Number = 0.999,
        momentum: Number | None = 0.9,
        momentum_dtype: DTypeLike = "bfloat16",
        eps: float | None = None,
        weight_decay: Number = 0.0,
        clipping_threshold: float | None = None,
        unscaled_wd: bool = False,
        caution: bool = False,
        corrected_weight_decay: bool = False,
        max_lr_snapshot: Number | None = LEFT_OUT,
    ) -> Self:
        return cls.with_options(params, _held(locals()))
