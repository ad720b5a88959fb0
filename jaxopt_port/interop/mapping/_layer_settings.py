"""The settings of torch's layers against those of Flax's, NNX and Linen, layer by layer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp

from ._padding import flax_padding, spread, torch_padding

_CLASSES = {
    "BatchNorm": "BatchNorm",
    "Conv": "Conv",
    "ConvTranspose": "ConvTranspose",
    "Embedding": "Embed",
    "GroupNorm": "GroupNorm",
    "InstanceNorm": "InstanceNorm",
    "LayerNorm": "LayerNorm",
    "RMSNorm": "RMSNorm",
}

BIASED_VARIANCE = (
    "while training, torch's running variance takes n / (n - 1) times the variance of a batch"
    " of n values, Flax's the variance itself, so evaluation drifts apart; scale it in a"
    " BatchNorm of your own, or keep the statistics fixed (use_running_average=True, and"
    " eval() in torch)"
)


class Doubt(str):
    """What may be a difference: the two layers alone do not show it."""

    __slots__ = ()


def _is(part: Any, torch_kind: str) -> Iterator[str]:
    """Yield what a layer is, where it is another one of Flax's; else nothing."""
    names = [base.__name__ for base in type(part).__mro__]
    own = _CLASSES[torch_kind]
    if own not in names:
        found = next((name for name in names if name in _CLASSES.values()), None)
        if found is not None:
            yield f"Flax has {found} here; use {own}"


def _number(what: str, torchs: float, flaxs: float, remedy: str) -> Iterator[str]:
    if abs(torchs - flaxs) > 1e-12 * max(abs(torchs), abs(flaxs)):
        yield f"{what} is {torchs:g} in torch and {flaxs:g} in Flax; {remedy}"


def _axes(what: str, given: Any, wanted: Callable[[int], range], remedy: str) -> Iterator[str]:
    """Compare axes of Flax's with torch's, which depend on how many the input has."""
    axes = (given,) if isinstance(given, int) else tuple(given)
    counts = [n for n in range(1, 7) if all(-n <= axis < n for axis in axes)]
    same = [n for n in counts if {axis % n for axis in axes} == set(wanted(n))]
    if not same:
        yield f"{what} is {given} in Flax, which are not torch's axes; {remedy}"
    elif same != counts:
        yield Doubt(
            f"{what} is {given} in Flax, which are torch's axes of an input with {same[0]} alone: "
            f"see that it has as many, or {remedy}"
        )


def _axes_of_norm(kind: str, torch_layer: Any, part: Any) -> Iterator[str]:
    if kind in ("LayerNorm", "RMSNorm"):
        n = len(torch_layer.normalized_shape)
        remedy = tuple(range(-n, 0)) if n > 1 else -1
        for what in ("reduction_axes", "feature_axes"):
            yield from _axes(
                what,
                getattr(part, what, remedy),
                lambda count: range(count - n, count),
                f"give {what}={remedy}",
            )
    elif kind == "GroupNorm":
        if (given := getattr(part, "reduction_axes", None)) is not None:
            yield from _axes("reduction_axes", given, lambda n: range(1, n), "leave it out")
    else:
        what = "axis" if kind == "BatchNorm" else "feature_axes"
        # Images may have their channels first in Flax, too.
        if (given := getattr(part, what, -1)) not in (-1, (-1,), [-1]):
            yield Doubt(f"{what} is {given} in Flax: see that it is the channels'")


def _norm(kind: str, torch_layer: Any, part: Any) -> Iterator[str]:
    other = list(_is(part, kind))
    yield from other or _axes_of_norm(kind, torch_layer, part)
    epsilon = getattr(part, "epsilon", None)
    eps = torch_layer.eps
    if epsilon is not None and eps is None:
        yield (
            f"eps is the dtype's own epsilon in torch and {epsilon:g} in Flax;"
            " give epsilon=torch.finfo(dtype).eps"
        )
    elif epsilon is not None:
        yield from _number("eps", eps, epsilon, f"give epsilon={eps:g}")
    if kind == "GroupNorm":
        groups, size = torch_layer.num_groups, getattr(part, "group_size", None)
        own = torch_layer.num_channels // size if size else getattr(part, "num_groups", None)
        yield from _number("num_groups", groups, own or groups, f"give num_groups={groups}")
    if kind == "InstanceNorm" and torch_layer.track_running_stats:
        yield (
            "torch takes running statistics in eval() (track_running_stats=True), Flax's has none;"
            " calculate with them in a layer of your own"
        )


def _batch_norm(torch_layer: Any, part: Any) -> Iterator[str]:
    yield from _norm("BatchNorm", torch_layer, part)
    momentum = getattr(part, "momentum", None)
    frozen = not torch_layer.training and getattr(part, "use_running_average", None) is True
    if momentum is None or frozen or not torch_layer.track_running_stats:
        return
    if torch_layer.momentum is None:
        yield (
            "torch takes the mean over all batches (momentum=None), Flax a moving average with"
            f" momentum {momentum:g}; jaxopt_port.swa_utils.update_bn takes means"
        )
    else:
        want = 1 - torch_layer.momentum
        if abs(want - momentum) > 1e-12:
            yield (
                f"momentum {torch_layer.momentum:g} in torch is the new batch's part, and"
                f" {momentum:g} in Flax the old average's; give momentum={want:g}"
            )
    yield BIASED_VARIANCE


def _convolution(kind: str, torch_layer: Any, part: Any) -> Iterator[str]:
    other = list(_is(part, kind))
    yield from other
    if other or not hasattr(part, "kernel_dilation"):
        return
    n = len(torch_layer.kernel_size)
    for torchs, flaxs in (("stride", "strides"), ("dilation", "kernel_dilation")):
        want, got = tuple(getattr(torch_layer, torchs)), spread(getattr(part, flaxs), n)
        if want != got:
            yield f"{torchs} is {want} in torch and {got} in Flax; give {flaxs}={want}"
    if (dilated := spread(getattr(part, "input_dilation", 1), n)) != (1,) * n:
        yield f"input_dilation is {dilated} in Flax, and torch has none; leave it out"
    if getattr(part, "mask", None) is not None:
        yield Doubt("mask is given in Flax: see that torch's weight is masked, too")
    groups = getattr(part, "feature_group_count", 1)
    yield from _number(
        "groups", torch_layer.groups, groups, f"give feature_group_count={torch_layer.groups}"
    )
    want_pad, got_pad = torch_padding(torch_layer), flax_padding(part, kind == "ConvTranspose")
    padless = all(pair == (0, 0) for pair in (*(want_pad.pairs or ()), *(got_pad.pairs or ())))
    if want_pad.pairs != got_pad.pairs or (want_pad.mode != got_pad.mode and not padless):
        depends = got_pad.pairs is None
        words = f'"{part.padding}", by the size of the input' if depends else str(got_pad)
        remedy = f"give padding={want_pad.pairs}"
        if want_pad.mode != "zeros":
            remedy = f"pad with jnp.pad(x, …, mode='{want_pad.mode}') before, and not here"
        yield f"padding is {want_pad} in torch and {words} in Flax; {remedy}"


def _dropout(torch_layer: Any, part: Any) -> Iterator[str]:
    if not hasattr(part, "rate"):
        return
    yield from _number("p", torch_layer.p, part.rate, f"give rate={torch_layer.p:g}")
    name, shared = type(torch_layer).__name__, tuple(getattr(part, "broadcast_dims", ()))
    n = {"Dropout1d": 1, "Dropout2d": 2, "Dropout3d": 3}.get(name, 0)
    if torch_layer.p == 0:
        return
    if "Alpha" in name:
        yield f"torch's {name} keeps mean and variance, Flax's Dropout does not; write it out"
    elif n and not shared:
        yield f"torch drops whole channels; give broadcast_dims={tuple(range(1, n + 1))}"
    elif shared and not n:
        yield f"broadcast_dims is {shared} in Flax, torch drops elements one by one; leave it out"


def _attention(torch_layer: Any, part: Any) -> Iterator[str]:
    p = torch_layer.dropout
    if hasattr(part, "dropout_rate"):
        yield from _number("dropout", p, part.dropout_rate, f"give dropout_rate={p:g}")
    if p and getattr(part, "broadcast_dropout", False):
        yield "broadcast_dropout=True drops the same in a whole batch; give broadcast_dropout=False"
    if torch_layer.add_zero_attn:
        yield "add_zero_attn has no counterpart in Flax; append zeros to keys and values"
    if not torch_layer.batch_first:
        yield Doubt(
            "takes (length, batch, …) in torch (batch_first=False), (batch, length, …) in Flax:"
            " see that each is given its own"
        )


def _embedding(torch_layer: Any, part: Any) -> Iterator[str]:
    yield from _is(part, "Embedding")
    if torch_layer.padding_idx is not None:
        yield (
            f"torch gives row {torch_layer.padding_idx} (padding_idx) no gradient, nnx.Embed does;"
            " set its gradient to zero"
        )
    if torch_layer.max_norm is not None:
        yield f"torch shortens rows to max_norm={torch_layer.max_norm:g}; nnx.Embed does not"
    if torch_layer.scale_grad_by_freq:
        yield (
            "torch divides a row's gradient by how often the batch has it (scale_grad_by_freq),"
            " nnx.Embed does not; divide it"
        )
    if mode := getattr(torch_layer, "mode", ""):
        taken = {"mean": "mean", "sum": "sum", "max": "largest"}[mode]
        yield Doubt(
            f"gives the {taken} of each bag's rows, nnx.Embed the rows: see that it is taken, as"
            f" embed(ids).{mode}(-2)"
        )


def arithmetic(torch_layer: Any, part: Any) -> Iterator[Doubt]:
    """Yield what a layer of Flax, whatever it is, is told of how to calculate."""
    dtype, param = getattr(part, "dtype", None), next(torch_layer.parameters(), None)
    if dtype is not None and param is not None and jnp.issubdtype(dtype, jnp.floating):
        name = jnp.dtype(dtype).name
        if param.is_floating_point() and jnp.dtype(dtype).itemsize < param.element_size():
            yield Doubt(
                f"calculates in {name} in Flax (dtype), and has"
                f" {str(param.dtype).removeprefix('torch.')} in torch: see that torch does, too"
            )
    for what in _CALLED:
        function = getattr(part, what, None)
        while isinstance(function, functools.partial):
            function = function.func
        if function is None:
            continue
        if getattr(function, "__module__", "").partition(".")[0] not in ("flax", "jax"):
            yield Doubt(f"{what} is not Flax's own: see that it gives what torch's layer does")


_CALLED = (
    "attention_fn",
    "conv_general_dilated",
    "conv_general_dilated_cls",
    "dot_general",
    "dot_general_cls",
    "qkv_dot_general",
    "qkv_dot_general_cls",
    "out_dot_general",
    "out_dot_general_cls",
)
# By the name of torch's class, its bases included.
COMPARED: dict[str, Callable[[Any, Any], Iterator[str]]] = {
    "_BatchNorm": _batch_norm,
    "_InstanceNorm": functools.partial(_norm, "InstanceNorm"),
    "LayerNorm": functools.partial(_norm, "LayerNorm"),
    "GroupNorm": functools.partial(_norm, "GroupNorm"),
    "RMSNorm": functools.partial(_norm, "RMSNorm"),
    "_ConvTransposeNd": functools.partial(_convolution, "ConvTranspose"),
    "_ConvNd": functools.partial(_convolution, "Conv"),
    "_DropoutNd": _dropout,
    "MultiheadAttention": _attention,
    "Embedding": _embedding,
    "EmbeddingBag": _embedding,
}
