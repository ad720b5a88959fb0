"""Equality to the last bit, and distance in units in the last place."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxopt_port.numerics import ulps


def as_integers(x: np.ndarray) -> np.ndarray:
    """The bits of an array, as unsigned integers of its shape."""
    x = np.ascontiguousarray(x)
    return x.view(f"u{x.dtype.itemsize}").reshape(np.shape(x))


def assert_same_bits(ours: Mapping[str, Any], theirs: Mapping[str, Any], when: str):
    """Every array has the bits of its counterpart: signed zeros and NaNs included."""
    assert set(ours) == set(theirs), when
    for path in theirs:
        got, expected = np.asarray(ours[path]), np.asarray(theirs[path])
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype), f"{path} {when}"
        wrong = np.flatnonzero(as_integers(got) != as_integers(expected))
        assert not wrong.size, (
            f"{path} {when}: {wrong.size} of {expected.size} differ, the first at {wrong[0]}: "
            f"{got.flat[wrong[0]]!r} for {expected.flat[wrong[0]]!r}; "
            f"at most {ulps(got, expected)} ulp"
        )


def assert_same_tree(ours: Any, theirs: Any):
    """Trees of one structure, whose arrays have the same bits."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for x, y in zip(*(map(np.asarray, jax.tree.leaves(t)) for t in (ours, theirs)), strict=True):
        assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())


def most_ulps(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> int:
    assert set(ours) == set(theirs)
    return max(ulps(np.asarray(ours[path]), theirs[path]) for path in theirs)


def step_units(ours: np.ndarray, theirs: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return each element's distance in units in the last place of the largest number of its step.

    That is the value before, the value after or the change. Where a parameter crosses zero, the
    unit of the result alone is smaller than any rounding on the way to it. NaNs are equal to each
    other, and infinitely far from all else.
    """
    wide = [np.asarray(x, np.float64) for x in (ours, theirs, before)]
    with np.errstate(invalid="ignore", over="ignore"):
        change = np.abs(wide[1] - wide[2])
        largest = np.max([np.abs(wide[1]), np.abs(wide[2]), change], axis=0).astype(theirs.dtype)
        far = np.abs(wide[0] - wide[1]) / np.spacing(largest).astype(np.float64)
    same = (wide[0] == wide[1]) | (np.isnan(wide[0]) & np.isnan(wide[1]))
    return np.where(same, 0.0, np.where(np.isnan(far), np.inf, far))


def relative(ours, theirs, before=0.0):
    """The largest difference as a part of the largest magnitude, now or before."""
    wide = np.complex128 if np.iscomplexobj(theirs) else np.float64
    ours, theirs = np.asarray(ours).astype(wide), np.asarray(theirs).astype(wide)
    scale = max(np.max(np.abs(theirs), initial=0.0), np.max(np.abs(before), initial=0.0))
    far = np.max(np.abs(ours - theirs), initial=0.0)
    return far / scale if scale else far
