"""Layers of a user's own, of which nothing says what they compute: they are run in pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from .._tensors import import_torch
from ._jax_leaves import is_linen_module, is_nnx_module
from ._layer_settings import BIASED_VARIANCE
from ._layers_run import Pair, drawn_pair, inputs, of_flax, of_torch
from ._param_map import Array, Entry
from ._torch_tensors import kind_of_layer

_ROUNDING = 1e-5  # of the largest output: some hundred roundings of float32
_LARGEST = 2**24  # elements: of a larger layer no copies are made
# What norms are written with; 2**-23 is float32's own, torch's where none is given.
_EPSILONS = (1e-5, 1e-6, 1e-12, 1e-8, 1e-3, 1e-4, 1e-7, 2.0**-23, 1e-9, 1e-10, 0.0)
# Of layers whose input and output a model may treat as it likes (a scaled embedding), a difference
# is to be looked at; of these there is nothing that a model around them would make up for.
_SURE = ("Norm", "BatchNorm", "Function")
_KINDS = {
    "BatchNorm": "BatchNorm",
    "Conv": "Conv",
    "Dense": "Linear",
    "Embed": "Embedding",
    "GroupNorm": "Norm",
    "InstanceNorm": "Norm",
    "LayerNorm": "Norm",
    "Linear": "Linear",
    "RMSNorm": "Norm",
}


class Measured(NamedTuple):
    """What running two layers has shown."""

    words: str
    sure: bool  # whether the models cannot be the same


def measured(torch_layer: Any, part: Any, entries: Sequence[Entry]) -> list[Measured]:
    """Run two layers without layers in them on the same numbers, where one is of the user's own.

    Args:
        torch_layer: a copy of it is run.
        part: layer of Flax, or function.
        entries: of the parameters and statistics of the two.
    """
    kind = _kind(torch_layer, part, entries) if _is_own(torch_layer) or _is_own(part) else None
    if kind is None:
        return []
    beside = f"{_named(part)} with the same parameters" if entries else _named(part)
    if sum(int(np.prod(entry.torch_shape)) for entry in entries) > _LARGEST:
        return [_unknown(f"is too large to be run beside {beside}")]
    try:
        found = list(_differences(drawn_pair(torch_layer, part, kind, entries), beside))
    except Exception as error:  # whatever the user's own class does
        reason = " ".join(str(error).split())[:80]
        return [_unknown(f"could not be run beside {beside} ({type(error).__name__}: {reason})")]
    return [Measured(words, kind in _SURE) for words in found]


def has_run(torch_layer: Any, part: Any) -> bool:
    """Return whether `measured` has compared an activation of the user's own with a function."""
    return _kind(torch_layer, part, ()) is not None


def gelu_formula(activation: Any) -> str:
    """Say which formula an activation of torch's has that is called GELU."""
    torch = import_torch()
    points = torch.linspace(-5, 5, 41)
    try:
        with torch.no_grad():
            got = getattr(activation, "forward", activation)(points).numpy()
    except Exception:  # whatever the user's own class does
        return "of the user's own formula"
    for approximate, words in ((False, "exact"), (True, "the tanh approximation")):
        if _equal(np.asarray(jax.nn.gelu(points.numpy(), approximate=approximate)), got):
            return words
    return "neither exact nor the tanh approximation"


def _unknown(words: str) -> Measured:
    return Measured(f"{words}; see that both are the same", False)


def _is_own(layer: Any) -> bool:
    of_torch = hasattr(layer, "named_parameters")
    call = getattr(type(layer), "forward" if of_torch else "__call__", None)
    return getattr(call, "__module__", "").partition(".")[0] not in ("torch", "flax")


def _named(part: Any) -> str:
    if not _is_own(part):
        return f"{'nnx' if is_nnx_module(part) else 'nn'}.{type(part).__name__}"
    function = getattr(part, "func", part)  # of a functools.partial
    return getattr(function, "__name__", "") or f"your {type(part).__name__}"


def _kind(torch_layer: Any, part: Any, entries: Sequence[Entry]) -> str | None:
    """Return which inputs two layers take; None where nothing says it."""
    is_module = is_nnx_module(part) or is_linen_module(part)
    if not _is_own(part):
        names = [base.__name__ for base in type(part).__mro__]
        kind = next((_KINDS[name] for name in names if name in _KINDS), None)
        return kind if entries or kind == "Norm" else None
    if not entries:
        return "Function" if _is_own(torch_layer) and not is_module else None
    of_torch = "bare" if _is_own(torch_layer) else kind_of_layer(torch_layer)
    vectors = all(len(entry.shape) == 1 for entry in entries)
    return "Norm" if vectors and of_torch in ("bare", "Norm") else None


def _differences(pair: Pair, beside: str) -> Iterator[str]:
    """Yield what differs for the first input that both take.

    Raises:
        Exception: torch's layer, which is the user's perhaps, took none of the inputs.
    """
    found, refused = None, None
    for theirs, mine in inputs(pair):
        try:
            want = _channels_last(of_torch(pair, theirs)[0], theirs, mine)
        except Exception as error:  # it is not for such an input, perhaps
            refused = refused or error
            continue
        got = of_flax(pair, mine)
        eps = None if _equal(want, got) else _eps(pair, theirs, mine, want, got)
        if eps is not None or _equal(want, got):
            yield from () if eps is None else (eps,)
            yield from _of_statistics(pair, theirs, mine)
            return
        found = found or _distance(want, got)
        if want.shape == got.shape:  # else it is for images, perhaps
            break
    if found is None and refused is not None:
        raise refused
    formula = f"; torch's is {gelu_formula(pair.torch_layer)}" if beside == "gelu" else ""
    yield f"computes something else than {beside}: {found}{formula}"


def _channels_last(out: Array, theirs: Array, mine: Array) -> Array:
    return out if theirs is mine or out.ndim < 2 else np.moveaxis(out, 1, -1)


def _equal(a: Array, b: Array) -> bool:
    size = _ROUNDING * float(np.abs(b).max(initial=0))
    return a.shape == b.shape and np.allclose(a, b, rtol=0, atol=size, equal_nan=True)


def _distance(want: Array, got: Array) -> str:
    if want.shape != got.shape:
        return f"its output is of shape {want.shape}, and not {got.shape}"
    furthest = np.abs(want - got).max() / max(np.abs(want).max(), np.abs(got).max())
    return f"the outputs differ by {furthest:.1g} of the largest"


def _eps(pair: Pair, theirs: Array, mine: Array, want: Array, got: Array) -> str | None:
    """Return what is said where another eps makes the outputs the same."""
    # Of one input the rows are small and large; eps is nothing to the large ones.
    plain = pair.kind == "Norm" and want.shape == got.shape
    alike = plain and np.allclose(want[1::2], got[1::2], rtol=0, atol=0.01 * np.abs(got).max())
    if not alike and pair.kind != "BatchNorm":
        return None
    flaxs, torchs = getattr(pair.part, "epsilon", None), getattr(pair.torch_layer, "eps", None)
    numbers = [n for n in vars(pair.torch_layer).values() if isinstance(n, float) and 0 < n < 1]
    for eps in dict.fromkeys((*_EPSILONS, *numbers)):
        if flaxs is not None and _equal(want, of_flax(pair, mine, eps)):
            return f"eps is {eps:g} in torch and {flaxs:g} in Flax; give epsilon={eps:g}"
        if flaxs is None and torchs is not None:
            other = _channels_last(of_torch(pair, theirs, eps=eps)[0], theirs, mine)
            if _equal(other, got):
                return f"eps is {torchs:g} in torch and {eps:g} in {_named(pair.part)}"
    return None


def _of_statistics(pair: Pair, theirs: Array, mine: Array) -> Iterator[str]:
    """Yield what batch normalisation does otherwise while training, unless Flax's is fixed."""
    if pair.kind != "BatchNorm" or getattr(pair.part, "use_running_average", None) is True:
        return
    _, want = of_torch(pair, theirs, training=True)
    axes = tuple(range(mine.ndim - 1))
    of_batch, before = mine.mean(axes), pair.leaves["mean"]
    share = float(np.mean((want["mean"] - before) / (of_batch - before)))
    if share == 0:
        yield "keeps its statistics fixed while training; give use_running_average=True"
        return
    flaxs = 1 - pair.part.momentum
    if abs(share - flaxs) > 1e-4:
        yield (
            f"{share:.4g} of the new batch's mean goes into the running one in torch and"
            f" {flaxs:.4g} in Flax; give momentum={1 - share:.4g}"
        )
    new_var = (want["var"] - (1 - share) * pair.leaves["var"]) / share
    if not np.allclose(new_var, mine.var(axes), rtol=1e-3):
        yield BIASED_VARIANCE
