"""Explains a loss whose terms have other weights than torch's."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from ..report import Cause
from ._arrays import Array
from ._loss_rows import rows_of
from ._numbers import nice, same
from ._regression_losses import fit_of

_LARGEST_PART = 100
_REMEDY = "give each term torch's weight and reduction (a sum, a mean, by which size)"


def explain_by_outputs(mine: Sequence[Array], theirs: Sequence[Array]) -> Cause | None:
    """Explain gradients that are multiples of torch's, of each output another.

    A single number always is a multiple, and an array is one too where a learned scale stands
    beside it in another way: what is written into a loss is short.
    """
    ratios: dict[float, list[int]] = {}
    odd: list[int] = []
    for i, (own, other) in enumerate(zip(mine, theirs, strict=True)):
        square = float(np.vdot(other, other))
        if not square:
            continue
        ratio = float(np.vdot(own, other)) / square
        if _is_weight(ratio):
            known = next((r for r in ratios if same(r, ratio)), ratio)
            ratios.setdefault(known, []).append(i)
        elif other.size > 1:
            return None
        else:
            odd.append(i)
    parts = []
    for ratio, places in sorted(ratios.items(), key=lambda item: item[1]):
        words = "as" if same(ratio, 1.0) else f"{nice(ratio):.6g} times"
        parts.append(f"of {_outputs(places)} {words} torch's")
    if len(parts) < 2 and odd:
        parts.append(f"of {_outputs(odd)}, one number each, otherwise than torch's")
    if len(parts) < 2:
        return None
    return Cause("loss-terms", f"your loss has the terms {', '.join(parts)}", _REMEDY)


def _outputs(places: Sequence[int]) -> str:
    return f"output{'s' * (len(places) > 1)} {', '.join(map(str, places))}"


def _is_weight(ratio: float) -> bool:
    """Whether a ratio is one of short numbers: of weights, or of sizes."""
    short = (float(f"{x:.4g}") == x for x in map(nice, (ratio, 1 / ratio if ratio else 0.0)))
    return any(short) or same(ratio, float(Fraction(ratio).limit_denominator(_LARGEST_PART)))


def explain_beside_cross_entropy(
    output: Array, mine: Array, theirs: Array, batch: Sequence[Array]
) -> Cause | None:
    """Explain a sum of a cross entropy and of another term that torch weighs otherwise."""
    for rows in rows_of(output, mine, theirs, batch):
        valid, hot = rows.of_both()
        if hot is None or not valid.all():
            continue
        entropy = (rows.chances - hot) / len(hot)
        if fit_of(rows.theirs, [entropy]) is not None:
            continue
        fit = fit_of(rows.mine, [rows.theirs, entropy])
        if fit is None or not fit[1]:
            continue
        if abs(fit[0]) < 1e-9 * abs(fit[1]):
            return Cause(
                "loss-terms",
                f"your loss is {nice(fit[1]):.6g} times the mean cross entropy of the labels, and "
                "nothing else of torch's",
                "add what torch's loss has besides",
            )
        return Cause(
            "loss-terms",
            f"your loss is {nice(fit[0]):.6g} times torch's, and {nice(fit[1]):.6g} times the "
            "mean cross entropy of the labels besides: its terms have other weights",
            f"{_REMEDY}; a distillation's is multiplied by the square of its temperature",
        )
    return None
