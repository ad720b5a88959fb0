"""What a trace says of torch's tensors and layers, in the words of `interop.param_map`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ...interop.mapping import COUNTER, TorchTensor, kind_of, kind_of_bases


def tensors_of_trace(
    tensors: Sequence[Mapping[str, Any]], layers: Mapping[str, Mapping[str, Any]]
) -> list[TorchTensor]:
    """Return what ``tensors_of(module)`` returned where the trace was recorded."""
    kinds = {name: kind_of_bases(layer["bases"]) for name, layer in layers.items()}
    heads = {name: layer["num_heads"] for name, layer in layers.items()}
    made: dict[str, TorchTensor] = {}
    for entry in tensors:
        name = entry["name"]
        if entry["buffer"] and name.endswith(COUNTER):
            continue
        layer, _, leaf = name.rpartition(".")
        kind, of = kind_of(kinds, heads, layer, leaf)
        shape = tuple(entry["shape"])
        tensor = TorchTensor(name, shape, entry["dtype"], kind, of, entry["buffer"])
        first = made.get(entry["tied_to"])
        if first is None:
            made[name] = tensor
        else:
            made[first.name] = dataclasses.replace(first, aliases=(*first.aliases, tensor))
    return sorted(made.values(), key=lambda tensor: tensor.buffer)
