"""One scheduler in torch and here, stepped side by side."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from jaxopt_port.numerics import decoded
from jaxopt_port.verify.cases import TorchSchedulers
from parity_tests.oracles.port_scheduler import OPTIONS, STEPS, PortSide, arguments, parts_of, run
from parity_tests.oracles.scheduler_case import Case, epochs_given
from parity_tests.oracles.scheduler_cases import CASES

# What this torch does as the port does.
OF_TORCH = {name: case for name, case in CASES.items() if torch.__version__ >= case.since}


class TorchSide:
    from_ = 0  # the step at which a run begins

    def __init__(self, case: Case):
        self.case = case
        self.optimizer = self.begun()
        with warnings.catch_warnings():
            # torch's order warning where a composite is in a composite.
            warnings.simplefilter("ignore")
            self.scheduler = case.make(TorchSchedulers(self.optimizer))
        self.optimizer.step()

    def begun(self) -> torch.optim.Optimizer:
        case = self.case
        groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in case.lrs]
        for name, values in case.resumed.items():
            for group, value in zip(groups, values, strict=True):
                group[name] = value
        return getattr(torch.optim, case.optimizer)(groups, **OPTIONS[case.optimizer])

    def step(self, i: int):
        self.scheduler.step(*arguments(self.case, i + self.from_))

    def read(self) -> list[list[float]]:
        groups = self.optimizer.param_groups
        momenta = [g["momentum"] if "momentum" in g else g["betas"][0] for g in groups]
        return [[g["lr"] for g in groups], momenta]

    def last_lr(self) -> list[float]:
        return list(self.scheduler.get_last_lr())

    def saved(self) -> dict[str, Any]:
        return self.scheduler.state_dict()

    def set_lr(self, lr: float, group: int):
        self.optimizer.param_groups[group]["lr"] = lr


@functools.cache
def torch_run(name: str) -> np.ndarray:
    return run(TorchSide(CASES[name]))


def scanned(names: list[str], *, steps: int = STEPS) -> dict[str, np.ndarray]:
    """The runs of several schedulers in one compiled scan."""
    return _compiled(
        names, steps, lambda step: lambda start, xs: jax.lax.scan(step, start, xs, length=steps)[1]
    )


def jitted(names: list[str], *, steps: int = STEPS) -> dict[str, np.ndarray]:
    """The same with a compiled step in a Python loop."""

    def loop(step):
        traces = 0

        @jax.jit
        def compiled(carried, x):
            nonlocal traces
            traces += 1
            return step(carried, x)

        def run(carried, xs):
            read = []
            for i in range(steps):
                row = {name: tuple(column[i] for column in x) for name, x in xs.items()}
                carried, parts = compiled(carried, row)
                read.append(parts)
            assert traces == 1
            return jax.tree.map(lambda *parts: np.stack(parts), *read)

        return run

    return _compiled(names, steps, loop, jit=False)


def _compiled(names, steps, runner, jit=True):
    sides = {name: PortSide(CASES[name]) for name in names}
    xs = {name: _columns(CASES[name], steps) for name in names}

    @epochs_given()
    def step(carried, x):
        new, read = {}, {}
        for name, (state, sched_state) in carried.items():
            new[name] = sides[name].scheduler.step(state, sched_state, *x[name])
            read[name] = jnp.stack(parts_of(new[name][0], CASES[name]))
        return new, read

    run = runner(step)
    start = {name: (side.state, side.sched_state) for name, side in sides.items()}
    parts = (jax.jit(run) if jit else run)(start, xs)
    return {
        name: np.concatenate([sides[name].read()[None], decoded(parts[name])]) for name in names
    }


def _columns(case: Case, steps: int) -> tuple[np.ndarray, ...]:
    columns = zip(*(arguments(case, i) for i in range(steps)), strict=True)
    kinds = {True: np.int32, False: np.float32}
    return tuple(np.array(c, kinds[isinstance(c[0], int)]) for c in columns)
