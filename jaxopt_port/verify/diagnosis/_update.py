"""Explains what your optimizer does otherwise than torch's."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace

import numpy as np

from ..compare._report import Cause
from ._algorithms import ALGORITHMS, Variation
from ._clipping_ways import LIMITS, clipping_ways, ways_for_values
from ._fitted_numbers import FittedNumbers, value_of
from ._known_ways import KnownWay, known_ways
from ._numbers import (
    low_precision,
    narrowed,
    nice,
    number,
    of_schedule,
    one_sided,
    same,
    schedule_anew,
)
from ._other_optimizers import accumulations, another_optimizer
from ._schedules import another_schedule
from ._simulation import Hypothesis, Simulation
from ._update_history import UpdateHistory, Wide

_STARTS = (0.1, 1.0, 0.01, 1e-3, 0.0)
# Steps that a cause is sought in, from where a difference begins: many tell more, and in few there
# is no second fault yet.
_LOOK = (12, 5)
_MOST_FAULTS = 4
# A factor of these on a leaf may come of its axes.
_BY_MATRIX = ("Muon", "Adafactor")
# Of a step, what more than this part of is not explained is another difference.
_ANOTHER = 1e-3


class _Search:
    """Tries hypotheses on one leaf."""

    def __init__(self, history: UpdateHistory, simulation: Simulation) -> None:
        self._history, self._simulation = history, simulation
        self._enough = simulation.enough
        self._fits = FittedNumbers(simulation)

    def run(self) -> Cause | None:
        for look in (
            self._rate_decay, self._schedule, self._single, self._options, self._gradients,
            self._numbers, self._starts, self._one_sided, self._accumulation, self._pairs,
            self._another_schedule, self._another_optimizer,
        ):  # fmt: skip
            cause = look()
            if cause is not None:
                return cause
        return None

    def _rate_decay(self) -> Cause | None:
        """Look for another decay of the rate, which a rate of each step would explain as well."""
        options = self._history.options[0]
        if "lr_decay" not in options:
            return None
        value, left = self._fits.fitted(Variation(), "lr_decay", float(options["lr_decay"]))
        return self._named("lr_decay", value, left) if left <= self._enough else None

    def _schedule(self) -> Cause | None:
        return self._rates(Variation())

    def _one_sided(self) -> Cause | None:
        """Look for a schedule on one side: last, since any factor of a step is a rate."""
        return self._rates(Variation(), last=True)

    def _rates(self, variation: Variation, last: bool = False) -> Cause | None:
        """Look for a learning rate of each step."""
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
        if last:
            found = one_sided(rates, torchs, at)
            return None if found is None else replace(found, unexplained=left)
        found = of_schedule(rates, torchs, at, history.steps_per_epoch) or self._anew(rates, at)
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
        if abs(ratio) < 1e-12 or same(ratio, 1.0, 1e-5):
            return None  # so near to torch's, it is the + 1e-6 of a clipping
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
                tried = self._simulation.unexplained(Hypothesis(factor=self._relative(factors)))
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

    def _relative(self, factors: list[float]) -> list[float]:
        """Return factors on what torch's clipping leaves of gradients."""
        return [f / c if c else 0.0 for f, c in zip(factors, self._simulation.clip, strict=True)]

    def _single(self) -> Cause | None:
        tried = []
        for known in known_ways(self._history):
            left = self._simulation.unexplained(Hypothesis(Variation(**known.change)))
            tried.append((left, known))
        tried.sort(key=lambda pair: pair[0])
        if tried and tried[0][0] <= self._enough:
            left, known = tried[0]
            return Cause(known.name, known.message, known.remedy, left)
        return None

    def _options(self) -> Cause | None:
        for other in self._history.other_options:
            left = self._simulation.unexplained(Hypothesis(options=other))
            if left <= self._enough:
                return Cause(
                    "group-options",
                    "your side treats this leaf with the options of another of torch's groups",
                    "check which leaves the selectors or labels of the groups take", left,
                )  # fmt: skip
        return None

    def _gradients(self) -> Cause | None:
        """Look for gradients that are clipped, scaled or added up otherwise."""
        simulation, history = self._simulation, self._history
        for name, factors, message, remedy in clipping_ways(history):
            left = simulation.unexplained(Hypothesis(factor=self._relative(factors)))
            if left <= self._enough:
                return Cause(name, message, remedy, left)
        for name, factors, message, remedy in ways_for_values(history):
            left = simulation.unexplained(Hypothesis(factor=factors, gradients=lambda g: g))
            if left <= self._enough:
                return Cause(name, message, remedy, left)
        left = simulation.unexplained(Hypothesis(gradients=lambda g: np.cumsum(g, axis=0)))
        if left <= self._enough and simulation.begin == 0:
            return Cause(
                "accumulated-gradient",
                "your side adds the gradients of earlier steps to each step's",
                "begin each step with new gradients, as zero_grad does", left,
            )  # fmt: skip
        for limit in LIMITS:
            by_value = functools.partial(np.clip, a_min=-limit, a_max=limit)
            left = simulation.unexplained(Hypothesis(gradients=by_value))
            if left <= self._enough:
                return Cause(
                    "clip-kind",
                    f"your side clips each number of the gradients to {limit:g}; torch's does not",
                    "clip by the norm (jp.clip_by_grad_norm) or not at all, as torch's side does",
                    left,
                )
        if "weight_decay" not in history.options[0] or not history.options[0]["weight_decay"]:
            flipped = simulation.unexplained(Hypothesis(factor=-1.0))
            if flipped <= self._enough:
                return Cause(
                    "sign", "your side goes up the gradient; torch down",
                    "give maximize the same value on both sides", flipped,
                )  # fmt: skip
        size = float(history.batch_size)
        for factor in dict.fromkeys((size, 1 / max(1.0, size), 128.0, 1 / 128, 2.0, 0.5, 4.0, 0.25)):
            left = simulation.unexplained(Hypothesis(factor=factor)) if factor != 1 else np.inf
            if left <= self._enough:
                return Cause(
                    "gradient-scale",
                    f"your side's gradients are {nice(factor):.6g} times torch's",
                    "take the mean over the batch, and over devices, once; divide by a loss scale",
                    left,
                )
        return None

    def _numbers(self) -> Cause | None:
        if self._history.options[0].get("weight_decay") == 0:
            for kind, words in (("decoupled", "parameter"), ("after", "update")):
                variation = Variation(decay=kind)
                value, left = self._fits.fitted(variation, "weight_decay", 0.0)
                if left <= self._enough and self._coupled(value) > self._enough:
                    return Cause(
                        "number",
                        f"your side applies weight_decay={nice(value):.6g} to the {words}; torch "
                        "has none",
                        "give weight_decay=0 (optax.adamw has 0.0001), or torch's optimizer the "
                        "same", left,
                    )  # fmt: skip
        for fit in self._fits.all(Variation()):
            near = fit[0] == "lr" and same(fit[1], self._simulation.torch_rates[0], 1e-5)
            if fit[2] <= self._enough and not near:
                return self._named(*fit) if fit[0] != "betas" else replace(
                    _SWAPPED, unexplained=fit[2]
                )  # fmt: skip
        return None

    def _coupled(self, decay: float) -> float:
        return self._simulation.unexplained(Hypothesis(numbers={"weight_decay": decay}))

    def _named(self, name: str, value: float, left: float) -> Cause:
        options = self._simulation.options(Hypothesis(), self._history.first)
        torchs = value_of(options, name)
        if name == "eps_root":
            return Cause(
                "eps-placement",
                f"your side adds eps_root={nice(value):.6g} inside the root; torch adds nothing "
                "there",
                "give eps_root=0", left,
            )  # fmt: skip
        if dtype := narrowed(value, torchs):
            return replace(low_precision(name, dtype, value, torchs), unexplained=left)
        return number(name, value, torchs, left)

    def _starts(self) -> Cause | None:
        if self._history.optimizer not in ("Adagrad", "RMSprop", "Adam", "AdamW"):
            return None
        torchs = self._history.options[0].get("initial_accumulator_value", 0.0)
        for start in _STARTS:
            for eps in ("torch", "inside"):
                variation = Variation(initial=start, eps=eps)
                left = self._simulation.unexplained(Hypothesis(variation))
                if start != torchs and left <= self._enough:
                    also = "" if eps == "torch" else ", and eps is added inside the root"
                    return Cause(
                        "initial-accumulator",
                        f"your side's squares start at {start:g}; torch's at {torchs:g}{also}",
                        "set initial_accumulator_value (Adagrad) or initial_scale (RMSprop)",
                        left,
                    )
        return None

    def _accumulation(self) -> Cause | None:
        history, simulation = self._history, self._simulation
        if simulation.begin:
            return None
        for steps, words, made in accumulations(history, simulation):
            left = simulation.left(made)
            if left <= self._enough:
                return Cause(
                    "accumulation",
                    f"your side takes one step in {steps}, of the {words} of {steps} gradients; "
                    "torch takes each",
                    "accumulate on both sides, or on neither: optax.MultiSteps, "
                    "jp.accumulate_grads", left,
                )  # fmt: skip
        return None

    def _another_schedule(self) -> Cause | None:
        simulation = self._simulation
        rates = simulation.fitted_rates(Variation())
        if rates is None:
            return None
        left = simulation.unexplained(Hypothesis(rates=rates))
        if left > self._enough:
            return None
        at = self._history.first - simulation.begin
        found = another_schedule(rates, simulation.torch_rates, at, self._history.first)
        return None if found is None else replace(found, unexplained=left)

    def _another_optimizer(self) -> Cause | None:
        return another_optimizer(self._history) if not self._simulation.begin else None

    def _pairs(self) -> Cause | None:
        """Look at two variations together, then at one with a number."""
        known = list(known_ways(self._history))
        found: list[tuple[float, Cause]] = []
        for a, b in itertools.combinations(known, 2):
            if a.change.keys() & b.change.keys():
                continue
            left = self._simulation.unexplained(Hypothesis(Variation(**a.change, **b.change)))
            if left <= self._enough:
                second = Cause(b.name, b.message, b.remedy, left)
                found.append((left, _both_of(a, second, left)))
        for one in known:
            for name, factors, message, remedy in clipping_ways(self._history):
                changed = Hypothesis(Variation(**one.change), factor=self._relative(factors))
                left = self._simulation.unexplained(changed)
                if left <= self._enough:
                    second = Cause(name, message, remedy, left)
                    found.append((left, _both_of(one, second, left)))
        if found:
            return min(found, key=lambda pair: pair[0])[1]
        for one in known:
            if cause := self._rates(Variation(**one.change)):
                return _both_of(one, cause, cause.unexplained)
            for name, value, left in self._fits.all(Variation(**one.change)):
                if left <= self._enough:
                    also = self._named(name, value, left) if name != "betas" else _SWAPPED
                    return _both_of(one, also, left)
        return None


def _both_of(one: KnownWay, other: Cause, left: float) -> Cause:
    """Return the cause that is two."""
    return Cause(
        one.name, f"{one.message}; and {other.message}", f"{one.remedy}; {other.remedy}", left,
        (other,),
    )  # fmt: skip


_SWAPPED = Cause(
    "betas-swapped",
    "your side has the two betas in the other order",
    "give b1=betas[0] and b2=betas[1]",
)


def _still(values: Wide, start: Wide) -> bool:
    return bool(np.all(values == start))


def explain_updates(history: UpdateHistory) -> list[tuple[int, Cause | None]]:
    """Explain what your optimizer does otherwise than torch's, on one leaf.

    Returns:
        Steps and causes, each of which explains all but a thousandth of the difference that begins
        there once those before it are allowed for; None where no cause was found.
    """
    found: list[tuple[int, Cause | None]] = []
    base, now = Hypothesis(), history
    for _ in range(_MOST_FAULTS):
        for look in _LOOK:
            part = now.until(now.first + look)
            cause, hypothesis = _explained(part, base)
            if cause is not None:
                break
        found.append((now.first, cause))
        if hypothesis is None or hypothesis.rates is not None:
            break
        base = base.then(_whole(hypothesis, part, history))
        following = _next(history, now.first, base)
        if following is None:
            break
        now = following
    return found


def explain_update(history: UpdateHistory) -> Cause | None:
    """Return the first cause that `explain_updates` finds."""
    return explain_updates(history)[0][1]


def _whole(h: Hypothesis, part: UpdateHistory, history: UpdateHistory) -> Hypothesis:
    """Return a hypothesis for all steps: its factors are those of a clipping, or one number."""
    if isinstance(h.factor, (int, float)):
        return h
    before = {tuple(round(f, 12) for f in w.factors): w for w in clipping_ways(part)}
    clip = Simulation(part).clip
    own = tuple(round(f * c, 12) for f, c in zip(h.factor, clip, strict=True))
    chosen = before.get(own)
    for way in clipping_ways(history):
        if chosen is not None and (way.name, way.message) == (chosen.name, chosen.message):
            whole = Simulation(history).clip
            factors = [f / c if c else 0.0 for f, c in zip(way.factors, whole, strict=True)]
            return replace(h, factor=factors)
    more = len(history.grads) - len(part.grads)
    return replace(h, factor=[*h.factor, *[h.factor[-1]] * more])


def _next(history: UpdateHistory, after: int, base: Hypothesis) -> UpdateHistory | None:
    """Return the history from where what is known no longer explains your side."""
    simulation = Simulation(history)
    made, mine = simulation.run(base), simulation.yours
    moved = [np.diff(x, axis=0) for x in (made, mine)]
    for i in range(max(0, after - simulation.begin), len(mine) - 1):
        gap = float(np.max(np.abs(moved[0][i] - moved[1][i])))
        most = max(float(np.max(np.abs(moved[1][i]))), 1e-9 * float(np.max(np.abs(mine))))
        if gap > _ANOTHER * most:
            begun = history.torchs[: simulation.begin]
            return replace(
                history, torchs=np.concatenate([begun, made]), first=simulation.begin + i + 1
            )
    return None


def _explained(
    history: UpdateHistory, base: Hypothesis
) -> tuple[Cause | None, Hypothesis | None]:
    """Return the cause of the first difference, and what it is as a hypothesis."""
    mine, theirs = (
        _still(x[history.first :], (x[history.first - 1] if history.first else history.start))
        for x in (history.yours, history.torchs)
    )
    if mine != theirs:
        who = ("your side does not train this leaf", "torch does")
        if theirs:
            who = ("your side trains this leaf", "torch does not")
        frozen = Cause(
            "frozen-leaf", f"{who[0]}; {who[1]}",
            "check requires_grad and the groups of torch's optimizer, and the selectors, masks or "
            "labels of yours",
        )  # fmt: skip
        return frozen, None
    if history.optimizer not in ALGORITHMS or not np.all(np.isfinite(history.torchs)):
        return _without_simulation(history), None
    simulation = Simulation(history, base)
    if not simulation.agrees:
        return _without_simulation(history), None
    cause = _Search(history, simulation).run()
    if cause is None:
        return None, None
    own = [h for left, h in simulation.explained if left == cause.unexplained]
    return cause, own[-1] if own else None


def _without_simulation(history: UpdateHistory) -> Cause | None:
    """Explain by the steps alone: those of an algorithm that is not simulated."""
    before = (history.yours[history.first - 1], history.torchs[history.first - 1])
    if history.first == 0:
        before = (history.start, history.start)
    mine, theirs = (
        side[history.first] - old
        for side, old in zip((history.yours, history.torchs), before, strict=True)
    )
    square = float(np.dot(theirs, theirs))
    if not square or not np.all(np.isfinite(mine)):
        return None
    ratio = float(np.dot(mine, theirs)) / square
    if float(np.max(np.abs(mine - ratio * theirs))) > 1e-6 * float(np.max(np.abs(mine))):
        return another_optimizer(history) if not history.first else None
    if same(ratio, 1.0, 1e-5):
        return None
    lr = float(history.options[history.first].get("lr", 0.0))
    if history.optimizer in _BY_MATRIX and float(f"{ratio:.3g}") != nice(ratio):
        return None  # the root of a quotient of axes, more likely: another layout
    if dtype := narrowed(ratio * lr, lr):
        return low_precision("lr", dtype, ratio * lr, lr)
    return number("lr", ratio * lr, lr)
