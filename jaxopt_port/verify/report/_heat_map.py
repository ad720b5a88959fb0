"""Units in the last place, leaf by step, in as few cells as a screen can show."""

from __future__ import annotations

import math
from typing import Any

from ..compare._report import LeafResult, StageResult
from ._wording import by_severity

MOST_LEAVES = 200
MOST_COLUMNS = 400
# JSON has no infinity; no distance is negative.
INFINITE = -1


def heat_map(stage: StageResult) -> dict[str, Any]:
    """Return what the page draws of a stage: the worst leaves first, by step.

    Args:
        stage: with leaves that were compared at one step or more.

    Returns:
        ``leaves`` and ``torch_names`` (rows), ``columns`` (labels), ``cells`` (rows of units in the
        last place; None where not compared, `INFINITE` for infinite or NaN), ``note`` (what was
        left out or merged, or "").
    """
    leaves = by_severity(stage.leaves)[:MOST_LEAVES]
    steps = sorted({step for leaf in stage.leaves for step in leaf.ulps})
    width = max(1, math.ceil(len(steps) / MOST_COLUMNS))
    bins = [steps[start : start + width] for start in range(0, len(steps), width)]
    notes = []
    if len(leaves) < len(stage.leaves):
        notes.append(f"The worst {len(leaves)} of {len(stage.leaves)} leaves are shown.")
    if width > 1:
        notes.append(f"A column is the largest of up to {width} compared steps.")
    return {
        "leaves": [leaf.leaf for leaf in leaves],
        "torch_names": [leaf.torch_name for leaf in leaves],
        "columns": [_label(members) for members in bins],
        "cells": [[_cell(leaf, members) for members in bins] for leaf in leaves],
        "note": " ".join(notes),
    }


def _label(members: list[int]) -> str:
    first, last = members[0], members[-1]
    return str(first) if first == last else f"{first}–{last}"


def _cell(leaf: LeafResult, members: list[int]) -> float | None:
    found = [leaf.ulps[step] for step in members if step in leaf.ulps]
    if not found:
        return None
    if not all(map(math.isfinite, found)):
        return INFINITE
    # Three digits are enough for a colour and a tooltip, and keep the page small.
    return float(f"{max(found):.3g}")
