"""What the loop around the optimizer does otherwise: accumulation, running averages."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..report import Cause

_ENOUGH = 1e-3


def step_too_early(batches: int, step: int) -> Cause:
    """Return the cause of a step that torch has not taken yet, the first of its window."""
    mine = step % batches + 1
    own = "each batch" if mine == 1 else f"{mine} batches"
    return Cause(
        "accumulation",
        f"your side takes a step after {own}; torch adds up the gradients of {batches}",
        f"wrap the optimizer: optax.MultiSteps(tx, {batches}) of the mean, or "
        f"jp.accumulate_grads(tx, {batches}) of the sum",
    )


def explain_averages(
    yours: NDArray[Any], torchs: NDArray[Any], params: NDArray[Any], before: NDArray[Any] | None
) -> Cause | None:
    """Find the share that each side keeps of its average.

    Args:
        yours: your average after a step.
        torchs: torch's.
        params: the parameters after it.
        before: the average before it, on both sides; None at the first step.
    """
    if before is None:
        return None
    way = before - params
    size = float(np.sum(way * way))
    if size == 0.0:
        return None
    kept = [float(np.sum((x - params) * way)) / size for x in (yours, torchs)]
    left = float(np.max(np.abs(params + kept[0] * way - yours)))
    if left > _ENOUGH * float(np.max(np.abs(yours - torchs))):
        return None
    return Cause(
        "average-decay",
        f"your average keeps {kept[0]:.6g} of what it was, torch's {kept[1]:.6g}",
        "give both averages one function and decay (jp.swa_utils.get_ema_multi_avg_fn), and "
        "update both once after each step of the optimizer",
    )
