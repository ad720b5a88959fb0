"""What a number of your side is, seen beside torch's."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import ml_dtypes
import numpy as np

from ..report import Cause

_SAME = 1e-6
# A schedule in float32 multiplies rounded factors: with each step it may be as much more off.
_DRIFT = 3e-8
_NARROW = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
_REMEDIES: Mapping[str, str] = {
    "lr": "give the optimizer torch's learning rate",
    "betas[0]": "give b1, or betas[0], torch's value",
    "betas[1]": "give b2, or betas[1], torch's value",
}


def same(a: float, b: float, tolerance: float = _SAME) -> bool:
    """Whether two numbers are the same, to a part in a million."""
    return a == b or abs(a - b) <= tolerance * max(abs(a), abs(b))


def nice(value: float) -> float:
    """Return the short number that a fitted one must have been meant to be, if there is one."""
    if not math.isfinite(value) or abs(value) < 1e-30:
        return 0.0 if math.isfinite(value) else value
    for digits in range(1, 7):
        short = float(f"{value:.{digits - 1}e}")
        if same(short, value):
            return short
    # 1 - value is what was meant: 0.9999.
    short = 1 - nice(1 - value) if 0.5 < value < 1 and 1 - value > 1e-9 else value
    return short if same(short, value) else value


def narrowed(value: float, other: float) -> str | None:
    """Return the dtype whose rounding of ``other`` is ``value``, if there is one."""
    for name, dtype in _NARROW.items():
        rounded = float(np.asarray(other).astype(dtype))
        if not same(rounded, other) and same(value, rounded):
            return name
    return None


def narrow_number(value: float) -> str | None:
    """Return the dtype of few bits that holds a number exactly, if one does."""
    for name, dtype in _NARROW.items():
        if value and float(np.asarray(value).astype(dtype)) == value:
            return name
    return None


def low_precision(name: str, dtype: str, mine: float, torchs: float) -> Cause:
    """Return the cause of a number that is kept in too few bits."""
    return Cause(
        "low-precision",
        f"your side has {name} in {dtype}: {mine:.9g}, where torch has {torchs:.9g}",
        "keep hyperparameters in float32 or more: jp's optimizers do, and "
        "optax.inject_hyperparams with hyperparam_dtype=jnp.float32",
    )


def explain_state_dtype(name: str, mine: str, torchs: str) -> Cause:
    """Explain a part of an optimizer's state that is kept in fewer bits than torch's."""
    return Cause(
        "low-precision",
        f"your side keeps {name} in {mine}, torch in {torchs}",
        f"keep it in {torchs}: mu_dtype or accumulator_dtype of Optax's optimizers",
    )


def of_schedule(
    mine: Sequence[float], torchs: Sequence[float], first: int, steps_per_epoch: int
) -> Cause | None:
    """Return the cause of a learning rate that goes another way than torch's.

    Args:
        mine: by step.
        torchs: by step, of the same length.
        first: the first step at which they differ.
        steps_per_epoch: 1 where that is not known.
    """
    if len(mine) != len(torchs) or _alike(mine, torchs):
        return None
    # What explains the rates is far nearer to them than what they are to be.
    apart = max(abs(a - b) for a, b in zip(mine, torchs, strict=True)) / 10
    for shift, words in ((1, "the step before"), (-1, "the next step")):
        # At the shift's end of the run there is nothing to compare with.
        later, sooner = (mine, torchs) if shift == 1 else (torchs, mine)
        if len(mine) > 1 and _alike(later[1:], sooner, apart) and len(set(torchs)) > 1:
            return Cause(
                "schedule-offset",
                f"your side's learning rate at step {first} is torch's of {words}: "
                f"{mine[first]:.6g}, torch's {torchs[first]:.6g}",
                "step the scheduler after the optimizer, once; an Optax schedule is called with "
                "the count of steps before this one",
            )
    if (
        first > 1
        and _alike(mine[first:], torchs, apart)
        and (len(set(torchs[: len(mine) - first])) > 1)
    ):
        return schedule_anew(first, mine[first], torchs[first])
    for rounding in _NARROW:
        if all(same(a, b) or narrowed(a, b) == rounding for a, b in zip(mine, torchs, strict=True)):
            return low_precision("the learning rate", rounding, mine[first], torchs[first])
    return _per_epoch(mine, torchs, first, steps_per_epoch, apart)


def _alike(mine: Sequence[float], torchs: Sequence[float], most: float = 0.0) -> bool:
    """Whether rates are the same as far as both go, but for rounding, which is ``most`` at most.

    It is that of the largest rate: the last of a cosine are differences of two such.
    """
    largest = max(map(abs, torchs), default=0.0)
    pairs = enumerate(zip(mine, torchs, strict=False))
    return all(
        same(a, b) or abs(a - b) <= min((_SAME + _DRIFT * i) * largest, most) for i, (a, b) in pairs
    )


def schedule_anew(first: int, mine: float, torchs: float) -> Cause:
    """Return the cause of a schedule that begins again in mid-run."""
    return Cause(
        "schedule-offset",
        f"your side's schedule begins anew at step {first}: its learning rate is torch's of step "
        f"0, {mine:.6g}; torch's goes on with {torchs:.6g}",
        "restore the count of the schedule with the checkpoint: it is part of the state",
    )


def _per_epoch(
    mine: Sequence[float],
    torchs: Sequence[float],
    first: int,
    steps_per_epoch: int,
    apart: float,
) -> Cause | None:
    changes = [_changes(rates) for rates in (mine, torchs)]
    if not changes[0] and not changes[1]:
        return None
    if steps_per_epoch <= 1 and not (changes[0] and changes[1]):
        return None  # a schedule and none: see `one_sided`
    slow_torch = len(changes[1]) < len(changes[0])
    fast, slow = (mine, torchs) if slow_torch else (torchs, mine)
    # The slow one walks through the same values, later.
    values = [fast[0]]
    for rate in fast:
        if not same(rate, values[-1]):
            values.append(rate)
    seen = [slow[0]]
    for rate in slow:
        if not same(rate, seen[-1]):
            seen.append(rate)
    if not _alike(seen, values, apart) or len(values) < 2 or len(seen) >= len(values):
        return None
    # A rate that never changes may as well be no schedule at all.
    if len(seen) == 1 and steps_per_epoch == 1:
        return None
    who = ("each step", "each epoch") if slow_torch else ("each epoch", "each step")
    every = f" ({steps_per_epoch} steps)" if steps_per_epoch > 1 else ""
    return Cause(
        "schedule-per-epoch",
        f"your side's schedule goes on at {who[0]}, torch's at {who[1]}{every}: at step {first} "
        f"the learning rate is {mine[first]:.6g}, torch's {torchs[first]:.6g}",
        "call both schedulers as often: scheduler_every, or count // steps_per_epoch in a schedule",
    )


def one_sided(mine: Sequence[float], torchs: Sequence[float], first: int) -> Cause | None:
    """Return the cause of a learning rate that follows a schedule on one side only."""
    changes = [_changes(rates) for rates in (mine, torchs)]
    if bool(changes[0]) == bool(changes[1]):
        return None
    steady, moving = (torchs, mine) if changes[0] else (mine, torchs)
    # Rates that a schedule gives are few, or go one way after a warm-up: they turn once at most.
    rises = [b > a for a, b in itertools.pairwise(moving) if not same(a, b)]
    turns = sum(a != b for a, b in itertools.pairwise(rises))
    if turns > 1 or min(moving) < 0:
        return None
    who = ("your side's", "torch's") if changes[0] else ("torch's", "your side's")
    return Cause(
        "number",
        f"{who[0]} learning rate follows a schedule, {who[1]} stays at {nice(steady[0]):.6g}: at "
        f"step {first} it is {nice(mine[first]):.6g}, torch's {torchs[first]:.6g}",
        "give both sides the schedule; jp.explain does not follow torch's schedulers",
    )


def _changes(rates: Sequence[float]) -> list[int]:
    return [i for i in range(1, len(rates)) if not same(rates[i], rates[i - 1])]


def explain_hyperparameter(
    name: str,
    yours: Sequence[float],
    torchs: Sequence[float],
    step: int,
    steps_per_epoch: int,
    other_groups: Sequence[Sequence[float]],
) -> Cause | None:
    """Explain a hyperparameter that is read off both sides.

    Args:
        name: torch's, ``"lr"`` or ``"betas[0]"``.
        yours: by step.
        torchs: by step.
        step: the first at which they differ.
        steps_per_epoch: 1 where that is not known.
        other_groups: of torch's other groups, by step.
    """
    mine, theirs = yours[step], torchs[step]
    if dtype := narrowed(mine, theirs):
        return low_precision(name, dtype, mine, theirs)
    if len(set(torchs)) > 1 or len(set(yours)) > 1:
        found = of_schedule(yours, torchs, step, steps_per_epoch)
        if found is not None:
            return found
    if any(same(mine, group[step]) for group in other_groups):
        return Cause(
            "group-options",
            f"your side has {name}={mine:.6g} here, as torch has in another group; torch has "
            f"{theirs:.6g} in this one",
            "check which leaves the selectors or labels of the groups take",
        )
    return number(name, mine, theirs)


def number(name: str, mine: float, torchs: float, left: float = 0.0) -> Cause:
    """Return the cause of a number with another value."""
    return Cause(
        "dampening" if name == "dampening" else "number",
        f"your side behaves as with {name}={nice(mine):.6g}; torch has {torchs:.6g}",
        _REMEDIES.get(name, f"give the optimizer torch's {name}"),
        left,
    )
