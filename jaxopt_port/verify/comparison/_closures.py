"""Steps that evaluate the loss themselves, through a closure: L-BFGS.

They lead both sides along trajectories of their own. What rounding makes of them cannot be known
before: it is measured, by a run of your side that begins a few units in the last place aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ..report import Cause
from ._context import Context
from ._distances import FREE, SAFETY, largest
from ._held import Held
from ._names import Array
from ._results import Place
from ._stepper import Stepper

# How far aside it begins, of each parameter.
_ASIDE = 2.0**-50
# Of the way that the parameters have gone: from there on rounding decides where it leads.
_LOST = 1e-3


class Disturbed(Held):
    """The JAX side in float64, from parameters that are a few units in the last place aside.

    Args:
        context: both sides.
        params: where it starts, but for that.

    Attributes:
        allowed: how far apart rounding lets both sides be, by path.
        lost: whether that is so far that nothing can be said any more.
    """

    held = ("_stepper", "allowed", "lost")

    def __init__(self, context: Context, params: Any) -> None:
        rng = np.random.default_rng(0)

        def aside(x: Array) -> Array:
            wide = np.asarray(x, np.float64)
            return wide * (1 + _ASIDE * rng.choice([-1.0, 1.0], wide.shape))

        self._context, self.allowed, self.lost = context, dict[str, float](), False
        self._stepper = Stepper(context.side, jax.tree.map(aside, params), wide=True, x64=True)

    def step(self, step: int, closure: Any, loss: float, exact: Stepper, start: Any) -> None:
        """Take the step that a stepper in float64 has taken.

        Args:
            step: counted from 0.
            closure: the loss as a function of the parameters.
            loss: of the batch.
            exact: that stepper.
            start: where it began, by path.
        """
        self._stepper.step(closure, loss)
        leaves_of, before = self._context.names.leaves_of, self.lost
        aside = leaves_of(self._stepper.params)
        for path, value in leaves_of(exact.params).items():
            far, moved = largest(aside[path] - value), largest(value - start[path])
            self.allowed[path] = SAFETY * far + FREE * moved
            self.lost |= not far <= _LOST * moved
        if self.lost and not before:
            self._context.notes.append(
                f"from step {step} rounding decides where steps with a closure lead: two runs of "
                "your side that begin some units in the last place apart are too far apart for "
                "updates to be compared"
            )

    def see_options(
        self,
        yours: Mapping[str, Mapping[str, Any]],
        groups: list[dict[str, Any]],
        group_of: Mapping[str, int],
    ) -> None:
        """Take in what options that are words differ by: the line search.

        Args:
            yours: options by path.
            groups: torch's.
            group_of: torch's group of a path.
        """
        seen = set()
        for path, group in group_of.items():
            for name, mine in yours.get(path, {}).items():
                theirs = groups[group].get(name, mine)
                if mine == theirs or name in seen or not isinstance(mine or theirs, str):
                    continue
                seen.add(name)
                words = f"your side has {name}={mine!r}; torch has {theirs!r}"
                cause = Cause("number", words, f"give the optimizer torch's {name}")
                place = Place(0, "hyperparameters", path, self._context.names.torch_name(path))
                why = "An option is no matter of numbers."
                self._context.results.add(place, words, why, cause)
