"""timm's schedules, by its names: a rate for a count of epochs or updates that the caller keeps."""

from __future__ import annotations

import bisect
import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass

from ..lr_scheduler.arithmetic import Own, Value
from ._timm_scheduler import LOWEST, MOVING, NoiseRange, TimmScheduler


class _Cycles(TimmScheduler):
    """What falls in cycles, one after the other, as a subclass's ``_falling`` says."""

    t_initial: int
    lr_min: float
    cycle_mul: float
    cycle_decay: float
    cycle_limit: int

    def _check(self) -> None:
        super()._check()
        if not self.t_initial > 0:
            raise ValueError(f"Invalid t_initial ({self.t_initial}), must be > 0.")
        if not self.cycle_mul > 0:
            raise ValueError(
                f"Invalid cycle_mul ({self.cycle_mul}), must be > 0; 1 makes all cycles as long as "
                "the first."
            )
        self._at_least_zero("lr_min", "cycle_limit", "cycle_decay")

    def _moving(self, t: int) -> tuple[float, float, float]:
        i, since, length = self._cycled(t)
        if i >= self.cycle_limit:
            return LOWEST, 0.0, 0.0
        return MOVING, self.cycle_decay**i, self._falling(since, length)

    def _falling(self, since: float, length: float) -> float:
        """Return what part of a cycle's height is left, from the count since it began."""
        raise NotImplementedError

    def _formula(self, base: Value, a: Value, b: Value) -> Value:
        return self.lr_min + (base * a - self.lr_min) * b

    def _cycled(self, t: int) -> tuple[int, float, float]:
        """Return which cycle a count is in, the count since it began, and its length."""
        mul, first = self.cycle_mul, self.t_initial
        if mul == 1:
            return t // first, t - first * (t // first), first
        left = 1 - t / first * (1 - mul)
        if left <= 0:  # past the sum of all cycles, where timm fails
            return self.cycle_limit, 0.0, 0.0
        i = math.floor(math.log(left, mul))
        return i, t - (1 - mul**i) / (1 - mul) * first, mul**i * first

    def _end(self) -> tuple[int, bool]:
        mul, first, cycles = self.cycle_mul, self.t_initial, max(1, self.cycle_limit)
        length: float = first * cycles
        if mul != 1:
            length = math.floor(-first * (mul**cycles - 1) / (1 - mul))
        return math.ceil(length) + self.warmup_t + 1, mul >= 1


@dataclass(frozen=True)
class CosineLRScheduler(_Cycles):
    """Fall along a cosine, in cycles, after a warm-up.

    The counterpart of ``timm.scheduler.CosineLRScheduler``.

    Args:
        t_initial: the length of the first cycle.
        lr_min: the lowest rate.
        cycle_mul: what a cycle's length is multiplied by from one to the next; below 1, the rate
            past the sum of all cycles is the lowest.
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
        ValueError: an argument out of its range.

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

    def _falling(self, since: float, length: float) -> float:
        k = self.k_decay
        return 0.5 * (1 + math.cos(math.pi * since**k / length**k))


@dataclass(frozen=True)
class TanhLRScheduler(_Cycles):
    """Fall along a hyperbolic tangent, in cycles, after a warm-up.

    The counterpart of ``timm.scheduler.TanhLRScheduler``.

    Args:
        t_initial: the length of the first cycle.
        lb: where the tangent begins, below ``ub``.
        ub: where it ends.
        lr_min: the lowest rate.
        cycle_mul: what a cycle's length is multiplied by from one to the next; below 1, the rate
            past the sum of all cycles is the lowest.
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
        super()._check()
        if not self.lb < self.ub:
            raise ValueError(f"Invalid lb ({self.lb}), must be < ub w/ ub={self.ub}.")

    def _warmed_to(self, own: Own) -> Value:
        # Without a prefix the warm-up leads to the rate of its last count.
        t = self.warmup_t
        return own.base_values if self.warmup_prefix else self._quiet(own, t, self._parts(t))

    def _falling(self, since: float, length: float) -> float:
        part = since / length
        return 0.5 * (1 - math.tanh(self.lb * (1.0 - part) + self.ub * part))


@dataclass(frozen=True)
class PolyLRScheduler(_Cycles):
    """Fall by a power of what remains, in cycles, after a warm-up.

    The counterpart of ``timm.scheduler.PolyLRScheduler``.

    Args:
        t_initial: the length of the first cycle.
        power: of the part of a cycle that remains.
        lr_min: the lowest rate.
        cycle_mul: what a cycle's length is multiplied by from one to the next; below 1, the rate
            past the sum of all cycles is the lowest.
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
        ValueError: an argument out of its range.
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

    def _falling(self, since: float, length: float) -> float:
        k = self.k_decay
        return float((1 - since**k / length**k) ** self.power)


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

    Raises:
        ValueError: an argument out of its range.
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

    def _check(self) -> None:
        super()._check()
        if not self.decay_t > 0:
            raise ValueError(f"Invalid decay_t ({self.decay_t}), must be > 0.")
        self._at_least_zero("decay_rate")

    def _moving(self, t: int) -> tuple[float, float, float]:
        return MOVING, self.decay_rate ** (t // self.decay_t), 0.0

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

    Raises:
        ValueError: an argument out of its range.
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

    def _check(self) -> None:
        super()._check()
        given = self.decay_t
        if not isinstance(given, Sequence) or not all(isinstance(t, numbers.Real) for t in given):
            raise ValueError(
                f"Invalid decay_t ({given!r}), must be a list of the milestones, also of one."
            )
        self._at_least_zero("decay_rate")

    def _moving(self, t: int) -> tuple[float, float, float]:
        return MOVING, self.decay_rate ** bisect.bisect_right(self.decay_t, t + 1), 0.0

    def _end(self) -> tuple[int, bool]:
        return math.ceil(max(self.decay_t, default=0)) + self.warmup_t, True
