"""Groups that join an optimizer while a scheduler runs, in torch and here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

import jaxopt_port as jp
from jaxopt_port.numerics import decoded
from parity_tests.oracles.port_scheduler import OPTIONS, PortSide
from parity_tests.oracles.scheduler import TorchSide
from parity_tests.oracles.scheduler_case import Case, epochs_given

STEPS = 12
RATES = {"a": 0.3, "b": 0.05, "c": 0.02, "d": 0.007}
PARAMS = {name: jnp.ones(1) for name in RATES}
TWO = (RATES["a"], RATES["b"])  # of the groups that are there at the beginning


@dataclass
class Run:
    """What was read after the beginning and after each step, and the error that ended it."""

    rates: list[np.ndarray]
    last_lrs: list[list[float]]
    error: Exception | None = None
    state_dict: Any = None


class Joining:
    """-1 among ``joins`` is before the scheduler is made, i before step i."""

    def __init__(self, case: Case, joins: Sequence[int]) -> None:
        self.joins, self.coming = joins, iter("cd")
        super().__init__(case)

    def join_before(self, i: int) -> None:
        if i in self.joins:
            self.join(next(self.coming))


class TorchJoining(Joining, TorchSide):
    def begun(self) -> torch.optim.Optimizer:
        self.optimizer = super().begun()
        self.join_before(-1)
        return self.optimizer

    def join(self, name: str) -> None:
        tensor = torch.nn.Parameter(torch.ones(1))
        self.optimizer.add_param_group({"params": [tensor], "lr": RATES[name]})


@functools.cache
def _begun(optimizer: str) -> Any:
    groups = [{"params": name, "lr": RATES[name]} for name in "ab"]
    frozen = {"params": jp.REST, "frozen": True}
    tx = getattr(jp, optimizer)([*groups, frozen], **OPTIONS[optimizer])
    return tx, jp.step(tx, PARAMS, tx.init(PARAMS), PARAMS)[1]


class PortJoining(Joining, PortSide):
    def begun(self) -> Any:
        self.tx, self.state = _begun(self.case.optimizer)
        self.join_before(-1)
        return self.state

    def join(self, name: str) -> None:
        group = {"params": name, "lr": RATES[name]}
        self.tx, self.state = jp.add_param_group(self.tx, self.state, PARAMS, group)

    def step(self, i: int, compiled: Callable[..., Any] | None = None) -> None:
        before = jax.tree.map(np.asarray, (self.state, self.sched_state))
        try:
            super().step(i, compiled)
        except (ValueError, KeyError, RuntimeError):
            jax.tree.map(np.testing.assert_array_equal, before, (self.state, self.sched_state))
            raise

    def read(self) -> np.ndarray:
        groups = [g for g in jp.get_hyperparams(self.state) if "lr" in g]
        momenta = [g["momentum"] if "momentum" in g else g["betas"][0] for g in groups]
        return np.array([[g["lr"] for g in groups], momenta])


@epochs_given()
def run(kind: type[TorchJoining | PortJoining], case: Case, joins: Sequence[int]) -> Run:
    try:
        side = kind(case, joins)
    except ValueError as error:
        return Run([], [], error)
    made = Run([np.array(side.read())], [side.last_lr()])
    for i in range(STEPS):
        side.join_before(i)
        try:
            side.step(i)
        except (ValueError, KeyError, RuntimeError) as error:
            made.error = error
            return made
        made.rates.append(np.array(side.read()))
        made.last_lrs.append(side.last_lr())
    made.state_dict = side.saved()
    return made


@epochs_given()
def scanned(cases: dict[str, Case], joins: Sequence[int]) -> dict[str, tuple[Any, PortJoining]]:
    """Rates from the last join on, of all cases in one compiled program: a step, then a scan."""
    last = max(joins)
    sides = {name: PortJoining(case, joins) for name, case in cases.items()}
    for side in sides.values():
        for i in range(last):
            side.join_before(i)
            side.step(i)
        side.join_before(last)

    def step(carried: Any, i: Any) -> Any:
        made = {}
        for name, (state, own) in carried.items():
            given = [jnp.asarray(x) for x in cases[name].told(i)]
            made[name] = sides[name].scheduler.step(state, own, *given)
        return made, {name: state.numbers["lr"].parts for name, (state, _) in made.items()}

    @jax.jit
    def whole(carried: Any) -> Any:
        # The first step lengthens the rates that were set last, as a carry may not.
        carried, first = step(carried, jnp.int32(last))
        carried, rest = jax.lax.scan(step, carried, jnp.arange(last + 1, STEPS))
        return carried, jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)

    carried, parts = whole({name: (side.state, side.sched_state) for name, side in sides.items()})
    for name, side in sides.items():
        side.state, side.sched_state = carried[name]
    return {name: (decoded(parts[name]), side) for name, side in sides.items()}
