"""Interleaved timing: contenders take turns, so that what else the machine does hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np


class Spread(NamedTuple):
    """Median and quartiles of a time, in seconds."""

    median: float
    low: float
    high: float


def interleaved(
    contenders: Mapping[str, Callable[[], Any]], *, rounds: int, calls: int
) -> dict[str, Spread]:
    """Time callables in turns; each is warmed up (and so compiled) before.

    Args:
        contenders: what to call; the result is waited for.
        rounds: how many times each contender has its turn.
        calls: calls in a turn; a turn's time is divided by it.
    """
    for call in contenders.values():
        jax.block_until_ready(call())
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            for _ in range(calls):
                result = call()
            jax.block_until_ready(result)
            times[name].append((time.perf_counter() - start) / calls)
    return {
        name: Spread(*(float(q) for q in np.quantile(seen, [0.5, 0.25, 0.75])))
        for name, seen in times.items()
    }
