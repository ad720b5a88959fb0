"""Groups that join an optimizer while a scheduler runs, in torch and here."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

import jaxopt_port as jp
from jaxopt_port.numerics import decoded
from jaxopt_port.verify.cases import TorchSchedulers

STEPS = 12
NAMES = "abcd"
PARAMS = {name: jnp.ones(1) for name in NAMES}
RATES = {"a": 0.3, "b": 0.05, "c": 0.02, "d": 0.007}


@dataclass(frozen=True)
class Joining:
    """A scheduler of two groups, which more will join.

    Attributes:
        make: the scheduler, as in `parity_tests.oracles.scheduler_case.Case`.
        optimizer: "SGD" (momentum) or "Adam" (beta1).
        told: what a step is told: "metric", "epoch", or nothing.
    """

    make: Callable[[Any], Any]
    optimizer: str = "SGD"
    told: str = ""


def _told(case: Joining, i: int) -> list[float | int]:
    return {"": [], "metric": [1.0], "epoch": [i // 2]}[case.told]


@dataclass
class Run:
    """What was read after the beginning and after each step, and the error that ended it."""

    rates: list[np.ndarray]
    last_lrs: list[list[float]]
    error: Exception | None = None
    state_dict: Any = None


def torch_run(case: Joining, joins: Sequence[int]) -> Run:
    """-1 among ``joins`` is before the scheduler is made, i before step i."""
    options = {"momentum": 0.9} if case.optimizer == "SGD" else {}

    def group(name: str) -> dict[str, Any]:
        return {"params": [torch.nn.Parameter(torch.ones(1))], "lr": RATES[name]}

    optimizer = getattr(torch.optim, case.optimizer)([group("a"), group("b")], **options)
    coming = iter("cd")
    if -1 in joins:
        optimizer.add_param_group(group(next(coming)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            scheduler = case.make(TorchSchedulers(optimizer))
        except ValueError as error:
            return Run([], [], error)
    optimizer.step()

    def read() -> np.ndarray:
        momenta = [g.get("momentum", g.get("betas", [0])[0]) for g in optimizer.param_groups]
        return np.array([[g["lr"] for g in optimizer.param_groups], momenta])

    run = Run([read()], [scheduler.get_last_lr()])
    for i in range(STEPS):
        if i in joins:
            optimizer.add_param_group(group(next(coming)))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The epoch parameter")
            try:
                scheduler.step(*_told(case, i))
            except (ValueError, KeyError, RuntimeError) as error:
                run.error = error
                return run
        run.rates.append(read())
        run.last_lrs.append(list(scheduler.get_last_lr()))
    run.state_dict = scheduler.state_dict()
    return run


@functools.cache
def _begun(optimizer: str) -> Any:
    options = {"momentum": 0.9} if optimizer == "SGD" else {}
    groups = [{"params": name, "lr": RATES[name]} for name in "ab"]
    tx = getattr(jp, optimizer)([*groups, {"params": jp.REST, "frozen": True}], **options)
    return tx, jp.step(tx, PARAMS, tx.init(PARAMS), PARAMS)[1]


class PortSide:
    def __init__(self, case: Joining, joins: Sequence[int]) -> None:
        self.case, self.joins, self.coming = case, joins, iter("cd")
        self.tx, self.state = _begun(case.optimizer)
        self.scheduler = case.make(jp.lr_scheduler)
        self.join_before(-1)
        self.state, self.own = self.scheduler.init(self.state)

    def join_before(self, i: int) -> None:
        if i in self.joins:
            name = next(self.coming)
            group = {"params": name, "lr": RATES[name]}
            self.tx, self.state = jp.add_param_group(self.tx, self.state, PARAMS, group)

    def step(self, i: int, compiled: Callable[..., Any] | None = None) -> None:
        step = compiled or self.scheduler.step
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The epoch parameter")
            self.state, self.own = step(self.state, self.own, *_told(self.case, i))

    def read(self) -> np.ndarray:
        groups = [g for g in jp.get_hyperparams(self.state) if "lr" in g]
        return np.array(
            [[g["lr"] for g in groups], [g.get("momentum", g.get("betas", [0])[0]) for g in groups]]
        )


def port_run(case: Joining, joins: Sequence[int]) -> Run:
    try:
        side = PortSide(case, joins)
    except ValueError as error:
        return Run([], [], error)
    run = Run([side.read()], [side.scheduler.get_last_lr(side.own)])
    for i in range(STEPS):
        side.join_before(i)
        before = jax.tree.map(np.asarray, (side.state, side.own))
        try:
            side.step(i)
        except (ValueError, KeyError, RuntimeError) as error:
            jax.tree.map(np.testing.assert_array_equal, before, (side.state, side.own))
            run.error = error
            return run
        run.rates.append(side.read())
        run.last_lrs.append(side.scheduler.get_last_lr(side.own))
    run.state_dict = side.scheduler.state_dict(side.own)
    return run


def scanned(cases: dict[str, Joining], joins: Sequence[int]) -> dict[str, tuple[Any, PortSide]]:
    """Rates from the last join on, of all cases in one compiled program: a step, then a scan."""
    last = max(joins)
    sides = {name: PortSide(case, joins) for name, case in cases.items()}
    for side in sides.values():
        for i in range(last):
            side.join_before(i)
            side.step(i)
        side.join_before(last)

    def step(carried: Any, i: Any) -> Any:
        made = {}
        for name, (state, own) in carried.items():
            told = [jnp.asarray(x) for x in _told(cases[name], 0)]
            told = [i // 2] if cases[name].told == "epoch" else told
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The epoch parameter")
                made[name] = sides[name].scheduler.step(state, own, *told)
        return made, {name: state.numbers["lr"].parts for name, (state, _) in made.items()}

    @jax.jit
    def run(carried: Any) -> Any:
        # The first step lengthens the rates that were set last, as a carry may not.
        carried, first = step(carried, jnp.int32(last))
        carried, rest = jax.lax.scan(step, carried, jnp.arange(last + 1, STEPS))
        return carried, jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)

    carried, parts = run({name: (side.state, side.own) for name, side in sides.items()})
    for name, side in sides.items():
        side.state, side.own = carried[name]
    return {name: (decoded(parts[name]), side) for name, side in sides.items()}
