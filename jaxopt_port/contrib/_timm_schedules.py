"""timm's schedules, by its names: a rate for a count of epochs or updates that the caller keeps."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..lr_scheduler.arithmetic import Own, Value, where
from ._timm_scheduler import (
    LOWEST,
    MOVING,
    WARMING,
    NoiseRange,
    TimmScheduler,
    cycled,
    cycles_end,
)

_STABLE = ("constant", "rsqrt", "power")
_DECAY = ("linear", "1-sqrt", "cosine", "power", "exp")


@dataclass(frozen=True)
class CosineLRScheduler(TimmScheduler):
    """Fall along a cosine, in cycles, after a warm-up.

    The counterpart of ``timm.scheduler.CosineLRScheduler``.

    Args:
        t_initial: the length of the first cycle.
        lr_min: the lowest rate.
        cycle_mul: what a cycle's length is multiplied by from one to the next.
        cycle_decay: what its highest rate is multiplied by.
        cycle_limit: how many there are.
        warmup_t: counts of the warm-up; 0 for none.
        warmup_lr_init: the rate that it begins with.
        warmup_prefix: whether the schedule begins after the warm-up, and not within it.
        t_in_epochs: whether counts are epochs (`step`) or updates (`step_update`).
        noise_range_t: from which count on rates are noisy, or a pair of counts between which.
        noise_pct: the most that noise adds or takes, as a part of the rate.
        noise_std: its standard deviation.
        noise_seed: the seed of torch's generator, to which the count is added.
        k_decay: the power of the part of a cycle that is over.

    Raises:
        ValueError: a length that is not positive, or a lowest rate below 0.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import CosineLRScheduler
        >>> scheduler = CosineLRScheduler(t_initial=4, warmup_t=2)
        >>> state, own = scheduler.init(jp.SGD(lr=0.8).init({"weight": jnp.ones(3)}))
        >>> rates = scheduler.get_last_lr(own)
        >>> for epoch in range(1, 5):
        ...     state, own = scheduler.step(state, own, epoch)
        ...     rates += scheduler.get_last_lr(own)
        >>> [round(rate, 3) for rate in rates]
        [0.0, 0.4, 0.4, 0.117, 0.0]
    """

    t_initial: int
    lr_min: float = 0.0
    cycle_mul: float = 1.0
    cycle_decay: float = 1.0
    cycle_limit: int = 1
    warmup_t: int = 0
    warmup_lr_init: float = 0.0
    warmup_prefix: bool = False
    t_in_epochs: bool = True
    noise_range_t: NoiseRange = None
    noise_pct: float = 0.67
    noise_std: float = 1.0
    noise_seed: int = 42
    k_decay: float = 1.0

    def _check(self) -> None:
        if not self.t_initial > 0 or not self.lr_min >= 0:
            raise ValueError(
                f"t_initial must be > 0 and lr_min >= 0; got {self.t_initial} and {self.lr_min}"
            )

    def _parts(self, t: int) -> tuple[float, float, float]:
        if t < self.warmup_t:
            return WARMING, 0.0, 0.0
        i, since, length = cycled(self, t - self.warmup_t if self.warmup_prefix else t)
        if i >= self.cycle_limit:
            return LOWEST, 0.0, 0.0
        k = self.k_decay
        return MOVING, self.cycle_decay**i, 1 + math.cos(math.pi * since**k / length**k)

    def _formula(self, base: Value, a: Value, b: Value) -> Value:
        return self.lr_min + 0.5 * (base * a - self.lr_min) * b

    def _end(self) -> tuple[int, bool]:
        return cycles_end(self)


@dataclass(frozen=True)
class TanhLRScheduler(TimmScheduler):
    """Fall along a hyperbolic tangent, in cycles, after a warm-up.

    The counterpart of ``timm.scheduler.TanhLRScheduler``.

    Args:
        t_initial: the length of the first cycle.
        lb: where the tangent begins, below ``ub``.
        ub: where it ends.
        lr_min: the lowest rate.
        cycle_mul: what a cycle's length is multiplied by from one to the next.
        cycle_decay: what its highest rate is multiplied by.
        cycle_limit: how many there are.
        warmup_t: counts of the warm-up; 0 for none.
        warmup_lr_init: the rate that it begins with.
        warmup_prefix: whether the schedule begins after the warm-up, and not within it.
        t_in_epochs: whether counts are epochs (`step`) or updates (`step_update`).
        noise_range_t: from which count on rates are noisy, or a pair of counts between which.
        noise_pct: the most that noise adds or takes, as a part of the rate.
        noise_std: its standard deviation.
        noise_seed: the seed of torch's generator, to which the count is added.

    Raises:
        ValueError: an argument out of its range.
    """

    t_initial: int
    lb: float = -7.0
    ub: float = 3.0
    lr_min: float = 0.0
    cycle_mul: float = 1.0
    cycle_decay: float = 1.0
    cycle_limit: int = 1
    warmup_t: int = 0
    warmup_lr_init: float = 0.0
    warmup_prefix: bool = False
    t_in_epochs: bool = True
    noise_range_t: NoiseRange = None
    noise_pct: float = 0.67
    noise_std: float = 1.0
    noise_seed: int = 42

    def _check(self) -> None:
        if not (self.t_initial > 0 and self.lr_min >= 0 and self.lb < self.ub):
            raise ValueError(
                "t_initial must be > 0, lr_min >= 0, lb < ub, cycle_limit >= 0 and warmup_t >= 0; "
                f"got {self.t_initial}, {self.lr_min}, {self.lb}, {self.ub}"
            )

    def _warmed_to(self, own: Own) -> Value:
        # Without a prefix the warm-up leads to the rate of its last count.
        return own.base_values if self.warmup_prefix else self._rates_at(own, self.warmup_t)

    def _rates_at(self, own: Own, t: int) -> Value:
        kind, a, b = self._parts(t)
        return (
            own.base_values * 0.0 + self.lr_min
            if kind == LOWEST
            else self._formula(own.base_values, a, b)
        )

    def _parts(self, t: int) -> tuple[float, float, float]:
        if t < self.warmup_t:
            return WARMING, 0.0, 0.0
        i, since, length = cycled(self, t - self.warmup_t if self.warmup_prefix else t)
        if i >= self.cycle_limit:
            return LOWEST, 0.0, 0.0
        part = since / length
        return MOVING, self.cycle_decay**i, 1 - math.tanh(self.lb * (1.0 - part) + self.ub * part)

    def _formula(self, base: Value, a: Value, b: Value) -> Value:
        return self.lr_min + 0.5 * (base * a - self.lr_min) * b

    def _end(self) -> tuple[int, bool]:
        return cycles_end(self)


@dataclass(frozen=True)
class PolyLRScheduler(TimmScheduler):
    """Fall by a power of what remains, in cycles, after a warm-up.

    The counterpart of ``timm.scheduler.PolyLRScheduler``.

    Args:
        t_initial: the length of the first cycle.
        power: of the part of a cycle that remains.
        lr_min: the lowest rate.
        cycle_mul: what a cycle's length is multiplied by from one to the next.
        cycle_decay: what its highest rate is multiplied by.
        cycle_limit: how many there are.
        warmup_t: counts of the warm-up; 0 for none.
        warmup_lr_init: the rate that it begins with.
        warmup_prefix: whether the schedule begins after the warm-up, and not within it.
        t_in_epochs: whether counts are epochs (`step`) or updates (`step_update`).
        noise_range_t: from which count on rates are noisy, or a pair of counts between which.
        noise_pct: the most that noise adds or takes, as a part of the rate.
        noise_std: its standard deviation.
        noise_seed: the seed of torch's generator, to which the count is added.
        k_decay: the power of the part of a cycle that is over.

    Raises:
        ValueError: a length that is not positive, or a lowest rate below 0.
    """

    t_initial: int
    power: float = 0.5
    lr_min: float = 0.0
    cycle_mul: float = 1.0
    cycle_decay: float = 1.0
    cycle_limit: int = 1
    warmup_t: int = 0
    warmup_lr_init: float = 0.0
    warmup_prefix: bool = False
    t_in_epochs: bool = True
    noise_range_t: NoiseRange = None
    noise_pct: float = 0.67
    noise_std: float = 1.0
    noise_seed: int = 42
    k_decay: float = 1.0

    def _check(self) -> None:
        if not self.t_initial > 0 or not self.lr_min >= 0:
            raise ValueError(
                f"t_initial must be > 0 and lr_min >= 0; got {self.t_initial} and {self.lr_min}"
            )

    def _parts(self, t: int) -> tuple[float, float, float]:
        if t < self.warmup_t:
            return WARMING, 0.0, 0.0
        i, since, length = cycled(self, t - self.warmup_t if self.warmup_prefix else t)
        if i >= self.cycle_limit:
            return LOWEST, 0.0, 0.0
        k = self.k_decay
        return MOVING, self.cycle_decay**i, (1 - since**k / length**k) ** self.power

    def _formula(self, base: Value, a: Value, b: Value) -> Value:
        return self.lr_min + (base * a - self.lr_min) * b

    def _end(self) -> tuple[int, bool]:
        return cycles_end(self)


@dataclass(frozen=True)
class StepLRScheduler(TimmScheduler):
    """Multiply the rate by a factor every so many counts, after a warm-up.

    The counterpart of ``timm.scheduler.StepLRScheduler``.

    Args:
        decay_t: counts between changes.
        decay_rate: the factor of each.
        warmup_t: counts of the warm-up; 0 for none.
        warmup_lr_init: the rate that it begins with.
        warmup_prefix: whether the schedule begins after the warm-up, and not within it.
        t_in_epochs: whether counts are epochs (`step`) or updates (`step_update`).
        noise_range_t: from which count on rates are noisy, or a pair of counts between which.
        noise_pct: the most that noise adds or takes, as a part of the rate.
        noise_std: its standard deviation.
        noise_seed: the seed of torch's generator, to which the count is added.
    """

    decay_t: float
    decay_rate: float = 1.0
    warmup_t: int = 0
    warmup_lr_init: float = 0.0
    warmup_prefix: bool = True
    t_in_epochs: bool = True
    noise_range_t: NoiseRange = None
    noise_pct: float = 0.67
    noise_std: float = 1.0
    noise_seed: int = 42

    def _parts(self, t: int) -> tuple[float, float, float]:
        if t < self.warmup_t:
            return WARMING, 0.0, 0.0
        t = t - self.warmup_t if self.warmup_prefix else t
        return MOVING, self.decay_rate ** (t // self.decay_t), 0.0

    def _formula(self, base: Value, a: Value, b: Value) -> Value:
        return base * a

    def _end(self) -> tuple[int, bool]:
        return 1 << 14, False


@dataclass(frozen=True)
class MultiStepLRScheduler(TimmScheduler):
    """Multiply the rate by a factor one count before each milestone, after a warm-up.

    The counterpart of ``timm.scheduler.MultiStepLRScheduler``.

    Args:
        decay_t: milestones; one of 10 changes the rate of count 9.
        decay_rate: the factor of each.
        warmup_t: counts of the warm-up; 0 for none.
        warmup_lr_init: the rate that it begins with.
        warmup_prefix: whether the schedule begins after the warm-up, and not within it.
        t_in_epochs: whether counts are epochs (`step`) or updates (`step_update`).
        noise_range_t: from which count on rates are noisy, or a pair of counts between which.
        noise_pct: the most that noise adds or takes, as a part of the rate.
        noise_std: its standard deviation.
        noise_seed: the seed of torch's generator, to which the count is added.
    """

    decay_t: Sequence[int]
    decay_rate: float = 1.0
    warmup_t: int = 0
    warmup_lr_init: float = 0.0
    warmup_prefix: bool = True
    t_in_epochs: bool = True
    noise_range_t: NoiseRange = None
    noise_pct: float = 0.67
    noise_std: float = 1.0
    noise_seed: int = 42

    def _parts(self, t: int) -> tuple[float, float, float]:
        if t < self.warmup_t:
            return WARMING, 0.0, 0.0
        t = t - self.warmup_t if self.warmup_prefix else t
        return MOVING, self.decay_rate ** bisect.bisect_right(self.decay_t, t + 1), 0.0

    def _formula(self, base: Value, a: Value, b: Value) -> Value:
        return base * a

    def _end(self) -> tuple[int, bool]:
        return math.ceil(max(self.decay_t, default=0)) + self.warmup_t, True


@dataclass(frozen=True)
class WSDLRScheduler(TimmScheduler):
    """Rise, stay or fall slowly, and fall to the lowest rate.

    The counterpart of ``timm.scheduler.WSDLRScheduler``.

    Args:
        t_initial: counts after the warm-up.
        decay_t: how many of them, the last, fall to the lowest rate.
        lr_min: the lowest rate.
        stable_fn: ``"constant"``, ``"rsqrt"`` or ``"power"``.
        stable_timescale: of the latter two; ``warmup_t`` by default.
        stable_power: of ``"power"``.
        decay_fn: ``"linear"``, ``"1-sqrt"``, ``"cosine"``, ``"power"``, ``"exp"``, or a function of
            the part that is over.
        decay_power: of ``"power"``.
        decay_ratio: what remains at the end of ``"exp"``, before it is made zero.
        warmup_t: counts of the warm-up; 0 for none.
        warmup_lr_init: the rate that it begins with.
        t_in_epochs: whether counts are epochs (`step`) or updates (`step_update`).
        noise_range_t: from which count on rates are noisy, or a pair of counts between which.
        noise_pct: the most that noise adds or takes, as a part of the rate.
        noise_std: its standard deviation.
        noise_seed: the seed of torch's generator, to which the count is added.

    Raises:
        ValueError: an argument out of its range, in timm's words.
    """

    t_initial: int
    decay_t: int
    lr_min: float = 0.0
    stable_fn: str = "constant"
    stable_timescale: float | None = None
    stable_power: float = 0.5
    decay_fn: str | Callable[[float], float] = "1-sqrt"
    decay_power: float = 0.5
    decay_ratio: float = 0.1
    warmup_t: int = 0
    warmup_lr_init: float = 0.0
    t_in_epochs: bool = True
    noise_range_t: NoiseRange = None
    noise_pct: float = 0.67
    noise_std: float = 1.0
    noise_seed: int = 42

    def __post_init__(self) -> None:
        if self.stable_fn != "constant" and self.stable_timescale is None:
            object.__setattr__(self, "stable_timescale", self.warmup_t)
        super().__post_init__()

    def _check(self) -> None:
        known = (("stable_fn", _STABLE, ""), ("decay_fn", _DECAY, " or a callable"))
        for name, names, more in known:
            given = getattr(self, name)
            if not callable(given) and given not in names:
                raise ValueError(f"Invalid {name} ({given}), must be one of {names}{more}.")
        if self.t_initial <= 0:
            raise ValueError(f"Invalid t_initial ({self.t_initial}), must be > 0.")
        if not 0 < self.decay_t <= self.t_initial:
            raise ValueError(
                f"Invalid decay_t ({self.decay_t}), must be in (0, t_initial] w/ "
                f"t_initial={self.t_initial}."
            )
        if self.lr_min < 0:
            raise ValueError(f"Invalid lr_min ({self.lr_min}), must be >= 0.")
        if not 0.0 < self.decay_ratio < 1.0:
            raise ValueError(f"Invalid decay_ratio ({self.decay_ratio}), must be in (0, 1).")
        for name in ("decay_power", "stable_power"):
            if getattr(self, name) <= 0:
                raise ValueError(f"Invalid {name} ({getattr(self, name)}), must be > 0.")
        if self.stable_timescale is not None and self.stable_timescale <= 0:
            raise ValueError(
                f"stable_fn={self.stable_fn} requires a positive stable_timescale, it defaults to "
                f"warmup_t ({self.warmup_t}), set it explicitly when there is no warmup."
            )

    def _stable(self, since: float) -> float:
        if self.stable_fn == "constant":
            return 1.0
        assert self.stable_timescale is not None
        power = 0.5 if self.stable_fn == "rsqrt" else self.stable_power
        return float((1.0 + since / self.stable_timescale) ** -power)

    def _decay(self, part: float) -> float:
        if callable(self.decay_fn):
            return self.decay_fn(part)
        if self.decay_fn == "linear":
            return 1.0 - part
        if self.decay_fn == "1-sqrt":
            return 1.0 - math.sqrt(part)
        if self.decay_fn == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * part))
        if self.decay_fn == "power":
            return float(1.0 - part**self.decay_power)
        ratio = self.decay_ratio
        return float((ratio**part - ratio) / (1.0 - ratio))

    def _parts(self, t: int) -> tuple[float, float, float]:
        if t < self.warmup_t:
            return WARMING, 0.0, 0.0
        since = t - self.warmup_t
        falling = since - (self.t_initial - self.decay_t)
        if falling <= 0:
            return MOVING, self._stable(since), math.nan
        return MOVING, self._stable(since), self._decay(min(falling / self.decay_t, 1.0))

    def _formula(self, base: Value, a: Value, b: Value) -> Value:
        stable = base * a
        stable = where(stable < self.lr_min, base * 0.0 + self.lr_min, stable)
        return where(b != b, stable, lambda: self.lr_min + (stable - self.lr_min) * b)

    def _end(self) -> tuple[int, bool]:
        # A stable part that falls goes on falling below the last decay, which is then of nothing.
        return self.warmup_t + self.t_initial + 1, self._decay(1.0) == 0.0
