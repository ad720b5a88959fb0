"""How long steps take on the device, and what memory: beside torch, Optax and the bandwidth."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..speed._run import _distance
from ..speed._shapes import elements, shapes_of
from ..speed._suites import bytes_moved
from ._cases import COMPILED, CONTENDERS, TRAINED
from ._sides import MISSING, SHARE

if TYPE_CHECKING:
    from ._run import Run

_BYTES = 24  # of a contender, for each parameter: with its gradient, two moments, and what XLA adds
_HOST_CALLS = 20
_MOST_CALLS = 200

Made = list[tuple[str, str]]  # (side, contender)


def bandwidth(run: Run, case: str) -> float | None:
    """Return the fastest of copies and additions in place, in bytes a second, on both sides."""
    size, (seconds, turns) = run.sizes.copied, run.sizes.turn
    best = None
    for side in ("torch", "jax"):
        for name in ("copy", "read-modify-write"):
            key = f"{name}, {side}"
            request = (side, "make", key, "limit", name, {"size": size})
            run.attempt(case, key, *request)
            times = _turns(run, [(side, key)], case, seconds, turns).get(key)
            if times:
                run.add("bandwidth", case, key, "B/s", [size / t for t in times])
                best = max(best or 0.0, size / float(np.median(times)))
    run.sides.drop()
    return best


def steps(run: Run) -> Iterator[str]:
    """Time one optimizer step at the shapes of models."""
    yield "bandwidth"
    run.bandwidth = bandwidth(run, "before the steps")
    for i, (optimizer, model) in enumerate(run.sizes.step):
        yield f"{i + 1}/{len(run.sizes.step)}, {optimizer}, {model}"
        _step(run, optimizer, model, CONTENDERS)


def _step(run: Run, optimizer: str, model: str, contenders: dict[str, tuple[str, ...]]) -> None:
    case, settings = f"{optimizer}, {model}", {"model": model, "optimizer": optimizer}
    shapes = shapes_of(model, optimizer)
    numbers = {**settings, "leaves": len(shapes), "parameters": elements(shapes)}
    least = bytes_moved(model, optimizer) / run.bandwidth if run.bandwidth else None
    every = [(side, name) for side, names in contenders.items() for name in names]
    fit = _that_fit(run, elements(shapes))
    if not fit:
        why = f"{_BYTES * elements(shapes) / 2**30:.0f} GiB are not free on the device"
        for _, name in every:
            run.leave_out(case, name, why)
        return
    expected = None
    for begin in range(0, len(every), fit):
        expected = _timed(
            run, "step", case, every[begin : begin + fit], settings, numbers, least, expected
        )


def _that_fit(run: Run, parameters: int) -> int:
    """Return how many contenders a side has memory for at a time."""
    of_torch, of_jax = (run.sides.facts.get(side, {}).get("memory") for side in ("torch", "jax"))
    known = [m for m in (of_torch and of_torch * SHARE, of_jax) if m]
    return int(min(known) / (_BYTES * parameters)) if known else 99


def _timed(
    run: Run,
    suite: str,
    case: str,
    contenders: Made,
    settings: dict[str, Any],
    numbers: dict[str, Any],
    least: float | None,
    expected: Any = None,
) -> Any:
    """Make contenders, time them in turns, drop them; returns what the first ended at."""
    made: Made = []
    checks: dict[str, Any] = {}
    took: dict[str, float] = {}
    if ours := [name for side, name in contenders if side == "jax"]:
        run.attempt(case, "jax", "jax", "prepare_contenders", suite, ours, settings)
    for side, name in contenders:
        begun = time.monotonic()
        check = run.attempt(case, name, side, "make", name, suite, name, settings)
        if check is not MISSING:
            made.append((side, name))
            checks[name], took[name] = check, time.monotonic() - begun
            expected = check if expected is None else expected
    seconds, turns = run.sizes.turn
    times = _turns(run, made, case, seconds, turns)
    for side, name in made:
        if name not in times:
            continue
        more = {"settings": {**numbers, "made_s": round(took[name], 2)}, "limit": least}
        differs = _distance(checks[name], expected, None)
        run.add(suite, case, name, "s", times[name], differs=differs, **more)
        host = run.attempt(case, f"{name}: host", side, "host", name, _HOST_CALLS)
        if host:
            run.add("dispatch", case, name, "s", [host], calls=_HOST_CALLS, settings=numbers)
    run.sides.drop()
    return expected


def _turns(
    run: Run, made: Sequence[tuple[str, str]], case: str, seconds: float, turns: int
) -> dict[str, list[float]]:
    """Time in turns, each beginning with another contender; a turn is as many calls as fit in."""
    calls: dict[str, int] = {}
    for side, name in made:
        run.attempt(case, name, side, "queued", name, 1)
        once = run.attempt(case, name, side, "queued", name, 3)
        if once:
            calls[name] = max(3, min(_MOST_CALLS, int(seconds / once)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns):
        shift = turn % max(1, len(made))
        for side, name in [*made[shift:], *made[:shift]]:
            if name in calls:
                took = run.attempt(case, name, side, "queued", name, calls[name])
                if took:
                    times[name].append(took)
                else:
                    del calls[name]
    return {name: seen for name, seen in times.items() if seen}


def training(run: Run) -> Iterator[str]:
    """Time whole training steps."""
    for side in ("torch", "jax"):
        run.attempt("train", side, side, "resize", run.sizes.decoder)
    for case, settings in run.sizes.train:
        yield case
        every = [(side, name) for side, names in TRAINED.items() for name in names]
        _timed(run, "train", case, every, settings, dict(settings), None)


def compiled(run: Run) -> Iterator[str]:
    """Time torch.compile, which takes long to compile, in the first cases of both suites."""
    count = run.sizes.compiled
    for (optimizer, model), (case, settings) in zip(
        run.sizes.step[:count], run.sizes.train[:count], strict=True
    ):
        yield f"{optimizer}, {model}"
        _step(run, optimizer, model, COMPILED)
        yield case
        every = [(side, name) for side, names in COMPILED.items() for name in names]
        _timed(run, "train", case, every, settings, dict(settings), None)


def memory(run: Run) -> Iterator[str]:
    """Measure bytes of state, and what a step takes beyond what it is given."""
    for optimizer, model in run.sizes.memory:
        case, settings = f"{optimizer}, {model}", {"model": model, "optimizer": optimizer}
        yield case
        for side, name in (("torch", "torch"), ("jax", "jp.step")):
            made = run.attempt(case, name, side, "memory", settings)
            for kind in ("state", "more"):
                if made and kind in made:
                    more = {"limit": made.get("arguments"), "settings": settings}
                    run.add("memory", case, f"{name}: {kind}", "B", [made[kind]], **more)
            run.sides.drop()
