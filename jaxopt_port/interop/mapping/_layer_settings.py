"""The settings of torch's layers against those of Flax's, NNX and Linen, layer by layer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from ._padding import flax_padding, spread, torch_padding

# What Flax calls torch's activations, and the options that both have: torch's name, Flax's name,
# Flax's default.
_Option = tuple[str, str, Any]
FUNCTIONS: dict[str, tuple[tuple[str, ...], tuple[_Option, ...]]] = {
    "CELU": (("celu",), (("alpha", "alpha", 1.0),)),
    "ELU": (("elu",), (("alpha", "alpha", 1.0),)),
    "GELU": (("gelu",), (("approximate", "approximate", True),)),
    "Hardsigmoid": (("hard_sigmoid",), ()),
    "Hardswish": (("hard_silu", "hard_swish"), ()),
    "Hardtanh": (("hard_tanh",), ()),
    "LeakyReLU": (("leaky_relu",), (("negative_slope", "negative_slope", 0.01),)),
    "ReLU": (("relu",), ()),
    "ReLU6": (("relu6",), ()),
    "SELU": (("selu",), ()),
    "SiLU": (("silu", "swish"), ()),
    "Sigmoid": (("sigmoid",), ()),
    "Softplus": (("softplus",), ()),
    "Tanh": (("tanh",), ()),
}
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


def same_function(part: Any, torch_name: str) -> bool:
    """Return whether a function of JAX is torch's activation of this name, options aside."""
    return _name_and_options(part)[0] in FUNCTIONS[torch_name][0]


def _name_and_options(part: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(part, functools.partial):
        return getattr(part.func, "__name__", ""), dict(part.keywords)
    return getattr(part, "__name__", ""), {}


def _activation(torch_name: str, torch_layer: Any, part: Any) -> Iterator[str]:
    name, options = _name_and_options(part)
    names, compared = FUNCTIONS[torch_name]
    others = {each for known, _ in FUNCTIONS.values() for each in known} - set(names)
    if name in others:
        yield f"Flax has {name} here; use nnx.{names[0]}"
    if name not in names:
        return  # a layer or function of the user's own
    for torchs, flaxs, default in compared:
        want = getattr(torch_layer, torchs)
        want = want == "tanh" if torch_name == "GELU" else want
        if options.get(flaxs, default) != want:
            yield (
                f"{torchs} is {getattr(torch_layer, torchs)!r} in torch and {flaxs} is"
                f" {options.get(flaxs, default)!r} in Flax;"
                f" use functools.partial(nnx.{name}, {flaxs}={want!r})"
            )


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


def _norm(kind: str, torch_layer: Any, part: Any) -> Iterator[str]:
    yield from _is(part, kind)
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
    if hasattr(part, "rate"):
        yield from _number("p", torch_layer.p, part.rate, f"give rate={torch_layer.p:g}")


def _attention(torch_layer: Any, part: Any) -> Iterator[str]:
    if hasattr(part, "dropout_rate"):
        p = torch_layer.dropout
        yield from _number("dropout", p, part.dropout_rate, f"give dropout_rate={p:g}")
    if torch_layer.add_zero_attn:
        yield "add_zero_attn has no counterpart in Flax; append zeros to keys and values"


def _embedding(torch_layer: Any, part: Any) -> Iterator[str]:
    yield from _is(part, "Embedding")
    if torch_layer.padding_idx is not None:
        yield (
            f"torch gives row {torch_layer.padding_idx} (padding_idx) no gradient, nnx.Embed does;"
            " set its gradient to zero"
        )
    if torch_layer.max_norm is not None:
        yield f"torch shortens rows to max_norm={torch_layer.max_norm:g}; nnx.Embed does not"


def _rnn(torch_layer: Any, part: Any) -> Iterator[str]:
    name = getattr(getattr(part, "activation_fn", None), "__name__", "")
    want = getattr(torch_layer, "nonlinearity", "")
    if name in ("tanh", "relu") and want in ("tanh", "relu") and name != want:
        yield f"nonlinearity is {want} in torch and {name} in Flax; give activation_fn=nnx.{want}"
    if getattr(part, "residual", False):
        yield "residual=True adds the input, which torch does not; leave it out"


def _gated(torch_layer: Any, part: Any) -> Iterator[str]:
    for attribute, want in (("gate_fn", "sigmoid"), ("activation_fn", "tanh")):
        name = getattr(getattr(part, attribute, None), "__name__", want)
        if name != want:
            yield f"{attribute} is {name} in Flax; torch's is {want}: leave it out"


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
    "RNN": _rnn,
    "RNNCell": _rnn,
    **dict.fromkeys(("LSTM", "LSTMCell", "GRU", "GRUCell"), _gated),
    **{name: functools.partial(_activation, name) for name in FUNCTIONS},
}
