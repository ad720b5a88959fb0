"""The parts of a run, in order of worth, each within its share of the budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .._spread import Spread
from ..speed._contender import LeftOutError
from ..speed._results import Measurement, Results, machine, now
from ..speed._worker import WorkerError
from . import _parity, _speed, _tests
from ._cases import REHEARSAL, WHOLE, Sizes
from ._sides import MISSING, THREADS, Sides, last_line

Say = Callable[[str], None]

# The parts, and what each may take of the time that is left, beside those after it.
PARTS = {"primitives": 6, "parity": 32, "speed": 34, "train": 12, "memory": 4, "compiled": 8}
PARTS |= {"tests": 8}
_START = 0.4  # of the budget, for both sides to start
_SAVE_EVERY = 15.0  # seconds


class Run:
    """One run.

    Args:
        budget: seconds that it should take at most.
        out: the file that the results are written to after each part.
        command: what was asked for.
        say: is told what is being measured.
    """

    def __init__(self, budget: float, out: Path, command: str, say: Say) -> None:
        self._out, self._say = out, say
        self._begun = time.monotonic()
        self._end = self._begun + budget
        self.sides = Sides(self._end)
        self.sizes: Sizes = WHOLE
        self.bandwidth: float | None = None  # bytes a second, once it is measured
        self.results = Results(now(), command, machine(THREADS), self.sides.facts)
        self.parts = self.results.parts
        self.parts["budget"] = {"asked": budget, "used": {}, "cut": {}}

    def measure(self) -> Results:
        """Run the parts; what goes wrong in one is written down, and the next begins."""
        try:
            self._facts()
            weights = dict(PARTS)
            for name in PARTS:
                share = weights[name] / sum(weights.values())
                del weights[name]
                self._part(name, time.monotonic() + (self._end - time.monotonic()) * share)
                self._save()
        finally:
            self.sides.end()
        return self.results

    def _save(self) -> None:
        self.results.save(self._out)
        self._saved = time.monotonic()

    def _facts(self) -> None:
        """Start both sides, which say what they are; without an accelerator, rehearse."""
        self._say("starting")
        begun = time.monotonic()
        self.sides.until = begun + _START * (self._end - begun)
        self.sides.begin("torch", "jax")
        platform = self.sides.facts.get("jax", {}).get("platform")
        self.parts["rehearsal"] = platform in (None, "cpu")
        if self.parts["rehearsal"]:
            self.sizes = REHEARSAL
        for side, why in self.sides.absent.items():
            self.leave_out("everything", side, why)
        self.parts["budget"]["used"]["facts"] = round(time.monotonic() - begun, 1)
        self._save()

    def _part(self, name: str, until: float) -> None:
        """Take the steps of a part while there is time; each is yielded before it is begun."""
        begun = time.monotonic()
        self.sides.until = until
        steps = getattr(self, f"_{name}")()
        for done, what in enumerate(steps):
            # One step of each part is taken in any case, unless there is no time at all.
            if time.monotonic() >= (until if done else self._end):
                self.parts["budget"]["cut"][name] = f"out of time after {done} steps, before {what}"
                steps.close()
                break
            self._say(f"{name}: {what}")
            if time.monotonic() > self._saved + _SAVE_EVERY:
                self._save()
        self.sides.drop()
        self.parts["budget"]["used"][name] = round(time.monotonic() - begun, 1)

    def leave_out(self, case: str, contender: str, why: str) -> None:
        """Write down what could not be had."""
        self.results.left_out.append({"case": case, "contender": contender, "why": why})

    def attempt(self, case: str, contender: str, *request: Any) -> Any:
        """Return a side's answer, or MISSING; then why is said among what was left out."""
        side, *rest = request
        if side in self.sides.absent:  # which is said once, of everything
            return MISSING
        try:
            return self.sides(side, *rest)
        except (LeftOutError, WorkerError) as error:
            self.leave_out(case, contender, last_line(error))
            return MISSING

    def add(
        self, suite: str, case: str, contender: str, unit: str, times: Any, **more: Any
    ) -> None:
        """Add a measurement: the median and quartiles of some numbers."""
        turns = len(np.atleast_1d(times))
        made = Measurement(suite, case, contender, unit, *Spread.of(times), turns=turns, **more)
        self.results.measurements.append(made)

    def _primitives(self) -> Iterator[str]:
        return _parity.primitives(self)

    def _parity(self) -> Iterator[str]:
        return _parity.parity(self)

    def _speed(self) -> Iterator[str]:
        return _speed.steps(self)

    def _train(self) -> Iterator[str]:
        return _speed.training(self)

    def _memory(self) -> Iterator[str]:
        return _speed.memory(self)

    def _compiled(self) -> Iterator[str]:
        return _speed.compiled(self)

    def _tests(self) -> Iterator[str]:
        if "torch" in self.sides.absent:
            return self.leave_out("tests", "pytest", "they compare with torch, which is not there")
        yield f"{len(self.sizes.tests)} files"
        self.sides.end()  # which hold the device's memory
        left = max(5.0, self._end - time.monotonic())
        self.parts["tests"] = _tests.outcomes(self.sizes.tests, left)
