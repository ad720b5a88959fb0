"""Names a learning rate that goes another way than torch's, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..report import Cause
from ._numbers import NARROW, SAME, low_precision, narrowed, nice, number, same
from ._schedule_shapes import (
    COMPARE,
    EVEN,
    changes_of,
    differences,
    peak_of,
    turns_of,
    warm_up_of,
)

# A schedule in float32 multiplies rounded factors: with each step it may be as much more off.
_DRIFT = 3e-8


def of_schedule(
    mine: Sequence[float], torchs: Sequence[float], first: int, step: int, steps_per_epoch: int
) -> Cause | None:
    """Return the cause of a learning rate that goes another way than torch's.

    Args:
        mine: by step.
        torchs: by step, of the same length.
        first: the place in both of the first that differs.
        step: its step.
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
                f"your side's learning rate at step {step} is torch's of {words}: "
                f"{mine[first]:.6g}, torch's {torchs[first]:.6g}",
                "step the scheduler after the optimizer, once; an Optax schedule is called with "
                "the count of steps before this one",
            )
    if (
        first > 1
        and _alike(mine[first:], torchs, apart)
        and (len(set(torchs[: len(mine) - first])) > 1)
    ):
        return schedule_anew(step, mine[first], torchs[first])
    for rounding in NARROW:
        if all(same(a, b) or narrowed(a, b) == rounding for a, b in zip(mine, torchs, strict=True)):
            return low_precision("the learning rate", rounding, mine[first], torchs[first])
    return _per_epoch(mine, torchs, first, step, steps_per_epoch, apart)


def _alike(mine: Sequence[float], torchs: Sequence[float], most: float = 0.0) -> bool:
    """Whether rates are the same as far as both go, but for rounding, which is ``most`` at most.

    It is that of the largest rate: the last of a cosine are differences of two such.
    """
    largest = max(map(abs, torchs), default=0.0)
    pairs = enumerate(zip(mine, torchs, strict=False))
    return all(
        same(a, b) or abs(a - b) <= min((SAME + _DRIFT * i) * largest, most) for i, (a, b) in pairs
    )


def schedule_anew(step: int, mine: float, torchs: float) -> Cause:
    """Return the cause of a schedule that begins again in mid-run."""
    return Cause(
        "schedule-offset",
        f"your side's schedule begins anew at step {step}: its learning rate is torch's of step "
        f"0, {mine:.6g}; torch's goes on with {torchs:.6g}",
        "restore the count of the schedule with the checkpoint: it is part of the state",
    )


def _per_epoch(
    mine: Sequence[float],
    torchs: Sequence[float],
    first: int,
    step: int,
    steps_per_epoch: int,
    apart: float,
) -> Cause | None:
    changes = [changes_of(rates) for rates in (mine, torchs)]
    if not changes[0] and not changes[1]:
        return None
    if steps_per_epoch <= 1 and not (changes[0] and changes[1]):
        return None  # a schedule and none: see `one_sided`
    slow_torch = len(changes[1]) < len(changes[0])
    fast, slow = (mine, torchs) if slow_torch else (torchs, mine)
    # The slow one walks through the same values, later.
    values, seen = _values(fast), _values(slow)
    if not _alike(seen, values, apart) or len(values) < 2 or 2 * len(seen) > len(values) + 1:
        return None
    # It stays as many times as long at each.
    epochs = [steps_per_epoch] if len(seen) == 1 else range(2, len(slow))
    if not any(_alike([fast[i // n] for i in range(len(slow))], slow, apart) for n in epochs):
        return None
    # A rate that never changes may as well be no schedule at all.
    if len(seen) == 1 and len(slow) > steps_per_epoch:
        return None
    who = ("each step", "each epoch") if slow_torch else ("each epoch", "each step")
    every = f" ({steps_per_epoch} steps)" if steps_per_epoch > 1 else ""
    return Cause(
        "schedule-per-epoch",
        f"your side's schedule goes on at {who[0]}, torch's at {who[1]}{every}: at step {step} "
        f"the learning rate is {mine[first]:.6g}, torch's {torchs[first]:.6g}",
        "call both schedulers as often: scheduler_every, or count // steps_per_epoch in a schedule",
    )


def _values(rates: Sequence[float]) -> list[float]:
    """Return the rates that there are, in turn."""
    values = [rates[0]]
    for rate in rates:
        if not same(rate, values[-1]):
            values.append(rate)
    return values


def one_sided(
    mine: Sequence[float], torchs: Sequence[float], first: int, step: int
) -> Cause | None:
    """Return the cause of a learning rate that follows a schedule on one side only."""
    changes = [changes_of(rates) for rates in (mine, torchs)]
    if bool(changes[0]) == bool(changes[1]):
        return None
    steady, moving = (torchs, mine) if changes[0] else (mine, torchs)
    if turns_of(moving) > 1 or min(moving) < 0:
        return None
    who = ("your side's", "torch's") if changes[0] else ("torch's", "your side's")
    return Cause(
        "number",
        f"{who[0]} learning rate follows a schedule, {who[1]} stays at {nice(steady[0]):.6g}: at "
        f"step {step} it is {nice(mine[first]):.6g}, torch's {torchs[first]:.6g}",
        "give both sides the schedule; jp.explain does not follow torch's schedulers",
    )


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
        found = of_schedule(yours, torchs, step, step, steps_per_epoch)
        if found is not None:
            return found
    if any(same(mine, group[step]) for group in other_groups):
        return Cause(
            "group-options",
            f"your side has {name}={mine:.6g} here, as torch has in another group; torch has "
            f"{theirs:.6g} in this one",
            "check which leaves the selectors or labels of the groups take, and in which order a "
            "scheduler's list has the groups",
        )
    moving = [changes_of(numbers) for numbers in (yours, torchs)]
    if name != "lr" and any(moving):
        return _cycled(name, mine, theirs, step, moving)
    found = None
    if (
        name == "lr"
        and all(map(math.isfinite, yours))
        and (changes_of(yours) or changes_of(torchs))
    ):
        found = one_sided(yours, torchs, step, step) or another_schedule(yours, torchs, step, step)
        if found is None and all(len([i for i in at if i <= step]) > 1 for at in moving):
            return Cause(
                "schedule",
                f"your side's learning rate is torch's until step {step - 1}, and then follows "
                f"another schedule: {mine:.6g}, torch's {theirs:.6g}",
                COMPARE,
            )
    return found or number(name, mine, theirs)


def _cycled(
    name: str, mine: float, theirs: float, step: int, moving: Sequence[Sequence[int]]
) -> Cause:
    """Return the cause of a momentum that a scheduler sets, on one side or otherwise."""
    told = f"at step {step} it is {mine:.6g}, torch's {theirs:.6g}"
    if all(moving):
        return Cause(
            "schedule", f"your side's {name} follows another schedule: {told}",
            "give OneCycleLR or CyclicLR torch's arguments: they set it together with the rate",
        )  # fmt: skip
    who = ("torch's", "your side's") if moving[1] else ("your side's", "torch's")
    return Cause(
        "schedule", f"{who[0]} {name} is set by a scheduler, {who[1]} stays as it is: {told}",
        "give both sides the same cycle_momentum: jp.lr_scheduler.OneCycleLR and CyclicLR set it "
        "as torch's do",
    )  # fmt: skip


def another_schedule(
    mine: Sequence[float], torchs: Sequence[float], first: int, step: int
) -> Cause | None:
    """Return the cause of rates that explain your side's steps, and are not torch's.

    Args:
        mine: by step.
        torchs: likewise.
        first: the place in both of the first that differs.
        step: its step.
    """
    if len(mine) <= first + 1 or not all(math.isfinite(r) and r >= 0 for r in mine):
        return None
    if turns_of(mine, EVEN) > 1:
        return None  # rates that only sum up something else jump about
    pairs = list(zip(mine, torchs, strict=True))
    at = next((i for i in range(first, len(pairs)) if not same(*pairs[i], EVEN)), first)
    told = (
        f"at step {step + at - first} your side's learning rate is {nice(mine[at]):.6g}, torch's "
        f"{torchs[at]:.6g}"
    )
    peak = peak_of(torchs)
    ratio = mine[peak] / torchs[peak] if torchs[peak] > 0 else 0.0
    rounding = abs(mine[peak] - torchs[peak]) / 10
    if not same(ratio, 1.0, EVEN) and _alike(mine, [ratio * x for x in torchs], rounding):
        words = f"your side's learning rate is {nice(ratio):.6g} times torch's: {told}"
        return Cause("number", words, "give the schedule torch's learning rate")
    rising = [warm_up_of(rates) for rates in (mine, torchs)]
    if any(rising) and 0 in map(peak_of, (mine, torchs)):
        who = ("torch's", "your side's") if rising[1] else ("your side's", "torch's")
        return Cause(
            "schedule", f"{who[0]} rate begins with a warm-up of {rising[0] or rising[1]} steps, "
            f"{who[1]} with its largest: {told}",
            "give both the same warm-up: jp.lr_scheduler.SequentialLR as torch's, or "
            "optax.warmup_cosine_decay_schedule",
        )  # fmt: skip
    if is_scaled(mine, torchs, first):
        told = f"its steps are {nice(ratio):.6g} times torch's, too (its rate, or the gradients)"
    name, words, remedy = next(differences(mine, torchs, first, rising))
    return Cause(name, f"{words}: {told}", remedy)


def is_scaled(mine: Sequence[float], torchs: Sequence[float], first: int) -> bool:
    """Whether rates that differ from the largest on do so there: lengths do not tell that."""
    return (
        first == peak_of(torchs)
        and torchs[first] > 0
        and not same(mine[first], torchs[first], EVEN)
    )
