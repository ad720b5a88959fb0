"""Schedulers of either side, made by one expression: ``lambda s: s.StepLR(30)``."""

from __future__ import annotations

import functools
from typing import Any

import torch


class TorchSchedulers:
    """torch's schedulers of one optimizer, to be called as this library's are, without it."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer

    def __getattr__(self, name: str) -> Any:
        module: Any = torch.optim.swa_utils if name == "SWALR" else torch.optim.lr_scheduler
        if name == "ChainedScheduler":
            return functools.partial(module.ChainedScheduler, optimizer=self._optimizer)
        return functools.partial(getattr(module, name), self._optimizer)
