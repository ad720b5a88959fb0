"""Schedules of every kind of Optax's, beside torch's schedulers; ``r`` is the rate."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from torch.optim import lr_scheduler

RATE = 0.02
Made = Callable[[float], Any]


def scheduler(kind: str, **options: Any) -> Callable[[Any], Any]:
    """Return what makes one of torch's schedulers of an optimizer."""
    return lambda optimizer: getattr(lr_scheduler, kind)(optimizer, **options)


def factors(factor: Callable[[int], float]) -> Callable[[Any], Any]:
    """Return what makes a `LambdaLR`."""
    return scheduler("LambdaLR", lr_lambda=factor)


def _warm_up(optimizer: Any) -> Any:
    first = lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 5)
    rest = lr_scheduler.CosineAnnealingLR(optimizer, 15)
    return lr_scheduler.SequentialLR(optimizer, [first, rest], [5])


def cosine(part: float) -> float:
    """Return where a cosine from 1 to 0 is."""
    return (1 + np.cos(np.pi * min(part, 1.0))) / 2


def _one_cycle(step: int, line: Callable[[float], float]) -> float:
    """Return Optax's one cycle of 20 steps, of which 6 go up: the factor of its peak."""
    low, end = 1 / 25, 1 / 25e4
    if step < 6:
        return 1 + (low - 1) * line(step / 6)
    return end + (1 - end) * line((step - 6) / 14)


def _linear_cycle(step: int) -> float:
    """Return Optax's linear cycle of 20 steps: up to 6, down to 16, out to 20."""
    points = [(0, 1 / 25), (6, 1.0), (17, 1 / 25), (20, 1 / 25e4)]
    return float(np.interp(step, *zip(*points, strict=True)))


def _halving(step: int) -> float:
    return 1.0 if step < 3 else max(0.5 ** ((step - 3) / 4), 0.3)


_TABLE = np.array([1.0, 0.7, 0.4, 0.2], np.float32)

SCHEDULES: dict[str, tuple[Any, Made]] = {
    "constant": (None, lambda r: r),
    "constant_schedule": (None, optax.constant_schedule),
    "a float32": (None, np.float32),
    "exponential": (scheduler("ExponentialLR", gamma=0.9), lambda r: optax.exponential_decay(r, 1, 0.9)),
    "staircase": (scheduler("StepLR", step_size=4, gamma=0.3), lambda r: optax.exponential_decay(r, 4, 0.3, staircase=True)),
    "exponential, late, bounded": (factors(_halving), lambda r: optax.exponential_decay(r, 4, 0.5, transition_begin=3, end_value=0.3 * r)),
    "linear": (scheduler("LinearLR", start_factor=1.0, end_factor=0.1, total_iters=12), lambda r: optax.linear_schedule(r, 0.1 * r, 12)),
    "linear, late": (factors(lambda s: 1 - min(max(s - 3, 0) / 9, 1.0)), lambda r: optax.linear_schedule(r, 0.0, 9, transition_begin=3)),
    "polynomial": (scheduler("PolynomialLR", total_iters=20, power=2.0), lambda r: optax.polynomial_schedule(r, 0.0, 2, 20)),
    "polynomial, a root": (scheduler("PolynomialLR", total_iters=18, power=0.5), lambda r: optax.polynomial_schedule(r, 0.0, 0.5, 18)),
    "cosine": (scheduler("CosineAnnealingLR", T_max=20), lambda r: optax.cosine_decay_schedule(r, 20)),
    "cosine to a tenth": (scheduler("CosineAnnealingLR", T_max=20, eta_min=RATE / 10), lambda r: optax.cosine_decay_schedule(r, 20, alpha=0.1)),
    "cosine, a power": (factors(lambda s: cosine(s / 14) ** 1.5), lambda r: optax.cosine_decay_schedule(r, 14, exponent=1.5)),
    "cosine of thousands": (scheduler("CosineAnnealingLR", T_max=30000), lambda r: optax.cosine_decay_schedule(r, 30000)),
    "cosine one cycle": (factors(lambda s: _one_cycle(s, cosine)), lambda r: optax.cosine_onecycle_schedule(20, r)),
    "linear one cycle": (factors(_linear_cycle), lambda r: optax.linear_onecycle_schedule(20, r)),
    "restarts": (scheduler("CosineAnnealingWarmRestarts", T_0=6), lambda r: optax.sgdr_schedule([{"init_value": r, "peak_value": r, "warmup_steps": 0, "decay_steps": 6}] * 3)),
    "warm-up and restarts": (
        factors(lambda s: min((s % 7) / 2, 1.0) if s % 7 < 2 else cosine((s % 7 - 2) / 5)),
        lambda r: optax.sgdr_schedule([{"init_value": 0.0, "peak_value": r, "warmup_steps": 2, "decay_steps": 7}] * 3),
    ),
    "warm-up": (factors(lambda s: min(s / 6, 1.0)), lambda r: optax.warmup_constant_schedule(0.0, r, 6)),
    "warm-up and cosine": (_warm_up, lambda r: optax.join_schedules([optax.linear_schedule(0.1 * r, r, 5), optax.cosine_decay_schedule(r, 15)], [5])),
    "warm-up from little": (
        scheduler("LinearLR", start_factor=1e-2, end_factor=1.0, total_iters=500),
        lambda r: optax.linear_schedule(1e-2 * r, r, 500),
    ),
    "warmup_cosine": (factors(lambda s: s / 4 if s < 4 else cosine((s - 4) / 16)), lambda r: optax.warmup_cosine_decay_schedule(0.0, r, 4, 20)),
    "warmup_cosine to a hundredth": (
        factors(lambda s: 0.1 + 0.9 * s / 3 if s < 3 else 0.01 + 0.99 * cosine((s - 3) / 12)),
        lambda r: optax.warmup_cosine_decay_schedule(0.1 * r, r, 3, 15, end_value=0.01 * r),
    ),
    "warmup_exponential": (factors(lambda s: s / 5 if s < 5 else 0.8 ** ((s - 5) / 3)), lambda r: optax.warmup_exponential_decay_schedule(0.0, r, 5, 3, 0.8)),
    "piecewise": (scheduler("MultiStepLR", milestones=[5, 10], gamma=0.1), lambda r: optax.piecewise_constant_schedule(r, {5: 0.1, 10: 0.1})),
    "piecewise, linear": (factors(lambda s: float(np.interp(s, [0, 5, 13], [1, 0.4, 0.1]))), lambda r: optax.piecewise_interpolate_schedule("linear", r, {5: 0.4, 13: 0.25})),
    "piecewise, cosine": (
        factors(lambda s: 0.2 + 0.8 * cosine(s / 6) if s < 6 else 0.1 + 0.1 * cosine((s - 6) / 8)),
        lambda r: optax.piecewise_interpolate_schedule("cosine", r, {6: 0.2, 14: 0.5}),
    ),
    "three joined": (
        factors(lambda s: s / 4 if s < 4 else 1.0 if s < 9 else max(1 - (s - 9) / 6, 0.0)),
        lambda r: optax.join_schedules([optax.linear_schedule(0.0, r, 4), optax.constant_schedule(r), optax.linear_schedule(r, 0.0, 6)], [4, 9]),
    ),
    "lambda": (factors(lambda s: min((s + 1) / 7, 1.0)), lambda r: lambda count: r * jnp.minimum((count + 1) / 7, 1.0)),
    "inverse root": (factors(lambda s: (s + 1) ** -0.5), lambda r: lambda count: r * jax.lax.rsqrt((count + 1).astype(jnp.float32))),
    "Noam": (
        factors(lambda s: min((s + 1) ** -0.5, (s + 1) * 4**-1.5)),
        lambda r: lambda count: r * jnp.minimum((count + 1) ** -0.5, (count + 1) * 4**-1.5),
    ),
    "table": (factors(lambda s: (1.0, 0.5, 0.1, 0.05)[min(s // 4, 3)]), lambda r: lambda count: r * jnp.array([1.0, 0.5, 0.1, 0.05])[jnp.minimum(count // 4, 3)]),
    "NumPy's table": (factors(lambda s: (1.0, 0.7, 0.4, 0.2)[min(s // 4, 3)]), lambda r: lambda count: r * jnp.asarray(_TABLE)[jnp.minimum(count // 4, 3)]),
    "interpolated": (
        factors(lambda s: float(np.interp(s, [0.0, 4.0, 12.0], [0.3, 1.0, 0.1]))),
        lambda r: lambda count: r * jnp.interp(count, jnp.array([0.0, 4.0, 12.0]), jnp.array([0.3, 1.0, 0.1])),
    ),
    "branches": (
        factors(lambda s: s / 4 if s < 4 else 0.9 ** (s - 4)),
        lambda r: lambda count: jax.lax.cond(count < 4, lambda c: r * c / 4, lambda c: r * 0.9 ** (c - 4), count),
    ),
    "pieces chosen": (
        factors(lambda s: 1.0 if s < 5 else 1 / 3 if s < 9 else 1 / 9),
        lambda r: lambda count: jnp.select([count < 5, count < 9], [r, r / 3], r / 9),
    ),
    "a decay in time": (factors(lambda s: 1 / (1 + 0.1 * s)), lambda r: lambda count: r / (1.0 + 0.1 * count)),
    "epochs of three": (factors(lambda s: 0.7 ** (s // 3)), lambda r: lambda count: r * jnp.power(0.7, count // 3)),
}  # fmt: skip
