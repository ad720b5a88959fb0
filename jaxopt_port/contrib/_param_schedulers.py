"""fvcore's functions of how far a training is, from 0 to 1, and detectron2's warm-up of them."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from ._numbers import check_fields

# fvcore's, by which a boundary is passed a little early.
_EPSILON = 1e-6


def check_method(method: str) -> None:
    """Raise detectron2's error where a warm-up is of no known kind."""
    if method not in ("linear", "constant"):
        raise ValueError(f"Unknown warmup method: {method}; it is 'linear' or 'constant'")


def _check_known(function: object, where: Any) -> None:
    """Raise TypeError where it is given a compiled program's count, as a schedule is."""
    if isinstance(where, jax.core.Tracer):
        name = type(function).__name__
        raise TypeError(
            f"{name} is a function of how far a training is, from 0 to 1, and no schedule of a "
            f"count: LRMultiplier({name}(…), max_iter).as_schedule(lr) is one"
        )


@dataclass(frozen=True)
class CosineParamScheduler:
    """Fall along a half cosine.

    The counterpart of ``fvcore.common.param_scheduler.CosineParamScheduler``.

    Args:
        start_value: at 0.
        end_value: at 1.

    Example:
        >>> from jaxopt_port.contrib import CosineParamScheduler
        >>> CosineParamScheduler(1, 0.5)(0.5)
        0.75
    """

    start_value: float
    end_value: float

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, where: float) -> float:
        """Return the value where a training is, from 0 to 1."""
        _check_known(self, where)
        height = 0.5 * (self.start_value - self.end_value)
        return self.end_value + height * (1 + math.cos(math.pi * where))


@dataclass(frozen=True)
class MultiStepParamScheduler:
    """One value after the other, each from a milestone on.

    The counterpart of ``fvcore.common.param_scheduler.MultiStepParamScheduler``.

    Args:
        values: one for each stretch.
        num_updates: where the last stretch ends; the last milestone, where it is None.
        milestones: where one stretch ends and the next begins; stretches of one length, where it
            is None.

    Raises:
        ValueError: milestones that do not rise, or are not one for each change; in fvcore's words.

    Example:
        >>> from jaxopt_port.contrib import MultiStepParamScheduler
        >>> scheduler = MultiStepParamScheduler([1, 0.1, 0.01], milestones=[60, 80], num_updates=90)
        >>> [scheduler(step / 90) for step in (59, 60, 80)]
        [1, 0.1, 0.01]
    """

    values: Sequence[float]
    num_updates: int | None = None
    milestones: Sequence[int] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        values, end, milestones = tuple(self.values), self.num_updates, self.milestones
        if not values:
            raise ValueError("values must have one for each stretch; got none")
        if milestones is None:
            if end is None:
                raise ValueError("num_updates and milestones cannot both be None")
            width = math.ceil(end / float(len(values)))
            milestones = [width * (i + 1) for i in range(len(values) - 1)]
        elif len(milestones) != (wanted := len(values) - int(end is not None)):
            raise ValueError(
                f"MultiStep scheduler requires a list of {wanted} milestones; got {milestones}"
            )
        if end is None:
            end, milestones = milestones[-1], milestones[:-1]
        if end < len(values):
            raise ValueError(
                "Total num_updates must be greater than length of param schedule; got "
                f"num_updates={end}, {len(values)} values"
            )
        before = 0
        for milestone in milestones:
            if milestone >= end:
                raise ValueError(
                    "Milestone must be smaller than total number of updates: "
                    f"num_updates={end}, milestone={milestone}"
                )
            if before >= milestone:
                raise ValueError(
                    f"Milestones must rise, from above 0: got {milestone} after {before}"
                )
            before = milestone
        for name, value in zip(
            ("values", "num_updates", "milestones"), (values, end, tuple(milestones)), strict=True
        ):
            object.__setattr__(self, name, value)

    def __call__(self, where: float) -> float:
        """Return the value where a training is, from 0 to 1."""
        _check_known(self, where)
        if where > 1.0:
            raise RuntimeError(f"where in ParamScheduler must be in [0, 1]: got {where}")
        assert self.num_updates is not None
        assert self.milestones is not None
        update = int((where + _EPSILON) * self.num_updates)
        return self.values[bisect.bisect_right(self.milestones, update)]


@dataclass(frozen=True)
class WarmupParamScheduler:
    """A warm-up before another function of how far a training is.

    The counterpart of ``detectron2.solver.lr_scheduler.WarmupParamScheduler``.

    Args:
        scheduler: what follows: one of this package, fvcore's own, or any function of a number
            from 0 to 1.
        warmup_factor: where the warm-up begins, as a part of what the other begins with.
        warmup_length: its part of the whole training, from 0 to 1.
        warmup_method: ``"linear"``, to what the other is at its end, or ``"constant"``.
        rescale_interval: whether the other begins after the warm-up, and not within it.

    Raises:
        ValueError: an unknown method, or a length out of range.

    Example:
        >>> from jaxopt_port.contrib import CosineParamScheduler, WarmupParamScheduler
        >>> scheduler = WarmupParamScheduler(CosineParamScheduler(1, 0), 0.1, 0.2)
        >>> [round(scheduler(where), 3) for where in (0.0, 0.1, 0.2, 0.5, 1.0)]
        [0.1, 0.502, 0.905, 0.5, 0.0]
    """

    scheduler: Callable[[float], float]
    warmup_factor: float
    warmup_length: float
    warmup_method: str = "linear"
    rescale_interval: bool = False

    def __post_init__(self) -> None:
        if not callable(self.scheduler):
            raise TypeError(
                "scheduler must be a function of how far the training is, from 0 to 1; got "
                f"{self.scheduler!r}"
            )
        check_fields(self)
        check_method(self.warmup_method)
        if not 0 <= self.warmup_length <= 1:
            raise ValueError(
                f"Invalid warmup_length ({self.warmup_length}), must be a part of the training, "
                "from 0 to 1: warm-up steps over all steps"
            )

    def __call__(self, where: float) -> float:
        """Return the value where a training is, from 0 to 1."""
        _check_known(self, where)
        length = self.warmup_length
        if where + _EPSILON <= length:
            first = self.warmup_factor * self.scheduler(0.0)
            if self.warmup_method == "constant":
                return first
            reached = self.scheduler(0.0 if self.rescale_interval else length)
            part = where / length
            return reached * part + first * (1 - part)
        if self.rescale_interval:
            rest = 1 - length
            where = (where - (length + rest - rest)) / rest
        return self.scheduler(where)
