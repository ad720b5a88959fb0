"""What timm's schedulers share: a pure function of a count that the caller keeps."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ..engine import find_groups_state, is_traced, read_number
from ..lr_scheduler import LRScheduler, SchedulerState
from ..lr_scheduler.arithmetic import (
    Groups,
    Own,
    RateError,
    Value,
    check_lengths,
    check_state_dict,
    extended,
    lift,
    of_each,
    raw,
    read_value,
    where,
    whole,
)
from ._looked_up import looked_up
from ._torch_random import normal

State = TypeVar("State")
NoiseRange = float | tuple[float, float] | list[float] | None

WARMING, MOVING, LOWEST = 0.0, 1.0, 2.0
# What a schedule makes of a count: which of the three, two numbers of its formula, and noise.
Parts = tuple[float, float, float, float]


class TimmScheduler(LRScheduler):
    """Base of timm's schedulers.

    A subclass is a frozen dataclass of timm's arguments, with ``_moving`` and ``_formula``. A key
    ``"lr_scale"`` of a group multiplies its rate, as timm's layer decay asks for. A group that
    joins later keeps its rate.
    """

    composable: ClassVar[bool] = False
    t_in_epochs: bool
    warmup_t: int
    warmup_lr_init: float
    warmup_prefix = True
    noise_range_t: NoiseRange
    noise_pct: float
    noise_std: float
    noise_seed: int

    def init(
        self, state: State, param_groups: Sequence[Mapping[str, Any]] | None = None
    ) -> tuple[State, SchedulerState]:
        """Begin: the rates are those of the warm-up, or the initial ones.

        Args:
            state: the state of a grouped optimizer.
            param_groups: see `jaxopt_port.lr_scheduler.LRScheduler.init`.

        Returns:
            The optimizer's state and the scheduler's.
        """
        state, sched_state = super().init(state, param_groups)
        begun: tuple[State, SchedulerState] = self._stepped(
            state, sched_state, None, _scales(state)
        )
        return begun

    def _check(self) -> None:
        self._at_least_zero("warmup_t", "warmup_lr_init")
        within = self.noise_range_t
        if within is None:
            return
        both = within if isinstance(within, tuple) and len(within) == 2 else (within,)
        if not all(isinstance(each, numbers.Real) for each in both):
            raise ValueError(
                f"Invalid noise_range_t ({within}), must be the first noisy count, or a pair of "
                "counts: the first, and the first that is no more."
            )
        if not self.noise_pct > 0:
            raise ValueError(
                f"Invalid noise_pct ({self.noise_pct}), must be > 0: no noise is below it. Leave "
                "noise_range_t out for none."
            )

    def _at_least_zero(self, *names: str) -> None:
        for name in names:
            if not getattr(self, name) >= 0:
                raise ValueError(f"Invalid {name} ({getattr(self, name)}), must be >= 0.")

    def step(
        self, state: State, sched_state: SchedulerState, epoch: Any, metric: Any = None
    ) -> tuple[State, SchedulerState]:
        """Set the rates of the next epoch: timm's ``scheduler.step(epoch)``.

        Args:
            state: the optimizer's state.
            sched_state: the scheduler's.
            epoch: which epoch comes next, from 0 on; may be traced.
            metric: not used, as in timm.

        Returns:
            Both states, unchanged where the scheduler counts updates.

        Raises:
            TypeError: an epoch that is not whole.
            ValueError: one below 0.
        """
        return self._at(state, sched_state, epoch, self.t_in_epochs)

    def step_update(
        self, state: State, sched_state: SchedulerState, num_updates: Any, metric: Any = None
    ) -> tuple[State, SchedulerState]:
        """Set the rates after a count of updates: timm's ``scheduler.step_update(num_updates)``.

        Both states are unchanged where the scheduler counts epochs.
        """
        return self._at(state, sched_state, num_updates, not self.t_in_epochs)

    def _at(
        self, state: State, sched_state: SchedulerState, t: Any, counts: bool, *more: Value
    ) -> tuple[State, SchedulerState]:
        self._check_state(sched_state)
        if not counts:
            return state, sched_state
        t = whole(t)
        if t is None or (isinstance(t, int) and t < 0):
            raise ValueError(f"the count of {self.kind} must be >= 0; got {t}")
        stepped: tuple[State, SchedulerState] = self._stepped(
            state, sched_state, t, _scales(state), *more
        )
        return stepped

    def as_schedule(
        self, base_lr: float, steps_per_epoch: int = 1, total_steps: int = 10_000
    ) -> Any:
        """Return an Optax schedule: the rate after a count of optimizer steps.

        Args:
            base_lr: the optimizer's rate.
            steps_per_epoch: optimizer steps to one count of the scheduler.
            total_steps: not needed here.

        Raises:
            ValueError: lengths that are no positive whole numbers.
        """
        check_lengths(steps_per_epoch=steps_per_epoch, total_steps=total_steps)

        def rate(count: Any) -> jax.Array:
            dtype = jnp.float64 if jax.enable_x64.value else jnp.float32
            groups = Groups(np.array([base_lr], np.float64))
            t = jnp.asarray(count) // steps_per_epoch
            with jax.enable_x64(True):
                own = self._construct(groups)
                self._advance(own, groups, _lifted(t), np.ones(1))
                return jnp.asarray(raw(groups.lr)[0], dtype)

        return of_each(rate)

    # ── timm's state dict ──────────────────────────────────────────────────────────────────────

    def state_dict(self, sched_state: SchedulerState) -> dict[str, Any]:
        """Return timm's ``scheduler.state_dict()``: all that its object holds but the optimizer."""
        self._check_state(sched_state)
        held = {name: self._listed(sched_state, name) for name in ("base_values", "warmup_steps")}
        if not self.warmup_t:
            held["warmup_steps"] = [1] * len(held["base_values"])
        return {**self._arguments(0), **held, "metric": None}

    def load_state_dict(
        self,
        state_dict: Mapping[str, Any],
        param_groups: Sequence[Mapping[str, Any]] | None = None,
    ) -> SchedulerState:
        """Return the scheduler's state from a state dict of timm's, or one of `state_dict`.

        Args:
            state_dict: as timm's ``scheduler.state_dict()``.
            param_groups: not needed.

        Raises:
            ValueError: it was saved by a scheduler of another kind or other arguments.
        """
        check_state_dict(state_dict)
        mine = self._arguments(0)
        lacking = [name for name in (*mine, "base_values") if name not in state_dict]
        if lacking:
            raise ValueError(
                f"the state dict is not that of a {self.kind}: it has no {lacking[0]!r}"
            )
        for name, value in mine.items():
            given = state_dict[name]
            if _plain(given) != _plain(value):
                raise ValueError(
                    f"the state dict was saved by a {self.kind} with {name} {given!r}, this one "
                    f"has {value!r}; make the scheduler with the arguments it was saved with"
                )
        groups = Groups(read_value("base_values", state_dict["base_values"], np.zeros(0)))
        return self._encoded(self._construct(groups), groups)

    def _listed(self, sched_state: SchedulerState, name: str) -> list[float]:
        parts = np.asarray(sched_state.values[name], np.float64)
        listed: list[float] = parts.sum(axis=-1).tolist()
        return listed

    def _arguments(self, size: int) -> dict[str, Any]:
        fields = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
        }
        named = {"param_group_field": "lr", "_initial_param_group_field": "initial_lr"}
        return {**named, "noise_type": "normal", **fields}

    # ── the arithmetic ─────────────────────────────────────────────────────────────────────────

    def _construct(self, groups: Groups) -> Own:
        groups.setdefault("initial_lr", groups.lr)
        base = groups.entry("initial_lr")
        groups.lr = base * 1.0  # written, so that a rate that cannot be is said to be so
        own = Own(base_values=base, warmup_steps=base * 0.0, _last_lr=groups.lr)
        if self.warmup_t:
            own.warmup_steps = (self._warmed_to(own) - self.warmup_lr_init) / self.warmup_t
        return own

    def _warmed_to(self, own: Own) -> Value:
        return own.base_values

    def _advance(  # type: ignore[override]
        self, own: Own, groups: Groups, t: Value | None, scales: Any
    ) -> None:
        if t is None:
            first = own.base_values * 0.0 + self.warmup_lr_init
            rates = first if self.warmup_t else own.base_values
        else:
            rates = self._rates(own, t)
        groups.lr = own._last_lr = self._of_all(rates, scales, groups)

    def _of_all(self, rates: Value, scales: Any, groups: Groups) -> Value:
        """Return the rates of all groups; those that have joined since keep theirs, as in timm."""
        known, size = len(raw(rates)), len(groups)
        if known > size:
            raise RateError(
                f"the state of {self.kind} is that of {known} groups, the optimizer has {size}; "
                f"begin again with init{groups.not_counted()}"
            )
        rates = rates * raw(scales)[:known]
        return rates if known == size else extended(rates, raw(groups.lr)[known:])

    def _rates(self, own: Own, t: Value) -> Value:
        *parts, noise = self._parts_at(t)
        rates = self._quiet(own, t, parts)
        return rates + rates * noise

    def _quiet(self, own: Own, t: Value, parts: Sequence[Value]) -> Value:
        """Return the rates without noise."""
        kind, a, b = parts
        rates: Value = where(
            kind == WARMING,
            lambda: self.warmup_lr_init + t * own.warmup_steps,
            lambda: where(
                kind == LOWEST,
                lambda: own.base_values * 0.0 + self._lowest,
                lambda: self._formula(own.base_values, a, b),
            ),
        )
        return rates

    @property
    def _lowest(self) -> float:
        lowest: float = getattr(self, "lr_min", 0.0)
        return lowest

    def _parts_at(self, t: Value) -> Sequence[Value]:
        if isinstance(t, int):
            return self._with_noise(t)
        last, constant = self._end()
        _, end = self._noisy
        # Noise without an end has no last count.
        last, constant = (last, False) if end == math.inf else (max(last, end), constant)
        found = looked_up(self._with_noise, last, constant)(t.value.astype(np.int64))
        return [lift(found[i]) for i in range(4)]

    def _with_noise(self, t: int) -> Parts:
        return *self._parts(t), self._noise(t)

    def _noise(self, t: int) -> float:
        first, end = self._noisy
        if not first <= t < end:
            return 0.0
        drawn = (noise * self.noise_std for noise in normal(self.noise_seed + t))
        return next(noise for noise in drawn if abs(noise) < self.noise_pct)

    @property
    def _noisy(self) -> tuple[float, float]:
        """Return the first noisy count, and the first that is no more."""
        within = self.noise_range_t
        if within is None:
            return 0, 0
        return (within[0], within[1]) if isinstance(within, tuple | list) else (within, math.inf)

    def _parts(self, t: int) -> tuple[float, float, float]:
        """Return what is done at a count, and two numbers of the formula."""
        if t < self.warmup_t:
            return WARMING, 0.0, 0.0
        return self._moving(t - self.warmup_t if self.warmup_prefix else t)

    def _moving(self, t: int) -> tuple[float, float, float]:
        """Return the same for a count of the schedule itself."""
        raise NotImplementedError

    def _formula(self, base: Value, a: Value, b: Value) -> Value:
        """Return a rate from the initial one."""
        return base * a

    def _end(self) -> tuple[float, bool]:
        """Return the last count of interest, and whether the rates stay as they are from there."""
        raise NotImplementedError


def _scales(state: Any) -> Any:
    """Return the ``"lr_scale"`` of each group that is trained; 1 where it has none."""
    found = find_groups_state(state)
    trained = [i for i, group in enumerate(found.table.groups) if not group.frozen]
    scales = [
        read_number(found, [i], "lr_scale")[0]
        if "lr_scale" in dict(found.table.groups[i].numbers)
        else 1.0
        for i in trained
    ]
    if is_traced(scales):
        with jax.enable_x64(True):
            return jnp.stack([jnp.asarray(scale, jnp.float64) for scale in scales])
    return np.array(scales, np.float64)


def _lifted(t: Any) -> Value:
    return lift(t) if isinstance(t, jax.core.Tracer) else int(t)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
