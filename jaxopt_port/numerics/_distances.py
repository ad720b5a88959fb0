"""How far two arrays are apart, and whether numbers have been rounded at all."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

_INTEGERS = {2: np.int16, 4: np.int32, 8: np.int64}
_FEW_BITS = 14


def ordered(x: NDArray[Any]) -> NDArray[np.int64]:
    """Map floats to integers that count the representable numbers from zero, negative ones below.

    XLA on the CPU flushes subnormal numbers to zero and torch does not, so both zeros and all
    subnormals are 0 here.
    """
    integer = np.dtype(_INTEGERS[x.dtype.itemsize])
    bits = x.view(integer)
    smallest_normal = np.asarray(ml_dtypes.finfo(x.dtype).smallest_normal, x.dtype)
    before = smallest_normal.view(integer) - integer.type(1)
    steps = np.maximum((bits & ~np.iinfo(bits.dtype).min) - before, integer.type(0))
    negative = bits >> integer.type(8 * x.dtype.itemsize - 1)  # -1 of a negative number, or 0
    numbers: NDArray[np.int64] = ((steps ^ negative) - negative).astype(np.int64)
    return numbers


def ulps(ours: NDArray[Any], theirs: NDArray[Any]) -> int:
    """Return the largest distance in units in the last place: representable numbers between.

    NaNs are equal to each other, and further than any other distance from all else.

    Raises:
        ValueError: shapes or dtypes differ.
    """
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        raise ValueError(
            f"cannot compare {ours.dtype}{list(ours.shape)} with {theirs.dtype}{list(theirs.shape)}"
        )
    if ours.size == 0 or ours.tobytes() == theirs.tobytes():
        return 0
    # 0-d arrays cannot be viewed as integers of another kind in place.
    a, b = np.atleast_1d(np.ascontiguousarray(ours)), np.atleast_1d(np.ascontiguousarray(theirs))
    nan_a, nan_b = np.isnan(a), np.isnan(b)
    if np.any(nan_a != nan_b):
        return int(np.iinfo(np.int64).max)
    distance = np.abs(ordered(a) - ordered(b))
    return int(np.max(np.where(nan_a, 0, distance)))


def max_abs(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Return the largest absolute difference; infinite where only one side is finite."""
    if ours.size == 0:
        return 0.0
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.abs(a - b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return float(np.max(np.where(same, 0.0, np.nan_to_num(difference, nan=np.inf, posinf=np.inf))))


def relative(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Return the largest absolute difference over the largest absolute value of ``theirs``."""
    scale = float(np.max(np.abs(theirs.astype(np.float64)), initial=0.0))
    difference = max_abs(ours, theirs)
    if difference == 0.0:
        return 0.0
    return difference / scale if scale > 0.0 else float("inf")


def relative_norm(ours: list[NDArray[Any]], theirs: list[NDArray[Any]]) -> float:
    """Return ``||ours - theirs|| / ||theirs||`` over all arrays together, in float64."""
    pairs = [
        (a.astype(np.float64), b.astype(np.float64)) for a, b in zip(ours, theirs, strict=True)
    ]
    difference = np.sqrt(sum(float(np.sum((a - b) ** 2)) for a, b in pairs))
    norm = np.sqrt(sum(float(np.sum(b**2)) for _, b in pairs))
    return float(difference / norm) if norm > 0.0 else float(difference)


def is_exact(x: Any) -> bool:
    """Whether no dtype has rounded these numbers: whole ones, and those of a few bits.

    Args:
        x: a number, or an array of any shape; infinities and NaN are exact.
    """
    wide = np.asarray(x, np.float64)
    bits = np.frexp(wide)[0] * 2**_FEW_BITS
    return bool(np.all((bits == np.round(bits)) | (wide == np.round(wide)) | ~np.isfinite(wide)))
