"""timm's schedule that follows a metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from ..lr_scheduler import ReduceLROnPlateau, SchedulerState
from ..lr_scheduler.arithmetic import (
    Groups,
    Own,
    Value,
    check_state_dict,
    extended,
    metric_number,
    raw,
    read_value,
    where,
)
from ._looked_up import value_at
from ._timm_scheduler import NoiseRange, TimmScheduler

State = TypeVar("State")


@dataclass(frozen=True)
class PlateauLRScheduler(TimmScheduler):
    """Multiply the rate by a factor where a metric has stopped improving, after a warm-up.

    The counterpart of ``timm.scheduler.PlateauLRScheduler``, which timm has deprecated: torch's
    ``ReduceLROnPlateau`` with a warm-up, and with noise that is taken back before the next epoch.
    A rate that is reduced is kept by the optimizer, as in timm.

    Args:
        decay_rate: the factor, below 1.
        patience_t: how many epochs without improvement are let pass.
        threshold: how much better is better, as a part of the best.
        cooldown_t: epochs after a reduction in which nothing is counted.
        warmup_t: epochs of the warm-up; 0 for none.
        warmup_lr_init: the rate that it begins with; `step` of epoch 0 sets it without a warm-up
            too, as timm's does.
        lr_min: the lowest rate.
        mode: whether a ``"min"`` or a ``"max"`` of the metric is better.
        noise_range_t: from which epoch on rates are noisy, or a pair of epochs between which.
        noise_pct: the most that noise adds or takes, as a part of the rate.
        noise_std: its standard deviation.
        noise_seed: the seed of torch's generator, to which the epoch is added.

    Raises:
        ValueError: an argument out of its range.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import PlateauLRScheduler
        >>> scheduler = PlateauLRScheduler(decay_rate=0.5, patience_t=0, warmup_t=1)
        >>> state, own = scheduler.init(jp.SGD(lr=0.8).init({"weight": jnp.ones(3)}))
        >>> rates = scheduler.get_last_lr(own)
        >>> for epoch, accuracy in enumerate((0.1, 0.4, 0.3, 0.5), start=1):
        ...     state, own = scheduler.step(state, own, epoch, accuracy)
        ...     rates += scheduler.get_last_lr(own)
        >>> rates
        [0.0, 0.8, 0.8, 0.4, 0.4]
    """

    decay_rate: float = 0.1
    patience_t: int = 10
    threshold: float = 1e-4
    cooldown_t: int = 0
    warmup_t: int = 0
    warmup_lr_init: float = 0.0
    lr_min: float = 0.0
    mode: Literal["min", "max"] = "max"
    noise_range_t: NoiseRange = None
    noise_pct: float = 0.67
    noise_std: float = 1.0
    noise_seed: int = 42

    t_in_epochs = True

    def _check(self) -> None:
        super()._check()
        self._at_least_zero("decay_rate", "lr_min")
        _ = self._followed  # which checks the arguments that are torch's

    @property
    def _followed(self) -> ReduceLROnPlateau:
        return ReduceLROnPlateau(
            mode=self.mode,
            factor=self.decay_rate,
            patience=self.patience_t,
            threshold=self.threshold,
            cooldown=self.cooldown_t,
            min_lr=self.lr_min,
        )

    def step(
        self, state: State, sched_state: SchedulerState, epoch: Any, metric: Any = None
    ) -> tuple[State, SchedulerState]:
        """Set the rates of the next epoch: timm's ``scheduler.step(epoch, metric)``.

        Args:
            state: the optimizer's state.
            sched_state: the scheduler's.
            epoch: which epoch comes next, from 0 on; may be traced.
            metric: that of the epoch before, one number; may be traced. Without one, nothing is
                counted.

        Returns:
            Both states.

        Raises:
            TypeError: an epoch that is not whole, or a metric that is no number.
            ValueError: an epoch below 0.
        """
        given = None if metric is None else metric_number(metric)
        return self._at(state, sched_state, epoch, True, given)

    def as_schedule(
        self, base_lr: float, steps_per_epoch: int = 1, total_steps: int = 10_000
    ) -> Any:
        """Raise ValueError: an Optax schedule sees the count alone."""
        raise ValueError(
            "PlateauLRScheduler follows a metric, and an Optax schedule is told the count alone; "
            "use init and step"
        )

    def state_dict(self, sched_state: SchedulerState) -> dict[str, Any]:
        """Return timm's ``scheduler.state_dict()``, and what timm does not save.

        Its own are ``"best"`` and ``"last_epoch"``; the others are there to go on as if nothing
        had been broken off. timm leaves them unread.
        """
        self._check_state(sched_state)
        held: dict[str, Any] = {
            name: self._listed(sched_state, name)
            for name in ("base_values", "restore_lr", "_last_lr")
        }
        for name in ("best", "last_epoch", "num_bad_epochs", "cooldown_counter"):
            value = np.asarray(sched_state.values[name], np.float64).sum().item()
            held[name] = value if name == "best" else int(value)
        if np.isnan(held["restore_lr"]).any():
            held["restore_lr"] = None
        return held

    def load_state_dict(
        self,
        state_dict: Mapping[str, Any],
        param_groups: Sequence[Mapping[str, Any]] | None = None,
    ) -> SchedulerState:
        """Return the scheduler's state from a state dict of timm's, or one of `state_dict`.

        What timm does not save begins anew, as it does there.

        Args:
            state_dict: as timm's ``scheduler.state_dict()``.
            param_groups: torch's ``optimizer.state_dict()["param_groups"]``; needed for a state
                dict of timm's, which has no initial rates.

        Raises:
            ValueError: it is that of another scheduler, or there are no initial rates.
        """
        check_state_dict(state_dict)
        if "best" not in state_dict:
            raise ValueError(f"the state dict is not that of a {self.kind}: it has no 'best'")
        trained = [group for group in param_groups or () if not group.get("frozen")]
        rates = state_dict.get("_last_lr", [group.get("lr") for group in trained])
        known = [group.get("initial_lr", group.get("lr")) for group in trained]
        base = state_dict.get("base_values", known)
        if not base or None in (*base, *rates):
            raise ValueError(
                "timm saves no rates in this state dict; give param_groups, torch's "
                'optimizer.state_dict()["param_groups"]'
            )
        groups = Groups(read_value("base_values", base, np.zeros(0)))
        own = self._construct(groups)
        own._last_lr = read_value("_last_lr", rates, np.zeros(0))
        own.best = read_value("best", state_dict["best"], math.inf)
        for name in ("last_epoch", "num_bad_epochs", "cooldown_counter"):
            setattr(own, name, read_value(name, state_dict.get(name, 0), 0))
        if state_dict.get("restore_lr") is not None:
            own.restore_lr = read_value("restore_lr", state_dict["restore_lr"], own._last_lr)
        return self._encoded(own, groups)

    def _construct(self, groups: Groups) -> Own:
        own = super()._construct(groups)
        counts = self._followed._construct(groups)
        # NaN is timm's None: there is nothing to be taken back.
        return Own(**{**vars(counts), **vars(own)}, restore_lr=own.base_values * np.nan)

    def _advance(  # type: ignore[override]
        self,
        own: Own,
        groups: Groups,
        t: Value | None,
        scales: Any,
        metric: Value | None = None,
    ) -> None:
        if t is None:
            super()._advance(own, groups, t, scales)
            return
        warmed = self._of_all(self.warmup_lr_init + t * own.warmup_steps, scales, groups)
        # timm has nothing to take back of groups that have joined since, and fails; here they stay.
        joined = np.full(len(groups) - len(raw(own.restore_lr)), np.nan)
        own.restore_lr = extended(own.restore_lr, joined)
        after, there = Own(**vars(own)), groups.copied()
        is_noisy = own.restore_lr == own.restore_lr
        there.lr = where(is_noisy, own.restore_lr, groups.lr)
        if metric is not None:
            self._followed._advance(after, there, metric)
        after.restore_lr = where(self._is_noisy(t), there.lr, there.lr * np.nan)
        noise = value_at(self._noise, *self._last_noise(), t)
        rates = there.lr + there.lr * noise
        warming = t <= self.warmup_t
        own._last_lr = after._last_lr = groups.lr = where(warming, warmed, rates)
        for name, value in vars(after).items():
            setattr(own, name, where(warming, getattr(own, name), value))

    def _is_noisy(self, t: Value) -> Value:
        first, end = self._noisy
        return (t >= first) & (t < end)

    def _last_noise(self) -> tuple[float, bool]:
        """Return the last epoch of interest, and whether there is no noise from there on."""
        first, end = self._noisy
        return (first + 1024, False) if end == math.inf else (end, True)
