"""A process for each framework, so that the threads of one do not wait on those of the other."""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from ._contender import Contender, LeftOutError

SIDES = ("torch", "jax")


class WorkerError(RuntimeError):
    """Something failed in a worker; the text is its traceback."""


def _serve(name: str, environment: Mapping[str, str], pipe: Connection) -> None:
    # Before the frameworks are imported: they read these once.
    os.environ.update({"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **environment})
    try:
        module: Any = importlib.import_module(name)
    except Exception:  # carried to the other process, which raises it
        pipe.send(("error", traceback.format_exc()))
        return
    made: dict[str, Contender] = {}
    while True:
        try:
            request, *arguments = pipe.recv()
        except EOFError:
            return
        try:
            match request:
                case "make":
                    key, *rest = arguments
                    made[key] = module.make(*rest)
                    answer: Any = made[key].check
                case "time" | "queued" | "host":
                    key, calls = arguments
                    answer = getattr(made[key], request)(calls)
                case "drop":
                    made.clear()
                    gc.collect()  # Flax's modules refer to each other in circles
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
    """A side's process; calls are answered one at a time.

    Args:
        side: its name.
        module: what answers; the suites' own by default.
        environment: variables of the process.
        timeout: seconds after which a call that has no answer ends the process; None for none.
    """

    def __init__(
        self,
        side: str,
        module: str = "",
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> None:
        self.side, self.timeout = side, timeout
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (module or f"{__package__}._{side}_side", dict(environment or {}), theirs)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self.facts: dict[str, Any] = {}

    def started(self, threads: int) -> dict[str, Any]:
        """Return the facts of the side, once it is there."""
        self.facts = self("start", threads)
        return self.facts

    def ask(self, request: str, *arguments: Any) -> None:
        """Ask, and do not wait; `answer` does."""
        with contextlib.suppress(OSError):  # it has ended, which `answer` says
            self._pipe.send((request, *arguments))

    def answer(self) -> Any:
        """Return the answer; raises LeftOutError or WorkerError as the worker says."""
        if self.timeout is not None and not self._pipe.poll(self.timeout):
            self.stop(wait=0)
            raise WorkerError(f"no answer from {self.side} in {self.timeout:.0f} s")
        try:
            kind, answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(timeout=5)
            code = self._process.exitcode
            raise WorkerError(
                f"the process for {self.side} ended, exit code {code}; out of memory?"
            ) from None
        if kind == "left out":
            raise LeftOutError(answer)
        if kind == "error":
            raise WorkerError(answer)
        return answer

    def __call__(self, request: str, *arguments: Any) -> Any:
        """Ask, and wait for the answer."""
        self.ask(request, *arguments)
        return self.answer()

    def stop(self, wait: float = 10) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(timeout=wait)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
