"""Reduction of the learning rate where a metric has stopped improving."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from .._compat import varying_axes
from ._arithmetic import GroupsError, Value, is_traced, maximum, where
from ._groups import Groups, for_each
from ._messages import EPOCH_DEPRECATION
from ._scheduler import LRScheduler, whole
from ._state import Own, SchedulerState

State = TypeVar("State")


@dataclass(frozen=True)
class ReduceLROnPlateau(LRScheduler):
    """Multiply the learning rate by ``factor`` where a metric has stopped improving.

    The counterpart of ``torch.optim.lr_scheduler.ReduceLROnPlateau``.

    Args:
        mode: whether a ``"min"`` or a ``"max"`` of the metric is better.
        factor: below 1.
        patience: how many evaluations without improvement are let pass.
        threshold: how much better is better.
        threshold_mode: whether that is ``"rel"``, a part of the best, or ``"abs"``.
        cooldown: evaluations after a reduction in which nothing is counted.
        min_lr: lower bound, for all groups or a list of one for each.
        eps: a reduction by no more than this is not made.

    Raises:
        ValueError: an argument out of range; by `init`, a list of another length than there are
            groups (frozen ones not counted).

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> scheduler = jp.lr_scheduler.ReduceLROnPlateau(factor=0.5, patience=0)
        >>> state, sched_state = scheduler.init(jp.SGD(lr=0.1).init({"weight": jnp.ones(3)}))
        >>> for loss in (2.0, 1.0, 1.0):
        ...     state, sched_state = scheduler.step(state, sched_state, loss)
        >>> scheduler.get_last_lr(sched_state)
        [0.05]
    """

    mode: Literal["min", "max"] = "min"
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: int = 0
    min_lr: float | Sequence[float] = 0
    eps: float = 1e-8

    def _check(self) -> None:
        if self.factor >= 1.0:
            raise ValueError("Factor should be < 1.0.")
        if self.mode not in ("min", "max"):
            raise ValueError(f"mode {self.mode} is unknown!")
        if self.threshold_mode not in ("rel", "abs"):
            raise ValueError(f"threshold mode {self.threshold_mode} is unknown!")

    def step(
        self, state: State, sched_state: SchedulerState, metrics: Any, epoch: int | None = None
    ) -> tuple[State, SchedulerState]:
        """Take one step: torch's ``scheduler.step(metrics)``.

        Args:
            state: the optimizer's state.
            sched_state: the scheduler's, from `init` or an earlier step.
            metrics: the metric, one number. A NaN is no improvement.
            epoch: deprecated by torch: the number of the epoch.

        Returns:
            Both states; the arguments are left as they were.

        Raises:
            TypeError: no state of this scheduler, or no number.
            ValueError: within ``jax.shard_map``, a number that differs between devices.
            RuntimeError: a list of ``min_lr`` and another number of groups.
        """
        stepped: tuple[State, SchedulerState] = self._stepped(
            state, sched_state, metric_number(metrics), whole(epoch)
        )
        return stepped

    def as_schedule(
        self, base_lr: float, steps_per_epoch: int = 1, total_steps: int = 10_000
    ) -> Any:
        """Raise ValueError: an Optax schedule sees the count alone."""
        raise ValueError(
            "ReduceLROnPlateau follows a metric, and an Optax schedule is told the count alone; "
            "use init and step"
        )

    def _arguments(self, size: int) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "default_min_lr": None if isinstance(self.min_lr, tuple) else self.min_lr,
            "min_lrs": for_each(self.min_lr, size),
            "patience": self.patience,
            "cooldown": self.cooldown,
            "eps": self.eps,
            "mode": self.mode,
            "threshold": self.threshold,
            "threshold_mode": self.threshold_mode,
            "mode_worse": math.inf if self.mode == "min" else -math.inf,
        }

    def _construct(self, groups: Groups) -> Own:
        given = len(for_each(self.min_lr, len(groups)))
        if given != len(groups):
            raise ValueError(f"expected {len(groups)} min_lrs, got {given}{groups.not_counted()}")
        worst = math.inf if self.mode == "min" else -math.inf
        return Own(
            last_epoch=0, best=worst, cooldown_counter=0, num_bad_epochs=0, _last_lr=groups.lr
        )

    def _advance(  # type: ignore[override]
        self, own: Own, groups: Groups, metrics: Value, epoch: Value | None = None
    ) -> None:
        if epoch is not None:
            warnings.warn(EPOCH_DEPRECATION, UserWarning, stacklevel=4)
        own.last_epoch = own.last_epoch + 1 if epoch is None else epoch
        better = self._is_better(metrics, own.best)
        own.best = where(better, metrics, own.best)
        bad_epochs = where(better, 0, own.num_bad_epochs + 1)
        in_cooldown = own.cooldown_counter > 0
        cooldown = where(in_cooldown, own.cooldown_counter - 1, own.cooldown_counter)
        bad_epochs = where(in_cooldown, 0, bad_epochs)
        reduce = bad_epochs > self.patience
        groups.lr = where(reduce, lambda: self._reduced(groups), groups.lr)
        own.cooldown_counter = where(reduce, self.cooldown, cooldown)
        own.num_bad_epochs = where(reduce, 0, bad_epochs)
        own._last_lr = groups.lr

    def _is_better(self, a: Value, best: Value) -> Value:
        if self.mode == "min":
            if self.threshold_mode == "rel":
                return a < best * (1.0 - self.threshold)
            return a < best - self.threshold
        if self.threshold_mode == "rel":
            return a > best * (self.threshold + 1.0)
        return a > best + self.threshold

    def _reduced(self, groups: Groups) -> Value:
        min_lrs = np.array(for_each(self.min_lr, len(groups)), np.float64)
        if len(min_lrs) != len(groups):
            raise GroupsError(
                f"The number of param groups in the `optimizer` ({len(groups)}) differs from when "
                f"`ReduceLROnPlateau` was initialized ({len(min_lrs)}), usually due to a new param "
                "group being added to the optimizer. Please make a scheduler with as many values "
                "of `min_lr`."
            )
        new = maximum(groups.lr * self.factor, min_lrs)
        return where(groups.lr - new > self.eps, new, groups.lr)


def metric_number(metrics: Any) -> Value:
    """Return a metric as one number, or raise; torch's tensors will do."""
    if not is_traced(metrics):
        try:
            return float(metrics.item() if hasattr(metrics, "item") else metrics)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            raise TypeError(f"metrics must be one number; got {metrics!r}") from None
    if metrics.size != 1:
        raise TypeError(f"metrics must be one number; got {metrics!r}")
    axes = tuple(sorted(varying_axes(metrics)))
    if axes:
        raise ValueError(
            "within jax.shard_map the metrics differ between devices, and so would the learning "
            f"rates: give their mean, jax.lax.pmean(metrics, {axes})"
        )
    return metrics.reshape(())
