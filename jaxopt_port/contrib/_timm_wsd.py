"""timm's schedule of warm-up, stable part and decay."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..lr_scheduler.arithmetic import Value, where
from ._timm_scheduler import MOVING, NoiseRange, TimmScheduler

_STABLE = ("constant", "rsqrt", "power")
_DECAY = ("linear", "1-sqrt", "cosine", "power", "exp")


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
        super()._check()
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
        self._at_least_zero("lr_min")
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

    def _moving(self, t: int) -> tuple[float, float, float]:
        falling = t - (self.t_initial - self.decay_t)
        if falling <= 0:
            return MOVING, self._stable(t), math.nan
        return MOVING, self._stable(t), self._decay(min(falling / self.decay_t, 1.0))

    def _formula(self, base: Value, a: Value, b: Value) -> Value:
        stable = base * a
        stable = where(stable < self.lr_min, base * 0.0 + self.lr_min, stable)
        return where(b != b, stable, lambda: self.lr_min + (stable - self.lr_min) * b)

    def _end(self) -> tuple[int, bool]:
        # A stable part that falls goes on falling below the last decay, which is then of nothing.
        return self.warmup_t + self.t_initial + 1, self._decay(1.0) == 0.0
