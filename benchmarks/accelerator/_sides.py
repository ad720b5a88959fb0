"""The sides' processes: each call bounded, each process made anew where it has ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..speed._contender import LeftOutError
from ..speed._worker import Worker, WorkerError

MODULES = {"torch": f"{__package__}._torch_side", "jax": f"{__package__}._jax_side"}
THREADS = 1  # of torch, on a CPU: what it does there is a rehearsal
# Of the device's memory, for each side: JAX keeps what it has once had.
SHARE = 0.45
# Seconds that a call may take beyond its part's time, and those that it has in any case, as a
# process has to start.
_GRACE, _LEAST, _TO_START = 10.0, 2.0, 45.0


class _Missing:
    def __bool__(self) -> bool:
        return False


MISSING = _Missing()  # an answer that could not be had


class Sides:
    """The processes of torch and of JAX.

    Args:
        end: the time, of `time.monotonic`, at which everything should be done.
    """

    def __init__(self, end: float) -> None:
        self._end = end
        self._workers: dict[str, Worker] = {}
        self.facts: dict[str, dict[str, Any]] = {}
        self.absent: dict[str, str] = {}
        self.until = end

    def begin(self, *sides: str) -> None:
        """Start processes that are not there yet, side by side; raises nothing."""
        new = [s for s in sides if s not in self._workers and s not in self.absent]
        for side in new:
            environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": str(SHARE)}
            self._workers[side] = Worker(side, MODULES[side], environment)
            self._workers[side].ask("start", THREADS)
        for side in new:
            try:
                self.facts[side] = self._answered(side, _TO_START)
            except (LeftOutError, WorkerError) as error:
                if side not in self.facts:
                    self.absent[side] = last_line(error)
                self.end(side)

    def has(self, side: str) -> bool:
        """Whether a side is there, started anew if it has ended."""
        self.begin(side)
        return side in self._workers

    def _answered(self, side: str, seconds: float = 0.0) -> Any:
        worker, now = self._workers[side], time.monotonic()
        until = max(self.until + _GRACE, now + seconds)
        worker.timeout = max(_LEAST, min(until, self._end) - now)
        try:
            return worker.answer()
        except WorkerError as error:
            if "Traceback" not in str(error):  # the process itself has ended
                self.end(side)
            raise

    def ask(self, side: str, *request: Any) -> Callable[[], Any]:
        """Ask, and return what waits for the answer, and raises LeftOutError or WorkerError."""
        if not self.has(side):
            why = self.absent.get(side, "it ended, and did not start again")
            raise LeftOutError(f"{side} is not there: {why}")
        self._workers[side].ask(*request)
        return lambda: self._answered(side)

    def __call__(self, side: str, *request: Any) -> Any:
        """Ask, and wait."""
        return self.ask(side, *request)()

    def drop(self) -> None:
        """Let every side forget what it has made."""
        for side in list(self._workers):
            try:
                self(side, "drop")
                self(side, "release")
            except WorkerError:
                self.end(side)

    def end(self, *sides: str) -> None:
        """End processes; all where none is named."""
        for side in sides or list(self._workers):
            if side in self._workers:
                self._workers.pop(side).stop(wait=1)


def last_line(error: Exception) -> str:
    """Return what an error says in the end; a worker's is a traceback."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1][:300]
