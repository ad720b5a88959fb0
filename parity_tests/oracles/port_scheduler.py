"""This library's side of a scheduler that is stepped beside torch's; it needs no torch."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_port as jp
from jaxopt_port.numerics import decoded
from parity_tests.oracles.scheduler_case import Case, epochs_given

STEPS = 300
OPTIONS = {"SGD": {"momentum": 0.9}, "Adam": {}}


def arguments(case: Case, step: int) -> tuple[Any, ...]:
    """What the step is told, exact in float32."""
    return tuple(x if isinstance(x, int) else float(np.float32(x)) for x in case.told(step))


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
        self.case, self.scheduler = case, case.make(jp.lr_scheduler)
        entries = [
            {name: values[i] for name, values in case.resumed.items()} for i in range(len(case.lrs))
        ]
        begun = self.scheduler.init(self.begun(), entries if case.resumed else None)
        self.state, self.sched_state = begun

    def begun(self):
        return stepped_state(self.case.optimizer, tuple(self.case.lrs))

    def step(self, i: int, compiled=None):
        given, step = arguments(self.case, i + self.from_), compiled or self.scheduler.step
        self.state, self.sched_state = step(self.state, self.sched_state, *given)

    def read(self) -> np.ndarray:
        return decoded(np.stack(parts_of(self.state, self.case)))

    def last_lr(self) -> list[float]:
        return self.scheduler.get_last_lr(self.sched_state)

    def saved(self) -> dict[str, Any]:
        return self.scheduler.state_dict(self.sched_state)

    def set_lr(self, lr: float, group: int):
        self.state = jp.set_hyperparams(self.state, lr=lr, group=group)


@epochs_given()
def run(side, steps: int = STEPS, events=None) -> np.ndarray:
    """Learning rates and momenta, (steps + 1, 2, groups).

    ``events`` are functions of the side, by the step before which they happen.
    """
    read = [side.read()]
    for i in range(steps):
        if events and i in events:
            events[i](side)
        side.step(i)
        read.append(side.read())
    return np.array(read)
