"""Collects what is compared, and finds the first divergence among it."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import NamedTuple

import numpy as np

from ..report import STAGES, Cause, Distance, Divergence, Element, LeafResult, StageResult
from ._distances import Judgement, distance_of

# A branch (a maximum, a sign) that rounding decides sends one side another way for one batch: that
# a side calculates less exactly is said only of what is so in this many checks on end.
ON_END = 3

Diagnosis = Callable[[], Cause | None]
_NONE = distance_of(np.zeros(()), np.zeros(()))

# What is given torch's values is not changed by a fault before it; what is not stands here, with
# the stages that explain a difference in it: at any leaf, and at the same leaf.
_ANYWHERE = {
    "forward": ("forward",),
    "loss": ("loss",),
    "gradient": ("forward", "loss", "gradient"),
    "buffers": ("forward",),
    "data": ("data",),
    "clipping": ("clipping",),
    "update": ("clipping",),
    "state": ("clipping",),
    "averages": ("clipping",),
    "trajectory": tuple(STAGES),
}
_SAME_LEAF = {
    "hyperparameters": ("hyperparameters",),
    "update": ("hyperparameters", "update"),
    "state": ("hyperparameters", "update", "state"),
    "averages": ("hyperparameters", "update", "averages"),
    "buffers": ("buffers",),
}


def owner(leaf: str) -> str:
    """Return the parameter of a leaf, which may be a part of its state."""
    return leaf.partition(" · ")[0]


def explained(stage: str, leaf: str, told: Set[tuple[str, str]]) -> bool:
    """Whether what differs before, as stages and leaves, explains a difference here."""
    anywhere = {stage for stage, _ in told}.intersection(_ANYWHERE.get(stage, ()))
    here = {(other, owner(leaf)) for other in _SAME_LEAF.get(stage, ())}
    return bool(anywhere or here & told)


class Place(NamedTuple):
    """Where something was compared: a stage of a step, and a leaf, or what is none, there."""

    step: int
    stage: str
    leaf: str
    torch_name: str = ""


class Found:
    """A divergence, how far it is beyond its bound, and what may find its cause."""

    def __init__(self, divergence: Divergence, excess: float, diagnosis: Diagnosis | None) -> None:
        self.divergence, self.excess, self.diagnosis = divergence, excess, diagnosis


class Results:
    """All stages of a run."""

    def __init__(self) -> None:
        self.stages = {stage: StageResult(stage) for stage in STAGES}
        self.found: list[Found] = []
        self._leaves: dict[tuple[str, str], LeafResult] = {}
        self._steps: dict[str, set[int]] = {stage: set() for stage in STAGES}
        self._suspects: dict[tuple[str, str], list[Found]] = {}
        self._told: set[tuple[str, str, str]] = set()

    def see(
        self,
        place: Place,
        far: Distance,
        elements: Callable[[], tuple[Element, ...]],
        *,
        surely: Judgement | None = None,
        likely: Judgement | None = None,
        diagnosis: Diagnosis | None = None,
        message: str = "",
        number: str = "",
    ) -> None:
        """Take in one comparison of one leaf.

        Args:
            place: of it.
            far: how far apart the two sides are in the run's dtype.
            elements: gives the elements that are furthest apart.
            surely: a judgement that counts at once.
            likely: a judgement that counts when it is the same in `ON_END` checks on end.
            diagnosis: what may find the cause.
            message: says how far they are apart, where a number's digits say more.
            number: of several of a leaf, which.
        """
        step, stage, leaf, torch_name = place
        known = self._leaves.get((stage, leaf))
        if known is None:
            known = LeafResult(leaf, torch_name, far, step)
            self._leaves[stage, leaf] = known
            self.stages[stage].leaves.append(known)
        self.compared(stage, step)
        known.ulps[step] = far.ulps_max
        judgements = [j for j in (surely, likely) if j is not None]
        if known.worst.relative <= far.relative:
            known.worst, known.worst_step = far, step
            known.bound = max((j.bound for j in judgements), default=0.0)

        def found(judgement: Judgement) -> Found:
            words = message or (
                f"differs by up to {far.absolute:.3g} ({far.relative:.3g} of torch's largest, "
                f"{far.ulps_max:.3g} units in the last place)"
            )
            divergence = Divergence(*place, words, far, judgement.bound, judgement.why, elements())
            return Found(divergence, judgement.excess, diagnosis)

        if self.knows(stage, leaf, number):
            return  # its first difference counts
        if surely is not None and not surely.ok:
            known.ok = False
            self._take(found(surely), number)
        elif likely is not None and not likely.ok:
            if likely.excess == float("inf"):
                known.ok = False
                self._take(found(likely), number)
                return
            suspects = self._suspects.setdefault((stage, leaf), [])
            if not suspects or suspects[-1].divergence.step < step:
                suspects.append(found(likely))
            if len(suspects) >= ON_END:
                self._convict(stage, leaf)
        else:
            self._suspects.pop((stage, leaf), None)

    def add(self, place: Place, words: str, why: str, cause: Cause, far: Distance = _NONE) -> None:
        """Take in what differs by no matter of numbers, and its cause.

        Args:
            place: step, stage, leaf and torch's name of it.
            words: what differs.
            why: that is no rounding.
            cause: of it.
            far: how far apart, where there are numbers.
        """
        divergence = Divergence(*place, words, far, 0.0, why)
        if not self.knows(divergence.stage, divergence.leaf):
            self._take(Found(divergence, float("inf"), lambda: cause))

    def _take(self, found: Found, number: str = "") -> None:
        self._told.add((found.divergence.stage, found.divergence.leaf, number))
        self.found.append(found)

    def told(self) -> frozenset[tuple[str, str]]:
        """Return what has been found to differ, as stages and leaves."""
        return frozenset((stage, owner(leaf)) for stage, leaf, _ in self._told)

    def knows(self, stage: str, leaf: str, number: str = "") -> bool:
        """Whether a leaf, or a number of it, has been found to differ at a stage."""
        return (stage, leaf, number) in self._told

    def forget(self, step: int) -> None:
        """Forget what was found, as the run goes back to before a step."""
        self.found.clear()
        self._told.clear()
        for leaf in self._leaves.values():
            leaf.ok = True
        for suspects in self._suspects.values():
            suspects[:] = [found for found in suspects if found.divergence.step < step]

    def compared(self, stage: str, step: int) -> None:
        """Note that a stage was compared, though nothing may have been worth a record."""
        self._steps[stage].add(step)
        self.stages[stage].steps = len(self._steps[stage])

    def _convict(self, stage: str, leaf: str) -> None:
        suspects = self._suspects.pop((stage, leaf))
        self._leaves[stage, leaf].ok = False
        self._take(suspects[0])

    def end(self) -> None:
        """Count what was so in all of a run's last checks, though the run was short."""
        for (stage, leaf), suspects in list(self._suspects.items()):
            if len(suspects) == len(self._leaves[stage, leaf].ulps):
                self._convict(stage, leaf)


def skipped(results: Results, reasons: dict[str, str]) -> None:
    """Say why stages were not compared; those with no reason and no comparison had nothing."""
    for stage, result in results.stages.items():
        if not result.leaves:
            result.skipped = reasons.get(stage, "there is nothing to compare")
