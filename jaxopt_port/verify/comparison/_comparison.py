"""Runs both sides beside each other until the first divergence."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any

from ._stages import Stages

# The first steps are where most faults show, and a check is dear.
_FIRST_CHECKS = 3
# Steps after the first divergence that are run for the diagnosis, and to find others.
_BEYOND = 40
_END = object()


class Checks:
    """Which steps everything is checked at.

    Args:
        every: one step in how many.
        steps: how many there are; the last is checked.
        only: instead, those of which a trace has everything: it cannot be asked for more.
    """

    def __init__(self, every: int, steps: int, only: Container[int] | None = None) -> None:
        self._every, self._steps, self._only = every, steps, only
        self.dense = range(0)

    def __call__(self, step: int) -> bool:
        """Whether this step is checked."""
        if self._only is not None:
            return step in self._only
        regular = step < _FIRST_CHECKS or step % self._every == 0 or step == self._steps - 1
        return regular or step in self.dense


def run(
    stages: Stages,
    pairs: Iterable[tuple[Any, Any]],
    steps: int,
    checks: Checks,
    progress: Callable[[int, int], None],
    *,
    stop: bool = True,
    goes_back: bool = True,
) -> int:
    """Compare until a divergence or the end; return how many steps were compared.

    A check is made at some steps only. Where one finds a divergence, or an optimizer's step does,
    the run goes back to the last check that found none, and checks each step from there.

    Args:
        stages: both sides.
        pairs: of each step, torch's batch and this side's own, or None.
        steps: how many.
        checks: at which steps everything is checked.
        progress: called with the steps done and all; these are fewer where the run ends early.
        stop: whether to end a few steps after the first divergence.
        goes_back: whether snapshots are made to go back to.
    """
    source = iter(pairs)
    waiting: list[tuple[Any, Any]] = []  # batches since the last check that found nothing
    good: Any = None
    last_good, step, beyond = -1, 0, 0
    went_back = False
    while step < steps:
        pair = next(source)
        waiting.append(pair)
        stages.step(step, *pair, checks(step))
        progress(step + 1, steps)
        if stages.context.results.found:
            if step > last_good + 1 and good is not None and not went_back:
                checks.dense, went_back = range(last_good + 1, step + 1), True
                source, waiting = itertools.chain(waiting, source), []
                stages.restore(good)
                step = last_good + 1
                continue
            if stop and (beyond == _BEYOND or not stages.context.finite):
                progress(step + 1, step + 1)
                stages.end()
                return step + 1
            beyond += 1
            waiting, good = [], None
        elif checks(step):
            last_good, waiting = step, []
            good = stages.snapshot() if goes_back and step + 1 < steps else None
        step += 1
    stages.end()
    return steps


def paired(
    batches: Iterable[Any], own: Iterable[Any] | None, steps: int
) -> Iterator[tuple[Any, Any]]:
    """Yield torch's batch and this side's own, or None, of each step.

    Raises:
        ValueError: one of them ends too early.
    """
    theirs, ours = iter(batches), None if own is None else iter(own)
    for step in range(steps):
        batch = next(theirs, _END)
        if batch is _END:
            raise ValueError(
                f"the batches end after {step} of {steps} steps; give more, or steps={step}"
                if step
                else "there are no batches"
            )
        mine = None if ours is None else next(ours, _END)
        if mine is _END:
            raise ValueError(
                f"your own batches end after {step} of {steps} steps, torch's do not: both loaders "
                "must keep, or drop, the last batch"
            )
        yield batch, mine
