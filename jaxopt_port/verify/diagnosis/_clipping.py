"""Explains clipped gradients that are not torch's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from ..report import Cause
from ._arrays import Array, equal
from ._numbers import nice

_REMEDY = "use jp.clip_grad_norm, or jp.clip_by_grad_norm in the chain: torch's formula"


def explain_clipping(
    yours: Mapping[str, Array],
    torchs: Mapping[str, Array],
    before: Mapping[str, Array],
    groups: Mapping[str, int],
) -> Cause | None:
    """Explain clipped gradients that are not torch's.

    Args:
        yours: by path, float64.
        torchs: the same.
        before: the gradients before clipping.
        groups: of torch's optimizer, by path.
    """
    factors = {p: _factor(torchs[p], before[p]) for p in torchs if np.any(before[p])}
    if all(equal(yours[p], before[p]) for p in factors):
        return Cause("clip-missing", "your side does not clip gradients; torch does", _REMEDY)
    total = _norm(before.values())
    factor = next(iter(factors.values()), None)
    if factor is None or None in factors.values():
        return None
    if factor >= 1:
        return Cause("clip-missing", "your side clips gradients; torch does not here", _REMEDY)
    most = factor * (total + 1e-6)
    tries: list[tuple[str, str, Callable[[str], float]]] = [
        ("clip-epsilon", "divides by the norm; torch by the norm + 1e-6", lambda p: total),
        (
            "clip-per-group",
            "clips by the norm of each group; torch by that of all",
            lambda p: _norm(g for q, g in before.items() if groups.get(q) == groups.get(p)) + 1e-6,
        ),
        (
            "clip-per-group",
            "clips each leaf by its own norm; torch by that of all",
            lambda p: _norm([before[p]]) + 1e-6,
        ),
    ]
    for name, words, norm in tries:
        if all(equal(yours[p], before[p] * min(1.0, most / norm(p)), 1e-9) for p in factors):
            return Cause(name, f"your side {words}", _REMEDY)
    if all(equal(yours[p], np.clip(before[p], -most, most), 1e-6) for p in factors):
        return Cause("clip-kind", "your side clips each number; torch the norm", _REMEDY)
    mine = _factor(yours[next(iter(factors))], before[next(iter(factors))])
    if mine and all(equal(yours[p], mine * before[p], 1e-9) for p in factors):
        return Cause(
            "clip-limit",
            f"your side clips to a norm of {nice(mine * (total + 1e-6)):.6g}; torch to "
            f"{nice(most):.6g}",
            "give both the same limit",
        )
    return None


def _norm(arrays: Iterable[Array]) -> float:
    return float(np.sqrt(sum(float(np.vdot(x, x)) for x in arrays)))


def _factor(after: Array, before: Array) -> float | None:
    at = int(np.argmax(np.abs(before)))
    factor = float(after.flat[at] / before.flat[at])
    return factor if equal(after, factor * before, 1e-9) else None
