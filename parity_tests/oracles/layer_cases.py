"""Layers of torch and the Flax NNX layers that compute the same, with inputs for both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx


class LayerCase(NamedTuple):
    """Both sides of a layer; inputs are torch's, and Flax gets images with channels last."""

    torch: Callable[[], torch.nn.Module]
    nnx: Callable[[nnx.Rngs], nnx.Module]
    inputs: tuple[tuple[int, ...], ...]
    torch_call: Callable[..., Any] = lambda layer, *x: layer(*x)
    nnx_call: Callable[..., Any] = lambda layer, *x: layer(*x)
    integers: bool = False


def drawn(case: LayerCase) -> list[np.ndarray]:
    rng = np.random.default_rng(20240229)
    if case.integers:
        return [rng.integers(0, 5, shape) for shape in case.inputs]
    return [rng.normal(size=shape) for shape in case.inputs]


def channels_last(layer: Any, x: Any) -> Any:
    return jnp.moveaxis(layer(jnp.moveaxis(x, 1, -1)), -1, 1)


def _image(torch_layer: Any, nnx_layer: Any, *shape: int) -> LayerCase:
    return LayerCase(torch_layer, nnx_layer, (shape,), nnx_call=channels_last)


def _transposed(
    n: int, io: tuple[int, int], transpose_kernel: bool, padding: int, **torch_options: Any
) -> LayerCase:
    stride, dilation = torch_options.get("stride", 1), torch_options.get("dilation", 1)
    kernel = (3, 4, 2)[:n]
    low = [dilation * (k - 1) - padding for k in kernel]
    pads = [(p, p + torch_options.get("output_padding", 0)) for p in low]
    layer = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)[n - 1]
    return _image(
        lambda: layer(*io, kernel, padding=padding, **torch_options),
        lambda r: nnx.ConvTranspose(
            *io,
            kernel,
            strides=(stride,) * n,
            padding=pads,
            kernel_dilation=dilation,
            transpose_kernel=transpose_kernel,
            rngs=r,
        ),
        2,
        io[0],
        *(5, 4, 3)[:n],
    )


def _in_full_precision(query: Any, key: Any, value: Any, **_: Any) -> Any:
    # jax.nn.dot_product_attention takes the softmax in float32, whatever it is given.
    weights = jnp.einsum("...qhd,...khd->...hqk", query, key) / query.shape[-1] ** 0.5
    return jnp.einsum("...hqk,...khd->...qhd", jax.nn.softmax(weights), value)


def _attention(torch_call: Any = None, nnx_call: Any = None, **options: Any) -> LayerCase:
    """Self-attention of six features and two heads, or with keys and values of another width."""
    kv = options.get("kdim", 6)
    return LayerCase(
        lambda: torch.nn.MultiheadAttention(6, 2, batch_first=True, **options),
        lambda r: nnx.MultiHeadAttention(
            num_heads=2,
            in_features=6,
            in_kv_features=kv,
            use_bias=options.get("bias", True),
            attention_fn=_in_full_precision,
            decode=False,
            rngs=r,
        ),
        ((3, 4, 6), (3, 5, kv)),
        torch_call=lambda layer, q, kv: layer(q, kv, kv, need_weights=False)[0],
        nnx_call=lambda layer, q, kv: layer(q, kv),
    )


def _cell(kind: str, r: nnx.Rngs, features: int = 4, hidden: int = 3) -> Any:
    """A cell of Flax with torch's two biases."""
    if kind == "LSTM apart":
        cell = nnx.LSTMCell(features, hidden, rngs=r)
        for name in ("ii", "if_", "ig", "io"):
            setattr(cell, name, nnx.Linear(features, hidden, rngs=r))
        return cell
    make, gates = {
        "LSTM": (nnx.OptimizedLSTMCell, 4),
        "GRU": (nnx.GRUCell, 3),
        "RNN": (nnx.SimpleCell, 1),
    }[kind]
    cell = make(features, hidden, rngs=r)
    cell.dense_i = nnx.Linear(features, gates * hidden, rngs=r)
    cell.dense_h = nnx.Linear(hidden, gates * hidden, rngs=r)
    return cell


class _Stacked(nnx.Module):
    def __init__(self, r: nnx.Rngs) -> None:
        self.layers = nnx.List([nnx.RNN(_cell("LSTM", r)), nnx.RNN(_cell("LSTM", r, 3))])

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = run(layer, x)
        return x


class _Both(nnx.Module):
    def __init__(self, r: nnx.Rngs) -> None:
        self.forward_rnn = nnx.RNN(_cell("GRU", r))
        self.backward_rnn = nnx.RNN(_cell("GRU", r), reverse=True, keep_order=True)

    def __call__(self, x: Any) -> Any:
        return jnp.concatenate([run(self.forward_rnn, x), run(self.backward_rnn, x)], -1)


def run(rnn: Any, x: Any) -> Any:
    zeros = jnp.zeros((x.shape[0], 3), x.dtype)
    carry = (zeros, zeros) if isinstance(rnn.cell, nnx.LSTMCell | nnx.OptimizedLSTMCell) else zeros
    outputs = []
    # Not rnn(x): its scan takes half a second to compile.
    for t in reversed(range(x.shape[1])) if rnn.reverse else range(x.shape[1]):
        carry, output = rnn.cell(carry, x[:, t])
        outputs.append(output)
    return jnp.stack(outputs[::-1] if rnn.reverse else outputs, 1)


def _recurrent(torch_layer: Any, nnx_layer: Any, nnx_call: Any = run) -> LayerCase:
    return LayerCase(
        torch_layer, nnx_layer, ((2, 2, 4),), lambda layer, x: layer(x)[0], nnx_call=nnx_call
    )


def _embed(r: nnx.Rngs) -> nnx.Embed:
    return nnx.Embed(5, 5, dtype=jnp.float64, rngs=r)  # else it rounds to float32


class _Bare(torch.nn.Module):
    """A layer that is not torch's: a matrix that keeps its name and layout, and a gain."""

    def __init__(self) -> None:
        super().__init__()
        self.mixing = torch.nn.Parameter(torch.randn(4, 4))
        self.weight = torch.nn.Parameter(torch.randn(4))
        self.register_buffer("shift", torch.randn(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.mixing * self.weight + self.shift


class _BareNNX(nnx.Module):
    def __init__(self, r: nnx.Rngs) -> None:
        self.mixing, self.scale = nnx.Param(jnp.zeros((4, 4))), nnx.Param(jnp.zeros(4))
        self.shift = nnx.Variable(jnp.zeros(4))

    def __call__(self, x: Any) -> Any:
        return x @ self.mixing[...] * self.scale[...] + self.shift[...]


class _Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = torch.nn.Embedding(5, 5), torch.nn.Linear(5, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(x))


class _TiedNNX(nnx.Module):
    def __init__(self, r: nnx.Rngs) -> None:
        self.embed = _embed(r)

    def __call__(self, x: Any) -> Any:
        return self.embed.attend(self.embed(x))


class _TiedHeadNNX(nnx.Module):
    def __init__(self, r: nnx.Rngs) -> None:
        self.head = nnx.Linear(5, 5, use_bias=False, rngs=r)

    def __call__(self, x: Any) -> Any:
        return self.head(self.head.kernel[...].T[x])


T = torch.nn
CASES: dict[str, LayerCase] = {
    "linear": LayerCase(lambda: T.Linear(3, 2), lambda r: nnx.Linear(3, 2, rngs=r), ((4, 3),)),
    "linear, square": LayerCase(
        lambda: T.Linear(3, 3, bias=False),
        lambda r: nnx.Linear(3, 3, use_bias=False, rngs=r),
        ((4, 3),),
    ),
    "convolution, 1": _image(
        lambda: T.Conv1d(2, 3, 4, stride=2, padding=1),
        lambda r: nnx.Conv(2, 3, 4, strides=2, padding=1, rngs=r),
        *(2, 2, 9),
    ),
    "convolution, 2, dilated": _image(
        lambda: T.Conv2d(2, 2, (2, 2), dilation=(2, 1)),
        lambda r: nnx.Conv(2, 2, (2, 2), kernel_dilation=(2, 1), padding="VALID", rngs=r),
        *(2, 2, 6, 5),
    ),
    "convolution, 2, grouped": _image(
        lambda: T.Conv2d(4, 6, 3, groups=2, padding="same"),
        lambda r: nnx.Conv(4, 6, (3, 3), feature_group_count=2, rngs=r),
        *(2, 4, 6, 5),
    ),
    "convolution, 3, depthwise": _image(
        lambda: T.Conv3d(3, 3, (1, 2, 3), groups=3, bias=False),
        lambda r: nnx.Conv(
            *(3, 3, (1, 2, 3)), feature_group_count=3, use_bias=False, padding=0, rngs=r
        ),
        *(2, 3, 4, 5, 6),
    ),
    "transposed, 1": _transposed(1, (2, 3), False, 0),
    "transposed, 1, strided": _transposed(1, (3, 3), True, 1, stride=2, output_padding=1),
    "transposed, 2": _transposed(2, (3, 3), False, 1, stride=2),
    "transposed, 2, kernel": _transposed(2, (2, 3), True, 1, dilation=2),
    "transposed, 3": _transposed(3, (2, 2), False, 0, stride=2),
    "embedding": LayerCase(
        lambda: T.Embedding(5, 5), lambda r: _embed(r), ((4, 3),), integers=True
    ),
    "layer norm": LayerCase(
        lambda: T.LayerNorm(6), lambda r: nnx.LayerNorm(6, epsilon=1e-5, rngs=r), ((4, 6),)
    ),
    "RMS norm": LayerCase(
        lambda: T.RMSNorm(6, eps=1e-6), lambda r: nnx.RMSNorm(6, rngs=r), ((4, 6),)
    ),
    "group norm": _image(
        lambda: T.GroupNorm(2, 6),
        lambda r: nnx.GroupNorm(6, num_groups=2, epsilon=1e-5, rngs=r),
        *(4, 6, 5),
    ),
    "instance norm": _image(
        lambda: T.InstanceNorm2d(6, affine=True),
        lambda r: nnx.InstanceNorm(6, epsilon=1e-5, rngs=r),
        *(2, 6, 5, 4),
    ),
    "batch norm, training": _image(
        lambda: T.BatchNorm1d(6, momentum=None), lambda r: nnx.BatchNorm(6, rngs=r), 4, 6, 5
    ),
    "batch norm, evaluation": _image(
        lambda: T.BatchNorm2d(6).eval(),
        lambda r: nnx.BatchNorm(6, use_running_average=True, rngs=r),
        *(4, 6, 5, 3),
    ),
    "attention": _attention(),
    "attention without bias": _attention(bias=False),
    "attention, other keys": _attention(kdim=4, vdim=4),
    "LSTM": _recurrent(lambda: T.LSTM(4, 3, batch_first=True), lambda r: nnx.RNN(_cell("LSTM", r))),
    "LSTM, gates apart": _recurrent(
        lambda: T.LSTM(4, 3, batch_first=True), lambda r: nnx.RNN(_cell("LSTM apart", r))
    ),
    "LSTM, two layers": _recurrent(
        lambda: T.LSTM(4, 3, 2, batch_first=True), _Stacked, lambda layer, x: layer(x)
    ),
    "GRU": _recurrent(lambda: T.GRU(4, 3, batch_first=True), lambda r: nnx.RNN(_cell("GRU", r))),
    "GRU, both directions": _recurrent(
        lambda: T.GRU(4, 3, batch_first=True, bidirectional=True), _Both, lambda layer, x: layer(x)
    ),
    "RNN": _recurrent(lambda: T.RNN(4, 3, batch_first=True), lambda r: nnx.RNN(_cell("RNN", r))),
    "LSTM cell": LayerCase(
        lambda: T.LSTMCell(4, 3),
        lambda r: _cell("LSTM", r),
        ((2, 4), (2, 3), (2, 3)),
        lambda layer, x, h, c: layer(x, (h, c))[0],
        lambda layer, x, h, c: layer((c, h), x)[1],
    ),
    "PReLU": LayerCase(lambda: T.PReLU(init=0.3), lambda r: nnx.PReLU(), ((4, 3),)),
    "a module's own": LayerCase(_Bare, _BareNNX, ((3, 4),)),
    "tied, one embedding": LayerCase(_Tied, _TiedNNX, ((2, 3),), integers=True),
    "tied, one head": LayerCase(_Tied, _TiedHeadNNX, ((2, 3),), integers=True),
    "nested sequential": LayerCase(
        lambda: T.Sequential(T.Sequential(T.Linear(3, 4), T.ReLU()), T.Linear(4, 2)),
        lambda r: nnx.Sequential(
            nnx.Sequential(nnx.Linear(3, 4, rngs=r), nnx.relu), nnx.Linear(4, 2, rngs=r)
        ),
        ((5, 3),),
    ),
}
