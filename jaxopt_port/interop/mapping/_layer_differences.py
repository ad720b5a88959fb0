"""Settings under which a Flax layer with torch's parameters computes something else."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from .._callers import users_level
from ._jax_leaves import is_nnx_module, with_short_paths
from ._layer_settings import COMPARED, FUNCTIONS, same_function
from ._param_map import Entry, ParamMap
from ._rules_by_hand import Renaming
from ._torch_tensors import unwrapped

# The leaves of these layers lie one level deeper than the layer.
_COMPOSED = ("MultiheadAttention", "LSTM", "LSTMCell", "GRU", "GRUCell", "RNN", "RNNCell")


class LayerDifferenceWarning(UserWarning):
    """A layer has the same parameters in torch and in Flax, and computes something else."""


def warn_of_differences(
    module: Any, parts: Mapping[str, Any], made: ParamMap, renaming: Renaming
) -> tuple[str, ...]:
    """Warn of each difference between paired layers; return notes of what could not be compared.

    ``parts`` are `flax_parts`.
    """
    if isinstance(module, Mapping):
        return ()
    layers = dict(unwrapped(module).named_modules())
    paired = {name: parts[path] for name, path in _pairs(layers, made, parts, renaming)}
    for name, part in paired.items():
        for message in differences(layers[name], part):
            label = f"{name or 'the module'} ({type(layers[name]).__name__})"
            warnings.warn(f"{label}: {message}", LayerDifferenceWarning, stacklevel=users_level())
    return tuple(_notes(layers, paired, bool(parts)))


def differences(torch_layer: Any, flax_part: Any) -> list[str]:
    """Return what a layer of torch and a layer or function of Flax do otherwise, with remedies."""
    for base in type(torch_layer).__mro__:
        # A class of the user's own may have the name, and none of the attributes.
        compare = COMPARED.get(base.__name__) if base.__module__.startswith("torch.nn.") else None
        if compare is not None:
            return list(compare(torch_layer, flax_part))
    return []


def flax_parts(model: Any, inputs: Sequence[Any]) -> dict[str, Any]:
    """Return the layers of a Flax module by path and, of NNX, the functions among its attributes.

    Raises:
        TypeError: it is no Flax module.
    """
    if model is None:
        return {}
    if is_nnx_module(model):
        nodes = sys.modules["flax.nnx"].iter_graph(model)
        parts = {"/".join(map(str, path)): node for path, node in nodes if _is_part(node)}
        return with_short_paths(parts) | parts
    linen = sys.modules.get("flax.linen")
    if linen is None or not isinstance(model, linen.Module):
        raise TypeError(
            f"flax_module must be an nnx.Module or a Linen module, got {type(model).__name__}."
        )
    found: dict[str, Any] = {}

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        found["/".join(context.module.path)] = context.module
        return call(*args, **kwargs)

    with linen.intercept_methods(note):
        jax.eval_shape(model.init, jax.random.key(0), *inputs)
    return found


def _is_part(node: Any) -> bool:
    return is_nnx_module(node) or (callable(node) and not isinstance(node, type))


def _pairs(
    layers: Mapping[str, Any], made: ParamMap, parts: Mapping[str, Any], renaming: Renaming
) -> Iterator[tuple[str, str]]:
    """Pair layers by their parameters, and those that have none by name."""
    seen = set()
    for entry in made.entries:
        name = entry.torch_name.rpartition(".")[0]
        path = _layer_path(entry, layers.get(name), parts)
        if name in layers and name not in seen and path in parts:
            seen.add(name)
            yield name, path
    for name in layers.keys() - seen:
        for path in (renaming.of_layer(name), name.replace(".", "/")):
            if path in parts and name not in seen:
                seen.add(name)
                yield name, path


def _layer_path(entry: Entry, layer: Any, parts: Mapping[str, Any]) -> str:
    path = entry.path.rpartition("/")[0]
    if type(layer).__name__ in _COMPOSED:
        path = path.rpartition("/")[0]
    without_collection = path.partition("/")[2] if path not in parts else path
    return path if path in parts else without_collection


def _notes(layers: Mapping[str, Any], paired: Mapping[str, Any], compared: bool) -> Iterator[str]:
    gelus = [
        name or "the module"
        for name, layer in layers.items()
        if _has_gelu(layer) and not any(same_function(paired.get(name), f) for f in FUNCTIONS)
    ]
    if gelus:
        yield (
            f"GELU of {', '.join(gelus)}: torch's is exact unless approximate='tanh', nnx.gelu is"
            " the tanh approximation unless approximate=False; see that both are the same"
        )
    dropped = [
        name
        for name, layer in layers.items()
        if type(layer).__name__.startswith("Dropout") and layer.p > 0 and name not in paired
    ]
    if dropped and compared:
        yield f"torch's dropout without a Flax layer of the same name: {', '.join(dropped)}"


def _has_gelu(layer: Any) -> bool:
    activation = getattr(layer, "activation", None)
    activation = activation.func if isinstance(activation, functools.partial) else activation
    return "GELU" in type(layer).__name__ or getattr(activation, "__name__", "") == "gelu"
