"""Explains an output by parameters in another layout."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from ..report import Cause
from ._arrays import Array

_MOST = 200
_SAME = 1e-9


def explain_forward(
    leaves: Mapping[str, Array], evaluate: Callable[[Mapping[str, Array]], float]
) -> Cause | None:
    """Explain an output that is not torch's by trying other layouts of single leaves.

    Args:
        leaves: all parameters, by path, in JAX's layouts, float64.
        evaluate: runs your forward pass with other leaves, and returns how far its output is from
            torch's, relative.
    """
    for leaf, words, name, changed in itertools.islice(_candidates(leaves), _MOST):
        if evaluate({**leaves, **changed}) > _SAME:
            continue
        if name == "swapped-leaves":
            return Cause(
                name,
                f"your forward pass takes {leaf} where torch's takes another: {words}, your output "
                "is torch's",
                "exchange them in the forward pass, or by rename= of interop.param_map",
            )
        return Cause(
            name,
            f"your side takes {leaf} in another layout than it has: with it {words}, your "
            "output is torch's",
            f'layouts={{"{leaf}": …}} of interop.param_map, or the flattening before it',
        )
    return None


def _candidates(
    leaves: Mapping[str, Array],
) -> Iterator[tuple[str, str, str, dict[str, Array]]]:
    """Yield leaf, words, name of the cause, and the changed leaves."""
    channels = sorted({x.shape[-1] for x in leaves.values() if x.ndim in (3, 4, 5)})
    for leaf, x in leaves.items():
        if x.ndim == 2 and x.shape[0] == x.shape[1]:
            yield leaf, "transposed", "transposed", {leaf: x.T}
        if x.ndim == 2:
            yield from _flattened(leaf, x, channels)
        if x.ndim == 4:
            yield leaf, "flipped in height and width", "kernel-flipped", {leaf: x[::-1, ::-1]}
            if x.shape[0] == x.shape[1]:
                turned = np.swapaxes(x, 0, 1)
                yield leaf, "turned (height and width)", "kernel-flipped", {leaf: turned}
            if x.shape[2] == x.shape[3]:
                swapped = np.swapaxes(x, 2, 3)
                yield leaf, "with channels in and out exchanged", "transposed", {leaf: swapped}
        if x.ndim == 3:
            for a, b in itertools.combinations(range(3), 2):
                if x.shape[a] == x.shape[b]:
                    moved = np.swapaxes(x, a, b)
                    yield leaf, f"with axes {a} and {b} exchanged", "transposed", {leaf: moved}
    yield from _exchanged(leaves)


def _flattened(
    leaf: str, x: Array, channels: list[int]
) -> Iterator[tuple[str, str, str, dict[str, Array]]]:
    rows = x.shape[0]
    for c in channels:
        if rows % c or rows == c:
            continue
        area = rows // c
        side = round(area**0.5)
        shapes = [(c, area)] + ([(c, side, side)] if side * side == area else [])
        for shape in shapes:
            chw = x.reshape(*shape, -1)
            hwc = np.moveaxis(chw, 0, -2).reshape(x.shape)
            yield leaf, f"with rows from CHW to HWC ({c} channels)", "flatten-order", {leaf: hwc}
            back = np.moveaxis(x.reshape(*shape[1:], c, -1), -2, 0).reshape(x.shape)
            yield leaf, f"with rows from HWC to CHW ({c} channels)", "flatten-order", {leaf: back}
            if len(shape) == 3:
                turned = np.swapaxes(chw, 1, 2).reshape(x.shape)
                yield leaf, "with height and width exchanged", "flatten-order", {leaf: turned}


def _exchanged(
    leaves: Mapping[str, Array],
) -> Iterator[tuple[str, str, str, dict[str, Array]]]:
    layers: dict[str, dict[str, Array]] = {}
    for path, x in leaves.items():
        layer, _, name = path.rpartition("/")
        layers.setdefault(layer, {})[name] = x
    for a, b in itertools.combinations(layers, 2):
        alike = layers[a].keys() == layers[b].keys()
        if alike and all(x.shape == layers[b][n].shape for n, x in layers[a].items()):
            changed = {f"{a}/{n}": x for n, x in layers[b].items()}
            changed |= {f"{b}/{n}": x for n, x in layers[a].items()}
            yield a, f"exchanged with {b}", "swapped-leaves", changed
