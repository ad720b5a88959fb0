"""Two trained groups and a frozen one, in mid-run; and the trained ones in torch."""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
import torch

import jaxopt_port as jp

PARAMS = {"a": jnp.ones(3), "b": jnp.ones(2), "c": jnp.ones(1)}
GROUPS = [{"params": "a"}, {"params": "b", "lr": 0.01}, {"params": "c", "frozen": True}]


@functools.cache
def stepped_state() -> Any:
    tx = jp.SGD(GROUPS, lr=0.1, momentum=0.9)
    return jp.step(tx, PARAMS, tx.init(PARAMS), PARAMS)[1]


def stepped_optimizer() -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in (0.1, 0.01)]
    made = torch.optim.SGD(groups, momentum=0.9)
    made.step()
    return made
