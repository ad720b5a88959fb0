"""Settings under which a Flax layer with torch's parameters computes something else."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

import jax

from ...trees import listed, users_level
from ._function_settings import CALLED, FUNCTIONS, same_function
from ._jax_leaves import is_linen_module, is_nnx_module, with_short_paths
from ._layer_settings import COMPARED, Doubt, arithmetic
from ._own_layers import Measured, gelu_formula, has_run, measured
from ._param_map import Entry, ParamMap
from ._recurrent_settings import CELLS, of_runs
from ._rules_by_hand import Renaming
from ._torch_tensors import unwrapped

# The leaves of these layers lie one level deeper than the layer.
_COMPOSED = ("MultiheadAttention", *CELLS)
_BY_CLASS = COMPARED | CALLED | CELLS


class LayerDifferenceWarning(UserWarning):
    """A layer has the same parameters in torch and in Flax, and computes something else."""


def warn_of_differences(
    module: Any, parts: Mapping[str, Any], made: ParamMap, renaming: Renaming
) -> tuple[str, ...]:
    """Warn of each difference between paired layers; return notes of what could not be compared.

    ``parts`` are `flax_parts`.
    """
    if isinstance(module, Mapping):
        return tuple(_of_unseen_norms(made, parts, {}, ()))
    layers = dict(unwrapped(module).named_modules())
    pairs = dict(_pairs(layers, made, parts, renaming))
    paired = {name: parts[path] for name, path in pairs.items()}
    modules = {path for path, part in parts.items() if is_nnx_module(part) or is_linen_module(part)}
    entries = _by_layer(made)
    doubts: dict[str, list[str]] = {}
    for name, path in pairs.items():
        layer, part, kind = layers[name], parts[path], type(layers[name]).__name__
        messages = dict.fromkeys(differences(layer, part))
        if kind in CELLS:
            messages |= dict.fromkeys(_of_cells(layer, entries.get(name, []), parts))
        found = [Measured(message, not isinstance(message, Doubt)) for message in messages]
        within = f"{path}/" if path else ""
        alone = not any(m != path and m.startswith(within) for m in modules)
        if alone and not any(one.sure for one in found) and not any(layer.children()):
            found += measured(layer, part, entries.get(name, []))
        for message, sure in found:
            if sure:
                message = f"{name or 'the module'} ({kind}): {message}"
                warnings.warn(message, LayerDifferenceWarning, stacklevel=users_level())
            else:
                doubts.setdefault(f"({kind}) {message}", []).append(name or "the module")
    notes = [f"{listed(names)} {message}" for message, names in doubts.items()]
    unseen = _of_unseen_norms(made, parts, layers, paired)
    return (*notes, *_notes(layers, paired, bool(parts)), *unseen)


def _by_layer(made: ParamMap) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in made.entries:
        found.setdefault(entry.torch_name.rpartition(".")[0], []).append(entry)
    return found


def _of_cells(layer: Any, entries: Sequence[Entry], parts: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is otherwise in the cells that a layer of torch's is, and in what runs them."""
    for path, entry in {_layer_path(entry, layer, parts): entry for entry in entries}.items():
        if path in parts:
            yield from differences(layer, parts[path])
        above, _, name = path.rpartition("/")
        rnn, both = parts.get(above), parts.get(above.rpartition("/")[0])
        if name == "cell" and hasattr(rnn, "keep_order") and hasattr(layer, "batch_first"):
            both = both if hasattr(both, "merge_fn") else None
            yield from of_runs(layer, rnn, both, entry.torch_name.endswith("_reverse"))


def _of_unseen_norms(
    made: ParamMap, parts: Mapping[str, Any], layers: Mapping[str, Any], paired: Container[str]
) -> Iterator[str]:
    """Say of normalisations what a tree alone, or a state dict alone, does not show."""
    unseen = [
        name or "the module"
        for name, entries in _by_layer(made).items()
        # A parameter of torch's that is called scale itself is no norm's weight.
        if any(
            entry.path.rpartition("/")[2] == "scale" != entry.torch_name.rpartition(".")[2]
            for entry in entries
        )
        # Batch normalisation's is 1e-5 in both.
        and not (any(e.buffer for e in entries) or hasattr(layers.get(name), "running_mean"))
        and name not in paired
        and getattr(layers.get(name), "eps", None) != 1e-6
    ]
    if unseen:
        remedy = "give the module, not its state dict" if parts else "give flax_module, and inputs"
        yield (
            f"eps of {listed(unseen)}: 1e-05 in torch and 1e-06 in Flax where none is given; see"
            f" that both are the same, or have them compared: {remedy}"
        )


def differences(torch_layer: Any, flax_part: Any) -> list[str]:
    """Return what a layer of torch and a layer or function of Flax do otherwise, with remedies."""
    for base in type(torch_layer).__mro__:
        # A class of the user's own may have the name, and none of the attributes.
        compare = _BY_CLASS.get(base.__name__) if base.__module__.startswith("torch.nn.") else None
        if compare is not None:
            return [*compare(torch_layer, flax_part), *arithmetic(torch_layer, flax_part)]
    return list(arithmetic(torch_layer, flax_part))


def flax_parts(model: Any, inputs: Sequence[Any] | Callable[[], Any]) -> dict[str, Any]:
    """Return the layers of a Flax module by path and, of NNX, the functions among its attributes.

    Args:
        model: the module, or None.
        inputs: of a Linen module, arguments of its call, or a function that traces a call of it.

    Raises:
        TypeError: it is no Flax module.
    """
    if model is None:
        return {}
    if is_nnx_module(model):
        nodes = sys.modules["flax.nnx"].iter_graph(model)
        parts = {"/".join(map(str, path)): node for path, node in nodes if _is_part(node)}
        return with_short_paths(parts) | parts
    if not is_linen_module(model):
        raise TypeError(
            f"flax_module must be an nnx.Module or a Linen module, got {type(model).__name__}."
        )
    found: dict[str, Any] = {}

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        found["/".join(context.module.path)] = context.module
        return call(*args, **kwargs)

    try:
        with sys.modules["flax.linen"].intercept_methods(note):
            if callable(inputs):
                inputs()
            else:
                jax.eval_shape(model.init, jax.random.key(0), *inputs)
    except (TypeError, sys.modules["flax"].errors.InvalidRngError) as error:
        if isinstance(error, TypeError) and "required positional argument" not in str(error):
            raise
        raise TypeError(
            f"{type(model).__name__} cannot be called here: {error}. Say how it is called, as "
            "torch's is, with dropout left out: forward=lambda variables, batch: "
            "module.apply(variables, batch[0], train=False), or inputs=(x, False) for its layers"
        ) from error
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
    for name in layers:
        if name not in seen:
            paths = (renaming.of_layer(name), name.replace(".", "/"))
            yield from [(name, path) for path in paths if path in parts][:1]


def _layer_path(entry: Entry, layer: Any, parts: Mapping[str, Any]) -> str:
    path = entry.path.rpartition("/")[0]
    if type(layer).__name__ in _COMPOSED:
        path = path.rpartition("/")[0]
    without_collection = path.partition("/")[2] if path not in parts else path
    return path if path in parts else without_collection


def _notes(layers: Mapping[str, Any], paired: Mapping[str, Any], compared: bool) -> Iterator[str]:
    gelus: dict[str, list[str]] = {}
    for name, layer in layers.items():
        activation, part = _gelu(layer), paired.get(name)
        seen = any(same_function(part, f) for f in FUNCTIONS) or (
            part is not None and has_run(layer, part)
        )
        if activation is not None and not seen:
            gelus.setdefault(gelu_formula(activation), []).append(name or "the module")
    for formula, names in gelus.items():
        yield (
            f"GELU of {listed(names)} is {formula} in torch; nnx.gelu is the tanh approximation"
            " unless approximate=False: see that both are the same"
        )
    dropped = [
        name
        for name, layer in layers.items()
        if type(layer).__name__.startswith("Dropout")
        and getattr(layer, "p", 0) > 0
        and name not in paired
    ]
    if dropped and compared:
        yield f"torch's dropout without a Flax layer of the same name: {listed(dropped)}"


def _gelu(layer: Any) -> Any:
    """Return what a layer activates with, where that is called GELU; else None."""
    if "GELU" in type(layer).__name__:
        return layer
    activation = getattr(layer, "activation", None)
    function = activation.func if isinstance(activation, functools.partial) else activation
    return activation if getattr(function, "__name__", "") == "gelu" else None
