"""What a worker times: steps that follow each other, as in training."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

_MOST_CHECKED = 200_000_000


def checked(elements: int) -> bool:
    """Whether the results of so many elements are compared: more take long to be fetched."""
    return elements <= _MOST_CHECKED


@dataclass
class Timed:
    """A call that can be timed.

    Attributes:
        call: the call; it may return before its work is done.
        check: numbers that all contenders of a case should agree on, after the first steps.
        wait: waits for what a call has begun.
        kept: what must live as long as this.
    """

    call: Callable[[], Any]
    check: np.ndarray[Any, Any] | None
    wait: Callable[[Any], Any]
    kept: Any = None

    def time(self, calls: int) -> float:
        """Return seconds a call, of calls that are queued and waited for together."""
        begun = time.perf_counter()
        for _ in range(calls):
            result = self.call()
        self.wait(result)
        return (time.perf_counter() - begun) / calls

    def host(self, calls: int) -> float:
        """Return seconds until a call returns, nothing else being under way."""
        spent = 0.0
        for _ in range(calls):
            begun = time.perf_counter()
            result = self.call()
            spent += time.perf_counter() - begun
            self.wait(result)
        return spent / calls
