"""Bytes of a file changed at random, from a seed."""

from __future__ import annotations

import random


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with some replaced, cut out, or doubled elsewhere."""
    made, how = bytearray(data), rng.randrange(3)
    at = rng.randrange(len(made))
    if how == 0:
        for _ in range(rng.randrange(1, 8)):
            made[rng.randrange(len(made))] = rng.randrange(256)
    elif how == 1:
        del made[at : at + rng.randrange(1, 64)]
    else:
        source = rng.randrange(len(made))
        made[at:at] = made[source : source + rng.randrange(1, 64)]
    return bytes(made)
