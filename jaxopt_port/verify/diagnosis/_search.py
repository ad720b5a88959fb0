"""Tries hypotheses on what one leaf is known of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ..report import Cause
from ._algorithms import Variation
from ._clipping_ways import by_value, clipped_step, clipping_ways, ways_for_values
from ._fitted_numbers import TIMES, FittedNumbers, value_of
from ._known_ways import known_ways
from ._numbers import low_precision, narrowed, nice, number, same
from ._other_optimizers import another_optimizer, changed_gradient
from ._rates import Rates
from ._several import both_of, several
from ._simulation import Hypothesis, Part, Simulation
from ._update_history import UpdateHistory

_STARTS = (0.1, 1.0, 0.01, 1e-3, 0.0)
_MOST_ADDED = 8
_FIRST = 2  # of a warm-up's first rate, 0, no rule makes a step


class Search:
    """Tries hypotheses on one leaf."""

    def __init__(self, history: UpdateHistory, simulation: Simulation) -> None:
        self._history, self._simulation = history, simulation
        self._enough = simulation.enough
        self._fits, self._rate = FittedNumbers(simulation), Rates(history, simulation)

    def run(self, dear: bool) -> Cause | None:
        """Return what explains it: of what is quick to try, or of the rest."""
        return next(filter(None, self._dear() if dear else self._quick()), None)

    def _quick(self) -> Iterator[Cause | None]:
        history, named = self._history, self._simulation.named
        yield self._rate_decay()
        yield self._rate.of(Variation())
        yield min(named(known_ways(history)), key=lambda it: it.unexplained, default=None)
        yield from named(self._groups())
        yield from named(self._gradients())
        yield self._numbers()
        yield from named(self._starts())
        yield clipped_step(history, self._enough)
        # Last, since any factor of a step is a rate.
        yield self._rate.of(Variation(), last=True)
        if not self._simulation.begin:
            yield from named(self._accumulations())

    def _dear(self) -> Iterator[Cause | None]:
        history, rates = self._history, self._rate.explain
        # Of no two rules are the first steps the same and the later ones not.
        begins = history.first <= _FIRST
        yield changed_gradient(history) if begins else None
        if not rates:
            yield self._several()
        yield another_optimizer(history, parallel=rates) if begins else None
        yield self._several() if rates else self._pairs()
        yield self._clipping_and_rates()
        yield self._rate.another()
        if rates:
            yield self._pairs()

    def _rate_decay(self) -> Cause | None:
        """Look for another decay of the rate, which a rate of each step would explain as well."""
        options = self._history.options[0]
        if "lr_decay" not in options:
            return None
        value, left = self._fits.fitted(Variation(), "lr_decay", float(options["lr_decay"]))
        return self._named("lr_decay", value, left) if left <= self._enough else None

    def _groups(self) -> Iterator[Part]:
        own = self._history.options[0]
        for other in self._history.other_options:
            changes = frozenset(k for k in other if k != "params" and other[k] != own.get(k))
            yield Part(_GROUP, Hypothesis(options=other), changes)

    def _gradients(self) -> Iterator[Part]:
        """Yield gradients that are clipped, scaled or added up otherwise."""
        history = self._history
        yield from clipping_ways(history)
        yield from ways_for_values(history)
        if not self._simulation.begin:
            yield Part(_ADDED, Hypothesis(gradients=lambda grads: np.cumsum(grads, axis=0)))
        yield from by_value(history)
        if not history.options[0].get("weight_decay"):
            yield Part(_TURNED, Hypothesis(factor=-1.0))
        size = float(history.batch_size)
        for factor in dict.fromkeys(
            (size, 1 / max(1.0, size), 128.0, 1 / 128, 2.0, 0.5, 4.0, 0.25)
        ):
            if factor != 1:
                words = f"your side's gradients are {nice(factor):.6g} times torch's"
                yield Part(Cause("gradient-scale", words, _MEAN), Hypothesis(factor=factor))

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
        rates = self._simulation.torch_rates
        for name, value, left in self._fits.all(Variation()):
            # A rate that is torch's is no cause, and one of next to nothing is one that has ended.
            ended = abs(value) < 1e-6 * max(map(abs, rates))
            no_cause = name == "lr" and (same(value, rates[0], 1e-5) or ended)
            if left <= self._enough and not no_cause:
                return self._named(name, value, left)
        return None

    def _coupled(self, decay: float) -> float:
        return self._simulation.unexplained(Hypothesis(numbers={"weight_decay": decay}))

    def _named(self, name: str, value: float, left: float) -> Cause:
        if name == "betas":
            return replace(_SWAPPED, unexplained=left)
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

    def _starts(self) -> Iterator[Part]:
        if self._history.optimizer not in ("Adagrad", "RMSprop", "Adam", "AdamW"):
            return
        torchs = self._history.options[0].get("initial_accumulator_value", 0.0)
        for start in (start for start in _STARTS if start != torchs):
            for eps, also in (("torch", ""), ("inside", ", and eps is added inside the root")):
                words = f"your side's squares start at {start:g}; torch's at {torchs:g}{also}"
                remedy = "set initial_accumulator_value (Adagrad) or initial_scale (RMSprop)"
                cause = Cause("initial-accumulator", words, remedy)
                yield Part(cause, Hypothesis(Variation(initial=start, eps=eps)))

    def _accumulations(self) -> Iterator[Part]:
        history = self._history
        steps = int(np.argmax(np.any(history.moves(history.yours) != 0, axis=1))) + 1
        for what, over in (("mean", 1 / steps), ("sum", 1.0)) if 1 < steps <= _MOST_ADDED else ():
            words = f"your side takes one step for {steps} of torch's, of the {what} of their "
            remedy = "accumulate on both sides, or neither: optax.MultiSteps, jp.accumulate_grads"
            cause = Cause("accumulation", f"{words}gradients", remedy)
            yield Part(cause, Hypothesis(factor=over, every=steps))

    def _clipping_and_rates(self) -> Cause | None:
        """Look at another clipping under another schedule, of a kind that has a name."""
        found: list[Cause] = []
        if self._rate.another(unscaled=True) is not None:
            return None  # the schedule alone explains it
        for way in clipping_ways(self._history):
            rates = Rates(self._history, Simulation(self._history, way.hypothesis))
            cause = rates.of(Variation()) or rates.another(unscaled=True)
            if cause is not None and cause.name != "schedule":
                found.append(both_of([way.cause, cause], cause.unexplained))
        return min(found, key=lambda cause: cause.unexplained, default=None)

    def _several(self) -> Cause | None:
        """Look at two or three of what is known together."""
        return several(self._simulation, list(self._parts()))

    def _parts(self) -> Iterator[Part]:
        history = self._history
        yield from known_ways(history)
        yield from self._groups()
        yield from clipping_ways(history)
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
            variation = one.hypothesis.variation
            if cause := self._rate.of(variation):
                return both_of([one.cause, cause], cause.unexplained)
            for name, value, left in self._fits.all(variation):
                if left <= self._enough:
                    return both_of([one.cause, self._named(name, value, left)], left)
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
_ADDED = Cause(
    "accumulated-gradient",
    "your side adds the gradients of earlier steps to each step's",
    "begin each step with new gradients, as zero_grad does",
)
_TURNED = Cause(
    "sign",
    "your side goes up the gradient; torch down",
    "give maximize the same value on both sides",
)
_MEAN = "take the mean over the batch, and over devices, once; divide by a loss scale"
