"""The numbers that ``torch.randn(1, generator=g)`` draws on the CPU, without torch."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np


def normal(seed: int) -> Iterator[float]:
    """Yield what one call after the other draws from ``torch.Generator().manual_seed(seed)``.

    Two of them come from one pair of uniform numbers, by Box and Muller; rounded to float32.
    """
    engine = np.random.MT19937()
    engine._legacy_seeding(seed & 0xFFFFFFFF)

    def uniform() -> float:
        high, low = (int(word) for word in engine.random_raw(2))
        return ((high << 32 | low) & ((1 << 53) - 1)) * 2.0**-53

    while True:
        angle = 2.0 * math.pi * uniform()
        radius = math.sqrt(-2.0 * math.log1p(-uniform()))
        yield float(np.float32(radius * math.cos(angle)))
        yield float(np.float32(radius * math.sin(angle)))
