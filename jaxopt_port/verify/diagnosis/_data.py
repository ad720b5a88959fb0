"""Explains a batch that is not torch's."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from ..report import Cause
from ._arrays import Array, rounding
from ._numbers import nice

_MOST_CHANNELS = 16


def explain_data(
    yours: Sequence[Array],
    torchs: Mapping[int, Sequence[Array]],
    step: int,
    later: Sequence[Sequence[Array]] = (),
) -> Cause | None:
    """Explain a batch that is not torch's.

    Args:
        yours: its arrays.
        torchs: torch's arrays, by step, of those that are known.
        step: which this is.
        later: your batches of the steps after this one, those that are known.
    """
    offset = _offset(yours, torchs, step)
    if offset:
        return _late(step, offset)
    if step not in torchs:
        return None
    theirs = torchs[step]
    if _permuted(yours, theirs):
        return Cause(
            "data-order",
            "your batch has torch's examples in another order",
            "give both sides the same order: one seed, one sampler",
        )
    for i, (mine, torchs_own) in enumerate(zip(yours, theirs, strict=True)):
        if _tells(mine) and not np.array_equal(mine, torchs_own):
            own = {other: [batch[i]] for other, batch in torchs.items()}
            if offset := _offset([mine], own, step):
                return _late(step, offset, f"array {i} of your batch")
            if _permuted([mine], [torchs_own]):
                return Cause(
                    "data-order",
                    f"array {i} of your batch has torch's examples in another order, and no "
                    "longer those that belong to the rest of it",
                    "shuffle all arrays of a batch alike",
                )
    if _elsewhere(yours, theirs, torchs):
        return Cause(
            "data-order",
            "your batch has examples that torch sees in other batches: another shuffle",
            "give both sides the same order: one seed, one sampler",
        )
    for mine, torchs_own in zip(yours, theirs, strict=True):
        if np.array_equal(mine, torchs_own):
            continue
        cause = _of_one(np.asarray(mine, np.float64), np.asarray(torchs_own, np.float64))
        if cause is not None:
            return cause
    # The first batch may be one that torch has not had: the ones after it tell.
    offsets = {_offset(own, torchs, step + 1 + i) for i, own in enumerate(later)}
    if len(later) > 1 and len(offsets) == 1 and (offset := offsets.pop()):
        return _late(step + 1, offset)
    return None


def _offset(yours: Sequence[Array], torchs: Mapping[int, Sequence[Array]], step: int) -> int:
    """Return how many steps later torch has this batch; 0 where it has it now, or never."""
    for other, batch in torchs.items():
        if other != step and all(map(np.array_equal, yours, batch)):
            return other - step
    return 0


def _tells(array: Array) -> bool:
    """Whether an array is told by its examples, as labels of a few classes are not."""
    return array.ndim > 1 and len(set(_rows(array))) > 3


def _late(step: int, offset: int, what: str = "your batch") -> Cause:
    where = f"{abs(offset)} {'earlier' if offset < 0 else 'later'}"
    return Cause(
        "data-offset",
        f"{what} of step {step} is torch's of step {step + offset}, {where}",
        "start both loaders alike: a batch was taken, or shuffled, on one side only",
    )


def _rows(array: Array) -> list[bytes]:
    return [np.ascontiguousarray(row).tobytes() for row in array]


def _permuted(yours: Sequence[Array], torchs: Sequence[Array]) -> bool:
    """Whether one permutation of the examples makes each of your arrays torch's."""
    same = [np.array_equal(a, b) for a, b in zip(yours, torchs, strict=True)]
    if any(x.ndim == 0 or len(x) != len(yours[0]) for x in (*yours, *torchs)):
        return False
    mine = [b"".join(parts) for parts in zip(*map(_rows, yours), strict=True)]
    theirs = [b"".join(parts) for parts in zip(*map(_rows, torchs), strict=True)]
    return not all(same) and sorted(mine) == sorted(theirs)


def _elsewhere(
    yours: Sequence[Array], theirs: Sequence[Array], torchs: Mapping[int, Sequence[Array]]
) -> bool:
    """Whether most examples of the first array are somewhere among torch's, and not where they are.

    Args:
        yours: the batch.
        theirs: torch's.
        torchs: all of torch's, by step.
    """
    if yours[0].ndim < 2:
        return False
    seen = {row for batch in torchs.values() for row in _rows(batch[0])}
    mine = _rows(yours[0])
    same_place = sum(a == b for a, b in zip(mine, _rows(theirs[0]), strict=False))
    return sum(row in seen for row in mine) > 0.9 * len(mine) and same_place < len(mine)


def _of_one(mine: Array, theirs: Array) -> Cause | None:
    if name := rounding(mine, theirs):
        return Cause(
            "low-precision", f"your data are torch's rounded to {name}",
            "give both sides data of one dtype; cast in the model",
        )  # fmt: skip
    if mine.ndim > 2:
        for axes in itertools.permutations(range(1, mine.ndim)):
            moved = np.transpose(theirs, (0, *axes))
            if axes != tuple(range(1, mine.ndim)) and np.array_equal(mine, moved):
                return _layout(f"transposed by {(0, *axes)}")
            if np.array_equal(mine.ravel(), moved.ravel()):
                back = (0, *(int(i) + 1 for i in np.argsort(axes)))
                return _layout(f"reshaped, where it should be transposed by {back}")
        for axis in range(1, mine.ndim):
            if np.array_equal(mine, np.flip(theirs, axis)):
                return _layout(f"reversed along axis {axis}")
    whole = np.array_equal(mine, np.round(mine)) and np.array_equal(theirs, np.round(theirs))
    if theirs.ndim == 1 and whole and (found := _labels(mine, theirs)):
        return found
    for axis in range(1, theirs.ndim):
        few = 1 < theirs.shape[axis] <= _MOST_CHANNELS
        if few and (found := _by_channel(mine, theirs, axis)):
            return found
    if theirs.size > 2 and np.ptp(theirs) > 0:
        scale, shift = np.polyfit(theirs.ravel(), mine.ravel(), 1)
        if np.allclose(scale * theirs + shift, mine, rtol=1e-5, atol=1e-6 * np.abs(mine).max()):
            return Cause(
                "data-scale",
                f"your data are torch's times {nice(float(scale)):.4g} plus {float(shift):.4g}",
                "normalise both alike: ToTensor divides by 255, and mean and std must be the same",
            )
    return None


def _labels(mine: Array, theirs: Array) -> Cause | None:
    pairs = dict(zip(theirs.tolist(), mine.tolist(), strict=True))
    # Where each example has a label of its own, any others would be a renumbering of them.
    if len(pairs) == len(theirs) or [pairs[x] for x in theirs.tolist()] != mine.tolist():
        return None
    shown = ", ".join(f"{int(b)} for {int(a)}" for a, b in sorted(pairs.items())[:4] if a != b)
    return Cause(
        "labels-shifted", f"your labels are other numbers than torch's: {shown}",
        "number the classes alike: from 0, in one order (ImageFolder sorts by name)",
    )  # fmt: skip


def _by_channel(mine: Array, theirs: Array, axis: int) -> Cause | None:
    """Fit a scale and a shift to each channel."""
    a, b = (np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1) for x in (mine, theirs))
    mean = b.mean(1, keepdims=True)
    square = ((b - mean) ** 2).sum(1, keepdims=True)
    if not square.all() or b.shape[1] < 4:
        return None
    scale = ((b - mean) * (a - a.mean(1, keepdims=True))).sum(1, keepdims=True) / square
    shift = a.mean(1, keepdims=True) - scale * mean
    if not np.allclose(scale * b + shift, a, rtol=1e-5, atol=1e-6 * np.abs(a).max()):
        return None
    if np.ptp(scale) <= 1e-4 * np.abs(scale).max() and np.ptp(shift) <= 1e-4 * np.abs(a).max():
        return None  # one for all: see below
    shown = ", ".join(f"{nice(float(x)):.4g}" for x in scale[:4, 0])
    return Cause(
        "data-scale",
        f"your data are torch's with another scale and shift in each channel of axis {axis}: times "
        f"{shown}",
        "normalise both alike: the same mean and std, of the channels in the same order",
    )


def _layout(words: str) -> Cause:
    return Cause(
        "data-layout",
        f"your batch is torch's {words}",
        "`batch=` makes this side's layout of torch's: batch=lambda b: (b[0].transpose(…), b[1])",
    )
