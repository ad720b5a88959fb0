"""This library's side of a scheduler that is stepped beside torch's; it needs no torch."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_port as jp
from jaxopt_port.numerics import decoded
from parity_tests.oracles.scheduler_case import Case

STEPS = 300
OPTIONS = {"SGD": {"momentum": 0.9}, "Adam": {}}


def arguments(case: Case, step: int) -> tuple[Any, ...]:
    """What the step is told: metric and epoch, exact in float32."""
    given = [of(step) for of in (case.metric, case.epoch) if of is not None]
    return tuple(x if isinstance(x, int) else float(np.float32(x)) for x in given)


@functools.cache
def stepped_state(optimizer: str, lrs: tuple[float, ...]):
    """The state of an optimizer that has taken a step, as NumPy arrays."""
    params = {str(i): jnp.ones(1) for i in range(len(lrs))}
    groups = [{"params": str(i), "lr": lr} for i, lr in enumerate(lrs)]
    tx = getattr(jp, optimizer)(groups, **OPTIONS[optimizer])
    _, state = jp.step(tx, params, tx.init(params), params)
    return jax.tree.map(np.asarray, state)


def parts_of(state, case: Case):
    """Learning rates and momenta as the state holds them."""
    held = {name: number.parts for name, number in state.numbers.items()}
    return held["lr"], held["betas"][:, 0] if case.optimizer == "Adam" else held["momentum"]


class PortSide:
    from_ = 0  # the step at which a run begins

    def __init__(self, case: Case):
        self.case = case
        self.scheduler = case.make(jp.lr_scheduler)
        entries = [
            {name: values[i] for name, values in case.resumed.items()} for i in range(len(case.lrs))
        ]
        state = stepped_state(case.optimizer, tuple(case.lrs))
        self.state, self.sched_state = self.scheduler.init(state, entries)

    def step(self, i: int):
        given = arguments(self.case, i + self.from_)
        self.state, self.sched_state = self.scheduler.step(self.state, self.sched_state, *given)

    def read(self) -> np.ndarray:
        return decoded(np.stack(parts_of(self.state, self.case)))

    def set_lr(self, lr: float, group: int):
        self.state = jp.set_hyperparams(self.state, lr=lr, group=group)


def run(side, steps: int = STEPS, events=None) -> np.ndarray:
    """Learning rates and momenta, (steps + 1, 2, groups).

    ``events`` are functions of the side, by the step before which they happen.
    """
    read = [side.read()]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The epoch parameter")
        for i in range(steps):
            if events and i in events:
                events[i](side)
            side.step(i)
            read.append(side.read())
    return np.array(read)
