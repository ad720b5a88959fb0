"""Explains a loss that is not torch's, of the same output."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..report import Cause
from ._arrays import Array, equal, softmax
from ._loss_gradients import explain_by_gradient
from ._loss_terms import explain_beside_cross_entropy, explain_by_outputs
from ._numbers import SAME, narrow_number, nice, same

_PARALLEL = 1e-5


def explain_loss(
    yours: float,
    torchs: float,
    outputs: Sequence[Array],
    batch: Sequence[Array],
    params: Mapping[str, Array],
    as_written: float | None = None,
    gradients: tuple[Sequence[Array], Sequence[Array]] | None = None,
) -> Cause | None:
    """Explain a loss that is not torch's.

    Args:
        yours: of torch's output, in float64.
        torchs: the same.
        outputs: torch's, in float64.
        batch: its arrays.
        params: by path.
        as_written: yours, with what it keeps in fewer bits left so.
        gradients: of yours and of torch's loss in the outputs, where both are to be had.
    """
    if not (math.isfinite(yours) and math.isfinite(torchs)):
        return _not_finite(yours, torchs)
    ratio = yours / torchs if torchs else 0.0
    # No float64 result has so few bits by chance; the rounding of the terms is seen in the sum.
    rounded = yours if as_written is None else as_written
    dtype = narrow_number(rounded)
    if dtype and torchs and same(rounded / torchs, 1.0, 0.1) and not narrow_number(torchs):
        return Cause(
            "low-precision", f"your loss is calculated in {dtype}: {rounded:.9g}, torch's "
            f"{torchs:.9g}",
            "cast the output to float32 before the loss",
        )  # fmt: skip
    if gradients is not None:
        for output, mine, theirs in zip(outputs, *gradients, strict=True):
            if found := explain_by_gradient(output, mine, theirs, batch):
                return found
        if not all(map(_is_multiple, *gradients)):  # no factor, and no term beside the output
            each = zip(outputs, *gradients, strict=True)
            terms = (explain_beside_cross_entropy(*one, batch) for one in each)
            return next(filter(None, terms), None)
        if found := explain_by_outputs(*gradients):
            return found
        if all(equal(*pair, SAME) for pair in zip(*gradients, strict=True)):
            return Cause(
                "additional-term",
                f"your loss is torch's plus {yours - torchs:.6g}, which is a constant in this "
                "batch: their gradients are the same in it",
                "a constant may stay; a limit (a clamp, a clipped ratio, a margin) that was passed "
                "on both sides is to be torch's",
            )
    torchs_gradient = None if gradients is None else gradients[1][0]
    found = _of_ignored(ratio, outputs[0], batch, torchs_gradient)
    if found := found or _of_size(ratio, outputs[0], batch):
        return found
    if gradients is None and (found := _smoothing(yours, torchs, outputs[0], batch)):
        return found
    if same(ratio, -1.0):
        return Cause("sign", "your loss is torch's with the sign turned", "minimize the same loss")
    found = _penalty(yours - torchs, params)
    if found is not None:
        return found
    short = nice(ratio)
    if ratio and float(f"{short:.4g}") == short != 1.0:
        return Cause(
            "loss-scale", f"your loss is {short:.6g} times torch's",
            _without_factor(short, outputs[0], batch),
        )  # fmt: skip
    return None


def _without_factor(factor: float, output: Array, batch: Sequence[Array]) -> str:
    half = factor == 0.5 and any(x.shape == output.shape for x in batch)
    more = "; optax.l2_loss has one of 1/2 that torch's mse_loss has not"
    return f"leave the factor out{more * half}"


def _is_multiple(mine: Array, theirs: Array) -> bool:
    """Whether a gradient is torch's but for a factor."""
    square = float(np.vdot(theirs, theirs))
    if not square:
        return not np.any(mine)
    gap = mine - float(np.vdot(mine, theirs)) / square * theirs
    return bool(np.abs(gap).max() <= _PARALLEL * np.abs(mine).max())


def _not_finite(yours: float, torchs: float) -> Cause | None:
    if math.isfinite(yours) == math.isfinite(torchs):
        return None
    who = ("your loss", yours, "torch's", torchs)
    if math.isfinite(yours):
        who = ("torch's loss", torchs, "yours", yours)
    return Cause(
        "not-finite",
        f"{who[0]} is {who[1]} of an output of which {who[2]} is {who[3]:.6g}",
        "look for the logarithm of a probability that is 0, a label that is out of range or meant "
        "to be left out, and a mean over nothing",
    )


def _of_size(ratio: float, output: Array, batch: Sequence[Array]) -> Cause | None:
    """Explain a sum for a mean, over all or over some axes; or a factor that is as large."""
    n, last = len(output) if output.ndim else 1, output.shape[-1] if output.ndim > 1 else 1
    known = {
        "all elements of the output": output.size,
        "the examples of the batch": n,
        "all positions": output.size // last if output.ndim > 2 else 1,
        "all positions but the last": _without_last(output),
        "what is in each example": output.size // n if output.ndim > 1 else 1,
        "the last axis": last,
        "the axes between the first and the last": output.size // n // last,
    }
    sizes = {
        what: size
        for what, size in known.items()
        if size > 1 and (same(ratio, size) or same(ratio, 1 / size))
    }
    if not sizes:
        return None
    more, less = ("sum", "mean") if ratio > 1 else ("mean", "sum")
    size, short = next(iter(sizes.values())), nice(ratio)
    factor, without = "", ""
    if short == 2 or (short < 1 and float(f"{short:.2g}") == short):
        factor = f"; or a factor of {short:g} in your loss, or of {1 / short:g} in torch's"
        without = f"; or {_without_factor(short, output, batch)}"
    return Cause(
        "loss-scale",
        f"your loss is {short:.6g} times torch's: a {more} over {' or '.join(sizes)} "
        f"({size}), where torch takes the {less}{factor}",
        f"take the {less} over {' or '.join(sizes)}, as torch's loss does{without}",
    )


def _of_ignored(
    ratio: float, output: Array, batch: Sequence[Array], gradient: Array | None
) -> Cause | None:
    """Explain a mean over all labels, where torch's is over those that are not to be ignored."""
    size = output.size // output.shape[-1] if output.ndim > 1 else 0
    for labels in batch:
        if labels.size != size or not np.issubdtype(labels.dtype, np.integer):
            continue
        counted = int((labels >= 0).sum())
        if counted == size and gradient is not None:  # whatever label it is that is ignored
            counted = int(gradient.reshape(size, -1).any(-1).sum())
        for total in (size, _without_last(output)):
            if 0 < counted < total and same(ratio, counted / total):
                return Cause(
                    "loss-scale",
                    f"your loss is {nice(ratio):.6g} times torch's: a mean over all {total} "
                    f"labels, where torch takes it over the {counted} that are not to be ignored",
                    "divide the sum by the number of labels that count, in each batch",
                )
    return None


def _without_last(output: Array) -> int:
    """Return how many positions have a next token: all but each sequence's last one."""
    places = output.shape[:-1]
    return math.prod((*places[:-1], places[-1] - 1)) if len(places) > 1 else 0


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
    logs = flat - softmax(flat)[1][:, None]
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
