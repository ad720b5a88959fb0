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
        wait: waits for what a call has begun.
        kept: what must live as long as this.
    """

    calls: list[Callable[[], Any]]
    check: np.ndarray[Any, Any] | None = None
    wait: Callable[[Any], Any] = lambda result: None
    kept: Any = None

    def __post_init__(self) -> None:
        self._turns = itertools.cycle(self.calls)

    def time(self, calls: int) -> float:
        """Return seconds for each of some calls, each waited for."""
        spent = 0.0
        for call in itertools.islice(self._turns, calls):
            start = time.perf_counter()
            self.wait(call())
            spent += time.perf_counter() - start
        return spent / calls

    def queued(self, calls: int) -> float:
        """Return seconds for each of some calls that are waited for together, as in training."""
        start = time.perf_counter()
        for call in itertools.islice(self._turns, calls):
            result = call()
        self.wait(result)
        return (time.perf_counter() - start) / calls

    def host(self, calls: int) -> float:
        """Return seconds until a call returns, nothing else being under way."""
        spent = 0.0
        for call in itertools.islice(self._turns, calls):
            start = time.perf_counter()
            result = call()
            spent += time.perf_counter() - start
            self.wait(result)
        return spent / calls
