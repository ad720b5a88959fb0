"""What a torch module, or a state dict, holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._tensors import dtype_name, import_torch

# What a layer of torch.nn is, by the class name of its nearest known base: a subclass may change
# what a layer does with its weights, and a layer's own parameters are bare.
_KINDS = {
    "Linear": "Linear",
    "Conv1d": "Conv",
    "Conv2d": "Conv",
    "Conv3d": "Conv",
    "ConvTranspose1d": "ConvTranspose",
    "ConvTranspose2d": "ConvTranspose",
    "ConvTranspose3d": "ConvTranspose",
    "Embedding": "Embedding",
    "EmbeddingBag": "Embedding",
    "LayerNorm": "Norm",
    "GroupNorm": "Norm",
    "RMSNorm": "Norm",
    "InstanceNorm1d": "Norm",
    "InstanceNorm2d": "Norm",
    "InstanceNorm3d": "Norm",
    "BatchNorm1d": "Norm",
    "BatchNorm2d": "Norm",
    "BatchNorm3d": "Norm",
    "SyncBatchNorm": "Norm",
    "MultiheadAttention": "Attention",
    "LSTM": "LSTM",
    "LSTMCell": "LSTM",
    "GRU": "GRU",
    "GRUCell": "GRU",
    "RNN": "RNN",
    "RNNCell": "RNN",
    "PReLU": "PReLU",
    "Bilinear": "AsIs",
}
# Of other libraries: the weight of Hugging Face's Conv1D is (in, out), as Flax's kernel is.
_OTHERS = {("transformers", "Conv1D"): "AsIs"}
_OF_KIND = {
    "Linear": ("weight", "bias"),
    "Conv": ("weight", "bias"),
    "ConvTranspose": ("weight", "bias"),
    "Embedding": ("weight",),
    "Norm": ("weight", "bias", "running_mean", "running_var"),
    "Attention": (
        "in_proj_weight",
        "in_proj_bias",
        "q_proj_weight",
        "k_proj_weight",
        "v_proj_weight",
    ),
    "PReLU": ("weight",),
    "AsIs": ("weight", "bias"),
}
_RECURRENT = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_STATISTICS = ("running_mean", "running_var")
COUNTER = "num_batches_tracked"  # without a counterpart in Flax
_AVERAGED = "n_averaged"  # likewise, of torch's AveragedModel


@dataclass(frozen=True)
class TorchTensor:
    """A parameter or buffer: where it is, and what layer it belongs to."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: str  # "Linear", …; "bare" for a layer's own, "unknown" where only the name is known
    heads: int | None = None  # of its attention
    buffer: bool = False
    aliases: tuple[TorchTensor, ...] = ()  # the other names of a tied tensor

    @property
    def layer(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def leaf(self) -> str:
        return self.name.rpartition(".")[2]


# What wraps a module, by the name of the class, and where it has it.
_WRAPPERS = {
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "AveragedModel": "module",
    "DeepSpeedEngine": "module",
    "OptimizedModule": "_orig_mod",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
    "_FabricModule": "_forward_module",
}


def unwrapped(module: Any) -> Any:
    """Return the module that is meant, of one that ``torch.compile``, DDP or others have wrapped.

    Wrappers of ``torch.optim`` optimizers are looked through in the same way.
    """
    while True:
        names = [base.__name__ for base in type(module).__mro__]
        where = next((_WRAPPERS[name] for name in names if name in _WRAPPERS), None)
        inner = None if where is None else getattr(module, where, None)
        if inner is None or inner is module:
            return module
        module = inner


def tensors_given(module: Any) -> Any:
    """Return the parameters of a checkpoint, as `load` returns it; anything else as it is."""
    params = getattr(module, "params", None)  # a module of Lightning's has optimizers, too
    return params if hasattr(module, "optimizers") and isinstance(params, Mapping) else module


def tensors_of(module: Any) -> list[TorchTensor]:
    """List the parameters of a module, or of a state dict, in their order, then the buffers.

    Raises:
        TypeError: it is neither a torch module nor a mapping from names to tensors.
        ImportError: torch is missing, and something that is no mapping of arrays was given.
    """
    if isinstance(module, Mapping):
        return _tied(_of_state_dict(module))
    torch = import_torch()
    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            "Expected a torch.nn.Module or its state_dict(), a mapping from names to tensors;"
            f" got {type(module).__name__}."
        )
    return _tied(_of_module(unwrapped(module)))


def values_of(module: Any) -> dict[str, Any]:
    """Return the tensors of a module or a state dict by name, tied ones under each name."""
    if isinstance(module, Mapping):
        return dict(module)
    module = unwrapped(module)
    held = dict(module.named_parameters(remove_duplicate=False))
    kept = module.state_dict(keep_vars=True)
    held |= {name: b for name, b in _buffers(module) if name in kept}
    return held


def _buffers(module: Any) -> Iterator[tuple[str, Any]]:
    for name, buffer in module.named_buffers(remove_duplicate=False):
        if not name.endswith(COUNTER):
            yield name, buffer


def _of_module(module: Any) -> Iterator[tuple[TorchTensor, Any]]:
    layers = dict(module.named_modules(remove_duplicate=False))
    kinds = {name: kind_of_layer(layer) for name, layer in layers.items()}
    attention = [name for name, kind in kinds.items() if kind == "Attention"]
    all_heads = {name: int(layers[name].num_heads) for name in attention}
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for name, tensor in values_of(module).items():
        layer_name, _, leaf = name.rpartition(".")
        kind, heads = kind_of(kinds, all_heads, layer_name, leaf)
        described = TorchTensor(
            name, tuple(tensor.shape), dtype_name(tensor), kind, heads, name not in parameters
        )
        yield described, id(tensor)


def kind_of(
    kinds: Mapping[str, str], heads: Mapping[str, int | None], layer: str, leaf: str
) -> tuple[str, int | None]:
    """Return what a tensor is, and the heads of its attention.

    Args:
        kinds: what each layer is.
        heads: of those that are attention.
        layer: that of the tensor.
        leaf: its name there.
    """
    kind = kinds[layer]
    if kind == "Linear":
        parent, _, own = layer.rpartition(".")
        if own == "out_proj" and kinds.get(parent) == "Attention":
            return "AttentionOut", heads[parent]
    if kind in ("LSTM", "GRU", "RNN"):
        return (kind if leaf.startswith(_RECURRENT) else "bare"), None
    if leaf not in _OF_KIND.get(kind, ()):
        own_layer = kind == "bare" and leaf in ("weight", "bias")
        return ("unknown" if own_layer else "bare"), None
    return kind, heads[layer] if kind == "Attention" else None


def kind_of_layer(layer: Any) -> str:
    """Return what torch's layer is, "bare" for one that is not torch's."""
    torch_nn = import_torch().nn
    for base in type(layer).__mro__:
        other = (base.__module__.partition(".")[0], base.__name__)
        if other in _OTHERS:
            return _OTHERS[other]
    bases = (b for b in type(layer).__mro__ if getattr(torch_nn, b.__name__, None) is b)
    return kind_of_bases(base.__name__ for base in bases)


def kind_of_bases(names: Iterable[str]) -> str:
    """Return what a layer is by the names of its classes of torch's own, the nearest first."""
    return next((_KINDS[name] for name in names if name in _KINDS), "bare")


def _of_state_dict(tensors: Mapping[str, Any]) -> Iterator[tuple[TorchTensor, Any]]:
    others = [name for name in tensors if name != _AVERAGED]
    averaged = bool(others) and all(str(name).startswith("module.") for name in others)
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not hasattr(tensor, "shape"):
            raise TypeError(
                "A state dict maps names to tensors; "
                f"{name!r} has {type(tensor).__name__}. Where a file holds more than the module,"
                ' give the part with its state dict, as checkpoint["model_state_dict"].'
            )
        if name.endswith(COUNTER) or (averaged and name == _AVERAGED):
            continue
        leaf = name.rpartition(".")[2]
        yield (
            TorchTensor(
                name,
                tuple(tensor.shape),
                dtype_name(tensor),
                _kind_by_name(name, tensors),
                buffer=leaf in _STATISTICS,
            ),
            _memory_of(tensor),
        )


def _kind_by_name(name: str, tensors: Mapping[str, Any]) -> str:
    """What the names alone say: those of attention, of recurrent layers and of statistics."""
    layer, _, leaf = name.rpartition(".")
    prefix = f"{layer}." if layer else ""
    if leaf in _OF_KIND["Attention"]:
        return "Attention"
    if leaf.startswith(_RECURRENT):
        hidden = tensors.get(prefix + leaf.replace("_ih", "_hh").replace("bias", "weight"))
        ratio = 0 if hidden is None else hidden.shape[0] / hidden.shape[-1]
        return {4: "LSTM", 3: "GRU", 1: "RNN"}.get(ratio, "bare")
    if leaf in _STATISTICS or prefix + "running_mean" in tensors:
        return "Norm"
    above, _, own = layer.rpartition(".")
    siblings = {f"{above}.{each}".lstrip(".") for each in ("in_proj_weight", "q_proj_weight")}
    if own == "out_proj" and siblings & tensors.keys():
        return "AttentionOut"
    return "unknown" if leaf in ("weight", "bias") else "bare"


def _memory_of(tensor: Any) -> Any:
    """What two names of one tensor have in common, and two tensors have not."""
    layout = (tuple(tensor.shape), str(tensor.dtype))
    if 0 in tensor.shape:
        return id(tensor)
    if isinstance(tensor, np.ndarray):
        return (tensor.__array_interface__["data"][0], tensor.strides, *layout)
    # A sparse tensor, and one on the device meta, has no address.
    if str(getattr(tensor, "layout", "")) == "torch.strided" and not tensor.is_meta:
        return (tensor.data_ptr(), tensor.stride(), *layout)
    return id(tensor)


def _tied(tensors: Iterator[tuple[TorchTensor, Any]]) -> list[TorchTensor]:
    by_memory: dict[Any, list[TorchTensor]] = {}
    for tensor, memory in tensors:
        by_memory.setdefault(memory, []).append(tensor)
    groups = [
        TorchTensor(**{**first.__dict__, "aliases": tuple(others)})
        for first, *others in by_memory.values()
    ]
    return sorted(groups, key=lambda tensor: tensor.buffer)
