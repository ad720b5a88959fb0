"""Explains a loss that takes a target of each number of the output, by its gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..report import Cause
from ._arrays import Array, softmax
from ._numbers import SAME, nice, same


def explain_regression(output: Array, target: Array, yours: Array, torchs: Array) -> Cause | None:
    apart = output - target
    names = [_kind(apart, output, target, side) for side in (yours, torchs)]
    if names[0] is None or names[1] is None or names[0] == names[1]:
        return None
    if any(name is not None and name.startswith("Huber's") for name in names):
        most = f" (or Huber's with a delta beyond {np.abs(apart).max():.3g}, the largest error)"
        names = [name and name + most * (name == _SQUARED) for name in names]
    return Cause(
        "loss-kind", f"your loss is {names[0]}; torch's is {names[1]}",
        "take the same loss, and the same numbers of it, on both sides",
    )  # fmt: skip


_SQUARED = "the squared error"


def _kind(apart: Array, output: Array, target: Array, gradient: Array) -> str | None:
    """Return the loss whose gradient this is."""
    known = {
        _SQUARED: apart,
        "the absolute error": np.sign(apart),
        "the logarithm of the hyperbolic cosine": np.tanh(apart),
    }
    if output.min() > 0:
        known["Poisson's of rates"] = apart / output
        if output.max() < 1:
            known["the binary cross entropy of probabilities"] = apart / (output * (1 - output))
    if target.min() >= 0:
        known |= _of_counts(output, target)
        chance = _sigmoid(output)
        known["the squared error of a sigmoid"] = chance * (1 - chance) * (chance - target)
    if np.all(np.abs(target) == 1):
        known |= _of_signs(output, target)
    for name, part in known.items():
        square = float(np.vdot(part, part))
        ratio = float(np.vdot(gradient, part)) / square if square else 0.0
        if ratio and np.abs(gradient - ratio * part).max() <= SAME * np.abs(gradient).max():
            return name
    return (
        _huber(apart, gradient) or _quantile(apart, gradient) or _binary(output, target, gradient)
    )


def _of_counts(output: Array, target: Array) -> dict[str, Array]:
    """Return gradients of losses whose targets are counts, or shares of a whole."""
    with np.errstate(over="ignore"):
        known = {"Poisson's of logarithms": np.exp(output) - target}
    if output.ndim > 1 and np.allclose(target.sum(-1), 1, atol=SAME):
        shares = softmax(output)[0]
        known["the cross entropy of logits and soft targets"] = shares - target
        known["the squared error of probabilities, of logits"] = shares * (
            shares - target - (shares * (shares - target)).sum(-1, keepdims=True)
        )
    return {name: part for name, part in known.items() if np.all(np.isfinite(part))}


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        made: Array = 1 / (1 + np.exp(-x))
    return made


def _of_signs(output: Array, target: Array) -> dict[str, Array]:
    """Return gradients of losses whose targets are 1 or -1."""
    left = np.maximum(1 - target * output, 0.0)
    return {
        "the hinge loss": -target * (left > 0),
        "the squared hinge loss": -target * left,
        "the logistic loss": -target * _sigmoid(-target * output),
    }


def _quantile(apart: Array, gradient: Array) -> str | None:
    """Return the quantile's loss, whose gradient is one number above the target, another below."""
    above, below = gradient[apart > 0], -gradient[apart < 0]
    most = np.abs(gradient).max()
    if not (above.size > 1 and below.size > 1) or max(map(np.ptp, (above, below))) > SAME * most:
        return None
    whole = float(above[0] + below[0])
    if min(above[0], below[0]) <= 0:
        return None
    return f"the quantile's with {nice(float(below[0]) / whole):.4g}"


def _huber(apart: Array, gradient: Array) -> str | None:
    """Return Huber's loss with its delta, where a gradient goes with the error and then stays."""
    sizes = np.abs(apart[apart != 0])
    if sizes.size < 4:  # one tells the scale, and another one the delta
        return None
    nearest = np.abs(apart) == sizes.min()
    scale = abs(float(gradient[nearest][0])) / float(sizes.min())
    if not scale:
        return None
    delta = float(np.abs(gradient).max()) / scale
    made = scale * np.clip(apart, -delta, delta)
    fits = np.abs(np.abs(gradient) - np.abs(made)).max() <= SAME * np.abs(gradient).max()
    fits = fits and int((sizes < delta).sum()) >= 2
    return f"Huber's with delta={nice(delta):.4g}" if fits else None


def _binary(output: Array, target: Array, gradient: Array) -> str | None:
    """Return the binary cross entropy of logits, with what weighs or smooths its targets."""
    if target.min() < 0 or target.max() > 1:
        return None
    chance = _sigmoid(output)
    fit = fit_of(gradient, [(1 - target) * chance, -target * (1 - chance), target - 0.5])
    if fit is None:
        return None
    weight, smooth = nice(fit[1] / fit[0]), nice(fit[2] / fit[0])
    name = "the binary cross entropy of logits"
    if same(weight, 1.0):
        return name if abs(smooth) < SAME else f"{name}, its targets smoothed by {smooth:.4g}"
    return f"{name} with pos_weight={weight:.4g}" if abs(smooth) < SAME else None


def fit_of(side: Array, parts: Sequence[Array]) -> tuple[float, ...] | None:
    """Return what a gradient is of each part, where it is a sum of these, and they are few."""
    if side.size <= len(parts) + 1:
        return None
    matrix = np.stack([p.ravel() for p in parts], -1)
    found, *_ = np.linalg.lstsq(matrix, side.ravel(), rcond=None)
    left = np.abs(matrix @ found - side.ravel()).max()
    if left > SAME * np.abs(side).max() or found[0] == 0:
        return None
    return tuple(float(x) if abs(x) > 1e-10 * abs(found[0]) else 0.0 for x in found)
