"""Explains a loss that is not torch's, of the same output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..compare._report import Cause
from ._arrays import Array
from ._numbers import narrow_number, nice, same


def explain_loss(
    yours: float,
    torchs: float,
    outputs: Sequence[Array],
    batch: Sequence[Array],
    params: Mapping[str, Array],
) -> Cause | None:
    """Explain a loss that is not torch's.

    Args:
        yours: of torch's output, in float64.
        torchs: the same.
        outputs: torch's, in float64.
        batch: its arrays.
        params: by path.
    """
    ratio = yours / torchs if torchs else 0.0
    # No float64 result has so few bits by chance; the rounding of the terms is seen in the sum.
    dtype = narrow_number(yours)
    if dtype and same(ratio, 1.0, 0.1) and not narrow_number(torchs):
        return Cause(
            "low-precision", f"your loss is calculated in {dtype}: {yours:.9g}, torch's "
            f"{torchs:.9g}",
            "cast the output to float32 before the loss",
        )  # fmt: skip
    output = outputs[0]
    sizes = {
        "examples": len(output) if output.ndim else 1,
        "elements": output.size,
        "positions": int(np.prod(output.shape[:-1])) if output.ndim > 2 else 1,
        "features": output.shape[-1] if output.ndim > 1 else 1,
    }
    for what, size in sizes.items():
        if size > 1 and (same(ratio, size) or same(ratio, 1 / size)):
            more = "sum" if ratio > 1 else "mean"
            return Cause(
                "loss-scale",
                f"your loss is {nice(ratio):.6g} times torch's: a {more} over {size} {what}, where "
                f"torch takes the {'mean' if more == 'sum' else 'sum'}",
                "reduce the loss as torch's reduction= does",
            )
    found = _smoothing(yours, torchs, output, batch)
    if found is not None:
        return found
    if same(ratio, 0.5) or same(ratio, 2.0) or same(ratio, -1.0):
        return Cause(
            "loss-scale", f"your loss is {nice(ratio):.6g} times torch's",
            "optax.l2_loss has a factor of 1/2 that torch's mse_loss has not",
        )  # fmt: skip
    return _penalty(yours - torchs, params) or _any_factor(ratio, sizes)


def _any_factor(ratio: float, sizes: Mapping[str, int]) -> Cause | None:
    """Take part of a batch counted in the mean: padding, ignored labels."""
    for what in ("examples", "positions", "elements"):
        size = sizes[what]
        counted = [
            size / n for n in range(1, size) if same(ratio, size / n) or same(ratio, n / size)
        ]
        if size > 1 and counted:
            return Cause(
                "loss-scale",
                f"your loss is {ratio:.6g} times torch's: the mean is over {size} {what} on one "
                f"side and over {round(size / counted[0])} on the other, without ignored ones",
                "divide by the number of labels that count, as ignore_index does",
            )
    return None


def _smoothing(yours: float, torchs: float, logits: Array, batch: Sequence[Array]) -> Cause | None:
    shape = logits.shape[:-1]
    labels = [x for x in batch if x.shape == shape and np.issubdtype(x.dtype, np.integer)]
    if logits.ndim < 2 or not labels:
        return None
    classes = logits.shape[-1]
    flat, taken = logits.reshape(-1, classes), labels[-1].reshape(-1)
    counts = (taken >= 0) & (taken < classes)
    if not counts.any():
        return None
    shifted = flat - flat.max(-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    hard = -logs[np.arange(len(taken)), np.where(counts, taken, 0)][counts].mean()
    uniform = -logs.mean(-1)[counts].mean()
    if uniform == hard:
        return None
    mine, theirs = ((loss - hard) / (uniform - hard) for loss in (yours, torchs))
    smooth = [nice(x) if abs(x) > 1e-9 else 0.0 for x in (mine, theirs)]
    if same(smooth[0], smooth[1]) or not all(0 <= s < 1 for s in smooth):
        return None
    if any(s and float(f"{s:.2g}") != s for s in smooth):
        return None
    return Cause(
        "label-smoothing",
        f"your cross entropy has label smoothing {smooth[0]:g}; torch's has {smooth[1]:g}",
        "optax.smooth_labels(labels, alpha) with torch's label_smoothing as alpha",
    )


def _penalty(more: float, params: Mapping[str, Array]) -> Cause | None:
    """Look for a penalty on squares: of all parameters, or of kernels only."""
    sets = {
        "parameters": list(params.values()),
        "kernels": [p for p in params.values() if p.ndim > 1],
    }
    for what, leaves in sets.items():
        squares = sum(float(np.vdot(p, p)) for p in leaves)
        if not squares:
            continue
        for half in (1.0, 0.5):
            factor = nice(more / (half * squares))
            if factor and float(f"{factor:.2g}") == factor:
                return Cause(
                    "regularized-loss",
                    f"your loss has {factor * half:g} times the sum of squares of the {what} "
                    "besides",
                    "take it out, or give torch's side the same; it is not AdamW's weight decay",
                )
    return None
