"""Small trainings with torch, of each kind that a run and its trace have to hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch.nn import functional as F

from jaxopt_port.verify.recorder import TorchSide

STEPS = 12


def batches(steps: int = STEPS, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(6, 5)).astype(np.float32), rng.integers(0, 3, 6).astype(np.int32))
        for _ in range(steps)
    ]


class Tied(torch.nn.Module):
    """A tied pair, a frozen layer, a bare parameter, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(5, 5, bias=False)
        self.again = torch.nn.Linear(5, 5, bias=False)
        self.again.weight = self.first.weight
        self.frozen = torch.nn.Linear(5, 5).requires_grad_(False)
        self.scale = torch.nn.Parameter(torch.ones(5))
        self.last = torch.nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        hidden = self.frozen(torch.tanh(self.again(torch.tanh(self.first(x)))))
        return {"logits": self.last(hidden * self.scale), "extra": (hidden, None)}


def normed() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU(), torch.nn.Linear(4, 3)
    )


def wide() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(5, 99), torch.nn.ReLU(), torch.nn.Linear(99, 3))


def cross_entropy(output: Any, batch: Any) -> torch.Tensor:
    logits = output["logits"] if isinstance(output, dict) else output
    return F.cross_entropy(logits.float(), batch[1], weight=torch.tensor([1.0, 2.0, 0.5]))


def jax_cross_entropy(output: Any, batch: Any) -> Any:
    """The same of logits alone."""
    weight = jnp.array([1.0, 2.0, 0.5], output.dtype)[batch[1]]
    each = optax.softmax_cross_entropy_with_integer_labels(output, batch[1])
    return (each * weight).sum() / weight.sum()


class Case(NamedTuple):
    """A training; `scheduler` makes one of the optimizer."""

    optimizer: Callable[..., torch.optim.Optimizer]
    module: Callable[[], torch.nn.Module] = normed
    scheduler: Callable[[Any], Any] | None = None
    clip: float | None = None
    dtype: torch.dtype = torch.float32
    options: dict[str, Any] = {}  # noqa: RUF012


def _sequence(optimizer: torch.optim.Optimizer) -> Any:
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=3)
    rest = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    return torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, rest], [3])


def _one_cycle(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=STEPS + 1)


def _plateau(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)


def _swa(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.swa_utils.SWALR(optimizer, 0.02, anneal_epochs=4)


O = torch.optim  # noqa: E741
CASES: dict[str, Case] = {
    "sgd": Case(O.SGD),
    "sgd momentum": Case(O.SGD, scheduler=_sequence, options={"momentum": 0.9}),
    "sgd swa": Case(O.SGD, scheduler=_swa, clip=0.3),
    "adam clipped": Case(O.Adam, clip=0.1, scheduler=_one_cycle),
    "adam tensor lr": Case(O.Adam, options={"lr": torch.tensor(0.01), "foreach": False}),
    "adamw tied": Case(O.AdamW, Tied, _plateau),
    "nadam bfloat16": Case(O.NAdam, dtype=torch.bfloat16),
    "asgd": Case(O.ASGD, Tied),
    "adagrad": Case(O.Adagrad, scheduler=_sequence, clip=0.1),
    "adafactor": Case(O.Adafactor),
    "rprop float64": Case(O.Rprop, dtype=torch.float64),
    "adam float16": Case(O.Adam, Tied, dtype=torch.float16, options={"eps": 1e-4}),
}


def side(case: Case, seed: int = 0, every: int = 2) -> TorchSide:
    """Make torch's side of a case, of its own objects."""
    torch.manual_seed(seed)
    module = case.module().to(case.dtype)
    optimizer = case.optimizer(module.parameters(), **{"lr": 0.01, **case.options})
    scheduler = None if case.scheduler is None else case.scheduler(optimizer)
    norm = case.clip
    return TorchSide(
        module=module,
        optimizer=optimizer,
        loss=cross_entropy,
        scheduler=scheduler,
        scheduler_every=every,
        metric=isinstance(scheduler, O.lr_scheduler.ReduceLROnPlateau),
        clip=None if norm is None else lambda ps: torch.nn.utils.clip_grad_norm_(ps, norm),
    )
