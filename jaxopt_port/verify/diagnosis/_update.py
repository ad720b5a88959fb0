"""Explains what your optimizer does otherwise than torch's."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np

from ..report import Cause
from ._algorithms import ALGORITHMS
from ._clipping_ways import clipping_ways
from ._numbers import low_precision, narrowed, nice, number, same
from ._other_optimizers import another_optimizer
from ._search import Search
from ._simulation import Hypothesis, Simulation
from ._update_history import UpdateHistory, Wide

# Steps that a cause is sought in, from where a difference begins: many tell more, and in few there
# is no second fault yet.
_LOOK = (12, 5)
_MOST_FAULTS = 4
# A factor of these on a leaf may come of its axes.
_BY_MATRIX = ("Muon", "Adafactor")
# Of a step, what more than this part of is not explained is another difference.
_ANOTHER = 1e-3
Known = list[tuple[dict[str, Any], Cause, Hypothesis]]


def _still(values: Wide, start: Wide) -> bool:
    return bool(np.all(values == start))


def explain_updates(
    history: UpdateHistory, known: Known | None = None
) -> list[tuple[int, Cause | None]]:
    """Explain what your optimizer does otherwise than torch's, on one leaf.

    Args:
        history: of the leaf.
        known: what was found of other leaves, which is tried first in those of the same options;
            what is found here is added.

    Returns:
        Steps and causes, each of which explains all but a thousandth of the difference that begins
        there once those before it are allowed for; None where no cause was found.
    """
    found: list[tuple[int, Cause | None]] = []
    base, now = Hypothesis(), history
    known = [] if known is None else known
    for _ in range(_MOST_FAULTS):
        ends = dict.fromkeys(min(now.first + look, len(now.grads)) for look in _LOOK)
        for dear, end in itertools.product((False, True), ends):
            part = now.until(end)
            cause, hypothesis = _explained(part, base, dear, known)
            if cause is not None:
                break
        found.append((now.first, cause))
        if hypothesis is None or not hypothesis.lasts:
            break
        base = base.then(_whole(hypothesis, part, history))
        following = _next(history, now.first, base)
        if following is None:
            break
        now = following
    return found


def explain_update(history: UpdateHistory) -> Cause | None:
    """Return the first cause that `explain_updates` finds."""
    return explain_updates(history)[0][1]


def _whole(h: Hypothesis, part: UpdateHistory, history: UpdateHistory) -> Hypothesis:
    """Return a hypothesis for all steps: its factors are those of a clipping, or one number."""
    if isinstance(h.factor, (int, float)):
        return h
    own = [*h.factor[: len(part.grads)]]  # of a leaf that differs earlier there may be more
    cause = next((w.cause for w in clipping_ways(part) if w.hypothesis.factor == own), None)
    for way in clipping_ways(history):
        if way.cause == cause:
            return replace(h, factor=way.hypothesis.factor)
    more = len(history.grads) - len(own)
    return replace(h, factor=[*own, *[own[-1]] * more])


def _next(history: UpdateHistory, after: int, base: Hypothesis) -> UpdateHistory | None:
    """Return the history from where what is known no longer explains your side."""
    simulation = Simulation(history)
    made, mine = simulation.run(base), simulation.yours
    moved = [np.diff(x, axis=0) for x in (made, mine)]
    for i in range(max(0, after - simulation.begin), len(mine) - 1):
        gap = float(np.max(np.abs(moved[0][i] - moved[1][i])))
        most = max(float(np.max(np.abs(moved[1][i]))), 1e-9 * float(np.max(np.abs(mine))))
        if gap > _ANOTHER * most:
            begun = history.torchs[: simulation.begin]
            return replace(
                history, torchs=np.concatenate([begun, made]), first=simulation.begin + i + 1
            )
    return None


def _explained(
    history: UpdateHistory, base: Hypothesis, dear: bool, known: Known
) -> tuple[Cause | None, Hypothesis | None]:
    """Return the cause of the first difference, and what it is as a hypothesis.

    Args:
        history: of a leaf.
        base: what is known already.
        dear: whether what takes long is tried, or what does not.
        known: of other leaves.
    """
    if (odd := _not_finite(history) or _passed_on(history)) is not None:
        return odd, None
    frozen = _frozen(history)
    if frozen is not None and not _nearly_ended(history):
        return frozen, None
    if history.optimizer not in ALGORITHMS or not np.all(np.isfinite(history.torchs)):
        return frozen or (_without_simulation(history) if dear else None), None
    simulation = Simulation(history, base)
    if not simulation.agrees:
        return frozen or (_without_simulation(history) if dear else None), None
    group = {k: v for k, v in history.options[0].items() if k != "params"}
    for other, told, hypothesis in known:
        factor = hypothesis.factor
        lasts = isinstance(factor, (int, float)) or len(factor) >= len(history.grads)
        if other == group and lasts and simulation.unexplained(hypothesis) <= simulation.enough:
            return told, hypothesis
    cause = Search(history, simulation).run(dear)
    if cause is None:
        return (frozen if dear else None), None
    own = [h for left, h in simulation.explained if left == cause.unexplained]
    if own and own[-1].lasts:
        known.append((group, cause, own[-1]))
    return cause, own[-1] if own else None


def _nearly_ended(history: UpdateHistory) -> bool:
    """Whether torch's learning rate had all but come to 0, as one side's schedule then may have.

    Or begins again: a schedule without restarts has ended there.
    """
    rates = [float(o.get("lr", 0.0)) for o in history.options[: history.first]]
    if not rates:
        return False
    now = float(history.options[history.first].get("lr", 0.0))
    return not now or rates[-1] <= max(rates) / 10 or (now > rates[-1] < rates[0])


def _frozen(history: UpdateHistory) -> Cause | None:
    """Return the cause of a leaf that one side leaves as it is, from the first difference on."""
    mine, theirs = (
        _still(x[history.first :], (x[history.first - 1] if history.first else history.start))
        for x in (history.yours, history.torchs)
    )
    if mine == theirs:
        return None
    who = ("your side does not train this leaf", "torch does")
    if theirs:
        who = ("your side trains this leaf", "torch does not")
    frozen = Cause(
        "frozen-leaf", f"{who[0]}; {who[1]}",
        "check requires_grad and the groups of torch's optimizer, and the selectors, masks or "
        "labels of yours",
    )  # fmt: skip
    if not mine or not history.first or "lr" not in history.options[history.first]:
        return frozen
    rate = number("lr", 0.0, float(history.options[history.first]["lr"]))
    return replace(
        rate, message=f"{rate.message}; or {who[0]} from here on: these cannot be told apart here",
        also=(frozen,),
    )  # fmt: skip


def _not_finite(history: UpdateHistory) -> Cause | None:
    """Return the cause of a step that makes NaN of finite numbers."""
    step = history.first
    given = (history.grads[step], history.torchs[step], history.yours[step - 1] if step else 0.0)
    if np.all(np.isfinite(history.yours[step])) or not all(np.all(np.isfinite(x)) for x in given):
        return None
    return Cause(
        "not-finite",
        "your step makes NaN or infinity of finite gradients, where torch's is finite",
        "look at the number that the schedule returns there, under jit (a power of a negative "
        "number, 0/0), and at roots and quotients of 0 in what is chained",
    )


def _passed_on(history: UpdateHistory) -> Cause | None:
    """Return the cause of a leaf to which its gradient is added as it is."""
    moved = history.moves(history.yours)[history.first :]
    grads = history.grads[history.first :]
    largest = float(np.max(np.abs(history.yours)))
    gap = float(np.max(np.abs(moved - grads)))
    if not grads.any() or not gap <= 1e-6 * float(np.max(np.abs(grads))) + 1e-15 * largest:
        return None
    passed = Cause(
        "passed-on",
        "your side adds the gradient to the parameter as it is: what optax.masked leaves out is "
        "passed on, not frozen",
        'use optax.multi_transform with optax.set_to_zero(), or {"params": …, "frozen": True}',
    )
    theirs = history.moves(history.torchs)[history.first :]
    if np.max(np.abs(theirs + grads)) > 1e-6 * float(np.max(np.abs(grads))) + 1e-15 * largest:
        return passed
    # At a rate of 1 without momentum, torch's step with its sign turned is the same.
    return Cause(
        "sign", f"your side goes up the gradient; torch down; or {passed.message}: these cannot be "
        "told apart here",
        f"give maximize the same value on both sides; or {passed.remedy}", 0.0, (passed,),
    )  # fmt: skip


def _without_simulation(history: UpdateHistory) -> Cause | None:
    """Explain by the steps alone: those of an algorithm that is not simulated."""
    before = (history.yours[history.first - 1], history.torchs[history.first - 1])
    if history.first == 0:
        before = (history.start, history.start)
    mine, theirs = (
        side[history.first] - old
        for side, old in zip((history.yours, history.torchs), before, strict=True)
    )
    square = float(np.dot(theirs, theirs))
    if history.hooked or not square or not np.all(np.isfinite(mine)):
        return None
    if not mine.any():
        if history.first or _still(history.yours, history.start):
            return None
        return Cause(
            "first-step",
            "your side takes no step at first, and then goes on; torch's optimizer steps at once",
            "use jp.rprop for optax.rprop, which waits for a second gradient; take out what else "
            "holds a first step back",
        )
    ratio = float(np.dot(mine, theirs)) / square
    if float(np.max(np.abs(mine - ratio * theirs))) > 1e-6 * float(np.max(np.abs(mine))):
        return another_optimizer(history) if not history.first else None
    if same(ratio, 1.0, 1e-5):
        return None
    lr = float(history.options[history.first].get("lr", 0.0))
    if not lr:
        return Cause(
            "number", f"your side's steps are {nice(ratio):.6g} times torch's",
            "give the optimizer the learning rate that torch's steps are made with",
        )  # fmt: skip
    if history.optimizer in _BY_MATRIX and float(f"{ratio:.3g}") != nice(ratio):
        return None  # the root of a quotient of axes, more likely: another layout
    if dtype := narrowed(ratio * lr, lr):
        return low_precision("lr", dtype, ratio * lr, lr)
    return number("lr", ratio * lr, lr)
