"""Fits hyperparameters to what your side does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ._algorithms import Variation
from ._numbers import NARROW, nice
from ._simulation import Hypothesis, Simulation

# Numbers, and values that are often found in them.
NUMBERS: dict[str, tuple[float, ...]] = {
    "weight_decay": (0.0, 1e-4, 1e-2, 5e-4, 0.1),
    "eps": (0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-3, 1e-10, 1e-12, 1e-15),
    "eps_root": (1e-8, 1e-7, 1e-6, 1e-5, 1e-10, 1e-12, 1e-16),
    "betas[0]": (0.9, 0.95, 0.5, 0.0, 0.99),
    "betas[1]": (0.999, 0.99, 0.95, 0.98, 0.9),
    "momentum": (0.0, 0.9, 0.99),
    "dampening": (0.0, 0.9, 0.1, 0.5),
    "alpha": (0.99, 0.9, 0.95),
    "rho": (0.9, 0.95),
    "lr_decay": (0.0,),
    "momentum_decay": (4e-3, 0.0),
    "lr": (),
}
TIMES = (2.0, 0.5, 10.0, 0.1, 3.0, 5.0, 0.2, 4.0)  # torch's rate, beside other numbers


def _roundings(value: float) -> list[float]:
    return [float(np.asarray(value).astype(d)) for d in NARROW.values()]


def value_of(options: dict[str, Any], name: str) -> float:
    key, _, place = name.partition("[")
    if key == "eps_root":
        return 0.0
    return float(options[key][int(place[:-1])] if place else options[key])


class FittedNumbers:
    """Fits one hyperparameter at a time."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def all(self, variation: Variation) -> Iterable[tuple[str, float, float]]:
        """Yield names of numbers, the value that explains most, and what it leaves."""
        options = self._simulation.history.options[self._simulation.history.first]
        if "betas" in options:
            b1, b2 = options["betas"]
            swapped = Hypothesis(variation, numbers={"betas[0]": b2, "betas[1]": b1})
            left = self._simulation.unexplained(swapped)
            if b1 != b2 and left <= self._simulation.enough:
                yield "betas", 0.0, left
                return
        for name in NUMBERS:
            # Elsewhere an eps_root could not be told from a start of the squares.
            rooted = name == "eps_root" and "betas" in options and "eps" in options
            if name.partition("[")[0] in options or rooted:
                value, left = self.fitted(variation, name, value_of(options, name))
                yield name, value, left

    def usual(self) -> Iterator[tuple[str, float]]:
        """Yield names of numbers, and values that are often found in them."""
        options = self._simulation.history.options[self._simulation.history.first]
        for name in NUMBERS:
            if name.partition("[")[0] in options:
                torchs = value_of(options, name)
                times = [nice(k * torchs) for k in TIMES] if name == "lr" else []
                values = (*NUMBERS[name], *times, *_roundings(torchs))
                yield from ((name, v) for v in values if v != torchs)

    def fitted(self, variation: Variation, name: str, torchs: float) -> tuple[float, float]:
        """Return the value of one number that explains most, and what it leaves."""

        def left(value: float) -> float:
            return self._simulation.unexplained(Hypothesis(variation, numbers={name: value}))

        tried = [v for v in (*NUMBERS[name], *_roundings(torchs)) if v != torchs]
        best = min(((left(v), v) for v in [*tried, torchs]), default=(np.inf, torchs))
        if best[0] <= self._simulation.enough:
            return best[1], best[0]
        value = best[1] or (torchs or 1e-8)
        for _ in range(12):
            value, moved = self._newton(variation, name, value)
            if not moved:
                break
        candidates = [nice(value), value]
        return min(((c, left(c)) for c in candidates), key=lambda pair: pair[1])

    def _newton(self, variation: Variation, name: str, value: float) -> tuple[float, bool]:
        simulation = self._simulation
        h = 1e-6 * (abs(value) or 1.0)
        ends = [
            simulation.run(Hypothesis(variation, numbers={name: v})) for v in (value, value + h)
        ]
        slope, miss = (ends[1] - ends[0]) / h, simulation.yours - ends[0]
        square = float(np.sum(slope * slope))
        if not np.isfinite(square) or square == 0 or not np.all(np.isfinite(miss)):
            return value, False
        step = float(np.sum(slope * miss)) / square
        limit = 0.9 * abs(value) or 1.0
        step = min(max(step, -limit), 10 * limit)
        following = value + step
        if name.startswith("betas") or name in ("alpha", "rho", "momentum"):
            following = min(following, value + 0.9 * (1 - value)) if value < 1 else value
        return following, abs(step) > 1e-13 * abs(value)
