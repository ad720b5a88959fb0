"""Learning rates and momenta over steps, drawn from torch's scheduler and from this library's."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
import torch
from numpy.typing import NDArray

import jaxopt_port as jp

from ..lr_scheduler import SCHEDULERS
from ..verify.cases import TorchSchedulers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# ``s.StepLR(30)`` is torch's scheduler of an optimizer, or this library's.
Plan = Callable[[Any], Any]

_MOMENTUM = 0.9


def parsed(plan: str) -> Plan:
    """Return the plan that a Python expression writes, such as ``StepLR(30)``.

    Raises:
        ValueError: it is no expression of schedulers.
    """
    try:
        code = compile(plan, "PLAN", "eval")
    except SyntaxError as error:
        raise ValueError(f"{plan!r} is not a Python expression: {error.msg}") from None
    theirs = [n for n in code.co_names if n not in SCHEDULERS and hasattr(jp.contrib, n)]
    if theirs:
        raise ValueError(
            f"{theirs[0]} is of jaxopt_port.contrib, whose schedules torch has none to be drawn "
            f"beside; those drawn are {', '.join(SCHEDULERS)}"
        )
    unknown = [n for n in code.co_names if n[0].isupper() and n not in SCHEDULERS]
    if unknown:
        raise ValueError(f"there is no scheduler {unknown[0]!r}; they are {', '.join(SCHEDULERS)}")

    def make(s: Any) -> Any:
        made = {name: getattr(s, name) for name in SCHEDULERS}
        scheduler = eval(code, {"math": math, "min": min, "max": max, **made})
        if not hasattr(scheduler, "step"):
            raise ValueError(f"{plan!r} is no scheduler")
        return scheduler

    return make


def example_loss(step: int) -> float:
    """Return the loss that a plateau scheduler is told: it falls, and then no more."""
    return max(math.exp(-step / 15), 0.2)


@dataclass(frozen=True)
class Traces:
    """Learning rates and momenta after each step: (steps + 1, 2, groups)."""

    torch: NDArray[np.float64]
    port: NDArray[np.float64]

    @property
    def difference(self) -> float:
        return float(np.max(np.abs(self.torch - self.port)))


def traces(plan: Plan, lrs: Sequence[float], steps: int) -> Traces:
    """Run a plan in torch and here, eagerly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's: no optimizer step is taken here
        return Traces(_of_torch(plan, lrs, steps), _of_port(plan, lrs, steps))


def _metrics(plateau: bool, step: int) -> list[float]:
    return [example_loss(step)] if plateau else []


def _of_torch(plan: Plan, lrs: Sequence[float], steps: int) -> NDArray[np.float64]:
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in lrs]
    optimizer = torch.optim.SGD(groups, momentum=_MOMENTUM)
    scheduler = plan(TorchSchedulers(optimizer))
    plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)

    def read() -> list[list[float]]:
        return [[group[name] for group in optimizer.param_groups] for name in ("lr", "momentum")]

    values = [read()]
    for step in range(steps):
        scheduler.step(*_metrics(plateau, step))
        values.append(read())
    return np.array(values)


def _of_port(plan: Plan, lrs: Sequence[float], steps: int) -> NDArray[np.float64]:
    params = {str(i): jnp.ones(1) for i in range(len(lrs))}
    groups = [{"params": str(i), "lr": lr} for i, lr in enumerate(lrs)]
    scheduler = plan(jp.lr_scheduler)
    plateau = isinstance(scheduler, jp.lr_scheduler.ReduceLROnPlateau)
    state, sched_state = scheduler.init(jp.SGD(groups, momentum=_MOMENTUM).init(params))

    def read() -> list[list[float]]:
        own = jp.get_hyperparams(state)
        return [[group[name] for group in own] for name in ("lr", "momentum")]

    values = [read()]
    for step in range(steps):
        state, sched_state = scheduler.step(state, sched_state, *_metrics(plateau, step))
        values.append(read())
    return np.array(values)


# What the docs show: each scheduler, from a learning rate of 0.1, over 100 steps.
EXAMPLES: Mapping[str, Plan] = {
    "LambdaLR": lambda s: s.LambdaLR(lambda epoch: 0.97**epoch),
    "MultiplicativeLR": lambda s: s.MultiplicativeLR(lambda epoch: 0.95 if epoch % 2 else 1.0),
    "StepLR": lambda s: s.StepLR(30, gamma=0.3),
    "MultiStepLR": lambda s: s.MultiStepLR([20, 30, 80], gamma=0.4),
    "ConstantLR": lambda s: s.ConstantLR(0.3, total_iters=40),
    "LinearLR": lambda s: s.LinearLR(0.05, total_iters=40),
    "ExponentialLR": lambda s: s.ExponentialLR(0.95),
    "PolynomialLR": lambda s: s.PolynomialLR(80, power=2.0),
    "CosineAnnealingLR": lambda s: s.CosineAnnealingLR(40),
    "CosineAnnealingWarmRestarts": lambda s: s.CosineAnnealingWarmRestarts(14, T_mult=2),
    "CyclicLR, triangular": lambda s: s.CyclicLR(0.01, 0.1, 12),
    "CyclicLR, triangular2": lambda s: s.CyclicLR(0.01, 0.1, 12, mode="triangular2"),
    "CyclicLR, exp_range": lambda s: s.CyclicLR(0.01, 0.1, 12, mode="exp_range", gamma=0.98),
    "OneCycleLR": lambda s: s.OneCycleLR(0.1, 100),
    "OneCycleLR, linear, three phases": lambda s: s.OneCycleLR(
        0.1, 100, anneal_strategy="linear", three_phase=True
    ),
    "ReduceLROnPlateau": lambda s: s.ReduceLROnPlateau(factor=0.5, patience=8),
    "SequentialLR": lambda s: s.SequentialLR(
        [s.LinearLR(0.05, total_iters=20), s.CosineAnnealingLR(80)], [20]
    ),
    "ChainedScheduler": lambda s: s.ChainedScheduler(
        [s.LinearLR(0.2, total_iters=20), s.ExponentialLR(0.98), s.StepLR(40, gamma=0.5)]
    ),
    "SWALR": lambda s: s.SequentialLR([s.CosineAnnealingLR(120), s.SWALR(0.05, 15)], [60]),
}


def draw(plans: Mapping[str, Plan], lrs: Sequence[float], steps: int, file: Path) -> float:
    """Draw each plan, torch's lines wide and grey, this library's thin upon them.

    Args:
        plans: by title.
        lrs: the groups' learning rates.
        steps: how many.
        file: the PNG to write.

    Returns:
        The largest difference between the two of any number at any step.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: a plan that is no plan.
    """
    from matplotlib.figure import Figure

    all_traces = {title: traces(plan, lrs, steps) for title, plan in plans.items()}
    columns = min(4, len(plans))
    rows = math.ceil(len(plans) / columns)
    size = (3.4 * columns, 2.5 * rows) if len(plans) > 1 else (7.0, 4.0)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (title, of_plan) in zip(grid.flat, all_traces.items(), strict=False):
        _draw_one(axes, title, of_plan)
    for axes in grid.flat[len(plans) :]:
        axes.set_axis_off()
    entries = _legend([axes for axes in figure.axes if axes.lines])
    figure.legend(entries.values(), entries, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(file, dpi=80)
    return max(each.difference for each in all_traces.values())


def _legend(drawn: Sequence[Axes]) -> dict[str, Any]:
    lines = [line for axes in drawn for line in axes.lines]
    return {str(line.get_label()): line for line in lines}


def _draw_one(axes: Axes, title: str, of_plan: Traces) -> None:
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=7)
    _draw_lines(axes, of_plan.torch[:, 0], of_plan.port[:, 0], "learning rate", "tab:blue")
    axes.set_ylim(bottom=min(0.0, float(of_plan.torch[:, 0].min())))
    if np.ptp(of_plan.torch[:, 1]) > 0:
        twin = axes.twinx()
        twin.tick_params(labelsize=7, labelcolor="tab:orange")
        _draw_lines(twin, of_plan.torch[:, 1], of_plan.port[:, 1], "momentum", "tab:orange")


def _draw_lines(
    axes: Axes, theirs: NDArray[np.float64], ours: NDArray[np.float64], name: str, color: str
) -> None:
    for group in range(theirs.shape[1]):
        axes.plot(theirs[:, group], color="0.78", linewidth=5, label="torch")
        axes.plot(ours[:, group], color=color, linewidth=1, label=f"jaxopt_port: {name}")
