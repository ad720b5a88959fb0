"""Schedules that rise and then fall with the root of the step, of OpenNMT and fairseq."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np

from ..lr_scheduler import LambdaLR, LRScheduler, SchedulerState
from ..lr_scheduler.arithmetic import (
    Groups,
    Own,
    Value,
    check_state_dict,
    metric_number,
    read_value,
    where,
    whole,
)
from ._looked_up import looked_up, value_at
from ._numbers import takes_numbers

State = TypeVar("State")

# Which step of its formula a package is at, after so many of the optimizer's.
_FIRST: dict[str, Callable[[int], int]] = {
    "opennmt": lambda step: step + 1,
    "annotated-transformer": lambda step: max(step, 1),
}
# What is looked up in a traced program; a run that is longer asks Python from there on.
_LONG = 1 << 16


@takes_numbers
def get_noam_schedule(
    model_size: int,
    warmup_steps: int = 4000,
    factor: float = 1.0,
    last_epoch: int = -1,
    *,
    package: str = "opennmt",
) -> LambdaLR:
    """Rise, and fall with the root of the step, scaled by the width of the model.

    The schedule of *Attention Is All You Need* (Noam Shazeer's), as OpenNMT's
    ``decay_method="noam"`` and the Annotated Transformer's ``NoamOpt`` have it, of which the first
    step is 1; or as the latter's ``rate`` in a ``LambdaLR``, of which the first two are.

    Args:
        model_size: the width, ``d_model``.
        warmup_steps: steps to the highest rate.
        factor: what the whole is multiplied by; the rate that the optimizer is made with, too.
        last_epoch: -1 to begin; otherwise the step after which a run is resumed.
        package: ``"opennmt"`` or ``"annotated-transformer"``.

    Raises:
        ValueError: an unknown package, or a number that is not above 0.

    Example:
        >>> from jaxopt_port.contrib import get_noam_schedule
        >>> schedule = get_noam_schedule(4, warmup_steps=4).as_schedule(1.0)
        >>> [round(float(schedule(count)), 4) for count in range(6)]
        [0.0625, 0.125, 0.1875, 0.25, 0.2236, 0.2041]
    """
    if package not in _FIRST:
        raise ValueError(f"unknown package {package!r}; there are {', '.join(_FIRST)}")
    for name, number in (("model_size", model_size), ("warmup_steps", warmup_steps)):
        if not number > 0:
            raise ValueError(f"Invalid {name} ({number}), must be > 0.")
    first = _FIRST[package]

    def rate(step: int) -> float:
        at = first(step)
        lower: float = min(at**-0.5, at * warmup_steps**-1.5)
        return float(factor * (model_size**-0.5 * lower))

    return LambdaLR(looked_up(rate, _LONG, False), last_epoch)


@dataclass(frozen=True)
class InverseSquareRootSchedule(LRScheduler):
    """Rise to a rate, and fall with the root of the update: one rate for all groups.

    The counterpart of fairseq's ``inverse_sqrt``,
    ``fairseq.optim.lr_scheduler.inverse_square_root_schedule.InverseSquareRootSchedule``.

    Args:
        lr: the rate at the end of the warm-up, or a list of this one; the optimizer's own is
            written over.
        warmup_updates: updates of the warm-up.
        warmup_init_lr: the rate that it begins with; 0 where it is negative.

    Raises:
        TypeError: a rate that is no number.
        ValueError: several rates, one below 0, or no updates of a warm-up (fairseq divides by it).

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import InverseSquareRootSchedule
        >>> scheduler = InverseSquareRootSchedule(0.5, warmup_updates=2)
        >>> state, own = scheduler.init(jp.SGD(lr=0.1).init({"weight": jnp.ones(3)}))
        >>> rates = scheduler.get_last_lr(own)
        >>> for update in range(1, 5):
        ...     state, own = scheduler.step_update(state, own, update)
        ...     rates += scheduler.get_last_lr(own)
        >>> [round(rate, 3) for rate in rates]
        [0.0, 0.25, 0.5, 0.408, 0.354]
    """

    composable: ClassVar[bool] = False
    lr: float | Sequence[float]
    warmup_updates: int = 4000
    warmup_init_lr: float = -1.0

    def _check(self) -> None:
        if isinstance(self.lr, tuple) and len(self.lr) != 1:
            raise ValueError(
                "Cannot use a fixed learning rate schedule with inverse_sqrt. Consider "
                f"--lr-scheduler=fixed instead. Got the rates {list(self.lr)}"
            )
        if not isinstance(self._reached, numbers.Real):
            raise TypeError(f"lr of {self.kind} must be a number; got {self._reached!r}")
        if not self._reached >= 0:
            raise ValueError(f"Invalid lr ({self._reached}), must be >= 0.")
        if not self.warmup_updates > 0:
            raise ValueError(f"Invalid warmup_updates ({self.warmup_updates}), must be > 0.")

    def step(
        self, state: State, sched_state: SchedulerState, epoch: Any = None, val_loss: Any = None
    ) -> tuple[State, SchedulerState]:
        """End an epoch: fairseq's ``scheduler.step(epoch, val_loss)``, which changes no rate.

        Args:
            state: the optimizer's state.
            sched_state: the scheduler's.
            epoch: not used, as in fairseq.
            val_loss: a loss, of which the least is kept for the state dict.

        Returns:
            Both states.

        Raises:
            TypeError: a loss that is no number.
        """
        self._check_state(sched_state)
        if val_loss is None:
            return state, sched_state
        stepped: tuple[State, SchedulerState] = self._stepped(
            state, sched_state, None, metric_number(val_loss)
        )
        return stepped

    def step_update(
        self, state: State, sched_state: SchedulerState, num_updates: Any
    ) -> tuple[State, SchedulerState]:
        """Set the rate after a count of updates: fairseq's ``scheduler.step_update(num_updates)``.

        Args:
            state: the optimizer's state.
            sched_state: the scheduler's.
            num_updates: from 0 on; may be traced.

        Returns:
            Both states.

        Raises:
            TypeError: a count that is not whole.
            ValueError: one below 0.
        """
        self._check_state(sched_state)
        updates = whole(num_updates)
        if updates is None or (isinstance(updates, int) and updates < 0):
            raise ValueError(f"the count of {self.kind} must be >= 0; got {updates}")
        stepped: tuple[State, SchedulerState] = self._stepped(state, sched_state, updates)
        return stepped

    def state_dict(self, sched_state: SchedulerState) -> dict[str, Any]:
        """Return fairseq's ``scheduler.state_dict()``: the least loss alone; None before one."""
        self._check_state(sched_state)
        best = float(np.asarray(sched_state.values["best"], np.float64).sum())
        return {"best": None if math.isinf(best) else best}

    def load_state_dict(
        self,
        state_dict: Mapping[str, Any],
        param_groups: Sequence[Mapping[str, Any]] | None = None,
    ) -> SchedulerState:
        """Return the scheduler's state from a state dict of fairseq's, or one of `state_dict`.

        fairseq saves no rates; go on by `step_update` with the count of updates, as it does.

        Args:
            state_dict: as fairseq's ``scheduler.state_dict()``.
            param_groups: torch's ``optimizer.state_dict()["param_groups"]``: how many groups there
                are, and their rates; one group at the first rate, if it is not given.

        Raises:
            ValueError: the state dict of another scheduler.
        """
        check_state_dict(state_dict)
        if "best" not in state_dict:
            raise ValueError(f"the state dict is not that of a {self.kind}: it has no 'best'")
        trained = [group for group in param_groups or [{}] if not group.get("frozen")]
        groups = Groups(np.zeros(len(trained)))
        own = self._construct(groups)
        if all("lr" in group for group in trained):
            own._last_lr = np.array([group["lr"] for group in trained], np.float64)
        best = math.inf if state_dict["best"] is None else state_dict["best"]
        own.best = read_value("best", best, math.inf)
        return self._encoded(own, groups)

    def _construct(self, groups: Groups) -> Own:
        own = Own(last_epoch=-1, best=math.inf)
        self._advance(own, groups)
        return own

    def _advance(  # type: ignore[override]
        self, own: Own, groups: Groups, updates: Value | None = None, loss: Value | None = None
    ) -> None:
        if loss is not None:
            own.best = where(loss < own.best, loss, own.best)
            return
        own.last_epoch = own.last_epoch + 1 if updates is None else updates
        rate = value_at(self._rate, _LONG, False, own.last_epoch)
        groups.lr = own._last_lr = where(groups.lr == groups.lr, rate, groups.lr)

    @property
    def _reached(self) -> float:
        given: Any = self.lr
        lr: float = given[0] if isinstance(given, tuple) else given
        return lr

    def _rate(self, updates: int) -> float:
        end = self._reached
        first = self.warmup_init_lr if self.warmup_init_lr >= 0 else 0
        if updates < self.warmup_updates:
            return first + updates * ((end - first) / self.warmup_updates)
        fallen: float = end * self.warmup_updates**0.5 * updates**-0.5
        return fallen
