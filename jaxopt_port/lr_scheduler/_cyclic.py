"""Cycles of the learning rate between two bounds, and inversely of the momentum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ._arithmetic import Value, floor, where
from ._functions import attributes_of, called
from ._groups import Groups, for_each
from ._scheduler import EpochScheduler
from ._state import Own


@dataclass(frozen=True)
class CyclicLR(EpochScheduler):
    """Move the learning rate between two bounds, up and down, and the momentum down and up.

    The counterpart of ``torch.optim.lr_scheduler.CyclicLR``; from Cyclical Learning Rates for
    Training Neural Networks (Smith, 2017).

    Args:
        base_lr: lower bound, for all groups or a list of one for each.
        max_lr: upper bound, likewise.
        step_size_up: steps up.
        step_size_down: steps down; None for as many as up.
        mode: ``"triangular"``, ``"triangular2"`` (half as high in each cycle) or ``"exp_range"``
            (``gamma ** step`` as high).
        gamma: for ``"exp_range"``.
        scale_fn: a function that says how high, instead of a mode. Under ``jit`` it is given a
            traced JAX integer.
        scale_mode: what ``scale_fn`` is given: the number of the ``"cycle"``, from 1, or of the
            step (``"iterations"``).
        cycle_momentum: whether to move the momentum too (``betas[0]`` where there are betas).
        base_momentum: its lower bound, for all groups or a list.
        max_momentum: its upper bound, likewise.
        last_epoch: -1 to begin; otherwise the step after which a run is resumed.

    Raises:
        ValueError: an unknown mode; by `init`, a list of another length than there are groups, or
            an optimizer without momentum.

    Example:
        >>> import jaxopt_port as jp
        >>> cycle = jp.lr_scheduler.CyclicLR(base_lr=0.0, max_lr=1.0, step_size_up=2)
        >>> schedule = cycle.as_schedule(0.1)
        >>> [float(schedule(count)) for count in range(5)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    base_lr: float | Sequence[float]
    max_lr: float | Sequence[float]
    step_size_up: int = 2000
    step_size_down: int | None = None
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular"
    gamma: float = 1.0
    scale_fn: Callable[[Any], Any] | None = None
    scale_mode: Literal["cycle", "iterations"] = "cycle"
    cycle_momentum: bool = True
    base_momentum: float | Sequence[float] = 0.8
    max_momentum: float | Sequence[float] = 0.9
    last_epoch: int = -1

    def _check(self) -> None:
        if self.mode not in ("triangular", "triangular2", "exp_range") and self.scale_fn is None:
            raise ValueError("mode is invalid and scale_fn is None")
        if self.scale_fn is None:
            of_mode = "iterations" if self.mode == "exp_range" else "cycle"
            object.__setattr__(self, "scale_mode", of_mode)

    @property
    def _total_size(self) -> float:
        up = float(self.step_size_up)
        return up + (up if self.step_size_down is None else float(self.step_size_down))

    @property
    def _step_ratio(self) -> float:
        return float(self.step_size_up) / self._total_size

    def _arguments(self, size: int) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "max_lrs": for_each(self.max_lr, size),
            "total_size": self._total_size,
            "step_ratio": self._step_ratio,
            "mode": self.mode,
            "gamma": self.gamma,
            "scale_mode": self.scale_mode,
            "cycle_momentum": self.cycle_momentum,
            "_scale_fn_custom": None if self.scale_fn is None else attributes_of(self.scale_fn),
        }
        if self.cycle_momentum:
            arguments["base_momentums"] = for_each(self.base_momentum, size)
            arguments["max_momentums"] = for_each(self.max_momentum, size)
        return arguments

    def _construct(self, groups: Groups) -> Own:
        base_lrs = groups.listed("base_lr", self.base_lr)
        if self.last_epoch == -1:
            groups.lr = base_lrs
        groups.listed("max_lr", self.max_lr)
        if self.cycle_momentum:
            groups.begin_cycle(self.base_momentum, self.max_momentum, self.last_epoch == -1)
        own = super()._construct(groups)
        own.base_lrs = base_lrs
        if self.cycle_momentum:
            own.use_beta1 = int(groups.use_beta1)
        return own

    def _scale(self, x: Value) -> Value:
        if self.scale_fn is not None:
            return called(self.scale_fn, x)
        if self.mode == "triangular":
            return 1.0
        if self.mode == "triangular2":
            return 1 / 2.0 ** (x - 1)
        return self.gamma**x

    def _get_lr(self, own: Own, groups: Groups, initial: bool) -> Value:
        base_lrs = self._base_lrs(own, groups)
        cycle = floor(1 + own.last_epoch / self._total_size)
        x = 1.0 + own.last_epoch / self._total_size - cycle
        ratio = self._step_ratio
        height = where(x <= ratio, lambda: x / ratio, lambda: (x - 1) / (ratio - 1))
        scale = self._scale(cycle if self.scale_mode == "cycle" else own.last_epoch)
        if self.cycle_momentum:
            groups.check_momentum()
            lower = groups.listed("base_momentum", self.base_momentum)
            upper = groups.listed("max_momentum", self.max_momentum)
            groups.momentum = upper - (upper - lower) * height * scale
        max_lrs = groups.listed("max_lr", self.max_lr)
        return base_lrs + (max_lrs - base_lrs) * height * scale
