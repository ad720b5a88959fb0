"""Tries hypotheses on what one leaf is known of."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ..report import Cause
from ._algorithms import Variation
from ._clipping_ways import LIMITS, clipped_step, clipping_ways, ways_for_values
from ._fitted_numbers import TIMES, FittedNumbers, value_of
from ._known_ways import known_ways
from ._numbers import low_precision, narrowed, nice, number, same
from ._other_optimizers import accumulations, another_optimizer, changed_gradient
from ._rates import Rates
from ._several import Part, both_of, several
from ._simulation import Hypothesis, Simulation, limits
from ._update_history import UpdateHistory

_STARTS = (0.1, 1.0, 0.01, 1e-3, 0.0)
_FIRST = 2  # of a warm-up's first rate, 0, no rule makes a step


class Search:
    """Tries hypotheses on one leaf."""

    def __init__(self, history: UpdateHistory, simulation: Simulation) -> None:
        self._history, self._simulation = history, simulation
        self._enough = simulation.enough
        self._fits, self._rate = FittedNumbers(simulation), Rates(history, simulation)

    def run(self, dear: bool) -> Cause | None:
        """Return what explains it: of what is quick to try, or of the rest."""
        looks = [
            self._rate_decay, self._schedule, self._single, self._options, self._gradients,
            self._numbers, self._starts, self._clipped_step, self._one_sided, self._accumulation,
        ]  # fmt: skip
        if dear:
            looks = [self._changed_gradient, self._another_optimizer, self._pairs]
            at = 2 if self._rate.explain else 3
            looks[at:at] = [self._clipping_and_rates, self._rate.another]
            looks.insert(2 if self._rate.explain else 1, self._several)
        for look in looks:
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
        return self._rate.of(Variation())

    def _one_sided(self) -> Cause | None:
        """Look for a schedule on one side: last, since any factor of a step is a rate."""
        return self._rate.of(Variation(), last=True)

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
                return replace(_GROUP, unexplained=left)
        return None

    def _gradients(self) -> Cause | None:
        """Look for gradients that are clipped, scaled or added up otherwise."""
        simulation, history = self._simulation, self._history
        for name, factors, message, remedy in clipping_ways(history):
            left = simulation.unexplained(Hypothesis(factor=self._rate.relative(factors)))
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
        by_torch = nice(min(limits(history), default=np.inf))
        for limit in LIMITS:
            by_value = functools.partial(np.clip, a_min=-limit, a_max=limit)
            left = simulation.unexplained(Hypothesis(gradients=by_value))
            if left > self._enough:
                continue
            words = f"your side clips each number of the gradients to {limit:g}; "
            if np.isfinite(by_torch):
                remedy = "give both the same limit"
                return Cause("clip-limit", f"{words}torch to {by_torch:g}", remedy, left)
            return Cause(
                "clip-kind", f"{words}torch's does not",
                "clip by the norm (jp.clip_by_grad_norm) or not at all, as torch's side does", left,
            )  # fmt: skip
        if "weight_decay" not in history.options[0] or not history.options[0]["weight_decay"]:
            flipped = simulation.unexplained(Hypothesis(factor=-1.0))
            if flipped <= self._enough:
                return Cause(
                    "sign", "your side goes up the gradient; torch down",
                    "give maximize the same value on both sides", flipped,
                )  # fmt: skip
        size = float(history.batch_size)
        for factor in dict.fromkeys(
            (size, 1 / max(1.0, size), 128.0, 1 / 128, 2.0, 0.5, 4.0, 0.25)
        ):
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
            value, left = self._fits.fitted(Variation(decay="decoupled"), "weight_decay", 0.0)
            if left <= self._enough and self._coupled(value) > self._enough:
                return Cause(
                    "number",
                    f"your side applies weight_decay={nice(value):.6g} to the parameter; torch has "
                    "none",
                    "give weight_decay=0 (optax.adamw has 0.0001), or torch's optimizer the same",
                    left,
                )
        for fit in self._fits.all(Variation()):
            # A rate that is torch's is no cause, and one of next to nothing is one that has ended.
            rates = self._simulation.torch_rates
            ended = abs(fit[1]) < 1e-6 * max(map(abs, rates))
            no_cause = same(fit[1], rates[0], 1e-5) or ended
            if fit[2] <= self._enough and not (fit[0] == "lr" and no_cause):
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
                    f"your side takes one step for {steps} of torch's, of the {words} of their "
                    "gradients",
                    "accumulate on both sides, or on neither: optax.MultiSteps, "
                    "jp.accumulate_grads", left,
                )  # fmt: skip
        return None

    def _clipped_step(self) -> Cause | None:
        unclipped = self._rate.relative([1.0] * len(self._history.grads))
        return clipped_step(self._history, unclipped, self._enough)

    def _changed_gradient(self) -> Cause | None:
        return None if self._history.first > _FIRST else changed_gradient(self._history)

    def _another_optimizer(self) -> Cause | None:
        # Of no two rules are the first steps the same and the later ones not.
        if self._history.first > _FIRST:
            return None
        return another_optimizer(self._history, parallel=self._rate.explain)

    def _clipping_and_rates(self) -> Cause | None:
        """Look at another clipping under another schedule, of a kind that has a name."""
        found: list[Cause] = []
        if self._rate.another(unscaled=True) is not None:
            return None  # the schedule alone explains it
        for name, factors, message, remedy in clipping_ways(self._history):
            base = Hypothesis(factor=self._rate.relative(factors))
            rates = Rates(self._history, Simulation(self._history, base))
            cause = rates.of(Variation()) or rates.another(unscaled=True)
            if cause is not None and cause.name != "schedule":
                found.append(both_of([Cause(name, message, remedy), cause], cause.unexplained))
        return min(found, key=lambda cause: cause.unexplained, default=None)

    def _several(self) -> Cause | None:
        """Look at two or three of what is known together."""
        return several(self._simulation, list(self._parts()))

    def _parts(self) -> Iterator[Part]:
        history = self._history
        for known in known_ways(history):
            cause = Cause(known.name, known.message, known.remedy)
            yield Part(cause, Hypothesis(Variation(**known.change)), frozenset(known.change))
        for other in history.other_options:
            own = history.options[0]
            changes = frozenset(k for k in other if k != "params" and other[k] != own.get(k))
            yield Part(_GROUP, Hypothesis(options=other), changes)
        for name, factors, message, remedy in clipping_ways(history):
            hypothesis = Hypothesis(factor=self._rate.relative(factors))
            yield Part(Cause(name, message, remedy), hypothesis, frozenset(["clip"]))
        rates = self._simulation.torch_rates
        for times in TIMES if len(set(rates)) > 1 else ():
            words = f"your side's learning rate is {times:g} times torch's"
            cause = Cause("number", words, "give the schedule torch's learning rate")
            yield Part(cause, Hypothesis(rates=[times * rate for rate in rates]), frozenset(["lr"]))
        for name, value in self._fits.usual():
            hypothesis = Hypothesis(numbers={name: value})
            yield Part(self._named(name, value, 0.0), hypothesis, frozenset([name]))

    def _pairs(self) -> Cause | None:
        """Look at a variation with a number."""
        for one in known_ways(self._history):
            first = Cause(one.name, one.message, one.remedy)
            if cause := self._rate.of(Variation(**one.change)):
                return both_of([first, cause], cause.unexplained)
            for name, value, left in self._fits.all(Variation(**one.change)):
                if left <= self._enough:
                    also = self._named(name, value, left) if name != "betas" else _SWAPPED
                    return both_of([first, also], left)
        return None


_GROUP = Cause(
    "group-options",
    "your side treats this leaf with the options of another of torch's groups",
    "check which leaves the selectors or labels of the groups take",
)
_SWAPPED = Cause(
    "betas-swapped",
    "your side has the two betas in the other order",
    "give b1=betas[0] and b2=betas[1]",
)
