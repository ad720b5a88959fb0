"""Names a learning rate that goes another way than torch's, step by step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from ..report import Cause
from ._numbers import NARROW, SAME, low_precision, narrowed, nice, number, same
from ._schedule_shapes import (
    EVEN,
    changes_of,
    cosine_of,
    decay_of,
    falling_of,
    peak_of,
    period_of,
    slope_of,
    warm_up_of,
)

_COMPARE = "print both by step; compare length, warm-up, start, boundaries and the values there"
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
    values = [fast[0]]
    for rate in fast:
        if not same(rate, values[-1]):
            values.append(rate)
    seen = [slow[0]]
    for rate in slow:
        if not same(rate, seen[-1]):
            seen.append(rate)
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


def one_sided(
    mine: Sequence[float], torchs: Sequence[float], first: int, step: int
) -> Cause | None:
    """Return the cause of a learning rate that follows a schedule on one side only."""
    changes = [changes_of(rates) for rates in (mine, torchs)]
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
                _COMPARE,
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
    rises = [b > a for a, b in itertools.pairwise(mine) if not same(a, b, EVEN)]
    if sum(a != b for a, b in itertools.pairwise(rises)) > 1:
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
        return Cause(
            "number", f"your side's learning rate is {nice(ratio):.6g} times torch's: {told}",
            "give the schedule torch's learning rate",
        )  # fmt: skip
    rising = [warm_up_of(rates) for rates in (mine, torchs)]
    if any(rising) and 0 in map(peak_of, (mine, torchs)):
        steps = rising[0] or rising[1]
        who = ("torch's", "your side's") if rising[1] else ("your side's", "torch's")
        return Cause(
            "schedule", f"{who[0]} rate begins with a warm-up of {steps} steps, {who[1]} with its "
            f"largest: {told}",
            "give both the same warm-up: jp.lr_scheduler.SequentialLR as torch's, or "
            "optax.warmup_cosine_decay_schedule",
        )  # fmt: skip
    if is_scaled(mine, torchs, first):
        told = f"its steps are {nice(ratio):.6g} times torch's, too (its rate, or the gradients)"
    if all(rising) and rising[0] != rising[1]:
        return Cause(
            "schedule-length",
            f"your side's warm-up is {rising[0]} steps long, torch's {rising[1]}: {told}",
            "give both the same steps of warm-up, counted from 0",
        )
    if all(rising) and not same(mine[0], torchs[0], EVEN):
        return Cause(
            "schedule",
            f"your side's warm-up starts at {nice(mine[0]):.4g}, torch's at {torchs[0]:.4g}: "
            f"{told}",
            "give init_value torch's start_factor times the rate",
        )
    cosines = [cosine_of(falling_of(rates)) for rates in (mine, torchs)]
    lengths, ends = ([part[i] for part in cosines if part] for i in (0, 1))
    both = len(lengths) == 2
    if both and lengths[0] != lengths[1]:
        return Cause(
            "schedule-length",
            f"your side's cosine is {lengths[0]} steps long, torch's {lengths[1]}: {told}",
            "give decay_steps torch's T_max; a warm-up is part of Optax's decay_steps, and of "
            "torch's T_max it is not",
        )  # fmt: skip
    if both and abs(ends[0] - ends[1]) > 1e-3 * torchs[peak]:
        return Cause(
            "schedule",
            f"your side's cosine ends at {ends[0]:.3g}, torch's at {ends[1]:.3g}: {told}",
            "give alpha (or end_value) torch's eta_min: alpha is a part of the rate, end_value is "
            "one",
        )
    if both and first - peak > lengths[0]:
        who = ("torch's", "your side's") if torchs[first] > mine[first] else ("yours", "torch's")
        return Cause(
            "schedule",
            f"after its {lengths[0]} steps {who[0]} goes up again as a cosine does, {who[1]} stays "
            f"where it ended: {told}",
            "step torch's scheduler T_max times at most; or give your side "
            "jp.lr_scheduler.CosineAnnealingLR, which goes on as torch's",
        )
    slope, torchs_slope = slope_of(mine), slope_of(torchs)
    if slope and torchs_slope and not same(slope, torchs_slope, EVEN):
        return Cause(
            "schedule-length",
            f"your side's rate changes by {nice(slope):.4g} a step, torch's by "
            f"{nice(torchs_slope):.4g}: {told}",
            "give transition_steps torch's total_iters, and both the same ends",
        )  # fmt: skip
    decay, torchs_decay = decay_of(mine), decay_of(torchs)
    if decay and torchs_decay and not same(decay, torchs_decay, EVEN):
        return Cause(
            "schedule", f"your side's rate is multiplied by {nice(decay):.6g} a step, torch's by "
            f"{nice(torchs_decay):.6g}: {told}",
            "give both the same factor, and the same steps between two of it",
        )  # fmt: skip
    stairs = [changes_of(rates) for rates in (mine, torchs)]
    if all(0 < 3 * len(at) <= len(mine) for at in stairs):
        if stairs[0] == stairs[1]:
            at = next((i for i in stairs[0] if not same(mine[i], torchs[i], EVEN)), first)
            by = [nice(x[at] / x[at - 1]) if x[at - 1] else 0.0 for x in (mine, torchs)]
            return Cause(
                "schedule",
                f"at step {at} your side's rate is multiplied by {by[0]:.6g}, torch's by "
                f"{by[1]:.6g}: {told}",
                "give both the same factors: optax.piecewise_constant_schedule multiplies by one "
                "after the other, and takes no rates",
            )
        every = [period_of(at) for at in stairs]
        if all(every):
            return Cause(
                "schedule-length",
                f"your side's rate changes every {every[0]} steps, torch's every {every[1]}: "
                f"{told}",
                "give transition_steps torch's step_size",
            )
        shown = [", ".join(map(str, at[:6])) + (", …" if at[6:] else "") for at in stairs]
        return Cause(
            "schedule",
            f"your side's rate changes at step {shown[0]}, torch's at {shown[1]}: {told}",
            "give both the same boundaries: torch's milestones, or each multiple of step_size",
        )
    return Cause(
        "schedule", f"your side's learning rate follows another schedule: {told}",
        _COMPARE,
    )  # fmt: skip


def is_scaled(mine: Sequence[float], torchs: Sequence[float], first: int) -> bool:
    """Whether rates that differ from the largest on do so there: lengths do not tell that."""
    return (
        first == peak_of(torchs)
        and torchs[first] > 0
        and not same(mine[first], torchs[first], EVEN)
    )
