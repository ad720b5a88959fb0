"""Where Flax and Equinox keep a tensor of torch's layers, and in which layouts they may."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ._layout import Layout
from ._torch_tensors import TorchTensor

AS_IS = Layout()
TRANSPOSED = Layout(axes=(1, 0))
_RECURRENT = re.compile(r"(weight|bias)_(ih|hh)(?:_l(\d+))?(_reverse)?")
# The gates in torch's order, as the cells that keep them apart name them: NNX's, then Linen's.
_GATES = {"LSTM": (("i", "f_", "g", "o"), ("i", "f", "g", "o")), "GRU": (("r", "z", "n"),)}
_N_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_OF_STATISTICS = {"running_mean": "mean", "running_var": "var"}


class Place(NamedTuple):
    """A leaf for a tensor or for a part of it, and the layouts that are possible there."""

    path: str
    layouts: tuple[Layout, ...]


class Surroundings(NamedTuple):
    """What is known of the JAX side: shapes of leaves, NNX's or Equinox's layers, by short path."""

    shapes: Mapping[str, tuple[int, ...]]
    layers: Mapping[str, Any]


def alternatives(tensor: TorchTensor, path: str, around: Surroundings) -> Iterator[list[Place]]:
    """Yield the ways to keep a tensor: leaves that it is divided among, all of which must be there.

    Args:
        tensor: parameter or buffer.
        path: its name with slashes, renamed; with torch's last name, the leaf's own, or without.
        around: the JAX side.
    """
    prefix, _, last = path.rpartition("/")
    if last != tensor.leaf:
        # A rule gave the leaf itself, or the layer.
        yield [Place(path, _layouts(tensor, path, around))]
        prefix = path
    if tensor.kind == "Attention":
        yield from _of_attention(tensor, prefix, around)
    elif tensor.kind == "AttentionOut":
        yield from _of_attention_out(tensor, prefix, around)
    elif tensor.kind in _N_GATES:
        yield from _of_recurrent(tensor, prefix)
    for name in _names(tensor):
        leaf = f"{prefix}/{name}".lstrip("/")
        yield [Place(leaf, _layouts(tensor, leaf, around))]


def _names(tensor: TorchTensor) -> tuple[str, ...]:
    """Return what a layer of Flax calls a parameter; torch's own name is the last."""
    if tensor.kind in ("Norm", "bare") and tensor.leaf in _OF_STATISTICS:
        return (_OF_STATISTICS[tensor.leaf], tensor.leaf)
    if tensor.leaf != "weight" or tensor.kind == "bare":
        return (tensor.leaf,)
    names = {
        "Linear": ("kernel",),
        "Conv": ("kernel",),
        "ConvTranspose": ("kernel",),
        "AttentionOut": ("kernel",),
        "Embedding": ("embedding",),
        "Norm": ("scale",),
        "PReLU": ("negative_slope",),
        "AsIs": ("kernel",),
        "unknown": ("kernel", "embedding", "scale"),
    }
    return (*names[tensor.kind], "weight")


def _layouts(tensor: TorchTensor, path: str, around: Surroundings) -> tuple[Layout, ...]:
    """Return the layouts of a tensor that is one leaf: more than one where nothing decides."""
    n, (prefix, _, name) = len(tensor.shape), path.rpartition("/")
    layer = around.layers.get(prefix)
    if type(layer).__module__.startswith("equinox.nn."):
        return (_of_equinox(tensor, layer, around.shapes.get(path, ())),)
    if tensor.kind == "PReLU":
        return (Layout(view=()), AS_IS)
    as_they_are = ("bare", "Norm", "Embedding", "AsIs")
    if n < 2 or name in ("embedding", "scale") or tensor.kind in as_they_are:
        return (AS_IS,)
    # A name of the user's own, torch's perhaps, does not tell a layout.
    unsure = () if name == "kernel" and tensor.kind != "unknown" else (AS_IS,)
    if n == 2:
        return (*unsure, TRANSPOSED)
    convolution = Layout(axes=(*range(2, n), 1, 0))
    flipped = Layout(axes=(*range(2, n), 0, 1), flip=tuple(range(n - 2)))
    if tensor.kind == "Conv" or type(layer).__name__ == "Conv":
        return (*unsure, convolution)
    transposed_kernel = getattr(layer, "transpose_kernel", None)
    # A transposed convolution with transpose_kernel=True has that of a plain one.
    known = {None: (convolution, flipped), True: (convolution,), False: (flipped,)}
    return (*unsure, *known[transposed_kernel])


def _of_equinox(tensor: TorchTensor, layer: Any, shape: tuple[int, ...]) -> Layout:
    """Return the layout of a tensor in a layer of Equinox: torch's own, but for two."""
    n = len(tensor.shape)
    if n > 2 and type(layer).__name__.startswith("ConvTranspose"):  # (out, in, …), turned round
        return Layout(axes=(1, 0, *range(2, n)), flip=tuple(range(2, n)))
    # The bias of a convolution has its axes, the slope of a PReLU none.
    return Layout(view=shape) if n == 1 and math.prod(shape) == tensor.shape[0] else AS_IS


def _of_attention(tensor: TorchTensor, prefix: str, around: Surroundings) -> Iterator[list[Place]]:
    """The projections: one tensor for query, key and value, or three of different widths."""
    size = tensor.shape[0]
    parts: dict[str, tuple[int, int] | None]
    if tensor.leaf.startswith("in_proj"):
        size //= 3
        parts = {n: (i * size, (i + 1) * size) for i, n in enumerate(("query", "key", "value"))}
    else:
        parts = {{"q": "query", "k": "key", "v": "value"}[tensor.leaf[0]]: None}
    is_bias = tensor.leaf.endswith("bias")
    leaf = "bias" if is_bias else "kernel"
    places = []
    for name, rows in parts.items():
        path = f"{prefix}/{name}/{leaf}".lstrip("/")
        shape = around.shapes.get(path, ())
        heads = tensor.heads or (shape[-2] if len(shape) == 3 - is_bias else 1)
        heads = heads if heads and size % heads == 0 else 1
        view = (heads, size // heads, *tensor.shape[1:])
        with_heads = Layout(None if is_bias else (2, 0, 1), rows, view)
        without = Layout(None if is_bias else (1, 0), rows)
        places.append(Place(path, (without if 0 < len(shape) < len(view) else with_heads,)))
    yield places
    leaf = "bias" if is_bias else "weight"  # Equinox's
    yield [
        Place(f"{prefix}/{name}_proj/{leaf}".lstrip("/"), (Layout(rows=rows),))
        for name, rows in parts.items()
    ]


def _of_attention_out(
    tensor: TorchTensor, prefix: str, around: Surroundings
) -> Iterator[list[Place]]:
    for layer in (re.sub(r"(^|/)out_proj$", r"\1out", prefix), prefix):
        if tensor.leaf == "bias":
            yield [Place(f"{layer}/bias", (AS_IS,))]
            continue
        path = f"{layer}/kernel"
        shape = around.shapes.get(path, ())
        heads = tensor.heads or (shape[0] if len(shape) == 3 else 1)
        out, size = tensor.shape
        view = (out, heads, size // heads if heads and size % heads == 0 else size)
        yield [Place(path, (TRANSPOSED if len(shape) == 2 else Layout((1, 2, 0), None, view),))]
    own = re.sub(r"(^|/)out_proj$", r"\1output_proj", prefix)  # Equinox's
    yield [Place(f"{own}/{tensor.leaf}", (AS_IS,))]


def _of_recurrent(tensor: TorchTensor, prefix: str) -> Iterator[list[Place]]:
    """The cells of Flax: one matrix for all gates, or one for each."""
    match = _RECURRENT.fullmatch(tensor.leaf)
    if match is None:
        return
    weight_or_bias, source, number, reverse = match.groups()
    leaf, axes = ("kernel", (1, 0)) if weight_or_bias == "weight" else ("bias", None)
    letter = source[0]
    size = tensor.shape[0] // _N_GATES[tensor.kind]
    for cell in _cells(prefix, int(number or 0), bool(reverse)):
        yield [Place(f"{cell}/dense_{letter}/{leaf}".lstrip("/"), (Layout(axes),))]
        for gates in _GATES.get(tensor.kind, ()):
            yield [
                # In NNX only the input's "if" is a keyword.
                Place(
                    f"{cell}/{letter}{_gate(gate, letter)}/{leaf}".lstrip("/"),
                    (Layout(axes, (i * size, (i + 1) * size)),),
                )
                for i, gate in enumerate(gates)
            ]
        if tensor.kind == "RNN":
            yield [Place(f"{cell}/{letter}/{leaf}".lstrip("/"), (Layout(axes),))]


def _gate(gate: str, letter: str) -> str:
    return gate if letter == "i" else gate.rstrip("_")


def _cells(prefix: str, number: int, reverse: bool) -> Iterator[str]:
    """Yield where a layer's cell may be: alone, in ``RNN``, in ``Bidirectional``, in a list."""
    wrapped = ("/backward_rnn/cell",) if reverse else ("", "/cell", "/forward_rnn/cell")
    for stacked in ("", f"/{number}", f"/layers/{number}"):
        if stacked or number == 0:
            yield from (prefix + stacked + each for each in wrapped)
