"""Schedulers made of schedulers: one after the other, and all at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ._arithmetic import Traced, Value, bisect_right, either, extended, raw, where
from ._groups import Groups
from ._plateau import ReduceLROnPlateau
from ._scheduler import LRScheduler
from ._state import Own, SchedulerState, copied, merge

State = TypeVar("State")


class _Composite(LRScheduler):
    schedulers: Sequence[LRScheduler]

    @property
    def kind(self) -> str:
        return f"{type(self).__name__}({', '.join(s.kind for s in self.schedulers)})"

    def step(self, state: State, sched_state: SchedulerState) -> tuple[State, SchedulerState]:
        """Take one step: torch's ``scheduler.step()``.

        Args:
            state: the optimizer's state.
            sched_state: the scheduler's, from `init` or an earlier step.

        Returns:
            Both states; the arguments are left as they were.

        Raises:
            TypeError, ValueError: no state of this scheduler.
            NotImplementedError: as in torch, a composite that is not the first of a sequence
                cannot be begun.
        """
        stepped: tuple[State, SchedulerState] = self._stepped(state, sched_state, None)
        return stepped

    def _check_schedulers(self, expects: str) -> None:
        name = type(self).__name__
        if len(self.schedulers) < 1:
            raise ValueError(
                f"{name} expects at least one scheduler{expects}, but got no scheduler."
            )
        for index, scheduler in enumerate(self.schedulers):
            if not isinstance(scheduler, LRScheduler):
                raise TypeError(f"{name} at index {index} should be a scheduler; got {scheduler!r}")
            if not scheduler.composable:
                raise TypeError(
                    f"{name} at index {index} is a {type(scheduler).__name__}, whose steps take an "
                    "epoch or an update: it cannot be a part of another scheduler"
                )
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ValueError(
                    f"{name} does not support `ReduceLROnPlateau` scheduler as it requires "
                    "additional kwargs to be specified when calling `step`, but got one at index "
                    f"{index} in the given schedulers sequence."
                )

    def _get_lr(self, own: Own, groups: Groups, initial: bool) -> Value:
        raise NotImplementedError(
            f"a {type(self).__name__} can only be the first scheduler of a SequentialLR: torch has "
            "no way to begin it at a milestone"
        )


@dataclass(frozen=True)
class SequentialLR(_Composite):
    """Let schedulers follow one another, from milestone to milestone.

    The counterpart of ``torch.optim.lr_scheduler.SequentialLR``. As in torch, the schedulers are
    begun in their order, and what that does to the momentum stays; composites can only come first.

    Args:
        schedulers: in order.
        milestones: the steps at which the next one takes over.
        last_epoch: -1 to begin; otherwise the epoch after which a run is resumed.

    Raises:
        ValueError: no scheduler, a plateau scheduler, or not one milestone less than schedulers.
        TypeError: something that is no scheduler.

    Example:
        >>> from jaxopt_port.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
        >>> warm_up = LinearLR(start_factor=0.5, total_iters=2)
        >>> schedule = SequentialLR([warm_up, CosineAnnealingLR(T_max=2)], [2]).as_schedule(1.0)
        >>> [round(float(schedule(count)), 6) for count in range(5)]
        [0.5, 0.75, 1.0, 0.5, 0.0]
    """

    schedulers: Sequence[LRScheduler]
    milestones: Sequence[int]
    last_epoch: int = -1

    def _check(self) -> None:
        self._check_schedulers("")
        if len(self.milestones) != len(self.schedulers) - 1:
            raise ValueError(
                "Sequential Schedulers expects number of schedulers provided to be one more than "
                f"the number of milestone points, but got number of schedulers "
                f"{len(self.schedulers)} and the number of milestones to be equal to "
                f"{len(self.milestones)}"
            )

    def _arguments(self, size: int) -> dict[str, Any]:
        return {"_milestones": list(self.milestones)}

    def _construct(self, groups: Groups) -> Own:
        own = Own(_schedulers=[scheduler._construct(groups) for scheduler in self.schedulers])
        own.last_epoch = self.last_epoch + 1
        groups.lr = groups.entry("initial_lr")
        _undo(own)
        first = bisect_right(self.milestones, 0)
        self.schedulers[first]._initial_step(own._schedulers[first], groups)
        own._last_lr = own._schedulers[first]._last_lr
        return own

    def _advance(
        self, own: Own, groups: Groups, epoch: Value | None = None, *, initial: bool = False
    ) -> None:
        own.last_epoch = own.last_epoch + 1
        _lengthen(own, len(groups))
        active = bisect_right(self.milestones, own.last_epoch)
        self._advance_from(0, active, own, groups)

    def _advance_from(self, index: int, active: Value, own: Own, groups: Groups) -> None:
        """Advance the active one of the schedulers from an index on."""

        def this(own: Own, groups: Groups) -> None:
            self._advance_one(index, own, groups)

        def later(own: Own, groups: Groups) -> None:
            self._advance_from(index + 1, active, own, groups)

        if index == len(self.schedulers) - 1:
            this(own, groups)
        else:
            _branch(active == index, this, later, own, groups)

    def _advance_one(self, index: int, own: Own, groups: Groups) -> None:
        scheduler, inner = self.schedulers[index], own._schedulers[index]

        def begin(inner: Own, groups: Groups) -> None:
            scheduler._update_lr(inner, groups, 0)

        if index == 0:
            scheduler._advance(inner, groups)
        else:
            begins = own.last_epoch == self.milestones[index - 1]
            _branch(begins, begin, scheduler._advance, inner, groups)
        own._last_lr = inner._last_lr


def _lengthen(own: Own, size: int) -> None:
    """Give rates that have been set last a NaN for each group that has joined since.

    So they are as long as those of the scheduler that is active, of whichever is traced.
    """
    for inner in own._schedulers:
        if hasattr(inner, "_schedulers"):
            _lengthen(inner, size)
        known = len(raw(inner._last_lr))
        if known < size:
            inner._last_lr = extended(inner._last_lr, np.full(size - known, np.nan))


def _undo(own: Own) -> None:
    """Torch's ``recursive_undo``."""
    for inner in own._schedulers:
        if hasattr(inner, "_schedulers"):
            _undo(inner)
        else:
            inner.last_epoch = inner.last_epoch - 1


def _branch(
    condition: Value,
    then: Callable[[Own, Groups], None],
    otherwise: Callable[[Own, Groups], None],
    own: Own,
    groups: Groups,
) -> None:
    """Do one of two things to the attributes and the groups; where traced, both to copies."""
    if not isinstance(condition, Traced):
        return then(own, groups) if condition else otherwise(own, groups)

    def after(branch: Callable[[Own, Groups], None]) -> tuple[Own, Groups]:
        made = copied(own), groups.copied()
        branch(*made)
        return made

    (own1, groups1), (own2, groups2) = either(
        lambda: after(then), lambda: after(otherwise), _without_rates
    )
    vars(own).update(vars(merge(condition, own1, own2)))
    groups.lr = where(condition, groups1.lr, groups2.lr)
    groups.momentum = where(condition, groups1.momentum, groups2.momentum)
    return None


def _without_rates(made: tuple[Own, Groups]) -> tuple[Own, Groups]:
    """Return what a branch leaves behind that torch refuses: NaN for the rates."""
    own, groups = copied(made[0]), made[1].copied()
    groups.lr = own._last_lr = groups.lr * math.nan
    return own, groups


@dataclass(frozen=True)
class ChainedScheduler(_Composite):
    """Step several schedulers one after the other, each on what the one before has left.

    The counterpart of ``torch.optim.lr_scheduler.ChainedScheduler``.

    Args:
        schedulers: in order.

    Raises:
        ValueError: no scheduler, or a plateau scheduler.
        TypeError: something that is no scheduler.

    Example:
        >>> from jaxopt_port.lr_scheduler import ChainedScheduler, ConstantLR, ExponentialLR
        >>> both = [ConstantLR(factor=0.5, total_iters=2), ExponentialLR(gamma=0.5)]
        >>> schedule = ChainedScheduler(both).as_schedule(1.0)
        >>> [float(schedule(count)) for count in range(4)]
        [0.5, 0.25, 0.25, 0.125]
    """

    schedulers: Sequence[LRScheduler]

    def _check(self) -> None:
        self._check_schedulers(" to be chained")

    def _arguments(self, size: int) -> dict[str, Any]:
        return {}

    def _construct(self, groups: Groups) -> Own:
        inner = [scheduler._construct(groups) for scheduler in self.schedulers]
        return Own(_schedulers=inner, _last_lr=groups.lr)

    def _advance(
        self, own: Own, groups: Groups, epoch: Value | None = None, *, initial: bool = False
    ) -> None:
        for scheduler, inner in zip(self.schedulers, own._schedulers, strict=True):
            scheduler._advance(inner, groups)
        own._last_lr = groups.lr
