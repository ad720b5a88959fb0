"""How far two arrays of a run are apart, and how far apart rounding lets them be.

The two sides calculate the same thing in the run's dtype, ``t`` (torch) and ``j`` (yours), and in
float64, ``T`` and ``J``. Rounding in the run's dtype is what moves ``t`` from ``T``: it is
measured, leaf by leaf. In float64 the same calculation rounds 2**29 times finer than in float32,
and 2**45 times finer than in bfloat16. So two rules tell rounding from a difference:

- ``J`` and ``T`` may be `SAFETY` times that scaled-down rounding apart, and `FLOAT64` of the leaf's
  largest magnitude besides.
- ``j`` may be `RATIO` times as far from ``T`` as ``t`` is, as root mean squares, and `UNITS` of the
  dtype's epsilon besides; a parameter also `MOVED` of the way that it has gone. A gradient that is
  zero but for rounding (of a bias before a normalisation) has no size to be measured by.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ...numerics import ordered
from ..report import Distance, Element

Array = NDArray[Any]
Wide = NDArray[np.float64]

# Orders of summation differ between the sides, and errors of a leaf between its elements.
SAFETY = 64.0
# What torch's own float64 implementations of one optimizer differ by over some hundred steps
# (docs/numerics.md), with room for longer runs.
FLOAT64 = 2e-12
# Of two sides on their own: Adam makes a step of a gradient that is zero but for rounding (a bias
# before a normalisation), and divides that rounding by eps.
FREE = 1e-9
# Two orders of summation, two roundings of the same formula: their errors are of one size.
RATIO = 8.0
UNITS = 4.0
# Optax has bias corrections and injected betas in float32, where torch has float64: in the first
# steps that is a few 1e-5 of each step, of a second moment 1e-5 throughout: no fault of a port. A
# number kept in bfloat16 is off by 1e-3.
MOVED = 1e-4
# Beside the largest gradient, in float64: the others' rounding is some 1e-16 of it.
ZERO = 1e-10

# What masks a logit is larger.
_MASKED = 1e4

# Elements at a time: what fits into a core's cache, so that a large leaf costs few passes over it.
_BLOCK = 2**15
# Of each block, for percentiles.
_SAMPLE = 2**12


class Values(NamedTuple):
    """One leaf on both sides, in the run's dtype and in float64."""

    yours: Array
    torchs: Array
    yours64: Array
    torchs64: Array


def left_by_rounding(rounded: Any, exact: Any) -> float:
    """Return what may be between float64 results, going by one in float32; None allows nothing."""
    if rounded is None:
        return 0.0
    far = largest(_wide(np.asarray(rounded)) - _wide(np.asarray(exact)))
    return SAFETY * _finer("float32") * far if math.isfinite(far) else 0.0


def magnitude(arrays: Iterable[Array]) -> float:
    """Return the root mean square of elements, without those that stand for infinity."""
    some = [np.abs(np.ravel(x)[:: max(1, x.size // _SAMPLE)]) for x in arrays]
    sizes = np.concatenate([_wide(x[x < _MASKED]) for x in some] or [np.zeros(0)])
    return math.sqrt(_dot(sizes, sizes) / sizes.size) if sizes.size else 0.0


def _finer(dtype: str) -> float:
    return float(np.finfo(np.float64).eps / ml_dtypes.finfo(dtype).eps)


class Judgement(NamedTuple):
    """Whether rounding explains a difference.

    Attributes:
        excess: how many times the bound the difference is; more than 1 is no rounding.
        bound: the largest absolute difference that rounding explains, of what is judged: mostly
            the two sides in float64, so it may be less than the distance in the run's dtype.
        why: a sentence: what shows that it is none.
    """

    excess: float
    bound: float
    why: str

    @property
    def ok(self) -> bool:
        """Whether it is rounding."""
        return self.excess <= 1.0


def blocks(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Yield the same parts of arrays of one shape, each of some ten thousand elements, flat."""
    first = arrays[0]
    if first.size <= _BLOCK:
        yield tuple(np.ravel(a) for a in arrays)
        return
    rows = max(1, _BLOCK * first.shape[0] // first.size)
    for start in range(0, first.shape[0], rows):
        parts = [a[start : start + rows] for a in arrays]
        if parts[0].size > 2 * _BLOCK and parts[0].ndim > 1:
            yield from blocks(*(part[0] for part in parts))
        else:
            yield tuple(np.ravel(part) for part in parts)


class _Sums:
    """Largest magnitude and sum of squares of a series of differences, infinities left out."""

    def __init__(self) -> None:
        self.largest, self.squares, self.count = 0.0, 0.0, 0

    def add(self, x: Wide) -> None:
        most = largest(x)
        if not math.isfinite(most):
            x = x[np.isfinite(x)]
            most = largest(x)
        self.largest = max(self.largest, most)
        # Squares of what is below 1e-150 would vanish; nothing here depends on such.
        self.squares += _dot(x, x)
        self.count += x.size

    @property
    def rms(self) -> float:
        return math.sqrt(self.squares / self.count) if self.count else 0.0


class Measured:
    """All that is measured of one leaf, in one pass.

    Args:
        values: the leaf.
        start: where it began, if this is a parameter after some steps.
        exact: whether the float64 values are looked at.

    Attributes:
        distance: between the two sides in the run's dtype.
        spread: how far both are from float64 in the run's dtype, together.
        by_habit: whether only what frameworks keep in float32 lets the second rule pass it.
        both_nan: elements that are NaN on both sides.
        both_infinite: elements that are infinite on both sides.
    """

    def __init__(self, values: Values, start: Array | None = None, *, exact: bool = True) -> None:
        self._dtype = values.torchs.dtype
        gap, scale, apart = _Sums(), _Sums(), _Sums()
        self._gap64, self._scale64, self._moved = _Sums(), _Sums(), _Sums()
        self._ours, self._theirs = _Sums(), _Sums()
        self._odd64 = 0
        odd, product, units, worst, summed, count = 0, 0.0, [], 0.0, 0.0, 0
        self.both_nan = self.both_infinite = 0
        arrays = values if start is None else (*values, start)
        for j, t, wide_j, wide_t, *began in blocks(*arrays):
            both = _wide(j), _wide(t)
            a, b, good, one_sided = _finite(*both)
            if not good.all():
                odd += one_sided
                self.both_nan += int(np.sum(np.isnan(both[0]) & np.isnan(both[1])))
                self.both_infinite += int(np.sum((both[0] == both[1]) & ~good))
            apart.add(a)
            scale.add(b)
            product += _dot(a, b)
            far = a - b
            if far.any():
                gap.add(far)
                pair = j.astype(self._dtype, copy=False), t
                far = _units(*pair) if good.all() else _units(*(x[good] for x in pair))
                worst, summed = max(worst, float(far.max(initial=0.0))), summed + float(far.sum())
            units.append(far[:: max(1, far.size // _SAMPLE)])
            count += a.size
            if exact:
                mine, theirs, _, one_sided = _finite(_wide(wide_j), _wide(wide_t))
                self._odd64 += one_sided
                self._gap64.add(mine - theirs)
                self._scale64.add(theirs)
                self._ours.add(a - wide_t)
                self._theirs.add(b - wide_t)
                if began:
                    self._moved.add(wide_t - _wide(began[0]))
        self.odd, self.by_habit = odd, False
        self.spread = self._ours.largest + self._theirs.largest
        absolute = math.inf if odd else gap.largest
        sample = np.concatenate(units) if units else np.zeros(1)
        norms = math.sqrt(apart.squares) * math.sqrt(scale.squares)
        both_zero = apart.squares == scale.squares == 0.0
        self.distance = Distance(
            ulps_max=math.inf if odd else worst,
            ulps_p99=float(np.quantile(sample, 0.99, method="higher")),
            ulps_mean=summed / count if count else 0.0,
            absolute=absolute,
            relative=_quotient(absolute, scale.largest),
            mismatched=odd,
            cosine=1.0 if both_zero else max(-1.0, min(1.0, product / norms if norms else 0.0)),
        )

    def in_float64(self, dtype: str, floor: float = FLOAT64, extra: float = 0.0) -> Judgement:
        """Judge ``J`` against ``T``, in a run of this dtype.

        Args:
            dtype: the run's.
            floor: what is allowed in any case, of the largest magnitude.
            extra: likewise, absolute.
        """
        if self._odd64:
            return Judgement(math.inf, 0.0, "in float64 too, one side alone is NaN or infinite.")
        gap, scale = self._gap64.largest, self._scale64.largest
        rounding = SAFETY * _finer(dtype) * self.spread if dtype != "float64" else 0.0
        bound = extra + floor * scale + rounding
        why = (
            f"with both sides in float64 the difference is still {gap:.3g} of at most "
            f"{scale:.3g}; rounding would leave {bound:.1g}."
        )
        return Judgement(_quotient(gap, bound), bound, why)

    def in_own_dtype(self, zero: bool = False, made_of: float = 0.0) -> Judgement:
        """Judge ``j`` by its distance from ``T``, with torch's own as the measure.

        Args:
            zero: whether it is zero but for rounding.
            made_of: the magnitude of what it is the difference of, where that is larger than it.
        """
        if self.odd:
            return Judgement(math.inf, 0.0, f"{self.odd} elements are NaN or infinite on one side.")
        ours, theirs = self._ours.rms, self._theirs.rms
        if zero:
            return Judgement(0.0, ours, "it is zero but for rounding.")
        epsilon = float(ml_dtypes.finfo(self._dtype).eps)
        strict = RATIO * theirs + UNITS * epsilon * max(self._scale64.rms, made_of)
        bound = strict + MOVED * self._moved.rms
        self.by_habit = strict < ours <= bound
        why = (
            f"your side is {_quotient(ours, theirs):.3g} times as far from the float64 result as "
            f"torch's (root mean squares {ours:.3g} and {theirs:.3g}): it calculates less exactly."
        )
        return Judgement(_quotient(ours, bound), bound, why)


def _finite(a: Wide, b: Wide) -> tuple[Wide, Wide, NDArray[np.bool_], int]:
    """Return two arrays, 0 where not both are finite; where they are; how many differ in that."""
    good = np.isfinite(a) & np.isfinite(b)
    if good.all():
        return a, b, good, 0
    odd = int(np.sum(~(good | (a == b) | (np.isnan(a) & np.isnan(b)))))
    return np.where(good, a, 0.0), np.where(good, b, 0.0), good, odd


def distance_of(yours: Array, torchs: Array) -> Distance:
    """Return how far apart two arrays are."""
    return Measured(Values(yours, torchs, yours, torchs), exact=False).distance


def furthest(yours: Array, torchs: Array, n: int = 5) -> tuple[Element, ...]:
    """Return the elements that are furthest apart, the furthest first."""
    a, b = _wide(np.asarray(yours)), _wide(np.asarray(torchs))
    with np.errstate(invalid="ignore"):
        gap = np.abs(a - b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    gap = np.where(same, 0.0, np.where(np.isnan(gap), np.inf, gap))
    order = np.argsort(-gap, axis=None, kind="stable")[:n]
    places = [tuple(int(i) for i in np.unravel_index(k, gap.shape)) for k in order]
    return tuple(Element(p, float(b[p]), float(a[p])) for p in places if gap[p] > 0)


def near(yours: Array, torchs: Array) -> bool:
    """Whether two float64 arrays are as near as rounding always is: a cheap look."""
    gap, scale = 0.0, 0.0
    for a, b in blocks(yours, torchs):
        far = largest(a - b)
        if math.isnan(far):
            return False
        gap, scale = max(gap, far), max(scale, largest(b))
    return gap <= FLOAT64 * scale


def sum_of_squares(x: Array) -> float:
    """Return the sum of squares of an array, in float64."""
    return sum(_dot(part, part) for part in map(_wide, (b for (b,) in blocks(x))))


def _dot(a: Wide, b: Wide) -> float:
    # np.dot would wake BLAS's threads for each block, and wait while torch's and JAX's are at work.
    return float(np.einsum("i,i", a, b))


def largest(x: Array) -> float:
    """Return the largest magnitude, 0 of nothing; NaN where one is in it."""
    return max(float(np.max(x, initial=0.0)), -float(np.min(x, initial=0.0)))


def _wide(x: Array) -> Wide:
    with np.errstate(over="ignore"):
        wide: Wide = np.asarray(x).astype(np.float64, copy=False)
        return wide


def _quotient(a: float, b: float) -> float:
    if a == 0.0:
        return 0.0
    return a / b if b > 0.0 else math.inf


def _units(a: Array, b: Array) -> Wide:
    if b.dtype.kind in "biu":
        return np.abs(_wide(a) - _wide(b))
    units: Wide = np.abs(ordered(a) - ordered(b)).astype(np.float64)
    return units
