"""Explains your optimizer's steps by a learning rate of each, and by what may be one."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from ..report import Cause
from ._algorithms import Variation
from ._clipping_ways import clipping_ways
from ._known_ways import known_ways
from ._numbers import nice, number, same
from ._schedules import another_schedule, is_scaled, of_schedule, one_sided, schedule_anew
from ._simulation import Hypothesis, Simulation
from ._update_history import UpdateHistory


class Rates:
    """Looks for learning rates under which torch's rule makes your steps.

    Args:
        history: of the leaf.
        simulation: of it.
    """

    def __init__(self, history: UpdateHistory, simulation: Simulation) -> None:
        self._history, self._simulation = history, simulation
        self._enough = simulation.enough

    @functools.cached_property
    def explain(self) -> bool:
        """Whether torch's rule makes your steps, each with some learning rate."""
        rates = self._simulation.fitted_rates(Variation())
        return (
            rates is not None
            and self._simulation.unexplained(Hypothesis(rates=rates)) <= self._enough
        )

    def of(self, variation: Variation, last: bool = False) -> Cause | None:
        """Look for a learning rate of each step under which torch's rule makes yours, and name it.

        Args:
            variation: of the rule.
            last: whether only rates are left that one side alone schedules.
        """
        simulation, history = self._simulation, self._history
        rates = simulation.fitted_rates(variation)
        if rates is None:
            return None
        left = simulation.unexplained(Hypothesis(variation, rates=rates))
        if left > self._enough:
            return None
        torchs = simulation.torch_rates
        # A rate that only sums up something else is no rate: it jumps about.
        ratios = [a / b if b else np.inf for a, b in zip(rates, torchs, strict=True)]
        at = history.first - simulation.begin
        if last and any(c != 1 for c in simulation.clip):
            return None  # another clipping makes such rates, too
        if last:
            found = one_sided(rates, torchs, at, history.first)
            return None if found is None else replace(found, unexplained=left)
        found = of_schedule(rates, torchs, at, history.first, history.steps_per_epoch)
        found = found or self._anew(rates, at)
        if found is not None:
            return replace(found, unexplained=left)
        others = [o.get("lr") for o in history.other_options]
        if all(any(same(r, float(o)) for o in others if o is not None) for r in rates):
            return None  # another group's options
        tail = ratios[at:]
        steady = max(tail) - min(tail) <= 1e-5 * max(map(abs, tail))
        if not steady:
            return None
        ratio = float(np.mean(tail))
        # Next to nothing is a rate of 0, which no number explains; so near to torch's, it is the
        # + 1e-6 of a clipping.
        if abs(ratio) < 1e-6 or same(ratio, 1.0, 1e-5):
            return None
        if same(ratio, -1.0):
            return Cause(
                "sign", "your side goes up the gradient; torch down (or the other way round)",
                "give maximize the same value, and scale by minus the learning rate once", left,
            )  # fmt: skip
        if len(set(torchs)) > 1 and at > 0:
            return None
        return self._factor(ratio, number("lr", rates[at], torchs[at], left), left)

    def _factor(self, ratio: float, rate: Cause, left: float) -> Cause:
        """Name what a rate that is so many times torch's may be instead, where that is as good."""
        rivals = []
        for name, factors, message, remedy in clipping_ways(self._history):
            if name == "clip-limit":
                tried = self._simulation.unexplained(Hypothesis(factor=self.relative(factors)))
                if tried <= self._enough:
                    rivals.append(Cause(name, message, remedy, tried))
        same_as = self._simulation.unexplained(Hypothesis(factor=ratio))
        size = self._history.batch_size
        if same_as <= self._enough:
            exactly = size > 1 and (same(ratio, size, 1e-5) or same(ratio, 1 / size, 1e-5))
            words = "the sum" if ratio > 1 else "a mean of the mean"
            rivals.append(
                Cause(
                    "gradient-scale",
                    f"your side's gradients are {nice(ratio):.6g} times torch's"
                    + (f", {words} over the batch of {size}" if exactly else ""),
                    "take the mean over the batch, and over devices, once, as torch's side does",
                    same_as,
                )
            )
            if exactly:
                rivals.append(rate)
                rate = rivals.pop(-2)
        for way in known_ways(self._history):
            tried = self._simulation.unexplained(Hypothesis(Variation(**way.change)))
            if tried <= self._enough:
                rivals.append(Cause(way.name, way.message, way.remedy, tried))
        if not rivals:
            return rate
        told = " or ".join(dict.fromkeys(c.message for c in (rate, *rivals)))
        remedies = "; or ".join(dict.fromkeys(c.remedy for c in (rate, *rivals)))
        return Cause(
            rate.name, f"{told}: these cannot be told apart here", remedies, left, tuple(rivals)
        )

    def _anew(self, rates: list[float], at: int) -> Cause | None:
        """Look for a schedule that begins again; the simulation may have begun after step 0."""
        first = self._history.first
        torchs = [float(o["lr"]) for o in self._history.options]
        beginning = torchs[: len(rates) - at]
        again = all(same(a, b) for a, b in zip(rates[at:], beginning, strict=False))
        if first < 2 or len(set(beginning)) < 2 or not again:
            return None
        return schedule_anew(first, rates[at], torchs[first])

    def relative(self, factors: list[float]) -> list[float]:
        """Return factors on what torch's clipping leaves of gradients."""
        return [f / c if c else 0.0 for f, c in zip(factors, self._simulation.clip, strict=True)]

    def another(self, unscaled: bool = False) -> Cause | None:
        """Say, when nothing else is found, that the rates follow another schedule.

        Args:
            unscaled: not where they are a multiple of it.
        """
        simulation = self._simulation
        rates = simulation.fitted_rates(Variation())
        if rates is None:
            return None
        left = simulation.unexplained(Hypothesis(rates=rates))
        if left > self._enough:
            return None
        at = self._history.first - simulation.begin
        if any(c != 1 for c in simulation.clip) and not same(rates[0], simulation.torch_rates[0]):
            return None  # another clipping makes such rates, too
        if unscaled and is_scaled(rates, simulation.torch_rates, at):
            return None
        found = another_schedule(rates, simulation.torch_rates, at, self._history.first)
        return None if found is None else replace(found, unexplained=left)
