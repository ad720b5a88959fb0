"""The schedule of stochastic weight averaging."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ._arithmetic import Value, cos, maximum, minimum, where
from ._groups import Groups
from ._scheduler import EpochScheduler, check_strategy
from ._state import Own


@dataclass(frozen=True)
class SWALR(EpochScheduler):
    """Anneal the learning rate to a constant, at which weights are then averaged.

    The counterpart of ``torch.optim.swa_utils.SWALR``; from Averaging Weights Leads to Wider Optima
    and Better Generalization (Izmailov et al., 2018).

    Args:
        swa_lr: the constant, for all groups or a list of one for each.
        anneal_epochs: how long it takes; 0 for at once.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        last_epoch: -1 to begin; otherwise the epoch after which a run is resumed.

    Raises:
        ValueError: an argument out of range; by `init`, a list of another length than there are
            groups.

    Example:
        >>> import jaxopt_port as jp
        >>> scheduler = jp.swa_utils.SWALR(0.5, anneal_epochs=2, anneal_strategy="linear")
        >>> schedule = scheduler.as_schedule(1.0)
        >>> [float(schedule(count)) for count in range(4)]
        [1.0, 0.75, 0.5, 0.5]
    """

    swa_lr: float | Sequence[float]
    anneal_epochs: int = 10
    anneal_strategy: Literal["cos", "linear"] = "cos"
    last_epoch: int = -1

    def _check(self) -> None:
        check_strategy(self.anneal_strategy)
        if not isinstance(self.anneal_epochs, int) or self.anneal_epochs < 0:
            raise ValueError(
                f"anneal_epochs must be equal or greater than 0, got {self.anneal_epochs}"
            )

    def _arguments(self, size: int) -> dict[str, Any]:
        return {"anneal_epochs": self.anneal_epochs, "_anneal_strategy": self.anneal_strategy}

    def _construct(self, groups: Groups) -> Own:
        groups.entries["swa_lr"] = groups.listed("swa_lr", self.swa_lr)
        return super()._construct(groups)

    def _alpha(self, step: Value) -> Value:
        t = maximum(0, minimum(1, step / max(1, self.anneal_epochs)))
        return (1 - cos(math.pi * t)) / 2 if self.anneal_strategy == "cos" else t

    def _get_lr(self, own: Own, groups: Groups, initial: bool) -> Value:
        step = own._step_count - 1
        if self.anneal_epochs == 0:
            step = maximum(1, step)
        swa_lr = groups.entry("swa_lr")
        before = self._alpha(step - 1)
        start = where(before == 1, swa_lr, lambda: (groups.lr - before * swa_lr) / (1 - before))
        alpha = self._alpha(step)
        return swa_lr * alpha + start * (1 - alpha)
