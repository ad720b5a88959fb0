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
    """Looks for learning rates under which torch's rule makes your steps."""

    def __init__(self, history: UpdateHistory, simulation: Simulation) -> None:
        self._history, self._simulation = history, simulation

    @functools.cached_property
    def explain(self) -> bool:
        """Whether torch's rule makes your steps, each with some learning rate."""
        return self._fitted(Variation()) is not None

    def _fitted(self, variation: Variation) -> tuple[list[float], float] | None:
        """Return the rates under which a variation makes your steps, and what they leave."""
        simulation = self._simulation
        rates = simulation.fitted_rates(variation)
        if rates is None:
            return None
        left = simulation.unexplained(Hypothesis(variation, rates=rates))
        return (rates, left) if left <= simulation.enough else None

    def of(self, variation: Variation, last: bool = False) -> Cause | None:
        """Look for a learning rate of each step under which torch's rule makes yours, and name it.

        Args:
            variation: of the rule.
            last: whether only rates are left that one side alone schedules.
        """
        fitted = self._fitted(variation)
        if fitted is None:
            return None
        (rates, left), simulation, history = fitted, self._simulation, self._history
        torchs, at = simulation.torch_rates, history.first - simulation.begin
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
        # A rate that only sums up something else is no rate: it jumps about.
        tail = [a / b if b else np.inf for a, b in zip(rates[at:], torchs[at:], strict=True)]
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
        history, simulation = self._history, self._simulation
        limits = (way for way in clipping_ways(history) if way.cause.name == "clip-limit")
        clips, size = [*simulation.named(limits)], history.batch_size
        told = [rate, *clips]
        same_as = simulation.unexplained(Hypothesis(factor=ratio))
        if same_as <= simulation.enough:
            exactly = size > 1 and (same(ratio, size, 1e-5) or same(ratio, 1 / size, 1e-5))
            words = "the sum" if ratio > 1 else "a mean of the mean"
            scale = Cause(
                "gradient-scale",
                f"your side's gradients are {nice(ratio):.6g} times torch's"
                + (f", {words} over the batch of {size}" if exactly else ""),
                "take the mean over the batch, and over devices, once, as torch's side does",
                same_as,
            )
            told = [scale, *clips, rate] if exactly else [rate, *clips, scale]
        told += simulation.named(known_ways(history))
        if len(told) == 1:
            return rate
        words = " or ".join(dict.fromkeys(c.message for c in told))
        remedies = "; or ".join(dict.fromkeys(c.remedy for c in told))
        message = f"{words}: these cannot be told apart here"
        return Cause(told[0].name, message, remedies, left, tuple(told[1:]))

    def _anew(self, rates: list[float], at: int) -> Cause | None:
        """Look for a schedule that begins again; the simulation may have begun after step 0."""
        first = self._history.first
        torchs = [float(o["lr"]) for o in self._history.options]
        beginning = torchs[: len(rates) - at]
        again = all(same(a, b) for a, b in zip(rates[at:], beginning, strict=False))
        if first < 2 or len(set(beginning)) < 2 or not again:
            return None
        return schedule_anew(first, rates[at], torchs[first])

    def another(self, unscaled: bool = False) -> Cause | None:
        """Say, when nothing else is found, that the rates follow another schedule.

        Args:
            unscaled: not where they are a multiple of it.
        """
        fitted = self._fitted(Variation())
        if fitted is None:
            return None
        (rates, left), simulation = fitted, self._simulation
        at, torchs = self._history.first - simulation.begin, simulation.torch_rates
        if any(c != 1 for c in simulation.clip) and not same(rates[0], torchs[0]):
            return None  # another clipping makes such rates, too
        if unscaled and is_scaled(rates, torchs, at):
            return None
        found = another_schedule(rates, torchs, at, self._history.first)
        return None if found is None else replace(found, unexplained=left)
