"""Tries several hypotheses at once: those first whose effects add up to the difference."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from ..report import Cause
from ._simulation import Hypothesis, Part, Simulation
from ._update_history import Wide

_MOST, _TRIES = 3, 16


def several(simulation: Simulation, parts: Sequence[Part]) -> Cause | None:
    """Return the cause that is two of these, or three."""
    torchs = simulation.run(Hypothesis())
    apart = np.abs(simulation.yours - torchs).max(axis=1, keepdims=True, initial=0.0)
    weights = 1 / np.where(apart > 0, apart, max(float(apart.max()), 1e-300))
    alone = {i: simulation.run(part.hypothesis) for i, part in enumerate(parts)}
    alone = {i: made for i, made in alone.items() if np.all(np.isfinite(made))}
    effects = {i: weights * (made - torchs) for i, made in alone.items()}
    runs: dict[tuple[int, ...], Wide] = {(i,): made for i, made in alone.items()}
    for _ in range(2, _MOST + 1):
        tried: dict[tuple[int, ...], Wide] = {}
        found: list[tuple[float, tuple[int, ...]]] = []
        for held in _likeliest(parts, runs, effects, weights, simulation.yours):
            hypothesis = functools.reduce(Hypothesis.then, (parts[i].hypothesis for i in held))
            left = simulation.unexplained(hypothesis)
            if left <= simulation.enough:
                found.append((left, held))
            tried[held] = simulation.run(hypothesis)
        if found:
            left, held = min(found)
            return both_of([parts[i].cause for i in held], left)
        runs = tried
    return None


def _likeliest(
    parts: Sequence[Part],
    runs: dict[tuple[int, ...], Wide],
    effects: dict[int, Wide],
    weights: Wide,
    yours: Wide,
) -> list[tuple[int, ...]]:
    """Return what comes nearest to your side where one more effect is added, the nearest first.

    As it is, or as a part or a multiple: of clipped gradients another momentum does less.
    """
    nearest: tuple[dict[tuple[int, ...], float], ...] = ({}, {})
    for held, made in runs.items():
        gap = weights * (yours - made)
        for i, effect in effects.items():
            square = float(np.vdot(effect, effect))
            if not square or any(parts[i].changes & parts[k].changes for k in held):
                continue
            key = tuple(sorted((*held, i)))
            part = float(np.vdot(gap, effect)) / square
            for kept, share in zip(nearest, (1.0, part), strict=True):
                left = float(np.abs(gap - share * effect).max())
                kept[key] = min(left, kept.get(key, math.inf))
    found = (k for kept in nearest for k in sorted(kept, key=kept.__getitem__)[:_TRIES])
    return list(dict.fromkeys(found))


def both_of(causes: Sequence[Cause], left: float) -> Cause:
    """Return the cause that is all of these."""
    return Cause(
        causes[0].name,
        "; and ".join(cause.message for cause in causes),
        "; ".join(dict.fromkeys(cause.remedy for cause in causes)),
        left,
        tuple(causes[1:]),
    )
