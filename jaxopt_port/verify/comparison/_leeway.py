"""How far apart rounding lets parameters and states be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._distances import FLOAT64, largest
from ._held import Held
from ._names import Array

# A hyperparameter may be kept in float32.
FLOAT32 = 1.2e-7
# Of a step of Muon's, which rounds to bfloat16 in float64 too: where a number is rounded the other
# way, as orders of summation do, the product of the iteration moves by up to so much.
_BFLOAT16 = 4e-2


class Leeway(Held):
    """Adds up what rounding has done to each leaf so far.

    Attributes:
        rate: how far a rate is from torch's in this step, as rounding lets it be.
        rough: the leaves whose step Muon takes, in bfloat16.
        taken: how far apart the steps taken so far let each leaf be, by path.
    """

    held = ("taken", "_last")

    def __init__(self, start: Mapping[str, Array]) -> None:
        self.rate = 0.0
        self.rough: set[str] = set()
        self.taken: dict[str, float] = {}
        self._start = start
        self._last: dict[str, Any] = {}
        self._reach: dict[str, float] = {}

    def reached(self, leaf: str, now: Array, start: float = 0.0) -> float:
        """Return what float64 leaves by the largest that a leaf has been: it may be near 0 now."""
        size = largest(now)
        reach = max(start, self._reach.get(leaf, 0.0), size if np.isfinite(size) else 0.0)
        self._reach[leaf] = reach
        return FLOAT64 * max(0.0, reach - size)  # beside what its own size allows

    def take(self, torchs64: Mapping[str, Array]) -> None:
        """Let parameters be apart by what rounding has done to this step."""
        for path in torchs64 if self.rate else self.rough:
            moved = torchs64[path] - self._last.get(path, self._start[path])
            part = _BFLOAT16 if path in self.rough else 2 * self.rate
            self.taken[path] = self.taken.get(path, 0.0) + part * largest(moved)
        if self.rate or self.taken:
            self._last = {path: np.array(now) for path, now in torchs64.items()}
