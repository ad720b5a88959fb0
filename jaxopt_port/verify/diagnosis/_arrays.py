"""Explains differences of single arrays: parameters, gradients, outputs, running statistics."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..report import Cause
from ._numbers import NARROW, nice, same

Array = NDArray[Any]
# Of float64 evaluations of one formula.
_EQUAL = 1e-8
_LAYOUT = "correct the layout: layouts={name: axes} of compare and of interop.param_map"


def equal(a: Array, b: Array, tolerance: float = _EQUAL) -> bool:
    """Whether two arrays of one shape are the same but for rounding in float64."""
    if a.shape != b.shape:
        return False
    scale = float(np.max(np.abs(b), initial=0.0))
    return float(np.max(np.abs(a - b), initial=0.0)) <= tolerance * scale


def ratio_of(a: Array, b: Array) -> float | None:
    """Return the number that a is times b, if there is one."""
    square = float(np.vdot(b, b))
    if square == 0 or a.shape != b.shape:
        return None
    ratio = float(np.vdot(a, b)) / square
    # Where the two are nearly equal, it has to explain what they differ by.
    left, apart = np.max(np.abs(a - ratio * b)), np.max(np.abs(a - b))
    return ratio if ratio and equal(a, ratio * b, 1e-6) and left <= 1e-3 * apart else None


def rearrangements(x: Array) -> Iterator[tuple[str, str, Array]]:
    """Yield a leaf as another import would have it: the cause, in words, and it."""
    if x.ndim in (2, 3):
        for a, b in itertools.combinations(range(x.ndim), 2):
            which = f" in axes {a} and {b}" if x.ndim > 2 else ""
            yield "transposed", f"transposed{which}", np.swapaxes(x, a, b)
    if x.ndim == 4:
        yield "kernel-flipped", "flipped in height and width", x[::-1, ::-1]
        yield "kernel-flipped", "turned (height and width)", np.swapaxes(x, 0, 1)
        yield "transposed", "transposed in its channels, in and out", np.swapaxes(x, 2, 3)


def _rearranged(a: Array, b: Array) -> tuple[str, str] | None:
    """Return the cause, and words, of an array that has the other's elements in other places."""
    for name, words, made in rearrangements(b):
        if equal(a, made):
            return name, f"is {words}"
    if a.ndim == 2 and a.shape == b.shape and _same_rows(a, b):
        return "flatten-order", "has its rows in another order, as after another flattening"
    return None


def _same_rows(a: Array, b: Array) -> bool:
    """Whether an array has the other's rows, in another order."""
    keys = [np.lexsort(np.round(x, 12).T) for x in (a, b)]
    return equal(a[keys[0]], b[keys[1]]) and not equal(a, b)


def rounding(a: Array, b: Array) -> str | None:
    """Return the dtype to which b, rounded, is a, if there is one."""
    for name, dtype in NARROW.items():
        if np.array_equal(a, b.astype(dtype).astype(np.float64)) and not np.array_equal(a, b):
            return name
    return None


def _elsewhere(
    what: str, yours: Mapping[str, Array], torchs: Mapping[str, Array], leaf: str, remedy: str
) -> Cause | None:
    """Explain a leaf that is torch's in another arrangement, at another place, or rounded."""
    mine, theirs = yours[leaf], torchs[leaf]
    if found := _rearranged(mine, theirs):
        return Cause(found[0], f"{what} {found[1]}, beside torch's", _LAYOUT)
    for other, held in torchs.items():
        if other != leaf and held.size > 1 and other in yours and equal(mine, held):
            names = "correct the names: rename= of interop.param_map"
            return Cause("swapped-leaves", f"{what} is torch's of {other}", names)
    name = rounding(mine, theirs)
    return Cause("low-precision", f"{what} is torch's rounded to {name}", remedy) if name else None


def explain_parameters(
    yours: Mapping[str, Array], torchs: Mapping[str, Array], leaf: str
) -> Cause | None:
    """Explain an initial parameter that is not torch's.

    Args:
        yours: all leaves, by path, float64.
        torchs: the same, in JAX's layouts.
        leaf: the one that differs.
    """
    mine, theirs = yours[leaf], torchs[leaf]
    what, remedy = f"your {leaf}", "import parameters in torch's dtype"
    if found := _elsewhere(what, yours, torchs, leaf, remedy):
        return found
    ratio = ratio_of(mine, theirs)
    if ratio is None and np.any(mine == theirs):
        return None
    words = "has nothing of torch's: another draw, or no import"
    words = words if ratio is None else f"is {nice(ratio):.6g} times torch's"
    remedy = "import torch's values: interop.params_from_torch"
    return Cause("not-imported", f"{what} {words}", remedy)


def explain_output(yours: Array, torchs: Array) -> Cause | None:
    """Explain an output that is not torch's, where it alone tells why."""
    if name := rounding(yours, torchs):
        return Cause(
            "low-precision", f"your output is torch's rounded to {name}",
            "leave dtype=None in the layers, or give both sides the same",
        )  # fmt: skip
    if yours.ndim == 2 and yours.shape[0] == yours.shape[1] and equal(yours, torchs.T):
        return Cause("transposed", "your output is transposed", "return (batch, features)")
    if yours.shape == torchs.shape and yours.ndim > 1:
        for words, function in _ACTIVATIONS.items():
            for a, b, who in ((yours, torchs, "your output"), (torchs, yours, "torch's output")):
                made = function(b)
                if equal(a, made) and not equal(b, made):  # it does something to them
                    return Cause(
                        "output-activation",
                        f"{who} is the {words} of the other side's",
                        f"leave the {words} out on that side, or add it on the other",
                    )
    return None


def multiple(yours: Array, torchs: Array) -> Cause | None:
    """Explain an output that is a multiple of torch's."""
    ratio = ratio_of(yours, torchs) if yours.size > 1 else None  # one number is always a multiple
    if ratio is None or same(ratio, 1.0):
        return None
    return Cause(
        "output-activation", f"your output is {nice(ratio):.6g} times torch's",
        "check the last layer: a scale, a temperature; without biases one before it does the same",
    )  # fmt: skip


def softmax(logits: Array) -> tuple[Array, Array]:
    """Return probabilities, and the logarithm of what they are divided by."""
    most = logits.max(-1, keepdims=True)
    chances = logits - most
    total = np.exp(chances, out=chances).sum(-1, keepdims=True)
    chances /= total
    return chances, (most + np.log(total))[..., 0]


_ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "softmax": lambda x: softmax(x)[0],
    "log-softmax": lambda x: np.asarray(x - softmax(x)[1][..., None]),
    "ReLU": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def explain_gradient(
    yours: Mapping[str, Array],
    torchs: Mapping[str, Array],
    params: Mapping[str, Array],
    leaf: str,
    batch_size: int,
) -> Cause | None:
    """Explain a gradient that is not torch's, though output and loss are.

    Args:
        yours: all leaves, by path, float64.
        torchs: the same.
        params: their values.
        leaf: the one that differs most.
        batch_size: examples in a batch.
    """
    mine, theirs = yours[leaf], torchs[leaf]
    if not np.any(mine) and np.any(theirs):
        return Cause(
            "frozen-leaf", f"your gradient of {leaf} is 0: it is not differentiated",
            "look for stop_gradient, or a leaf that is closed over, not taken from the parameters",
        )  # fmt: skip
    factors = {path: ratio_of(yours[path], torchs[path]) for path in torchs}
    ratio = factors[leaf]
    everywhere = ratio is not None and all(
        f is not None and same(f, ratio, 1e-5) for p, f in factors.items() if np.any(torchs[p])
    )
    if ratio is not None and not same(ratio, 1.0) and (everywhere or mine.size > 1):
        where = "all gradients are" if everywhere else f"the gradient of {leaf} is"
        if same(ratio, -1.0):
            return Cause(
                "sign", f"your side: {where} torch's with the sign turned",
                "differentiate the loss, not its negative",
            )  # fmt: skip
        words, remedy = "", "take the mean on both sides, and over devices too"
        if not everywhere:
            remedy = (
                "look for a factor before this leaf in the forward pass (alpha / r of a LoRA), or "
                "on its gradient alone"
            )
        if same(ratio, batch_size) or same(ratio, 1 / batch_size):
            words = f": the batch has {batch_size}, a sum is on one side and a mean on the other"
        return Cause(
            "gradient-scale", f"your side: {where} {nice(ratio):.6g} times torch's{words}",
            remedy,
        )  # fmt: skip
    decay = ratio_of(mine - theirs, params[leaf]) if mine.size > 1 else None
    if decay is not None:
        return Cause(
            "regularized-loss",
            f"your gradient has {nice(decay):.6g} times the parameter besides: a penalty on its "
            "square",
            "take the penalty out of the loss, or give torch's side weight_decay",
        )
    remedy = "look for a cast in the layer, or in what averages gradients over devices"
    return _elsewhere(f"your gradient of {leaf}", yours, torchs, leaf, remedy)


def explain_buffers(
    yours: Array, torchs: Array, before: Array, momentum: float, count: int
) -> Cause | None:
    """Explain a running statistic that is not torch's after a forward pass.

    Args:
        yours: after, float64.
        torchs: after, float64.
        before: what both began with.
        momentum: torch's: the part that is taken of the new value.
        count: examples in a batch; a channel has so many values, times the positions.
    """
    moved = [side - before for side in (yours, torchs)]
    ratio = ratio_of(*moved)
    if ratio is not None:
        mine = ratio * momentum
        return Cause(
            "batchnorm-momentum",
            f"your running statistics take {nice(mine):.6g} of each batch's, torch's {momentum:g}",
            f"Flax's momentum is what is kept: give momentum={1 - momentum:g}",
        )
    news = [(side - (1 - momentum) * before) / momentum for side in (yours, torchs)]
    factor = ratio_of(*news)
    if factor is not None and 0 < factor < 1:
        n = 1 / (1 - factor)
        whole = max(1, count) * round(n / max(1, count))
        if abs(n - whole) <= 1e-4 * n and whole > 1:
            return Cause(
                "biased-variance",
                f"your running variance takes the biased one, over {whole} values; torch the "
                f"unbiased one, over {whole - 1}",
                f"multiply the batch's variance by {whole}/{whole - 1} before it is averaged; "
                "Flax's BatchNorm cannot, and evaluation differs by that factor; "
                'accept=["biased-variance"] takes it as it is, and compares the rest',
            )
    return None
