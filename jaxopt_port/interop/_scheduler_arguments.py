"""The arguments that one of torch's schedulers was made with, read back from its attributes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..lr_scheduler import LRScheduler, OneCycleLR

ParamGroups = Sequence[Mapping[str, Any]]


def plain(value: Any) -> Any:
    """Return a value without tensors: a learning rate may be one in torch."""
    if isinstance(value, list | tuple):
        return type(value)(plain(part) for part in value)
    return value.item() if hasattr(value, "item") else value


def _one(values: Iterable[Any]) -> Any:
    """Return one value for all groups where it is the same, otherwise a tuple of them."""
    each = tuple(plain(value) for value in values)
    return each[0] if each and all(value == each[0] for value in each) else each


def _entry(groups: ParamGroups, name: str) -> Any:
    lacking = [i for i, group in enumerate(groups) if name not in group]
    if lacking:
        raise ValueError(
            f"group {lacking[0]} of torch's optimizer has no {name!r}: it joined after the "
            "scheduler was made, which cannot step it; make torch's scheduler anew, or that of "
            "jaxopt_port by hand, before the group is added"
        )
    return _one(group[name] for group in groups)


def _same(*names: str) -> Callable[[Any, ParamGroups], dict[str, Any]]:
    """What torch keeps under the arguments' own names."""
    return lambda scheduler, groups: {name: plain(getattr(scheduler, name)) for name in names}


def _of_lambda(scheduler: Any, groups: ParamGroups) -> dict[str, Any]:
    return {"lr_lambda": _one(scheduler.lr_lambdas)}


def _of_multi_step(scheduler: Any, groups: ParamGroups) -> dict[str, Any]:
    return {
        "milestones": tuple(sorted(scheduler.milestones.elements())),
        "gamma": scheduler.gamma,
    }


def _of_plateau(scheduler: Any, groups: ParamGroups) -> dict[str, Any]:
    names = ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "eps")
    listed = scheduler.default_min_lr is None
    min_lr = tuple(plain(scheduler.min_lrs)) if listed else plain(scheduler.default_min_lr)
    return {**_same(*names)(scheduler, groups), "min_lr": min_lr}


def _of_swa(scheduler: Any, groups: ParamGroups) -> dict[str, Any]:
    return {
        "swa_lr": _entry(groups, "swa_lr"),
        "anneal_epochs": scheduler.anneal_epochs,
        "anneal_strategy": scheduler._anneal_strategy,
    }


def _of_cyclic(scheduler: Any, groups: ParamGroups) -> dict[str, Any]:
    up, down = _sizes(scheduler.total_size, scheduler.step_ratio)
    arguments = {
        **_same("mode", "gamma", "scale_mode", "cycle_momentum")(scheduler, groups),
        "base_lr": _one(scheduler.base_lrs),
        "max_lr": _one(scheduler.max_lrs),
        "step_size_up": up,
        "step_size_down": down,
        "scale_fn": scheduler._scale_fn_custom,
    }
    if scheduler.cycle_momentum:
        arguments["base_momentum"] = _one(scheduler.base_momentums)
        arguments["max_momentum"] = _one(scheduler.max_momentums)
    return arguments


def _sizes(total: float, ratio: float) -> tuple[float, float]:
    """Return steps up and down, of which torch keeps the sum and a quotient."""
    for up in _near(total * ratio):
        down = total - up
        if up + down == total and up / total == ratio:
            return _as_count(up), _as_count(down)
    raise _not_read_back("CyclicLR", "step_size_up and step_size_down")


def _of_one_cycle(scheduler: Any, groups: ParamGroups) -> dict[str, Any]:
    max_lr = _entry(groups, "max_lr")
    arguments = {
        **_same("total_steps", "cycle_momentum")(scheduler, groups),
        "max_lr": max_lr,
        "anneal_strategy": scheduler._anneal_func_type,
        "three_phase": len(scheduler._schedule_phases) == 3,
        # Both have no part in what follows the beginning.
        "div_factor": _factor(groups, "max_lr", "initial_lr"),
        "final_div_factor": _factor(groups, "initial_lr", "min_lr"),
    }
    if scheduler.cycle_momentum:
        arguments["base_momentum"] = _entry(groups, "base_momentum")
        arguments["max_momentum"] = _entry(groups, "max_momentum")
    # Torch keeps the step at which the first phase ends.
    rise = scheduler._schedule_phases[0]["end_step"] + 1
    for pct_start in _near(rise / scheduler.total_steps):
        if 0.0 <= pct_start <= 1.0:
            made = {**arguments, "pct_start": pct_start}
            if OneCycleLR(**made)._phases == scheduler._schedule_phases:
                return made
    raise _not_read_back("OneCycleLR", "pct_start")


def _factor(groups: ParamGroups, high: str, low: str) -> float:
    pairs = [(float(group[high]), float(group[low])) for group in groups]
    factors = [factor for a, b in pairs[:1] if b for factor in _near(a / b)]
    exact = [f for f in factors if f and all(a / f == b for a, b in pairs)]
    return (exact or factors or [math.inf])[0]


def _near(value: float) -> list[float]:
    """Return numbers that a calculation may have rounded to ``value``, the shortest first."""
    rounded = [round(value, digits) for digits in range(16)]
    around = [value]
    for towards in (math.inf, -math.inf):
        step = value
        for _ in range(4):
            step = math.nextafter(step, towards)
            around.append(step)
    return [float(number) for number in [*rounded, *around]]


def _as_count(size: float) -> float:
    return int(size) if size.is_integer() else size


def _not_read_back(name: str, what: str) -> ValueError:
    return ValueError(
        f"{what} of this {name} cannot be read back from torch's object; make the scheduler of "
        f"jaxopt_port by hand, and call its load_state_dict(scheduler.state_dict(), "
        "optimizer.param_groups)"
    )


_ARGUMENTS: dict[str, Callable[[Any, ParamGroups], dict[str, Any]]] = {
    "LambdaLR": _of_lambda,
    "MultiplicativeLR": _of_lambda,
    "StepLR": _same("step_size", "gamma"),
    "MultiStepLR": _of_multi_step,
    "ConstantLR": _same("factor", "total_iters"),
    "LinearLR": _same("start_factor", "end_factor", "total_iters"),
    "ExponentialLR": _same("gamma"),
    "PolynomialLR": _same("total_iters", "power"),
    "CosineAnnealingLR": _same("T_max", "eta_min"),
    "CosineAnnealingWarmRestarts": _same("T_0", "T_mult", "eta_min"),
    "ReduceLROnPlateau": _of_plateau,
    "CyclicLR": _of_cyclic,
    "OneCycleLR": _of_one_cycle,
    "SWALR": _of_swa,
    "SequentialLR": lambda s, groups: {"milestones": tuple(s._milestones)},
    "ChainedScheduler": lambda s, groups: {},
}


def port_scheduler_of(scheduler: Any, groups: ParamGroups, classes: Mapping[type, Any]) -> Any:
    """Return this library's scheduler with the arguments of one of torch's.

    Args:
        scheduler: torch's.
        groups: torch's ``optimizer.param_groups``.
        classes: this library's class of each of torch's.

    Raises:
        TypeError: it is of no class of torch's own.
        ValueError: an argument cannot be read back.
    """
    cls = type(scheduler)
    if cls not in classes:
        raise TypeError(
            f"{cls.__qualname__} is not one of torch's own schedulers, and what it does in step() "
            "is not known; make a scheduler of jaxopt_port that does the same, and call its "
            "load_state_dict(scheduler.state_dict(), optimizer.param_groups)"
        )
    arguments = _ARGUMENTS[cls.__name__](scheduler, groups)
    if hasattr(scheduler, "_schedulers"):
        inner = [port_scheduler_of(each, groups, classes) for each in scheduler._schedulers]
        arguments["schedulers"] = tuple(inner)
    made: LRScheduler = classes[cls](**arguments)
    return made
