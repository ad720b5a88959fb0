"""What a worker makes for each contender of a case."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
    """One comparison: all its contenders do the same work.

    Attributes:
        suite: the suite.
        name: what it is called in tables.
        settings: what the suite's contenders are made from.
        contenders: by side, the names of contenders.
    """

    suite: str
    name: str
    settings: dict[str, Any]
    contenders: dict[str, tuple[str, ...]]


class LeftOutError(Exception):
    """A contender that cannot be had here; the text says why."""


@dataclass
class Contender:
    """Something that can be timed.

    Attributes:
        calls: what to call, one for each set of buffers, in turns; results are waited for by them.
        check: numbers that all contenders of the case should agree on, taken after the first steps.
        host: whether to time only until the call returns, and wait outside the measured time.
        wait: waits for what a call has begun.
        kept: what must live as long as this.
    """

    calls: list[Callable[[], Any]]
    check: np.ndarray[Any, Any] | None = None
    host: bool = False
    wait: Callable[[Any], Any] = lambda result: None
    kept: Any = None

    def __post_init__(self) -> None:
        self._turns = itertools.cycle(self.calls)

    def time(self, calls: int) -> float:
        """Return seconds for each of some calls."""
        spent = 0.0
        for _ in range(calls):
            call = next(self._turns)
            start = time.perf_counter()
            result = call()
            if self.host:
                spent += time.perf_counter() - start
                self.wait(result)
            else:
                self.wait(result)
                spent += time.perf_counter() - start
        return spent / calls
