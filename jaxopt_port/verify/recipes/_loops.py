"""What stands around ``optimizer.step()``: schedulers, clipping and averages, on both sides."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optax
import torch
from numpy.typing import NDArray

import jaxopt_port as jp

Averages = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Loop:
    """The loop of a recipe.

    Attributes:
        scheduler: makes the scheduler for a number of steps, from torch's schedulers of an
            optimizer or from this library's: ``lambda s, steps: s.StepLR(steps // 2)``; or None.
        metric: whether the scheduler is told the loss.
        clip: the norm that gradients are clipped to, or None.
        ema: the decay of an exponential moving average of the parameters, or None.
    """

    scheduler: Callable[[Any, int], Any] | None = None
    metric: bool = False
    clip: float | None = None
    ema: float | None = None


class TorchSchedulers:
    """torch's schedulers of one optimizer, to be called as this library's are, without it."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer

    def __getattr__(self, name: str) -> Any:
        module: Any = torch.optim.swa_utils if name == "SWALR" else torch.optim.lr_scheduler
        if name == "ChainedScheduler":
            return functools.partial(module.ChainedScheduler, optimizer=self._optimizer)
        return functools.partial(getattr(module, name), self._optimizer)


class TorchLoop:
    """A loop around a torch optimizer."""

    def __init__(
        self, loop: Loop, net: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int
    ) -> None:
        self._loop, self._net, self._optimizer = loop, net, optimizer
        make = loop.scheduler
        self._scheduler = None if make is None else make(TorchSchedulers(optimizer), steps)
        self._averaged = None
        if loop.ema is not None:
            average = torch.optim.swa_utils.get_ema_multi_avg_fn(loop.ema)
            self._averaged = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=average)

    def clip(self) -> None:
        if self._loop.clip is not None:
            torch.nn.utils.clip_grad_norm_(self._net.parameters(), self._loop.clip)

    def after_step(self, loss: float) -> None:
        if self._scheduler is not None:
            self._scheduler.step(*([loss] if self._loop.metric else []))
        if self._averaged is not None:
            self._averaged.update_parameters(self._net)

    def averages(self) -> list[torch.Tensor]:
        """Return the averaged parameters, in the order of the net's."""
        return [] if self._averaged is None else list(self._averaged.parameters())

    def numbers(self) -> NDArray[np.float64]:
        """Return learning rates and momenta: (2, groups)."""
        groups = self._optimizer.param_groups
        return np.array([[group[name] for group in groups] for name in ("lr", "momentum")])


class PortLoop:
    """A loop around a grouped optimizer; what changes is its state."""

    def __init__(self, loop: Loop, steps: int) -> None:
        self._loop = loop
        self._scheduler = None if loop.scheduler is None else loop.scheduler(jp.lr_scheduler, steps)
        self._sched_state: Any = None
        self.averages: Any = None
        if loop.ema is not None:
            average = jp.swa_utils.get_ema_multi_avg_fn(loop.ema)
            self._averaged = jp.swa_utils.AveragedModel(multi_avg_fn=average)

    def clipping(self, tx: Any) -> Any:
        """Return the optimizer with the loop's clipping before it."""
        clip = self._loop.clip
        return tx if clip is None else optax.chain(jp.clip_by_grad_norm(clip), tx)

    def begin(self, state: Any, params: Any) -> Any:
        if self._loop.ema is not None:
            self.averages = self._averaged.init(params)
        if self._scheduler is not None:
            state, self._sched_state = self._scheduler.init(state)
        return state

    def after_step(self, state: Any, params: Any, loss: float) -> Any:
        if self.averages is not None:
            self.averages = self._averaged.update_parameters(self.averages, params)
        if self._scheduler is not None:
            metric = [loss] if self._loop.metric else []
            state, self._sched_state = self._scheduler.step(state, self._sched_state, *metric)
        return state


def numbers(state: Any) -> NDArray[np.float64]:
    """Return a state's learning rates and momenta: (2, groups)."""
    groups = jp.get_hyperparams(state)
    return np.array([[group[name] for group in groups] for name in ("lr", "momentum")])


# ── the recipes ────────────────────────────────────────────────────────────────────────────────

OPTIONS: Mapping[str, Mapping[str, float]] = {
    "features": {"lr": 0.01, "momentum": 0.9},
    "classifier": {"lr": 0.02, "momentum": 0.9},
}


def torch_sgd(net: Any) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [
        {"params": getattr(net, name).parameters(), **options} for name, options in OPTIONS.items()
    ]
    return torch.optim.SGD(groups)


def port_sgd() -> jp.Optimizer:
    return jp.SGD([{"params": name, **options} for name, options in OPTIONS.items()])


def _one_cycle(s: Any, steps: int) -> Any:
    return s.OneCycleLR([0.02, 0.04], total_steps=steps)


def _plateau(s: Any, steps: int) -> Any:
    return s.ReduceLROnPlateau(factor=0.5, patience=8)


def _warm_up_cosine(s: Any, steps: int) -> Any:
    warm_up = max(1, steps // 10)
    cosine = s.CosineAnnealingLR(max(1, steps - warm_up))
    return s.SequentialLR([s.LinearLR(0.1, total_iters=warm_up), cosine], [warm_up])


LOOPS = {
    "one-cycle": (Loop(_one_cycle), "OneCycleLR: learning rates and momenta of two groups"),
    "plateau": (Loop(_plateau, metric=True), "ReduceLROnPlateau, told the loss of each batch"),
    "warm-up-cosine": (Loop(_warm_up_cosine), "SequentialLR: a warm-up, then a cosine"),
    "clip-ema": (
        Loop(clip=1.0, ema=0.9),
        "gradients clipped to a norm of 1, an exponential moving average of the parameters",
    ),
}
