"""What a user says of torch's side, and what cannot be compared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ._together import listed


@dataclass(kw_only=True)
class TorchSide:
    """What is trained with torch.

    Args:
        module: in the mode (``train()``, ``eval()``) in which it is to be compared.
        optimizer: of the module's parameters; or a list of several, which step after one another.
        loss: ``loss(output, batch)``, a scalar tensor.
        forward: ``forward(module, batch)``, a tensor or a tuple, list or dict of tensors; None is
            ``module(batch[0])``.
        scheduler: of the optimizer, a list of several, or None.
        scheduler_every: steps between two calls of ``scheduler.step()``: the batches of an epoch,
            where it is called once an epoch.
        metric: whether it is called with the loss, as `ReduceLROnPlateau` is.
        clip: called with the list of the module's parameters after ``backward``; changes their
            gradients.
        accumulation_steps: how many batches make one step of the optimizer:
            ``(loss / accumulation_steps).backward()`` of each. ``loss`` gives the undivided one.
        scaler: a `torch.amp.GradScaler`: its ``scale``, ``unscale_``, ``step`` and ``update``
            stand around the backward pass, the clipping and the step, as in torch's loop.
        averaged: a `torch.optim.swa_utils.AveragedModel` of the module, which is told each step.
        closure: whether ``step`` is given a closure, which clears the gradients, evaluates the
            batch's loss and calls ``backward``: L-BFGS needs one.
        changes: what the loop changes between steps, by the step before which it does, counted from
            0: ``changes={50: lambda optimizer: optimizer.param_groups[0].update(lr=1e-3)}``. Called
            also with copies of the optimizer in float64, it changes the one that it is given, or
            each in a list of several; ``optimizer.load_state_dict(new.state_dict())`` makes it a
            new one.

    Example:
        >>> module = torch.nn.Linear(3, 1)
        >>> side = TorchSide(
        ...     module=module,
        ...     optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
        ...     loss=lambda output, batch: torch.nn.functional.mse_loss(output, batch[1]),
        ... )
    """

    module: torch.nn.Module
    optimizer: Any
    loss: Callable[[Any, Any], torch.Tensor]
    forward: Callable[[torch.nn.Module, Any], Any] | None = None
    scheduler: Any = None
    scheduler_every: int = 1
    metric: bool = False
    clip: Callable[[list[torch.nn.Parameter]], Any] | None = None
    accumulation_steps: int = 1
    scaler: torch.amp.GradScaler | None = None
    averaged: torch.optim.swa_utils.AveragedModel | None = None
    closure: bool = False
    changes: Mapping[int, Callable[[Any], None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # What torch.compile has made of a module has its parameters, and no float64.
        self.module = getattr(self.module, "_orig_mod", self.module)


def refuse(side: TorchSide) -> None:
    """Raise an error for what cannot be compared."""
    optimizers, schedulers = listed(side.optimizer), listed(side.scheduler)
    for optimizer in optimizers:
        closure = inspect.signature(type(optimizer).step).parameters.get("closure")
        needs = closure is not None and closure.default is inspect.Parameter.empty
        if needs and not side.closure:
            raise TypeError(
                f"{type(optimizer).__name__} evaluates the loss itself, through a closure: give "
                "closure=True, on both sides"
            )
        if closure is None and side.closure:
            raise TypeError(f"closure=True, but {type(optimizer).__name__}.step takes no closure")
    own = {id(p) for p in side.module.parameters()}
    if not any(p.is_floating_point() for p in side.module.parameters()):
        raise ValueError(f"{type(side.module).__name__} has no parameters to train")
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    for g, group in enumerate(groups):
        foreign = [tuple(p.shape) for p in group["params"] if id(p) not in own]
        if foreign:
            raise ValueError(
                f"the optimizer has parameters that are not the module's: shapes {foreign} in "
                f"group {g}. Was the module moved or rebuilt after the optimizer was made? What "
                "trains beside it (weights of several losses, say) belongs into one module with it"
            )
    odd = [n for n, p in side.module.named_parameters() if not bool(torch.isfinite(p).all())]
    if odd:
        raise ValueError(f"NaN or infinity in the initial parameters: {', '.join(odd)}")
    held = [id(p) for group in groups for p in group["params"]]
    if len(held) > len(set(held)):
        raise ValueError("two optimizers have the same parameter: it would be stepped twice")
    for scheduler in schedulers:
        if isinstance(scheduler, type):
            name = scheduler.__name__
            raise TypeError(f"the scheduler is the class {name}; make one: {name}(optimizer, …)")
        needed = ("step", "state_dict", "load_state_dict")
        lacking = [name for name in needed if not callable(getattr(scheduler, name, None))]
        if lacking:
            raise TypeError(
                f"the scheduler, a {type(scheduler).__name__}, has no {' and no '.join(lacking)}: "
                "steps are run again from where they were. Give it what torch's schedulers have"
            )
        if not any(getattr(scheduler, "optimizer", one) is one for one in optimizers):
            raise ValueError("the scheduler is of another optimizer than the one that is given")
        plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
        if plateau and not side.metric:
            raise ValueError("ReduceLROnPlateau steps with the loss: give metric=True")
    beside = [name for name in ("clip", "scaler") if getattr(side, name) is not None]
    if side.closure and (beside or side.accumulation_steps != 1):
        name = [*beside, "accumulation_steps"][0]
        raise ValueError(
            f"closure=True and {name}=: a step that evaluates the loss itself is given no gradients"
        )
    for name in ("scheduler_every", "accumulation_steps"):
        if getattr(side, name) < 1:
            raise ValueError(f"{name} is {getattr(side, name)}; it must be 1 or more")
    if not isinstance(side.changes, Mapping) or not all(map(callable, side.changes.values())):
        raise TypeError(f"changes are functions by step, {{50: f}}; got {side.changes!r}")
    odd_steps = [step for step in side.changes if not isinstance(step, int) or step < 0]
    if odd_steps:
        raise ValueError(f"changes has {odd_steps[0]!r} for a step; steps are counted from 0")
    if side.averaged is not None:
        averaged = dict(side.averaged.module.named_parameters())
        if averaged.keys() != dict(side.module.named_parameters()).keys():
            raise ValueError("averaged is of another module: its parameters have other names")
