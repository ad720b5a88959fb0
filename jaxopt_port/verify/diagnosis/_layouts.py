"""Explains an output by layouts of parameters, by layers' settings, and by the program."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ..report import Cause
from ._arrays import Array, rearrangements
from ._ways import settings_of

_MOST = 200
_SAME = 1e-9
# What concerns running statistics only, which no output of a training step depends on.
_AFTERWARDS = ("running variance", "momentum")
_KINDS = {": eps is ": "layer-eps", ": padding is ": "padding"}


def explain_forward(
    leaves: Mapping[str, Array], evaluate: Callable[[Mapping[str, Array]], float]
) -> Cause | None:
    """Explain an output that is not torch's by trying other layouts of single leaves.

    Args:
        leaves: all parameters, by path, in JAX's layouts, float64.
        evaluate: runs your forward pass with other leaves, and returns how far its output is from
            torch's, relative.
    """
    for leaf, name, words, changed in itertools.islice(_candidates(leaves), _MOST):
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


def _candidates(leaves: Mapping[str, Array]) -> Iterator[tuple[str, str, str, dict[str, Array]]]:
    """Yield leaf, name of the cause, words, and the changed leaves."""
    channels = sorted({x.shape[-1] for x in leaves.values() if x.ndim in (3, 4, 5)})
    for leaf, x in leaves.items():
        for name, words, changed in (*rearrangements(x), *_flattened(x, channels)):
            if changed.shape == x.shape:
                yield leaf, name, words, {leaf: changed}
    layers: dict[str, dict[str, Array]] = {}
    for path, x in leaves.items():
        layer, _, name = path.rpartition("/")
        layers.setdefault(layer, {})[name] = x
    for (a, one), (b, other) in itertools.combinations(layers.items(), 2):
        if {n: x.shape for n, x in one.items()} == {n: x.shape for n, x in other.items()}:
            both = {f"{a}/{n}": x for n, x in other.items()}
            both |= {f"{b}/{n}": x for n, x in one.items()}
            yield a, "swapped-leaves", f"exchanged with {b}", both


def _flattened(x: Array, channels: list[int]) -> Iterator[tuple[str, str, Array]]:
    for c in channels if x.ndim == 2 else ():
        area, rest = divmod(x.shape[0], c)
        if rest or area == 1:
            continue
        side = round(area**0.5)
        shapes: list[tuple[int, ...]] = [(area,)]
        for shape in shapes + [(side, side)] * (side * side == area):
            chw, hwc = x.reshape(c, *shape, -1), x.reshape(*shape, c, -1)
            turns = [
                (f"with rows from CHW to HWC ({c} channels)", np.moveaxis(chw, 0, -2)),
                (f"with rows from HWC to CHW ({c} channels)", np.moveaxis(hwc, -2, 0)),
            ]
            if len(shape) == 2:
                turns.append(("with height and width exchanged", np.swapaxes(chw, 1, 2)))
            yield from (("flatten-order", words, made.reshape(x.shape)) for words, made in turns)


def narrow_forward(dtype: str) -> Cause:
    """Return the cause of an output that is right in float64, and rounded on its way."""
    return Cause(
        "low-precision",
        f"your forward pass calculates in {dtype} in places; torch's does not",
        f"look for astype({dtype}), dtype= and preferred_element_type= in the layers and in the "
        "attention's softmax",
    )


def of_layers(differences: Sequence[str], tried: bool = False) -> Cause | None:
    """Return the cause where layers have other settings than torch's, as their settings say.

    Args:
        differences: of layers, in words.
        tried: whether those of which `settings_of` makes ways have been tried, in vain.
    """
    told = [text for text in differences if not any(word in text for word in _AFTERWARDS)]
    told = [text for text in told if not (tried and settings_of([text]))]
    if not told:
        return None
    more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
    name = next((name for word, name in _KINDS.items() if word in told[0]), "layer-setting")
    message = f"a layer has another setting than torch's: {told[0]}{more}"
    return Cause(name, message, "give your layer the setting of torch's, or torch's yours")
