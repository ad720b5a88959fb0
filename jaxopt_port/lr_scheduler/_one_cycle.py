"""One cycle of the learning rate for a whole run, and inversely of the momentum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ._arithmetic import RateError, Value, cos, where
from ._groups import Groups
from ._scheduler import EpochScheduler, check_strategy
from ._state import Own


def _anneal_cos(start: Value, end: Value, pct: Value) -> Value:
    return end + (start - end) / 2.0 * (cos(math.pi * pct) + 1)


def _anneal_linear(start: Value, end: Value, pct: Value) -> Value:
    return (end - start) * pct + start


@dataclass(frozen=True)
class OneCycleLR(EpochScheduler):
    """Raise the learning rate to ``max_lr``, then lower it to almost nothing: one cycle for a run.

    The counterpart of ``torch.optim.lr_scheduler.OneCycleLR``; from Super-Convergence: Very Fast
    Training of Neural Networks Using Large Learning Rates (Smith and Topin, 2018). To be stepped
    after each batch. It may be stepped ``total_steps`` times; one step more raises, and under
    ``jit``, where nothing can raise, makes the learning rate NaN.

    Args:
        max_lr: the highest, for all groups or a list of one for each.
        total_steps: steps of the cycle; None for ``epochs * steps_per_epoch``.
        epochs: number of epochs.
        steps_per_epoch: steps in each.
        pct_start: which part of the cycle rises.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        cycle_momentum: whether to move the momentum inversely (``betas[0]`` where there are betas).
        base_momentum: its lowest value, for all groups or a list.
        max_momentum: its highest value, likewise.
        div_factor: the first learning rate is ``max_lr / div_factor``.
        final_div_factor: the last is the first over this.
        three_phase: up, down to the first learning rate, down to the last.
        last_epoch: -1 to begin; otherwise the step after which a run is resumed.

    Raises:
        ValueError: an argument out of range, or a step too many; by `init`, a list of another
            length than there are groups, or an optimizer without momentum.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> scheduler = jp.lr_scheduler.OneCycleLR(max_lr=0.1, total_steps=100)
        >>> state = jp.SGD(lr=1.0, momentum=0.9).init({"weight": jnp.ones(3)})
        >>> state, sched_state = scheduler.init(state)
        >>> options = jp.get_hyperparams(state)[0]
        >>> round(options["lr"], 6), options["momentum"]
        (0.004, 0.95)
    """

    max_lr: float | Sequence[float]
    total_steps: int | None = None
    epochs: int | None = None
    steps_per_epoch: int | None = None
    pct_start: float = 0.3
    anneal_strategy: Literal["cos", "linear"] = "cos"
    cycle_momentum: bool = True
    base_momentum: float | Sequence[float] = 0.85
    max_momentum: float | Sequence[float] = 0.95
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    three_phase: bool = False
    last_epoch: int = -1

    def _check(self) -> None:
        def positive(name: str, value: Any) -> int:
            if not isinstance(value, int) or value <= 0:
                raise ValueError(f"Expected positive integer {name}, but got {value}")
            return value

        if self.total_steps is not None:
            positive("total_steps", self.total_steps)
        elif self.epochs is not None and self.steps_per_epoch is not None:
            steps = positive("epochs", self.epochs)
            steps *= positive("steps_per_epoch", self.steps_per_epoch)
            object.__setattr__(self, "total_steps", steps)
        else:
            raise ValueError("You must define either total_steps OR (epochs AND steps_per_epoch)")
        if self.pct_start < 0 or self.pct_start > 1 or not isinstance(self.pct_start, float):
            raise ValueError(f"Expected float between 0 and 1 pct_start, but got {self.pct_start}")
        check_strategy(self.anneal_strategy)

    @property
    def _steps(self) -> int:
        assert self.total_steps is not None  # _check has set it
        return self.total_steps

    @property
    def _phases(self) -> list[dict[str, Any]]:
        """Torch's ``_schedule_phases``."""

        def phase(end_step: float, lr: tuple[str, str], momentum: tuple[str, str]) -> Any:
            return {
                "end_step": end_step,
                "start_lr": lr[0],
                "end_lr": lr[1],
                "start_momentum": momentum[0] + "_momentum",
                "end_momentum": momentum[1] + "_momentum",
            }

        rise = self.pct_start * self._steps
        phases = [phase(float(rise) - 1, ("initial_lr", "max_lr"), ("max", "base"))]
        if self.three_phase:
            fallen = float(2 * self.pct_start * self._steps) - 2
            phases.append(phase(fallen, ("max_lr", "initial_lr"), ("base", "max")))
            phases.append(phase(self._steps - 1, ("initial_lr", "min_lr"), ("max", "max")))
        else:
            phases.append(phase(self._steps - 1, ("max_lr", "min_lr"), ("base", "max")))
        return phases

    def _arguments(self, size: int) -> dict[str, Any]:
        return {
            "total_steps": self.total_steps,
            "_schedule_phases": self._phases,
            "_anneal_func_type": self.anneal_strategy,
            "cycle_momentum": self.cycle_momentum,
        }

    def _construct(self, groups: Groups) -> Own:
        max_lrs = groups.listed("max_lr", self.max_lr)
        new = self.last_epoch == -1
        if new:
            groups.entries["initial_lr"] = max_lrs / self.div_factor
            groups.entries["max_lr"] = max_lrs
            groups.entries["min_lr"] = groups.entries["initial_lr"] / self.final_div_factor
        if self.cycle_momentum:
            groups.begin_cycle(self.base_momentum, self.max_momentum, new)
        own = super()._construct(groups)
        if self.cycle_momentum:
            own.use_beta1 = int(groups.use_beta1)
        return own

    def _get_lr(self, own: Own, groups: Groups, initial: bool) -> Value:
        step, phases = own.last_epoch, self._phases
        anneal = _anneal_cos if self.anneal_strategy == "cos" else _anneal_linear

        def too_many() -> Value:
            raise RateError(
                f"Tried to step {step} times. The specified number of total steps is {self._steps}"
            )

        def annealed(index: int, of: str) -> Value:
            phase = phases[index]
            start_step = phases[index - 1]["end_step"] if index else 0.0
            end_step = phase["end_step"]

            def here() -> Value:
                pct = (step - start_step) / (end_step - start_step)
                start, end = groups.entry(phase[f"start_{of}"]), groups.entry(phase[f"end_{of}"])
                return anneal(start, end, pct)

            if index == len(phases) - 1:
                return here()
            return where(step <= end_step, here, lambda: annealed(index + 1, of))

        lr = where(step <= self._steps, lambda: annealed(0, "lr"), too_many)
        if self.cycle_momentum:
            groups.check_momentum()
            groups.momentum = annealed(0, "momentum")
        return lr
