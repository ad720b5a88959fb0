"""What the figures of the HTML report show: curves, and maps of leaves by steps, made to fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..compare._report import STAGES, Curves, LeafResult, Report, StageResult
from ._wording import by_severity

# More cells than that are neither seen nor drawn in a moment.
MOST_COLUMNS = 400
MOST_LEAVES = 200
MOST_POINTS = 10_000

# JSON has no infinity, and units in the last place are never negative.
_INFINITE = -1


def figures(report: Report) -> dict[str, Any]:
    """Return what `_page.js` draws, as JSON values."""
    first = report.first
    return {
        "curves": _curves(report.curves),
        "maps": {
            name: _map(stage)
            for name in STAGES
            if (stage := report.stages.get(name)) and any(leaf.ulps for leaf in stage.leaves)
        },
        "first": None if first is None else {"step": first.step, "stage": first.stage},
    }


def thinned_curves(curves: Curves) -> int:
    """Return of how many steps one is drawn."""
    longest = max(
        map(len, [curves.loss_torch, curves.loss_yours, *curves.lr_torch, *curves.lr_yours])
    )
    return max(1, math.ceil(longest / MOST_POINTS))


def _curves(curves: Curves) -> dict[str, Any]:
    every = thinned_curves(curves)

    def points(values: Sequence[float]) -> list[float | None]:
        return [value if math.isfinite(value) else None for value in values[::every]]

    return {
        "every": every,
        "loss": [{"torch": points(curves.loss_torch), "yours": points(curves.loss_yours)}],
        "lr": [
            {
                "torch": points(torch),
                "yours": points(curves.lr_yours[group]) if group < len(curves.lr_yours) else [],
            }
            for group, torch in enumerate(curves.lr_torch)
        ],
    }


def _map(stage: StageResult) -> dict[str, Any]:
    leaves = by_severity([leaf for leaf in stage.leaves if leaf.ulps])[:MOST_LEAVES]
    steps = sorted({step for leaf in leaves for step in leaf.ulps})
    width = math.ceil(len(steps) / MOST_COLUMNS)
    columns = [steps[i : i + width] for i in range(0, len(steps), width)]
    return {
        "leaves": [leaf.leaf for leaf in leaves],
        "differs": [not leaf.ok for leaf in leaves],
        "columns": [_label(column) for column in columns],
        "ends": [column[-1] for column in columns],
        "ulps": [[_cell(leaf, column) for column in columns] for leaf in leaves],
        "caption": _caption(stage, len(leaves), width),
    }


def _label(column: list[int]) -> str:
    return str(column[0]) if len(column) == 1 else f"{column[0]}–{column[-1]}"


def _cell(leaf: LeafResult, column: list[int]) -> float | None:
    """Return the largest of these steps, None where none of them was compared."""
    values = [leaf.ulps[step] for step in column if step in leaf.ulps]
    if not values:
        return None
    if not all(map(math.isfinite, values)):
        return _INFINITE
    return float(f"{max(values):.3g}")


def _caption(stage: StageResult, shown: int, width: int) -> str:
    said = []
    if shown < len(stage.leaves):
        said.append(f"The worst {shown} of {len(stage.leaves)} leaves, the worst first.")
    if width > 1:
        said.append(f"Each column is the largest of {width} compared steps.")
    return " ".join(said)
