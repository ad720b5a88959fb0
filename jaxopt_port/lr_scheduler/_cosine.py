"""Cosine annealing, once and with warm restarts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ._arithmetic import Value, cos, floor, is_traced, log, truncated, where
from ._groups import Groups
from ._messages import MORE_GROUPS
from ._scheduler import EpochScheduler, LRScheduler
from ._state import Own, SchedulerState

State = TypeVar("State")


@dataclass(frozen=True)
class CosineAnnealingLR(EpochScheduler):
    """Move the learning rate between its initial value and ``eta_min`` along a cosine.

    The counterpart of ``torch.optim.lr_scheduler.CosineAnnealingLR``; from SGDR: Stochastic
    Gradient Descent with Warm Restarts (Loshchilov and Hutter, 2017), without the restarts. After
    ``T_max`` epochs the learning rate rises again.

    Args:
        T_max: epochs from the initial value to the lowest.
        eta_min: the lowest.
        last_epoch: -1 to begin; otherwise the epoch after which a run is resumed.

    Example:
        >>> import jaxopt_port as jp
        >>> schedule = jp.lr_scheduler.CosineAnnealingLR(T_max=2).as_schedule(1.0)
        >>> [round(float(schedule(count)), 6) for count in range(5)]
        [1.0, 0.5, 0.0, 0.5, 1.0]
    """

    T_max: int
    eta_min: float = 0.0
    last_epoch: int = -1

    def _check(self) -> None:
        if self.T_max == 0:
            raise ValueError("T_max must not be 0")

    def _arguments(self, size: int) -> dict[str, Any]:
        return {"T_max": self.T_max, "eta_min": self.eta_min}

    def _get_lr(self, own: Own, groups: Groups, initial: bool) -> Value:
        if initial:
            return groups.lr
        epoch, last = own.last_epoch, self.T_max

        def turn() -> Value:
            height = self._base_lrs(own, groups, MORE_GROUPS) - self.eta_min
            return groups.lr + height * (1 - math.cos(math.pi / last)) / 2

        def between() -> Value:
            ratio = (1 + cos(math.pi * epoch / last)) / (1 + cos(math.pi * (epoch - 1) / last))
            return ratio * (groups.lr - self.eta_min) + self.eta_min

        return where((epoch - 1 - last) % (2 * last) == 0, turn, between)

    def _get_closed_form_lr(self, own: Own, groups: Groups) -> Value:
        height = self._base_lrs(own, groups) - self.eta_min
        return self.eta_min + height * (1 + cos(math.pi * own.last_epoch / self.T_max)) / 2


@dataclass(frozen=True)
class CosineAnnealingWarmRestarts(LRScheduler):
    """Let the learning rate fall along a cosine, and start again, in longer and longer periods.

    The counterpart of ``torch.optim.lr_scheduler.CosineAnnealingWarmRestarts``; from SGDR:
    Stochastic Gradient Descent with Warm Restarts (Loshchilov and Hutter, 2017).

    Args:
        T_0: epochs of the first period.
        T_mult: factor of the period after each restart.
        eta_min: the lowest learning rate.
        last_epoch: -1 to begin; otherwise the epoch after which a run is resumed.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> import jaxopt_port as jp
        >>> schedule = jp.lr_scheduler.CosineAnnealingWarmRestarts(T_0=2).as_schedule(1.0)
        >>> [round(float(schedule(count)), 6) for count in range(5)]
        [1.0, 0.5, 1.0, 0.5, 1.0]
    """

    T_0: int
    T_mult: int = 1
    eta_min: float = 0.0
    last_epoch: int = -1

    def _check(self) -> None:
        if self.T_0 <= 0 or not isinstance(self.T_0, int):
            raise ValueError(f"Expected positive integer T_0, but got {self.T_0}")
        if self.T_mult < 1 or not isinstance(self.T_mult, int):
            raise ValueError(f"Expected integer T_mult >= 1, but got {self.T_mult}")
        if not isinstance(self.eta_min, float | int):
            raise ValueError(
                f"Expected float or int eta_min, but got {self.eta_min} of type "
                f"{type(self.eta_min)}"
            )

    def step(
        self, state: State, sched_state: SchedulerState, epoch: float | None = None
    ) -> tuple[State, SchedulerState]:
        """Take one step: torch's ``scheduler.step()``, or ``scheduler.step(epoch)``.

        Args:
            state: the optimizer's state.
            sched_state: the scheduler's, from `init` or an earlier step.
            epoch: go to this epoch, which may be a fraction: ``epoch + batch / batches``.

        Returns:
            Both states; the arguments are left as they were.

        Raises:
            TypeError: no state of this scheduler.
            ValueError: a negative epoch.
        """
        if epoch is not None and not is_traced(epoch):
            epoch = np.asarray(epoch).item()
            if epoch < 0:
                raise ValueError(f"Expected non-negative epoch, but got {epoch}")
        stepped: tuple[State, SchedulerState] = self._stepped(state, sched_state, epoch)
        return stepped

    def _arguments(self, size: int) -> dict[str, Any]:
        return {"T_0": self.T_0, "T_mult": self.T_mult, "eta_min": self.eta_min}

    def _first(self) -> dict[str, Any]:
        return {"T_i": self.T_0, "T_cur": float(self.last_epoch)}

    def _advance(
        self, own: Own, groups: Groups, epoch: Value | None = None, *, initial: bool = False
    ) -> None:
        if epoch is not None:
            self._go_to(own, epoch)
        else:
            begun = own.last_epoch >= 0
            later = own.T_cur + 1
            over = later >= own.T_i
            own.T_cur = where(begun, lambda: where(over, later % own.T_i, later), 0.0)
            own.T_i = where(begun, where(over, own.T_i * self.T_mult, own.T_i), self.T_0)
            own.last_epoch = where(begun, own.last_epoch + 1, 0)
        groups.lr = self._get_lr(own, groups, initial)
        own._last_lr = groups.lr

    def _go_to(self, own: Own, epoch: Value) -> None:
        own.last_epoch = floor(epoch) if not isinstance(epoch, int) else epoch
        if self.T_mult == 1:
            own.T_cur = 1.0 * where(epoch >= self.T_0, lambda: epoch % self.T_0, epoch)
            return
        ratio, first = self.T_mult, self.T_0
        beyond = epoch >= first

        def restarts() -> Value:
            return truncated(log(epoch / first * (ratio - 1) + 1, ratio))

        # 1.0 * an integer is exact.
        periods = where(beyond, lambda: 1.0 * ratio ** restarts(), 1.0)
        since = where(beyond, lambda: epoch - first * (periods - 1) / (ratio - 1), epoch)
        own.T_cur, own.T_i = 1.0 * since, truncated(first * periods)

    def _get_lr(self, own: Own, groups: Groups, initial: bool) -> Value:
        height = self._base_lrs(own, groups) - self.eta_min
        return self.eta_min + height * (1 + cos(math.pi * own.T_cur / own.T_i)) / 2
