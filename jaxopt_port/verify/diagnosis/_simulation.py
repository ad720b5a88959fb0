"""Runs torch's algorithm, or a variation of it, on what is known of a leaf."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np

from ..report import Cause
from ._algorithms import ALGORITHMS, Variation
from ._update_history import UpdateHistory, Wide

# Beyond this many steps that agree, a simulation goes on from torch's state there.
_LEAD = 20
_UNITS = 5e-16  # of float64, of which rounding leaves one or two
_BASE = Variation()


def _both(variation: Variation, more: Variation) -> Variation:
    """Return a variation with what another one changes besides."""
    changed = {f.name: getattr(more, f.name) for f in fields(more)}
    return replace(variation, **{k: v for k, v in changed.items() if v != getattr(_BASE, k)})


@dataclass(frozen=True)
class Hypothesis:
    """What your side may do otherwise than torch.

    Attributes:
        variation: of the algorithm.
        numbers: hyperparameters with another value, by name; ``betas[0]`` for a part of a tuple.
        options: all options, those of another group, or None.
        rates: the learning rate of each step, or None for torch's.
        factor: what gradients are multiplied by; by step where it is a sequence.
        gradients: makes other gradients of them, or None.
        every: one step in so many is taken, of the gradients since the last.
    """

    variation: Variation = _BASE
    numbers: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] | None = None
    rates: Sequence[float] | None = None
    factor: float | Sequence[float] = 1.0
    gradients: Callable[[Wide], Wide] | None = None
    every: int = 1

    def then(self, more: Hypothesis) -> Hypothesis:
        """Return this with another one besides."""
        both = (self.factor, more.factor)
        steps = min((len(f) for f in both if not isinstance(f, (int, float))), default=0)
        factors = [f if isinstance(f, (int, float)) else np.asarray(f[:steps]) for f in both]
        factor = factors[0] * factors[1]
        return Hypothesis(
            variation=_both(self.variation, more.variation),
            numbers={**self.numbers, **more.numbers},
            options=more.options or self.options,
            rates=more.rates if more.rates is not None else self.rates,
            factor=factor if isinstance(factor, (int, float)) else [float(f) for f in factor],
            gradients=more.gradients or self.gradients,
            every=max(self.every, more.every),
        )

    @property
    def lasts(self) -> bool:
        """Whether it says what comes after the steps that it was found in."""
        return self.rates is None and self.every == 1


class Part(NamedTuple):
    """One thing that your side may do otherwise.

    Attributes:
        cause: what it is.
        hypothesis: the same, to be run.
        changes: what it changes; two that change the same are not tried together.
    """

    cause: Cause
    hypothesis: Hypothesis
    changes: frozenset[str] = frozenset()


class Simulation:
    """Simulates hypotheses about one leaf.

    Args:
        history: what is known of it; of an optimizer in `ALGORITHMS`.
        base: what is known already that your side does otherwise.

    Attributes:
        history: that.
        explained: the hypotheses that left no more than ``enough``, with what they left.
        agrees: whether torch's own algorithm, unvaried, has torch's numbers.
        enough: a cause leaves no more than this part of the difference unexplained.
        begin: the step that the simulation begins at.
        clip: what torch's clipping multiplies the leaf's gradient by, at each step of the history.
    """

    def __init__(self, history: UpdateHistory, base: Hypothesis | None = None) -> None:
        self._base = base or Hypothesis()
        self.explained: list[tuple[float, Hypothesis]] = []
        self.history = history
        self._algorithm = ALGORITHMS[history.optimizer]
        self._rate = history.options[0].get("lr")
        self.clip, self._limits = factors_of(history), limits(history)
        self.begin, self._state, self._p = 0, {}, history.start
        torchs = self.run(Hypothesis())
        gap = float(np.max(np.abs(torchs - history.torchs)))
        self._apart = float(np.max(np.abs(history.yours - history.torchs)))
        self.agrees = gap <= 1e-4 * self._apart
        # Float64 itself leaves a part of a difference that is small beside the parameter, and
        # torch keeps some of NAdam's state in float32.
        largest = float(np.max(np.abs(history.torchs)))
        rounding = max(1e-14 * largest, 100 * gap) / self._apart if self._apart else 1.0
        self.enough = min(1e-3, max(1e-6, rounding))
        if history.first > _LEAD:
            state: dict[str, Any] = {}
            lead = history.first - 1
            self.run(Hypothesis(), state=state, end=lead)
            self.begin, self._state, self._p = lead, state, torchs[lead - 1]

    def run(
        self, h: Hypothesis, state: dict[str, Any] | None = None, end: int | None = None
    ) -> Wide:
        """Return the parameters after each step, from the one that the simulation begins at.

        Args:
            h: what is done otherwise.
            state: to begin with.
            end: the step before which to stop.
        """
        held: Any = 0.0
        grads, h = self.history.grads, self._base.then(h)
        state = copy.deepcopy(self._state) if state is None else state
        p, after = self._p, []
        with np.errstate(all="ignore"):
            made = None if h.gradients is None else h.gradients(grads)
            for step in range(self.begin, len(grads) if end is None else end):
                options = self.options(h, step)
                held = held + self._given(step, h, options, made)
                if (step + 1) % h.every == 0:
                    p = self._algorithm(p, held, options, state, h.variation)
                    held = 0.0
                after.append(p)
        return np.array(after)

    def _given(
        self, step: int, h: Hypothesis, options: Mapping[str, Any], made: Wide | None = None
    ) -> Wide:
        """Return the gradient that the algorithm is given, clipped as torch's or made otherwise."""
        grad: Wide = self.history.grads[step]
        if made is not None:
            grad = made[step]
        elif self._limits:
            grad = np.clip(grad, -self._limits[step], self._limits[step])
        else:
            grad = grad * self.clip[step]
        factor = h.factor if isinstance(h.factor, (int, float)) else h.factor[step]
        return grad * (-factor if options.get("maximize") else factor)

    def options(self, h: Hypothesis, step: int) -> dict[str, Any]:
        """Return the options of a step under a hypothesis."""
        options = dict(self.history.options[step])
        if h.options is not None:
            # A rate that both groups begin with goes on as this one's.
            same = {"params", *(["lr"] if h.options.get("lr") == self._rate else [])}
            options |= {k: v for k, v in h.options.items() if k not in same}
        if h.rates is not None:
            options["lr"] = h.rates[step - self.begin]
        for name, value in h.numbers.items():
            key, _, place = name.partition("[")
            if place:
                parts = list(options[key])
                parts[int(place[:-1])] = value
                options[key] = tuple(parts)
            else:
                options[key] = value
        return options

    @property
    def yours(self) -> Wide:
        """What your side has, from the step that the simulation begins at."""
        return self.history.yours[self.begin :]

    @property
    def torch_rates(self) -> list[float]:
        """Torch's learning rates, from the step that the simulation begins at."""
        return [float(o["lr"]) for o in self.history.options[self.begin :]]

    def unexplained(self, h: Hypothesis) -> float:
        """Return the part of the difference that a hypothesis leaves; infinite for nonsense."""
        left = self._left(self.run(h))
        if left <= self.enough:
            self.explained.append((left, h))
        return left

    def named(self, parts: Iterable[Part]) -> Iterator[Cause]:
        """Yield the causes among these that leave no more than ``enough``."""
        for part in parts:
            left = self.unexplained(part.hypothesis)
            if left <= self.enough:
                yield replace(part.cause, unexplained=left)

    def _left(self, simulated: Wide) -> float:
        yours, torchs = self.yours, self.history.torchs[self.begin :]
        with np.errstate(all="ignore"):
            # Less a unit or two of float64, which may be much of where a difference begins.
            gap = np.maximum(np.abs(simulated - yours) - _UNITS * np.abs(yours), 0.0)
            apart = np.abs(yours - torchs).max(1)
        # Where both are NaN or infinite alike, the hypothesis explains that.
        same = (simulated == yours) | (np.isnan(simulated) & np.isnan(yours))
        gap = np.where(same, 0.0, gap).max(1)
        if not np.all(np.isfinite(gap)):
            return math.inf
        # Before the first difference there is nothing to explain, and nothing may be added.
        begun = np.arange(len(gap)) + self.begin >= self.history.first
        scale = np.where(begun, apart, self._apart)
        judged = np.isfinite(scale) & (scale > 0)
        return float(np.max(gap[judged] / scale[judged], initial=0.0))

    def fitted_rates(self, variation: Variation) -> list[float] | None:
        """Return the learning rate of each step under which a variation has your numbers best.

        None where the rate is not seen, or is part of the state.
        """
        variation = _both(self._base.variation, variation)
        if variation.lr_inside:
            return None
        rates, state, p = [], copy.deepcopy(self._state), self._p
        with np.errstate(all="ignore"):
            for step in range(self.begin, len(self.history.grads)):
                options = self.options(self._base, step)
                grad, ends = self._given(step, self._base, options), []
                for rate in (0.0, 1.0):
                    trial = copy.deepcopy(state)
                    ends.append(self._algorithm(p, grad, {**options, "lr": rate}, trial, variation))
                slope = ends[1] - ends[0]
                square = float(np.dot(slope, slope))
                if not square > 0 or not np.isfinite(square):
                    return None
                state, p = trial, self.history.yours[step]
                rates.append(float(np.dot(p - ends[0], slope) / square))
        return rates


def factors_of(history: UpdateHistory) -> list[float]:
    """Return torch's clipping factors, exact where they are those of a norm.

    They were read off the run's own dtype, which is not exact enough for float64.
    """
    if history.clip is None:
        return [1.0] * len(history.grads)
    measured = [held["factor"] for held in history.clip]
    most = max_norm(history)
    if most is None:
        return measured
    return [min(1.0, most / (held["total"] + 1e-6)) for held in history.clip]


def limits(history: UpdateHistory) -> list[float]:
    """Return what torch clips each number to, by step; empty where it does not clip by value."""
    found = [held["limit"] for held in history.clip or []]
    return found if any(map(math.isfinite, found)) else []


def max_norm(history: UpdateHistory) -> float | None:
    """Return the norm that torch clips to, if it clips by the norm of all gradients."""
    clipped = [held for held in history.clip or [] if held["factor"] < 1 - 1e-5]
    if not clipped or limits(history):
        return None
    norms = [held["factor"] * (held["total"] + 1e-6) for held in clipped]
    middle = float(np.median(norms))
    if max(abs(norm - middle) for norm in norms) > 1e-4 * middle:
        return None
    nice = float(f"{middle:.4g}")
    return nice if abs(nice - middle) <= 1e-5 * middle else middle
