"""Explains an output by calls of torch's that your side makes in another way.

torch's own forward pass is run again with one kind of call changed: another eps, another form of
GELU, another mask. Where that gives your output, it is what your side does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..compare._report import Cause
from ._arrays import Array
from ._calls import Call, Way
from ._ways import ways

# Of one kind of call, one by one: so many are tried.
_MOST_CALLS = 48
# Of several ways together, the nearest are gone on with.
_MOST_WAYS, _BEAM = 3, 3
_SAME = 1e-9


class Changed(NamedTuple):
    """A way, at all calls or at one only."""

    way: Way
    only: int | None = None


@dataclass
class Calls:
    """What a forward pass called, and what is to be changed in the next one."""

    names: dict[str, int] = field(default_factory=dict)
    ways: tuple[Changed, ...] = ()
    at: list[int] = field(default_factory=list)
    changed: int = 0
    inner: int = 1

    def begin(self, *ways: Changed) -> None:
        """Begin a forward pass."""
        self.ways, self.at, self.changed, self.inner = ways, [0] * len(ways), 0, 1

    def __call__(self, function: Any, args: Any, options: Any) -> Any:
        """Make a call, as it is or in the other ways."""
        name = getattr(function, "__name__", "").strip("_")
        if not self.ways:
            self.names[name] = self.names.get(name, 0) + 1
        result = None
        for i, (way, only) in enumerate(self.ways):
            if name in way.calls:
                if only in (None, self.at[i]):
                    made = way.change(Call(name, function, args, dict(options), self.inner))
                    self.changed += made is not None
                    result = made if result is None else result
                self.at[i] += 1
        if name in ("matmul", "bmm", "einsum"):
            first = args[1 if name == "einsum" else 0]  # which begins with its equation
            if getattr(first, "ndim", 0):
                self.inner = int(first.shape[-1])
        return function(*args, **options) if result is None else result


class _Tries:
    """Runs torch's forward pass in other ways."""

    def __init__(
        self,
        forward: Callable[[Calls], list[Array]],
        yours: Sequence[Array],
        torchs: Sequence[Array],
    ) -> None:
        self._forward, self._yours, self._torchs = forward, yours, torchs
        self.calls = Calls()
        self.calls.begin()
        forward(self.calls)
        self.known = [way for way in ways() if self.calls.names.keys() & set(way.calls)]

    def far(self, *changed: Changed) -> float:
        """Return how far your output is from torch's in these ways; infinite for nonsense."""
        self.calls.begin(*changed)
        try:
            made = self._forward(self.calls)
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, AssertionError):
            return math.inf  # it does not fit this network
        if len(changed) > self.calls.changed or len(made) != len(self._yours):
            return math.inf
        if any(a.shape != b.shape for a, b in zip(made, self._yours, strict=True)):
            return math.inf
        worst = 0.0
        for a, b in zip(made, self._yours, strict=True):
            gap = np.abs(a - b)
            gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, gap)
            if not np.all(np.isfinite(gap)):
                return math.inf
            scale = float(np.max(np.abs(b[np.isfinite(b)]), initial=0.0))
            worst = max(worst, float(np.max(gap, initial=0.0)) / scale if scale else 0.0)
        return worst

    def found(self) -> list[Changed]:
        """Return the ways that give your output together, or nothing."""
        begun: list[tuple[Changed, ...]] = [()]
        for _ in range(_MOST_WAYS):
            tried: list[tuple[float, tuple[Changed, ...]]] = []
            for ways_so_far in begun:
                nearest = self.far(*ways_so_far) if ways_so_far else math.inf
                for changed in self._candidates(ways_so_far):
                    far = self.far(*ways_so_far, changed)
                    if far <= _SAME:
                        return [*ways_so_far, changed]
                    if far < nearest:
                        tried.append((far, (*ways_so_far, changed)))
            tried.sort(key=lambda pair: pair[0])
            begun = [changed for _, changed in tried[:_BEAM]]
        return []

    def _candidates(self, so_far: tuple[Changed, ...]) -> Iterator[Changed]:
        used = [changed.way for changed in so_far]
        for way in self.known:
            if way not in used:
                yield Changed(way)
        if so_far:
            return
        for way in self.known:
            count = sum(self.calls.names.get(name, 0) for name in way.calls)
            if count > 1:
                yield from (Changed(way, only) for only in range(min(count, _MOST_CALLS)))

    def named(self, changed: Changed) -> Cause:
        """Say it with what torch's call has."""
        way, only = changed
        told: dict[str, Any] = {"eps": "another", "name": way.calls[0]}
        told |= {"running": "running statistics", "other": "batch's own"}

        def look(call: Call) -> Any:
            told["name"] = call.name
            place = {"rms_norm": 3, "batch_norm": 7}.get(call.name, 4)
            eps = call.get(place, "eps")
            told["eps"] = f"{eps:g}" if isinstance(eps, float) else "another"
            if call.name == "batch_norm" and not call.get(5, "training"):
                told["running"], told["other"] = "batch's own statistics", "running ones"
            return None

        self.calls.begin(Changed(Way("", way.calls, look, "", ""), only))
        self._forward(self.calls)
        where = "" if only is None else f", at the {_ordinal(only)} of such calls only"
        return Cause(way.cause, way.words.format(**told) + where, way.remedy.format(**told))


def explain_by_calls(
    forward: Callable[[Calls], list[Array]], yours: Sequence[Array], torchs: Sequence[Array]
) -> Cause | None:
    """Explain an output by another way of calling torch's functions, or by up to three.

    Args:
        forward: runs torch's forward pass in float64, each call of a function by ``calls``.
        yours: your output, in float64.
        torchs: torch's.
    """
    tries = _Tries(forward, yours, torchs)
    causes = [tries.named(changed) for changed in tries.found()]
    if not causes:
        return None
    first, *others = causes
    return Cause(
        first.name,
        "; and ".join(cause.message for cause in causes),
        "; ".join(dict.fromkeys(cause.remedy for cause in causes)),
        also=tuple(others),
    )


def _ordinal(n: int) -> str:
    return {0: "first", 1: "second", 2: "third"}.get(n, f"{n + 1}th")
