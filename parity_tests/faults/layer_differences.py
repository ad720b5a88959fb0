"""Layers that differ in a setting, with the beginnings of what is said; and layers that agree."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import torch
from flax import nnx

T = torch.nn
BIASED = "while training, torch's running variance takes n / (n - 1) times"


class Difference(NamedTuple):
    torch: Callable[[], Any]
    nnx: Callable[[nnx.Rngs], Any]
    messages: tuple[str, ...]  # how each begins


def _conv(**options: Any) -> Callable[[nnx.Rngs], Any]:
    kernel = options.pop("kernel", (3, 3))
    return lambda r: nnx.Conv(4, 4, kernel, **options, rngs=r)


def _transposed(**options: Any) -> Callable[[nnx.Rngs], Any]:
    return lambda r: nnx.ConvTranspose(2, 2, (3,), **options, rngs=r)


def _batch_norm(**options: Any) -> Callable[[nnx.Rngs], Any]:
    return lambda r: nnx.BatchNorm(4, **options, rngs=r)


def _function(f: Any) -> Callable[[nnx.Rngs], Any]:
    return lambda r: f


def _own(*_: Any, **__: Any) -> Any:
    """What a user gives in place of a function of Flax's."""


DIFFERENCES: dict[str, Difference] = {
    "momentum": Difference(
        lambda: T.BatchNorm2d(4),
        _batch_norm(),
        ("momentum 0.1 in torch is the new batch's part, and 0.99 in Flax the old", BIASED),
    ),
    "momentum, cumulative": Difference(
        lambda: T.BatchNorm1d(4, momentum=None),
        _batch_norm(),
        ("torch takes the mean over all batches (momentum=None)", BIASED),
    ),
    "variance": Difference(lambda: T.BatchNorm2d(4), _batch_norm(momentum=0.9), (BIASED,)),
    "variance, one side fixed": Difference(
        lambda: T.BatchNorm2d(4).eval(), _batch_norm(momentum=0.9), (BIASED,)
    ),
    "batch norm eps": Difference(
        lambda: T.BatchNorm2d(4, eps=1e-3).eval(),
        _batch_norm(use_running_average=True),
        ("eps is 0.001 in torch and 1e-05 in Flax; give epsilon=0.001",),
    ),
    "layer norm eps": Difference(
        lambda: T.LayerNorm(4),
        lambda r: nnx.LayerNorm(4, rngs=r),
        ("eps is 1e-05 in torch and 1e-06 in Flax; give epsilon=1e-05",),
    ),
    "group norm": Difference(
        lambda: T.GroupNorm(2, 4),
        lambda r: nnx.GroupNorm(4, num_groups=4, rngs=r),
        ("eps is 1e-05", "num_groups is 2 in torch and 4 in Flax"),
    ),
    "instance norm eps": Difference(
        lambda: T.InstanceNorm1d(4, affine=True),
        lambda r: nnx.InstanceNorm(4, rngs=r),
        ("eps is 1e-05",),
    ),
    "RMS norm, the dtype's eps": Difference(
        lambda: T.RMSNorm(4),
        lambda r: nnx.RMSNorm(4, rngs=r),
        ("eps is the dtype's own epsilon in torch and 1e-06 in Flax",),
    ),
    "another norm": Difference(
        lambda: T.LayerNorm(4, eps=1e-6),
        lambda r: nnx.GroupNorm(4, num_groups=2, rngs=r),
        ("Flax has GroupNorm here; use LayerNorm",),
    ),
    "another convolution": Difference(
        lambda: T.Conv1d(2, 2, 3),
        _transposed(padding="VALID"),
        ("Flax has ConvTranspose here; use Conv",),
    ),
    "SAME of a stride": Difference(
        lambda: T.Conv2d(4, 4, 3, stride=2, padding=1),
        _conv(strides=2),
        (
            'padding is ((1, 1), (1, 1)) of zeros in torch and "SAME", by the size of the input in'
            " Flax; give padding=((1, 1), (1, 1))",
        ),
    ),
    "no padding": Difference(
        lambda: T.Conv2d(4, 4, 3), _conv(), ("padding is ((0, 0), (0, 0)) of zeros in torch and",)
    ),
    "SAME of an even kernel": Difference(
        lambda: T.Conv2d(4, 4, 2, padding=1),
        _conv(kernel=(2, 2)),
        ("padding is ((1, 1), (1, 1)) of zeros in torch and ((0, 1), (0, 1)) of zeros in Flax",),
    ),
    "circular padding": Difference(
        lambda: T.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        _conv(),
        ("padding is ((1, 1), (1, 1)) of circular in torch",),
    ),
    "causal padding": Difference(
        lambda: T.Conv1d(4, 4, 3, padding=1),
        _conv(kernel=(3,), padding="CAUSAL"),
        ("padding is ((1, 1),) of zeros in torch and ((2, 0),) of zeros in Flax",),
    ),
    "stride, dilation, groups": Difference(
        lambda: T.Conv2d(4, 4, 3, stride=(2, 1), groups=2, padding=0),
        _conv(kernel_dilation=2, feature_group_count=4, padding="VALID"),
        (
            "stride is (2, 1) in torch and (1, 1) in Flax; give strides=(2, 1)",
            "dilation is (1, 1) in torch and (2, 2) in Flax",
            "groups is 2 in torch and 4 in Flax",
        ),
    ),
    "transposed, no padding": Difference(
        lambda: T.ConvTranspose1d(2, 2, 3),
        _transposed(padding=0),
        ("padding is ((2, 2),) of zeros in torch and ((0, 0),) of zeros in Flax; give",),
    ),
    "transposed, SAME": Difference(
        lambda: T.ConvTranspose1d(2, 2, 3, stride=2, padding=1),
        _transposed(strides=(2,)),
        ("padding is ((1, 1),) of zeros in torch and ((2, 1),) of zeros in Flax",),
    ),
    "dropout": Difference(
        lambda: T.Dropout(0.1),
        lambda r: nnx.Dropout(0.2, rngs=r),
        ("p is 0.1 in torch and 0.2 in Flax; give rate=0.1",),
    ),
    "attention's dropout": Difference(
        lambda: T.MultiheadAttention(4, 2, dropout=0.1, add_zero_attn=True),
        lambda r: nnx.MultiHeadAttention(2, 4, decode=False, rngs=r),
        (
            "dropout is 0.1 in torch and 0 in Flax; give dropout_rate=0.1",
            "broadcast_dropout=True drops the same in a whole batch",
            "add_zero_attn has no",
            "takes (length, batch, …) in torch (batch_first=False)",
        ),
    ),
    "attention of one's own": Difference(
        lambda: T.MultiheadAttention(4, 2, batch_first=True),
        lambda r: nnx.MultiHeadAttention(2, 4, attention_fn=_own, decode=False, rngs=r),
        ("attention_fn is not Flax's own",),
    ),
    "a product of one's own": Difference(
        lambda: T.Linear(4, 4),
        lambda r: nnx.Linear(4, 4, dot_general=_own, rngs=r),
        ("dot_general is not Flax's own",),
    ),
    "half precision": Difference(
        lambda: T.Linear(4, 4),
        lambda r: nnx.Linear(4, 4, dtype=jnp.bfloat16, rngs=r),
        ("calculates in bfloat16 in Flax (dtype), and has float32 in torch",),
    ),
    "axes of a layer norm": Difference(
        lambda: T.LayerNorm(4, eps=1e-6),
        lambda r: nnx.LayerNorm(4, reduction_axes=(-2,), feature_axes=1, rngs=r),
        (
            "reduction_axes is (-2,) in Flax, which are not torch's axes; give reduction_axes=-1",
            "feature_axes is 1 in Flax, which are torch's axes of an input with 2 alone",
        ),
    ),
    "axes of an RMS norm": Difference(
        lambda: T.RMSNorm(4, eps=1e-6),
        lambda r: nnx.RMSNorm(4, reduction_axes=(-2, -1), rngs=r),
        ("reduction_axes is (-2, -1) in Flax, which are not torch's axes",),
    ),
    "axes of a group norm": Difference(
        lambda: T.GroupNorm(2, 4, eps=1e-6),
        lambda r: nnx.GroupNorm(4, num_groups=2, reduction_axes=(-1,), rngs=r),
        ("reduction_axes is (-1,) in Flax, which are torch's axes of an input with 2 alone",),
    ),
    "axes of a group norm, the batch's": Difference(
        lambda: T.GroupNorm(2, 4, eps=1e-6),
        lambda r: nnx.GroupNorm(4, num_groups=2, reduction_axes=(0, -1), rngs=r),
        ("reduction_axes is (0, -1) in Flax, which are not torch's axes; leave it out",),
    ),
    "axis of a batch norm": Difference(
        lambda: T.BatchNorm2d(4).eval(),
        _batch_norm(use_running_average=True, axis=1),
        ("axis is 1 in Flax: see that it is the channels'",),
    ),
    "axis of an instance norm, running statistics": Difference(
        lambda: T.InstanceNorm1d(4, eps=1e-6, affine=True, track_running_stats=True),
        lambda r: nnx.InstanceNorm(4, feature_axes=1, rngs=r),
        ("feature_axes is 1 in Flax: see", "torch takes running statistics in eval()"),
    ),
    "input dilation": Difference(
        lambda: T.Conv2d(4, 4, 3, padding=1),
        _conv(input_dilation=2),
        ("input_dilation is (2, 2) in Flax, and torch has none; leave it out",),
    ),
    "a masked convolution": Difference(
        lambda: T.Conv2d(4, 4, 3, padding=1),
        _conv(mask=jnp.ones((3, 3, 4, 4))),
        ("mask is given in Flax: see that torch's weight is masked, too",),
    ),
    "a bag": Difference(
        lambda: T.EmbeddingBag(4, 3),
        lambda r: nnx.Embed(4, 3, rngs=r),
        ("gives the mean of each bag's rows, nnx.Embed the rows: see that it is taken, as embed(",),
    ),
    "gradients by frequency": Difference(
        lambda: T.Embedding(4, 3, scale_grad_by_freq=True),
        lambda r: nnx.Embed(4, 3, rngs=r),
        ("torch divides a row's gradient by how often the batch has it",),
    ),
    "dropout of channels": Difference(
        lambda: T.Dropout2d(0.2),
        lambda r: nnx.Dropout(0.2, rngs=r),
        ("torch drops whole channels; give broadcast_dims=(1, 2)",),
    ),
    "dropout of channels in Flax": Difference(
        lambda: T.Dropout(0.2),
        lambda r: nnx.Dropout(0.2, broadcast_dims=(1,), rngs=r),
        ("broadcast_dims is (1,) in Flax, torch drops elements one by one",),
    ),
    "alpha dropout": Difference(
        lambda: T.AlphaDropout(0.2),
        lambda r: nnx.Dropout(0.2, rngs=r),
        ("torch's AlphaDropout keeps mean and variance",),
    ),
    "padded embedding": Difference(
        lambda: T.Embedding(4, 3, padding_idx=1, max_norm=2.0),
        lambda r: nnx.Embed(4, 3, rngs=r),
        ("torch gives row 1 (padding_idx) no gradient", "torch shortens rows to max_norm=2"),
    ),
    "nonlinearity": Difference(
        lambda: T.RNNCell(4, 3, nonlinearity="relu"),
        lambda r: nnx.SimpleCell(4, 3, rngs=r),
        ("nonlinearity is relu in torch and tanh in Flax",),
    ),
    "GELU": Difference(
        lambda: T.GELU(),
        _function(nnx.gelu),
        ("approximate is 'none' in torch and approximate is True in Flax; use functools.partial(",),
    ),
    "GELU, the other way": Difference(
        lambda: T.GELU("tanh"),
        _function(functools.partial(nnx.gelu, approximate=False)),
        ("approximate is 'tanh' in torch and approximate is False in Flax",),
    ),
    "slope": Difference(
        lambda: T.LeakyReLU(0.2),
        _function(nnx.leaky_relu),
        ("negative_slope is 0.2 in torch and negative_slope is 0.01 in Flax",),
    ),
    "alpha": Difference(
        lambda: T.ELU(0.5), _function(jax.nn.elu), ("alpha is 0.5 in torch and alpha is 1.0",)
    ),
    "beta": Difference(
        lambda: T.Softplus(2.0),
        _function(nnx.softplus),
        ("beta is 2 in torch, always 1 in nnx.softplus",),
    ),
    "limits": Difference(
        lambda: T.Hardtanh(-1, 2),
        _function(nnx.hard_tanh),
        ("max_val is 2 in torch, always 1 in nnx.hard_tanh",),
    ),
    "a pool without strides": Difference(
        lambda: T.MaxPool2d(2),
        _function(functools.partial(nnx.max_pool, window_shape=(2, 2))),
        ("stride is (2, 2) in torch and (1, 1) in Flax; give strides=(2, 2)",),
    ),
    "a pool": Difference(
        lambda: T.AvgPool2d(3, 2, padding=1, count_include_pad=False, ceil_mode=True),
        _function(functools.partial(nnx.avg_pool, window_shape=(2, 2), strides=(2, 2))),
        (
            "kernel_size is (3, 3) in torch and (2, 2) in Flax; give window_shape=(3, 3)",
            "padding is ((1, 1), (1, 1)) in torch and 'VALID' in Flax",
            "ceil_mode=True has no counterpart in Flax",
            "count_include_pad is False in torch and True in Flax",
        ),
    ),
    "another pool": Difference(
        lambda: T.MaxPool1d(2),
        _function(functools.partial(nnx.avg_pool, window_shape=(2,))),
        ("Flax has avg_pool here; use nnx.max_pool",),
    ),
    "another function": Difference(
        lambda: T.ReLU(), _function(jnp.tanh), ("Flax has tanh here; use nnx.relu",)
    ),
    "another nonlinearity": Difference(
        lambda: T.RNNCell(4, 3),
        lambda r: nnx.SimpleCell(4, 3, activation_fn=nnx.sigmoid, rngs=r),
        ("nonlinearity is tanh in torch and sigmoid in Flax",),
    ),
    "an LSTM's activation": Difference(
        lambda: T.LSTMCell(3, 4),
        lambda r: nnx.OptimizedLSTMCell(3, 4, activation_fn=nnx.relu, rngs=r),
        ("activation_fn is relu in Flax",),
    ),
    "an LSTM's gates": Difference(
        lambda: T.LSTM(3, 4),
        lambda r: nnx.LSTMCell(3, 4, gate_fn=nnx.hard_sigmoid, rngs=r),
        ("gate_fn is hard_sigmoid in Flax",),
    ),
    "a GRU's activation": Difference(
        lambda: T.GRUCell(3, 4),
        lambda r: nnx.GRUCell(3, 4, activation_fn=nnx.relu, rngs=r),
        ("activation_fn is relu in Flax",),
    ),
    "a cell's input added": Difference(
        lambda: T.RNNCell(3, 4),
        lambda r: nnx.SimpleCell(3, 4, residual=True, rngs=r),
        ("residual=True adds the input",),
    ),
}
# The same settings, spelled in each framework's way: no alarm.
AGREEING: dict[str, tuple[Callable[[], Any], Callable[[nnx.Rngs], Any]]] = {
    "fixed statistics": (lambda: T.BatchNorm2d(4).eval(), _batch_norm(use_running_average=True)),
    "layer norm": (lambda: T.LayerNorm(4), lambda r: nnx.LayerNorm(4, epsilon=1e-5, rngs=r)),
    "group size": (
        lambda: T.GroupNorm(2, 4, eps=1e-6),
        lambda r: nnx.GroupNorm(4, num_groups=None, group_size=2, rngs=r),
    ),
    "SAME": (lambda: T.Conv2d(4, 4, 3, padding=1), _conv()),
    "SAME of a pool": (
        lambda: T.MaxPool2d(3, 1, 1),
        _function(
            functools.partial(nnx.max_pool, window_shape=(3, 3), strides=(1, 1), padding="SAME")
        ),
    ),
    "same": (lambda: T.Conv2d(4, 4, (2, 3), padding="same"), _conv(kernel=(2, 3))),
    "SAME of a stride, one element": (
        lambda: T.Conv2d(4, 4, 1, stride=2),
        _conv(kernel=(1, 1), strides=2),
    ),
    "pairs": (lambda: T.Conv2d(4, 4, 3, padding=(2, 1)), _conv(padding=((2, 2), (1, 1)))),
    "valid": (lambda: T.Conv2d(4, 4, 3, padding="valid"), _conv(padding="VALID", strides=None)),
    "circular": (
        lambda: T.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        _conv(padding="CIRCULAR"),
    ),
    "transposed, torch's own number": (
        lambda: T.ConvTranspose1d(2, 2, 3, padding=1, stride=2),
        _transposed(padding=1, strides=(2,)),
    ),
    "transposed, VALID": (
        lambda: T.ConvTranspose1d(2, 2, 3, stride=2),
        _transposed(strides=(2,), padding="VALID"),
    ),
    "axes as they are": (
        lambda: T.LayerNorm((3, 4), eps=1e-6),
        lambda r: nnx.LayerNorm(4, reduction_axes=(-1, -2), feature_axes=[-2, -1], rngs=r),
    ),
    "dropout of channels": (
        lambda: T.Dropout2d(0.2),
        lambda r: nnx.Dropout(0.2, broadcast_dims=(1, 2), rngs=r),
    ),
    "a pool": (
        lambda: T.MaxPool2d(3, 2, padding=1),
        _function(
            functools.partial(
                nnx.max_pool, window_shape=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1))
            )
        ),
    ),
    "attention of JAX": (
        lambda: T.MultiheadAttention(4, 2, batch_first=True),
        lambda r: nnx.MultiHeadAttention(
            2, 4, attention_fn=jax.nn.dot_product_attention, decode=False, rngs=r
        ),
    ),
    "GELU": (lambda: T.GELU("tanh"), _function(nnx.gelu)),
    "exact GELU": (lambda: T.GELU(), _function(functools.partial(nnx.gelu, approximate=False))),
    "SiLU": (lambda: T.SiLU(), _function(nnx.swish)),
    "a function of the user's own": (lambda: T.ReLU(), _function(lambda x: x)),
    "slope": (
        lambda: T.LeakyReLU(0.2),
        _function(functools.partial(nnx.leaky_relu, negative_slope=0.2)),
    ),
}
