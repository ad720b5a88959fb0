"""Explains an output by calls of torch's that your side makes in another way.

torch's own forward pass is run again with one kind of call changed: another eps, another form of
GELU, another mask. Where that gives your output, it is what your side does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..report import Cause
from ._arrays import Array
from ._calls import Call, Way
from ._several import both_of
from ._ways import WAYS

# Of one kind of call, one by one: so many are tried.
_MOST_CALLS = 48
# Of several ways together, of each number of them: so many are tried.
_MOST_WAYS, _MOST_TRIES = 3, 16
_SAME, _SAMPLE = 1e-9, 1024


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
    masked: Any = None

    def begin(self, *ways: Changed) -> None:
        """Begin a forward pass."""
        self.ways, self.at, self.changed, self.inner = ways, [0] * len(ways), 0, 1
        self.masked = None

    def __call__(self, function: Any, args: Any, options: Any) -> Any:
        """Make a call, as it is or in the other ways."""
        name = getattr(function, "__name__", "").strip("_")
        if not self.ways:
            self.names[name] = self.names.get(name, 0) + 1
        result = None
        for i, (way, only) in enumerate(self.ways):
            if name in way.calls:
                if only in (None, self.at[i]):
                    made = way.change(
                        Call(name, function, args, dict(options), self.inner, self.masked)
                    )
                    self.changed += made is not None
                    result = made if result is None else result
                self.at[i] += 1
        if name == "masked_fill":
            self.masked = args[:2]
        if name in ("matmul", "bmm", "einsum", "baddbmm"):
            # einsum begins with its equation, and baddbmm with what is added.
            first = args[1 if name in ("einsum", "baddbmm") else 0]
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
        floor: float,
        more: Sequence[Way],
    ) -> None:
        self._forward, self._yours, self._floor = forward, yours, max(_SAME, floor)
        self._mine, self._torchs = _sample(yours), _sample(torchs)
        # What ways gave together, on a sample of the output.
        self._made: dict[tuple[Changed, ...], Array] = {}
        self._tried: set[frozenset[Changed]] = set()
        self.calls = Calls()
        self.calls.begin()
        forward(self.calls)
        names = self.calls.names
        known = [way for way in (*more, *WAYS) if names.keys() & set(way.calls)]
        counts = [sum(names.get(name, 0) for name in way.calls) for way in known]
        self._everywhere = [Changed(way) for way in known]
        self._once = [
            Changed(way, only)
            for way, count in zip(known, counts, strict=True)
            for only in range(0 if count < 2 or way.everywhere else min(count, _MOST_CALLS))
        ]

    def _gives_yours(self, *changed: Changed) -> bool:
        """Whether these ways together give your output; what they give is kept."""
        self._tried.add(frozenset(changed))
        self.calls.begin(*changed)
        try:
            made = self._forward(self.calls)
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, AssertionError):
            return False  # it does not fit this network
        if len(changed) > self.calls.changed or len(made) != len(self._yours):
            return False
        if any(a.shape != b.shape for a, b in zip(made, self._yours, strict=True)):
            return False
        self._made[changed] = _sample(made)
        return all(_same(a, b, self._floor) for a, b in zip(made, self._yours, strict=True))

    def found(self) -> Sequence[Changed]:
        """Return the ways that give your output together, or nothing.

        A way at all calls comes before one at a single call; of several together those come first
        whose effects add up to yours.
        """
        for singles in (self._everywhere, self._once):
            for changed in singles:
                if self._gives_yours(changed):
                    return [changed]
            for size in range(2, _MOST_WAYS + 1):
                for several in itertools.chain(self._likeliest(size), self._siblings(size)):
                    if self._gives_yours(*several):
                        return several
        return []

    def _likeliest(self, size: int) -> list[tuple[Changed, ...]]:
        """Return combinations of so many ways that, added up, come nearest to your output."""
        singles = [changed for (changed,) in (k for k in self._made if len(k) == 1)]
        if not singles:
            return []
        effects = np.stack([self._made[(c,)] for c in singles]) - self._torchs
        nearest: dict[frozenset[Changed], tuple[float, tuple[Changed, ...]]] = {}
        for held in [key for key in self._made if len(key) == size - 1]:
            gap = self._mine - self._made[held]
            far = float(np.abs(gap).max(initial=0.0))
            for changed, left in zip(singles, np.abs(gap - effects).max(1), strict=True):
                key = frozenset((*held, changed))
                known = any(changed.way == one.way for one in held) or key in self._tried
                if not known and left < min(far, nearest.get(key, (math.inf,))[0]):
                    nearest[key] = float(left), (*held, changed)
        order = sorted(nearest.values(), key=lambda pair: pair[0])
        return [several for _, several in order[:_MOST_TRIES]]

    def _siblings(self, size: int) -> Iterator[tuple[Changed, ...]]:
        """Yield the combination that came nearest to your output, each way in other settings."""
        made = {key: gives for key, gives in self._made.items() if len(key) == size}
        if not made:
            return
        nearest = min(made, key=lambda key: float(np.abs(self._mine - made[key]).max(initial=0.0)))
        for i, changed in enumerate(nearest):
            for other in self._everywhere:
                alike = (other.way.cause, other.way.calls) == (changed.way.cause, changed.way.calls)
                several = (*nearest[:i], Changed(other.way, changed.only), *nearest[i + 1 :])
                if alike and frozenset(several) not in self._tried:
                    yield several

    def named(self, changed: Changed) -> Cause:
        """Say it with what torch's call has."""
        way, only = changed
        told: dict[str, Any] = {"eps": "another", "name": way.calls[0]}
        told |= {"running": "running statistics", "other": "batch's own"}

        def look(call: Call) -> Any:
            told["name"] = call.name
            place = {"rms_norm": 3, "batch_norm": 7, "instance_norm": 7}.get(call.name, 4)
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
    forward: Callable[[Calls], list[Array]],
    yours: Sequence[Array],
    torchs: Sequence[Array],
    floor: float = 0.0,
    more: Sequence[Way] = (),
) -> Cause | None:
    """Explain an output by another way of calling torch's functions, or by up to three.

    Args:
        forward: runs torch's forward pass in float64, each call of a function by ``calls``.
        yours: your output, in float64.
        torchs: torch's.
        floor: what constants that were rounded may do, of the largest.
        more: ways that are tried before those of all networks.
    """
    tries = _Tries(forward, yours, torchs, floor, more)
    causes = [tries.named(changed) for changed in tries.found()]
    return both_of(causes, 0.0) if causes else None


def _ordinal(n: int) -> str:
    return {0: "first", 1: "second", 2: "third"}.get(n, f"{n + 1}th")


def _same(made: Array, yours: Array, floor: float) -> bool:
    """Whether an output is yours, NaN and infinities alike."""
    gap = np.abs(made - yours)
    gap = np.where((made == yours) | (np.isnan(made) & np.isnan(yours)), 0.0, gap)
    scale = float(np.max(np.abs(yours[np.isfinite(yours)]), initial=0.0))
    return bool(np.all(gap <= floor * scale))


def _sample(outputs: Sequence[Array]) -> Array:
    """Return some finite elements of an output, always the same."""
    some = [np.ravel(x)[:: max(1, x.size // _SAMPLE)] for x in outputs]
    sample: Array = np.nan_to_num(np.concatenate(some), posinf=0.0, neginf=0.0)
    return sample
