"""detectron2's schedules: a warm-up, and what it multiplies."""

from __future__ import annotations

import bisect
import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..lr_scheduler import SchedulerState
from ..lr_scheduler.arithmetic import (
    EpochScheduler,
    Groups,
    Own,
    Value,
    check_state_dict,
    read_value,
)
from ._looked_up import value_at
from ._param_schedulers import check_method


class _Warmed(EpochScheduler):
    """What is multiplied by the factor of a warm-up."""

    warmup_factor: float
    warmup_iters: int
    warmup_method: str

    def _check(self) -> None:
        check_method(self.warmup_method)

    def _arguments(self, size: int) -> dict[str, Any]:
        return {
            field.name: list(value) if isinstance(value, tuple) else value
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
            for value in [getattr(self, field.name)]
            if field.name != "last_epoch"
        }

    def _warmth(self, step: int) -> float:
        if step >= self.warmup_iters:
            return 1.0
        if self.warmup_method == "constant":
            return self.warmup_factor
        part = step / self.warmup_iters
        return self.warmup_factor * (1 - part) + part

    def _warmed(self, own: Own, groups: Groups) -> Value:
        warmth = value_at(self._warmth, self.warmup_iters, True, own.last_epoch)
        return self._base_lrs(own, groups) * warmth


@dataclass(frozen=True)
class WarmupMultiStepLR(_Warmed):
    """Multiply the rate by ``gamma`` at each milestone, and by a factor that warms up to 1.

    The counterpart of ``detectron2.solver.lr_scheduler.WarmupMultiStepLR``, which detectron2 keeps
    for old code; its configurations of this name make an `LRMultiplier`.

    Args:
        milestones: steps, in order.
        gamma: the factor at each.
        warmup_factor: that of the first step.
        warmup_iters: steps of the warm-up; 0 for none.
        warmup_method: ``"linear"``, or ``"constant"`` until its end.
        last_epoch: -1 to begin; otherwise the step after which a run is resumed.

    Raises:
        ValueError: milestones out of order, or an unknown method.

    Example:
        >>> from jaxopt_port.contrib import WarmupMultiStepLR
        >>> scheduler = WarmupMultiStepLR([4], 0.5, warmup_factor=0.5, warmup_iters=2)
        >>> schedule = scheduler.as_schedule(1.0)
        >>> [float(schedule(count)) for count in range(6)]
        [0.5, 0.75, 1.0, 1.0, 0.5, 0.5]
    """

    milestones: Sequence[int]
    gamma: float = 0.1
    warmup_factor: float = 0.001
    warmup_iters: int = 1000
    warmup_method: str = "linear"
    last_epoch: int = -1

    def _check(self) -> None:
        super()._check()
        given = self.milestones
        listed = isinstance(given, tuple) and all(isinstance(t, numbers.Real) for t in given)
        if not listed or list(given) != sorted(given):
            raise ValueError(f"Milestones should be a list of increasing integers. Got {given!r}")

    def load_state_dict(
        self,
        state_dict: Mapping[str, Any],
        param_groups: Sequence[Mapping[str, Any]] | None = None,
    ) -> SchedulerState:
        """Return the scheduler's state: see `jaxopt_port.lr_scheduler.LRScheduler`."""
        check_state_dict(state_dict)
        held = dict(state_dict)
        if "milestones" in held:  # a tuple, where they came from a configuration
            held["milestones"] = list(held["milestones"])
        return super().load_state_dict(held, param_groups)

    def _get_lr(self, own: Own, groups: Groups, initial: bool) -> Value:
        last = max(self.milestones, default=0)
        return self._warmed(own, groups) * value_at(self._passed, last, True, own.last_epoch)

    def _passed(self, step: int) -> float:
        power: float = self.gamma ** bisect.bisect_right(self.milestones, step)
        return power


@dataclass(frozen=True)
class WarmupCosineLR(_Warmed):
    """Let the rate fall along a half cosine, multiplied by a factor that warms up to 1.

    The counterpart of ``detectron2.solver.lr_scheduler.WarmupCosineLR``, which detectron2 keeps for
    old code; its configurations of this name make an `LRMultiplier`.

    Args:
        max_iters: steps of the whole, the warm-up among them.
        warmup_factor: that of the first step.
        warmup_iters: steps of the warm-up; 0 for none.
        warmup_method: ``"linear"``, or ``"constant"`` until its end.
        last_epoch: -1 to begin; otherwise the step after which a run is resumed.

    Raises:
        ValueError: an unknown method, or no steps.

    Example:
        >>> from jaxopt_port.contrib import WarmupCosineLR
        >>> schedule = WarmupCosineLR(4, warmup_factor=0.5, warmup_iters=1).as_schedule(1.0)
        >>> [round(float(schedule(count)), 3) for count in range(5)]
        [0.5, 0.854, 0.5, 0.146, 0.0]
    """

    max_iters: int
    warmup_factor: float = 0.001
    warmup_iters: int = 1000
    warmup_method: str = "linear"
    last_epoch: int = -1

    def _check(self) -> None:
        super()._check()
        if not self.max_iters > 0:
            raise ValueError(f"Invalid max_iters ({self.max_iters}), must be > 0.")

    def _get_lr(self, own: Own, groups: Groups, initial: bool) -> Value:
        wave = value_at(self._wave, self.max_iters, False, own.last_epoch)
        return self._warmed(own, groups) * 0.5 * wave

    def _wave(self, step: int) -> float:
        return 1.0 + math.cos(math.pi * step / self.max_iters)


@dataclass(frozen=True)
class LRMultiplier(EpochScheduler):
    """Set the rate to its initial value times a function of how far the training is.

    The counterpart of ``detectron2.solver.LRMultiplier``, with its state dict.

    Args:
        multiplier: a function of a number from 0 to 1: `WarmupParamScheduler`, one of fvcore's
            own, or any other. Under ``jit`` it is called for each step beforehand.
        max_iter: steps of the training.
        last_iter: -1 to begin; otherwise the step after which a run is resumed.

    Raises:
        TypeError: a multiplier that cannot be called.
        ValueError: no steps.

    Example:
        >>> from jaxopt_port import contrib
        >>> steps = contrib.MultiStepParamScheduler([1, 0.5], milestones=[4], num_updates=6)
        >>> scheduler = contrib.LRMultiplier(
        ...     contrib.WarmupParamScheduler(steps, warmup_factor=0.5, warmup_length=2 / 6), 6
        ... )
        >>> schedule = scheduler.as_schedule(1.0, total_steps=6)
        >>> [round(float(schedule(count)), 3) for count in range(7)]
        [0.5, 0.75, 1.0, 1.0, 0.5, 0.5, 0.5]
    """

    multiplier: Callable[[float], float]
    max_iter: int
    last_iter: int = -1

    @property
    def last_epoch(self) -> int:  # type: ignore[override]
        """detectron2's ``last_iter``, by torch's name."""
        return self.last_iter

    def _check(self) -> None:
        if not callable(self.multiplier):
            raise TypeError(
                "multiplier must be a function of how far the training is, from 0 to 1; got "
                f"{self.multiplier!r}"
            )
        if not self.max_iter > 0:
            raise ValueError(f"Invalid max_iter ({self.max_iter}), must be > 0.")

    def state_dict(self, sched_state: SchedulerState) -> dict[str, Any]:
        """Return detectron2's ``scheduler.state_dict()``: initial rates, and the step."""
        held = super().state_dict(sched_state)
        return {name: held[name] for name in ("base_lrs", "last_epoch")}

    def load_state_dict(
        self,
        state_dict: Mapping[str, Any],
        param_groups: Sequence[Mapping[str, Any]] | None = None,
    ) -> SchedulerState:
        """Return the scheduler's state from a state dict, detectron2's or one of `state_dict`.

        Args:
            state_dict: as detectron2's ``scheduler.state_dict()``.
            param_groups: not needed.

        Raises:
            ValueError: the state dict of another scheduler.
        """
        check_state_dict(state_dict)
        for name in ("base_lrs", "last_epoch"):
            if name not in state_dict:
                raise ValueError(f"the state dict is not that of a {self.kind}: it has no {name!r}")
        step = read_value("last_epoch", state_dict["last_epoch"], 0)
        groups = Groups(read_value("base_lrs", state_dict["base_lrs"], np.zeros(0)))
        own = dataclasses.replace(self, last_iter=-1)._construct(groups)
        own.last_epoch, own._step_count = step, step + 1
        own._last_lr = own.base_lrs * self._factor(step)
        return self._encoded(own, groups)

    def _arguments(self, size: int) -> dict[str, Any]:
        return {}

    def _get_lr(self, own: Own, groups: Groups, initial: bool) -> Value:
        factor = value_at(self._factor, self.max_iter, False, own.last_epoch)
        return self._base_lrs(own, groups) * factor

    def _factor(self, step: int) -> float:
        return float(self.multiplier(step / self.max_iter))
