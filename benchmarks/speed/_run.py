"""Runs suites: contenders in turns, each side in its own process."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .._spread import Spread
from ._contender import Case, LeftOutError
from ._data import OPTIONS, arrays, sample
from ._results import Measurement, Results, machine, memory_free, now
from ._shapes import elements, shapes_of
from ._suites import LISTED, SMALL, TIMED, bytes_moved
from ._worker import SIDES, Worker

SUITES = (*TIMED, "compile", "memory", "import")
# Seconds that a contender is given in a case, at least so many turns, and seconds in a turn.
_SECONDS, _TURNS, _TURN = 1.5, 7, 0.1
_PAUSE = 0.02  # for the threads of the side before to go to sleep
_LIMIT_BYTES = 2**29
_MEMORY_SHARE = 0.85

Say = Callable[[str], None]


class Run:
    """One run of some suites.

    Args:
        suites: their names.
        quick: fewer and smaller cases, and fewer turns.
        threads: for both sides, on the CPU.
        command: what was asked for, to be kept.
        say: is told what is being measured.
        keep: is given the results after each case, so that little is lost where a run ends early.
    """

    def __init__(
        self,
        suites: Iterable[str],
        quick: bool,
        threads: int,
        command: str,
        say: Say,
        keep: Callable[[Results], None] = lambda results: None,
    ) -> None:
        self._suites, self._quick, self._say = list(suites), quick, say
        self._turns = 3 if quick else _TURNS
        self._seconds = _SECONDS / 6 if quick else _SECONDS
        self._keep = keep
        self._workers: dict[str, Worker] = {}
        self._threads = threads
        self.results = Results(now(), command, machine(threads), {})

    def measure(self) -> Results:
        """Run the suites; returns what was measured."""
        try:
            self._start()
            cases = [case for s in self._suites if s in TIMED for case in TIMED[s](self._quick)]
            for i, case in enumerate(cases):
                self._say(f"{case.suite} {i + 1}/{len(cases)}: {case.name}")
                self._case(case)
                self._keep(self.results)
            for suite, measure in (("compile", self._compile), ("memory", self._memory)):
                if suite in self._suites:
                    self._say(suite)
                    measure()
        finally:
            self._stop()
        if "import" in self._suites:
            self._say("import")
            self._import()
        return self.results

    def _start(self) -> None:
        for side in SIDES:
            self._say(f"starting {side}")
            self._workers[side] = Worker(side)
            self.results.sides[side] = self._workers[side].started(self._threads)

    def _stop(self) -> None:
        for worker in self._workers.values():
            worker.stop()

    def _leave_out(self, case: str, contender: str, why: str) -> None:
        self.results.left_out.append({"case": case, "contender": contender, "why": why})

    def _case(self, case: Case) -> None:
        made: list[tuple[Worker, str]] = []
        checks: dict[str, Any] = {}
        too_large = self._too_large(case)
        if too_large:  # a framework may have kept what earlier cases needed
            self._stop()
            self._start()
            too_large = self._too_large(case)
        for side, contenders in case.contenders.items():
            for contender in contenders:
                if why := too_large:
                    self._leave_out(case.name, contender, why)
                    continue
                try:
                    checks[contender] = self._workers[side](
                        "make", contender, case.suite, contender, case.settings
                    )
                except LeftOutError as error:
                    self._leave_out(case.name, contender, str(error))
                else:
                    made.append((self._workers[side], contender))
        if not made:
            return
        limits = self._limits(case)
        times, calls = self._in_turns(made + limits, "host" if case.suite == "dispatch" else "time")
        bandwidth = self._bandwidth(case, times, limits)
        start = None
        if "model" in case.settings:
            start = sample(arrays(case.settings["model"], case.settings["optimizer"], 0))
        first = next((x for x in checks.values() if x is not None), None)
        for _, contender in made:
            self.results.measurements.append(
                Measurement(
                    *(case.suite, case.name, contender, "s", *Spread.of(times[contender])),
                    turns=len(times[contender]),
                    calls=calls[contender],
                    limit=None if bandwidth is None else self._moved(case) / bandwidth,
                    differs=_distance(checks[contender], first, start),
                    settings=_numbers(case.settings),
                )
            )
        for worker in self._workers.values():
            worker("drop")

    def _too_large(self, case: Case) -> str | None:
        """Return why a case's contenders do not fit into memory side by side."""
        if "model" not in case.settings or self._on_accelerator():
            return None
        shapes = shapes_of(case.settings["model"], case.settings["optimizer"])
        together = sum(map(len, case.contenders.values()))
        need = 16 * elements(shapes) * case.settings["copies"] * together
        free = int(memory_free() * _MEMORY_SHARE)
        if need > free:
            return f"needs {need / 2**30:.0f} GiB of memory, of which {free / 2**30:.0f} are free"
        return None

    def _on_accelerator(self) -> bool:
        return any(w.facts["platform"] != "cpu" for w in self._workers.values())

    def _limits(self, case: Case) -> list[tuple[Worker, str]]:
        """Make what measures the bandwidth, where a case is bound by it."""
        if case.suite not in ("step", "loops"):
            return []
        made = []
        for name in ("copy", "read-modify-write"):
            for side, worker in self._workers.items():
                worker("make", f"{name} {side}", "limit", name, {"size": _LIMIT_BYTES})
                made.append((worker, f"{name} {side}"))
        return made

    def _bandwidth(
        self, case: Case, times: dict[str, list[float]], limits: list[tuple[Worker, str]]
    ) -> float | None:
        if not limits:
            return None
        found = {name: _LIMIT_BYTES / float(np.median(times[name])) for _, name in limits}
        best = max(found.values())
        for name, value in found.items():
            self.results.measurements.append(
                Measurement("bandwidth", case.name, name, "B/s", value, value, value)
            )
        return best

    def _moved(self, case: Case) -> float:
        return float(bytes_moved(case.settings["model"], case.settings["optimizer"]))

    def _in_turns(
        self, made: Sequence[tuple[Worker, str]], timed: str
    ) -> tuple[dict[str, list[float]], dict[str, int]]:
        calls, times = {}, {name: list[float]() for _, name in made}
        round_seconds = 0.0
        for worker, name in made:
            worker(timed, name, 1)
            once = worker(timed, name, 2)
            calls[name] = max(1, min(200, math.floor(_TURN / once)))
            round_seconds += once * calls[name]
        wanted = round(self._seconds * len(made) / max(1e-9, round_seconds))
        turns = min(3 * self._turns, max(self._turns, wanted))
        for turn in range(turns):
            shift = turn % max(1, len(made))
            before = None
            for worker, name in [*made[shift:], *made[:shift]]:
                if before is not worker:
                    time.sleep(_PAUSE)
                before = worker
                times[name].append(worker(timed, name, calls[name]))
        return times, calls

    def _compile(self) -> None:
        names = ("optax.adam", "jp.adam", "inject_hyperparams(optax.adam)", "jp.Adam")
        names = names[::3] if self._quick else (*names, "jp.Adam, tx.update")
        for leaves in (10, 100) if self._quick else (10, 100, 300, 1000):
            names = [n for n in names if leaves <= 300 or n in ("optax.adam", "jp.adam", "jp.Adam")]
            times: dict[str, list[float]] = {name: [] for name in names}
            worker = self._workers["jax"]
            for name in names:
                worker("compile_seconds", name, 10)
            for _ in range(1 if self._quick else 2 if leaves > 300 else 3):
                for name in names:
                    times[name].append(worker("compile_seconds", name, leaves))
            for name in names:
                self.results.measurements.append(
                    Measurement(
                        *("compile", f"{leaves} leaves", name, "s", *Spread.of(times[name])),
                        turns=len(times[name]),
                        settings={"leaves": leaves},
                    )
                )

        self._compile_training()

    def _compile_training(self) -> None:
        names, rounds = ("optax.adamw", "jp.AdamW"), 1 if self._quick else 3
        for network in ("LeNet",) if self._quick else ("LeNet", "decoder of 12 layers"):
            times: dict[str, list[float]] = {name: [] for name in names}
            for _ in range(rounds):
                for name in names:
                    worker = self._workers["jax"]
                    times[name].append(worker("compile_training_seconds", name, network))
            for name in names:
                case = f"{network}, training step"
                self.results.measurements.append(
                    Measurement("compile", case, name, "s", *Spread.of(times[name]), turns=rounds)
                )

    def _memory(self) -> None:
        for optimizer in LISTED[:2] if self._quick else OPTIONS:
            case = {"model": SMALL if self._quick else "ResNet-50", "optimizer": optimizer}
            for side, kinds in (("torch", ("state",)), ("jax", ("state", "more"))):
                try:
                    found = self._workers[side]("memory", case)
                except LeftOutError as error:
                    self._leave_out(f"{optimizer}, {case['model']}", side, str(error))
                    continue
                for kind in kinds:
                    contender = f"{'torch' if side == 'torch' else 'jp.step'}: {kind}"
                    self.results.measurements.append(
                        Measurement(
                            *("memory", f"{optimizer}, {case['model']}", contender, "B"),
                            *(found[kind],) * 3,
                            limit=found.get("arguments"),
                            settings={"parameters": found["parameters"]},
                        )
                    )

    def _import(self) -> None:
        timed = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
        modules = ("jax, optax", "jax, optax, jaxopt_port")
        modules += ("jax, optax, jaxopt_port; jaxopt_port.SGD",)
        times: dict[str, list[float]] = {f"import {m}": [] for m in modules}
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(2 if self._quick else 11):
                for module in modules:
                    command = [sys.executable, "-c", timed.format(module)]
                    done = subprocess.run(
                        command, check=True, capture_output=True, text=True, cwd=folder
                    )
                    times[f"import {module}"].append(float(done.stdout))
        for name, seen in times.items():
            self.results.measurements.append(
                Measurement("import", "import", name, "s", *Spread.of(seen), turns=len(seen))
            )


def _numbers(settings: dict[str, Any]) -> dict[str, Any]:
    found = dict(settings)
    if "model" in settings:
        shapes = shapes_of(settings["model"], settings["optimizer"])
        found |= {"leaves": len(shapes), "parameters": elements(shapes)}
    return found


def _distance(ours: Any, theirs: Any, start: Any) -> float | None:
    """Return how far two contenders' results are apart, as a part of how far the second went."""
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return None
    ours, theirs = (np.asarray(x, np.float64) for x in (ours, theirs))
    way = theirs - start if start is not None and start.shape == theirs.shape else theirs
    return float(np.linalg.norm(ours - theirs) / max(np.linalg.norm(way), 1e-300))
