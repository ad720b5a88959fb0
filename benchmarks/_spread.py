"""How long something took, of several times that it was done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Spread(NamedTuple):
    """Median and quartiles of some numbers: seconds, mostly."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Spread:
        """Return the spread of some numbers."""
        return cls(*(float(q) for q in np.quantile(numbers, [0.5, 0.25, 0.75])))
