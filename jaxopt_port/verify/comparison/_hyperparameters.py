"""The numbers of the optimizers at each step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...trees import listed
from ._context import Context
from ._distances import Judgement, distance_of, furthest
from ._leeway import FLOAT32, Leeway
from ._optimizer_state import Hyperparameters, flat
from ._results import Place
from ._stepper import Stepper

# A schedule in float64 multiplies another way than torch's.
_FLOAT64 = 1e-9


def of_schedule(step: int) -> float:
    """Return how far a rate may be off: one in float32 multiplies rounded factors, step by step."""
    return FLOAT32 * (8 + step / 4)


class Numbers:
    """Compares hyperparameters.

    Args:
        context: both sides.
        fed: your optimizer, in the run's dtype and in float64.
        leeway: is told how far a rate may be from torch's.

    Attributes:
        read: reads them from a state.
    """

    def __init__(self, context: Context, fed: tuple[Stepper, Stepper], leeway: Leeway) -> None:
        self._context, self._leeway = context, leeway
        self._fed, self._fed_exact = fed
        self.read = Hyperparameters(self._fed.state, context.names.paths)
        self._base = 0.0  # the largest rate that is known of
        self._others: dict[tuple[str, str], tuple[str, Callable[[], None]]] = {}  # than torch's

    def see(
        self,
        step: int,
        groups: list[dict[str, Any]],
        group_of: Mapping[str, int],
        checks: bool,
        stepped: bool,
    ) -> None:
        context = self._context
        theirs = [flat(group) for group in groups]
        ours, exact = (self.read.read(s.updated) for s in (self._fed, self._fed_exact))
        context.evidence.note_hyperparameters(theirs, ours, group_of)
        rates, mine = context.curves.lr_torch, context.curves.lr_yours
        if not rates:
            rates.extend([] for _ in theirs)
            mine.extend([] for _ in theirs if ours)
        for rate, numbers in zip(rates, theirs, strict=True):
            rate.append(numbers.get("lr", float("nan")))
        if not ours:
            context.reasons["hyperparameters"] = "the optimizer's state does not hold them"
            return
        for path, group in group_of.items():
            numbers = ours.get(path, {})
            if len(mine[group]) <= step and "lr" in numbers:
                mine[group].append(numbers["lr"])
            # torch's schedulers say to what a rate may rise that is small at first.
            known = (theirs[group].get(k, 0.0) for k in ("lr", "initial_lr", "max_lr"))
            self._base = max(self._base, *map(abs, known))
            for name in sorted(numbers.keys() & theirs[group].keys()):
                torchs = theirs[group][name]
                # A schedule's number is that of the last step, until the next is taken.
                if stepped and (checks or numbers[name] != torchs):
                    pair = (numbers[name], exact.get(path, {}).get(name, numbers[name]))
                    self._number(step, path, name, pair, torchs)
        context.results.compared("hyperparameters", step)

    def _number(
        self, step: int, path: str, name: str, both: tuple[float, float], theirs: float
    ) -> None:
        """Judge a number as it is and, where float32 was lifted, as it would be in float64."""
        context, names = self._context, self._context.names
        mine, exact = both
        scale = max(abs(theirs), self._base if name == "lr" else 0.0)
        rounding = of_schedule(step) if name == "lr" else FLOAT32
        seen = self._fed_exact.seen
        lifted = bool(seen.narrow or seen.rounded) and not seen.inexact
        of_exact = _FLOAT64 if lifted else rounding
        numbers = [(exact, of_exact), (mine, rounding)]
        if not (seen.halves or self.read.in_halves) and abs(exact - theirs) <= _FLOAT64 * scale:
            numbers = numbers[:1]  # what float32 makes of it is rounding, as much as that may be
        judged = max(
            ((abs(x - theirs), of * scale) for x, of in numbers),
            key=lambda pair: pair[0] / pair[1] if pair[1] else float(pair[0] > 0),
        )
        far, bound = judged
        excess = 0.0 if far == 0 else far / bound if bound else float("inf")
        if excess <= 1 and theirs and name == "lr":
            self._leeway.rate = max(self._leeway.rate, abs(exact - theirs) / abs(theirs))
        why = f"a number kept in float32 would be off by {bound:.1g} at most."
        message = f"{name} is {mine:.9g}, torch's {theirs:.9g}"
        pair = np.asarray(mine), np.asarray(theirs)
        see = functools.partial(
            context.results.see, Place(step, "hyperparameters", path, names.torch_name(path)),
            distance_of(*pair), lambda: furthest(*pair),
            surely=Judgement(excess, bound, why), message=message, number=name,
            diagnosis=context.evidence.hyperparameter(name, path, step),
        )  # fmt: skip
        if excess <= 1:
            see()
        else:
            self._others.setdefault((path, name), (message, see))

    def tell(self, every: bool = False) -> None:
        """Tell numbers that are others than torch's, of leaves whose steps are others, too.

        What a state holds need not be in force: a mask or a scale may come after it.
        """
        told = self._context.results.told()
        for (path, name), (_, see) in list(self._others.items()):
            if every or {("update", path), ("state", path)} & told:
                del self._others[path, name]
                see()

    def end(self) -> None:
        """Note the numbers that are others while steps are not."""
        alike: dict[str, list[str]] = {}
        for (path, _), (message, _) in self._others.items():
            alike.setdefault(message, []).append(path)
        self._context.notes.extend(
            f"in the optimizer's state {message} for {listed(paths)}; the steps are torch's all "
            "the same, so that something else (a mask, a scale) has the last word"
            for message, paths in alike.items()
        )
