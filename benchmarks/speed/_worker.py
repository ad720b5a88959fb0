"""A process for each framework, so that the threads of one do not wait on those of the other."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from multiprocessing.connection import Connection
from typing import Any

from ._contender import Contender, LeftOutError

SIDES = ("torch", "jax")


class WorkerError(RuntimeError):
    """Something failed in a worker; the text is its traceback."""


def _serve(side: str, threads: int, pipe: Connection) -> None:
    # Before the frameworks are imported: they read these once.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if side == "torch":
        from . import _torch_side as module
    else:
        from . import _jax_side as module
    made: dict[str, Contender] = {}
    while True:
        try:
            request, *arguments = pipe.recv()
        except EOFError:
            return
        try:
            match request:
                case "start":
                    answer: Any = module.start(threads)
                case "make":
                    key, *rest = arguments
                    made[key] = module.make(*rest)
                    answer = made[key].check
                case "time":
                    key, calls = arguments
                    answer = made[key].time(calls)
                case "drop":
                    made.clear()
                    answer = None
                case _:
                    answer = getattr(module, request)(*arguments)
        except LeftOutError as error:
            pipe.send(("left out", str(error)))
        except Exception:  # carried to the other process, which raises it
            pipe.send(("error", traceback.format_exc()))
        else:
            pipe.send(("ok", answer))


class Worker:
    """A side's process; calls are answered one at a time."""

    def __init__(self, side: str, threads: int) -> None:
        self.side = side
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(side, threads, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.facts: dict[str, Any] = self("start")

    def __call__(self, request: str, *arguments: Any) -> Any:
        """Ask; raises LeftOutError or WorkerError as the worker says."""
        self._pipe.send((request, *arguments))
        try:
            kind, answer = self._pipe.recv()
        except EOFError:
            code = self._process.exitcode
            raise WorkerError(
                f"the process for {self.side} ended in {request} {arguments}, exit code {code}; "
                "out of memory?"
            ) from None
        if kind == "left out":
            raise LeftOutError(answer)
        if kind == "error":
            raise WorkerError(answer)
        return answer

    def stop(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.terminate()
