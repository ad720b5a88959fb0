"""torch's schedulers in mid-run as this library's, and back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..engine import find_groups_state
from ..lr_scheduler import SCHEDULERS, LRScheduler, SchedulerState
from ._scheduler_arguments import plain, port_scheduler_of
from ._tensors import import_torch
from .files import Checkpoint

if TYPE_CHECKING:
    import torch


def torch_classes() -> dict[type, type[LRScheduler]]:
    """Return this library's class of each of torch's."""
    torch = import_torch()
    return {
        getattr(torch.optim.swa_utils if name == "SWALR" else torch.optim.lr_scheduler, name): cls
        for name, cls in SCHEDULERS.items()
    }


def scheduler_from_torch(
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    state: Any = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
) -> tuple[Any, SchedulerState]:
    """Return this library's scheduler and its state, where torch's stands: in mid-run, too.

    The learning rates themselves are the optimizer's: `optimizer_from_torch` brings them. From a
    saved state dict, which does not say the class nor all of its arguments, nothing is to be
    converted: make the scheduler by hand, as it was made in torch, and call its
    ``load_state_dict(state_dict, param_groups)``.

    Args:
        scheduler: any of torch's own schedulers, ``SequentialLR`` and ``ChainedScheduler`` with
            those inside them too. A user's functions (``LambdaLR``, ``MultiplicativeLR``,
            ``CyclicLR``'s ``scale_fn``) are taken as they are: under ``jit`` they are given traced
            integers.
        state: the state that `optimizer_from_torch` returned, to check that the groups are the
            same in number (frozen ones not counted); None for no check.
        optimizer: torch's optimizer; by default the scheduler's.

    Returns:
        The scheduler and its state: what its ``init`` and ``step`` return beside the optimizer's.

    Raises:
        TypeError: a scheduler of another class, or a state dict.
        ValueError: an argument that torch does not keep, or another number of groups.
        ImportError: torch is missing.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD(torch.nn.Linear(3, 2).parameters(), lr=0.8)
        >>> theirs = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
        >>> optimizer.step(); theirs.step()
        >>> scheduler, sched_state = scheduler_from_torch(theirs)
        >>> scheduler.step_size, scheduler.state_dict(sched_state)["last_epoch"]
        (2, 1)
    """
    if isinstance(scheduler, Mapping | Checkpoint):
        whole = isinstance(scheduler, Checkpoint)
        given = (
            "run.scheduler, run.optimizer['param_groups']" if whole else "state_dict, param_groups"
        )
        raise TypeError(
            f"a {'checkpoint' if whole else 'state dict'} does not say which scheduler it is of; "
            "make the scheduler of jaxopt_port with the arguments of torch's, and call its "
            f"load_state_dict({given})"
        )
    classes = torch_classes()
    groups = getattr(getattr(scheduler, "optimizer", None), "param_groups", None)
    if groups is None:
        raise TypeError(f"expected one of torch's schedulers; got {type(scheduler).__name__}")
    groups = groups if optimizer is None else optimizer.param_groups
    made = port_scheduler_of(scheduler, groups, classes)
    if state is not None:
        _check_size(len(groups), state)
    entries = [{name: plain(g[name]) for name in LRScheduler.entries if name in g} for g in groups]
    loaded = made.load_state_dict(_plain_dict(scheduler.state_dict()), entries)
    # Without what only a scheduler that is begun anew would put there.
    held = {n: v for n, v in loaded.param_groups.items() if any(n in own for own in entries)}
    return made, dataclasses.replace(loaded, param_groups=held)


def _plain_dict(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: [_plain_dict(inner) for inner in value] if key == "_schedulers" else plain(value)
        for key, value in state_dict.items()
    }


def _check_size(size: int, state: Any) -> None:
    trained = [g for g in find_groups_state(state).table.groups if not g.frozen]
    if len(trained) != size:
        raise ValueError(
            f"the scheduler is one of {size} groups, but {len(trained)} groups of the state are "
            "trained; a scheduler needs the groups that it began with. Make one by hand where "
            "groups were split, and begin it with init(state)"
        )


def scheduler_to_torch(
    scheduler: LRScheduler, sched_state: SchedulerState, optimizer: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return torch's scheduler over an optimizer, where this library's stands: the way back.

    The optimizer's learning rates and momenta are those of the moment (`optimizer_to_torch` brings
    them) and stay so; its groups get the entries that torch's schedulers keep there
    (``"initial_lr"``, ``"max_lr"``, …).

    Args:
        scheduler: this library's.
        sched_state: its state.
        optimizer: torch's optimizer, with the groups that are trained here, in their order.

    Returns:
        A new scheduler of torch's class of the same name.

    Raises:
        TypeError: a class that torch has not, or no optimizer.
        ValueError: a state of another scheduler, or another number of groups. Nothing is changed
            then.
        ImportError: torch is missing.

    Example:
        >>> import jax.numpy as jnp, torch, jaxopt_port as jp
        >>> scheduler = jp.lr_scheduler.StepLR(step_size=2, gamma=0.5)
        >>> state, sched_state = scheduler.init(jp.SGD(lr=0.8).init({"weight": jnp.ones(3)}))
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=0.8)
        >>> theirs = scheduler_to_torch(scheduler, sched_state, optimizer)
        >>> theirs.step_size, theirs.get_last_lr()
        (2, [0.8])
    """
    if not isinstance(optimizer, import_torch().optim.Optimizer):
        raise TypeError(f"expected a torch optimizer; got {type(optimizer).__name__}")
    of_torch = {ours: theirs for theirs, ours in torch_classes().items()}
    _check_classes(scheduler, of_torch)
    saved = scheduler.state_dict(sched_state)
    entries = scheduler.param_groups(sched_state)
    groups: list[dict[str, Any]] = optimizer.param_groups
    if len(entries) > len(groups):
        raise ValueError(
            f"the scheduler is one of {len(entries)} groups, torch's optimizer has "
            f"{len(groups)}; what is frozen here torch's is not given"
        )
    # What has joined since it began is not there as it is made.
    begun = len(saved.get("base_lrs", entries))
    joined = groups[begun:]
    del groups[begun:]
    try:
        with _as_it_was(optimizer):
            made: torch.optim.lr_scheduler.LRScheduler
            made = _constructed(scheduler, optimizer, of_torch)
            made.load_state_dict(saved)
    finally:
        groups += joined
    for group, held in zip(groups, entries, strict=False):
        group.update({name: value for name, value in held.items() if not math.isnan(value)})
    return made


def _check_classes(scheduler: Any, of_torch: Mapping[Any, Any]) -> None:
    if type(scheduler) not in of_torch:
        raise TypeError(f"torch has no scheduler of the class {type(scheduler).__qualname__}")
    for inner in getattr(scheduler, "schedulers", ()):
        _check_classes(inner, of_torch)


def _constructed(scheduler: Any, optimizer: Any, of_torch: Mapping[Any, Any]) -> Any:
    cls = of_torch[type(scheduler)]
    arguments = {
        field.name: _listed(getattr(scheduler, field.name))
        for field in dataclasses.fields(scheduler)
        # It is begun anew; then the state is loaded.
        if field.name not in ("last_epoch", "schedulers") and field.metadata.get("torch", True)
    }
    if not hasattr(scheduler, "schedulers"):
        return cls(optimizer, **arguments)
    inner = [_constructed(each, optimizer, of_torch) for each in scheduler.schedulers]
    return cls(schedulers=inner, optimizer=optimizer, **arguments)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@contextmanager
def _as_it_was(optimizer: Any) -> Iterator[None]:
    """Let schedulers be made for an optimizer; afterwards its groups are what they were.

    What torch's schedulers do to ``optimizer.step``, to see that it is called, stays, unless there
    is an error.
    """
    groups: Sequence[dict[str, Any]] = optimizer.param_groups
    before = [dict(group) for group in groups]
    attributes = {n: vars(optimizer)[n] for n in ("step", "_opt_called") if n in vars(optimizer)}
    for group in groups:
        group["lr"] = float(group["lr"])  # torch would write into a tensor
        for name in LRScheduler.entries:
            group.pop(name, None)
    optimizer._opt_called = True  # lest torch warn of the steps that it takes to begin
    try:
        yield
    except BaseException:
        for name in ("step", "_opt_called"):
            vars(optimizer).pop(name, None)
        vars(optimizer).update(attributes)
        raise
    else:
        # An optimizer with state has been stepped.
        optimizer._opt_called = bool(attributes.get("_opt_called") or optimizer.state)
    finally:
        for group, entries in zip(groups, before, strict=True):
            group.clear()
            group.update(entries)
