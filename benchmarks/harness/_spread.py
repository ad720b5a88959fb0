"""How long something took, of several times that it was done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Spread(NamedTuple):
    """Median and quartiles of a time, in seconds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Return the spread of some times."""
        return cls(*(float(q) for q in np.quantile(seconds, [0.5, 0.25, 0.75])))
