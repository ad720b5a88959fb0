"""The ways of calling torch's functions that are tried, the likeliest first."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from . import _other_attention as attention
from . import _other_layers as layers
from ._calls import Way
from ._other_recurrent import RECURRENT_WAYS

_EPS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-12)
_SOFTMAX = ("softmax", attention.ATTENTION)
_MASKED = ("masked_fill", attention.ATTENTION)
_PACKING = ("chunk", "split", "unbind", "tensor_split")
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_NORMS = ("layer_norm", "batch_norm", "group_norm", "rms_norm", "normalize")
_SUMS = ("add", "iadd", "radd")
_POOLS = ("max_pool2d", "avg_pool2d")
_LARGEST = layers.reduced(lambda x, dim, keepdim: x.amax(dim, keepdim))
_SUM = layers.reduced(lambda x, dim, keepdim: x.sum(dim, keepdim))

# What the parameter map says of a layer's setting, and Flax's value of it.
_SETTING = re.compile(r": (eps|num_groups) is .* in torch and ([^ ;]+) in ")


def _of_eps(eps: float) -> list[Way]:
    return [
        Way("layer-eps", (name,), layers.argument(place, "eps", eps),
            f"your side's {kind} has eps={eps:g}; torch's {{eps}}",
            "give the layer epsilon={eps} (Equinox: eps): of LayerNorm Flax's default is 1e-6, "
            "torch's 1e-5")
        for kind, name, place in (
            ("LayerNorm", "layer_norm", 4), ("BatchNorm", "batch_norm", 7),
            ("GroupNorm", "group_norm", 4), ("RMSNorm", "rms_norm", 3),
            ("InstanceNorm", "instance_norm", 7))
    ]  # fmt: skip


def _of_groups(groups: float) -> list[Way]:
    change = layers.argument(1, "num_groups", int(groups))
    words = f"your side's GroupNorm has num_groups={groups:g}; torch's another"
    return [Way("layer-setting", ("group_norm",), change, words, "give num_groups torch's value")]


def settings_of(differences: Sequence[str]) -> list[Way]:
    """Return the ways of layers whose settings are said to differ, of those that can be tried."""
    made = {"eps": _of_eps, "num_groups": _of_groups}
    found = {match.groups() for text in differences if (match := _SETTING.search(text))}
    return [way for kind, value in sorted(found) for way in made[kind](float(value))]


WAYS: tuple[Way, ...] = (
    *(way for eps in _EPS for way in _of_eps(eps)),
    *(Way("activation", ("gelu",), layers.argument(1, "approximate", form),
          f"your side's GELU is {words}; torch's is not",
          "give jax.nn.gelu the same approximate= as torch's (True is JAX's default, and "
          "approximate='tanh' torch's name of it)")
      for form, words in (("tanh", "the tanh approximation"), ("none", "the exact form"))),
    Way("training-mode", ("batch_norm",), layers.turned_over(5, "training"),
        "your side's BatchNorm normalises by the {running}; torch by the {other}",
        "give use_running_average as torch's module has it: module.train() is False, eval() True"),
    *(Way("attention-scale", _SOFTMAX, attention.scaled(power), f"your side's attention is {words}",
          "scale queries by head_size ** -0.5, once")
      for power, words in ((0.5, "without the division by the root of the head's size"),
                           (-0.5, "with one division by the root of the head's size more"),
                           (1.0, "multiplied by the root of the head's size, not divided"))),
    *(Way("attention-mask", names, attention.causal(offset), f"your side's attention {words}",
          "make the causal mask as jnp.tril(jnp.ones((t, t), bool)), of diagonal 0")
      for offset, words in ((1, "sees one position more of the future than torch's"),
                            (-1, "does not see its own position; torch's does"))
      for names in (("masked_fill",), _SOFTMAX)),
    *(Way("attention-mask", _MASKED, attention.windowed(more),
          f"your side's attention sees one position {'more' if more else 'less'} of the past",
          "count the window alike: with the position itself, or without it")
      for more in (True, False)),
    Way("attention-mask", _MASKED, attention.unmasked,
        "your side's attention has no mask where torch's has one",
        "give the attention the mask (causal, of padding) that torch's has"),
    Way("attention-mask", _SOFTMAX, attention.masked_late,
        "your side's attention is masked after its softmax; torch's before",
        "set what is hidden to -inf before the softmax"),
    Way("attention-mask", _SOFTMAX, attention.causal(0),
        "your side's attention is causal; torch's sees the future",
        "leave the causal mask out, or give torch's side one"),
    *(Way("softmax-axis", ("softmax", "log_softmax"), layers.argument(1, "dim", axis),
          f"your side's softmax goes along axis {axis}; torch's along another",
          "give jax.nn.softmax torch's dim as its axis: -1 by default")
      for axis in (-2, 0, 1)),
    *(Way("packed-layout", _PACKING, attention.by_head(heads),
          f"your side takes the packed projection head by head ({heads} heads); torch takes it "
          "part by part",
          "split the packed projection as torch does (all of q, then k, then v), or rearrange "
          "its columns when it is imported")
      for heads in (1, 2, 3, 4, 6, 8, 12, 16, 32)),
    Way("packed-layout", _PACKING, attention.interleaved,
        "your side takes the parts of the packed projection in turns, column by column",
        "split the packed projection as torch does (all of q, then k, then v)"),
    *(Way("packed-layout", _PACKING, attention.ordered(order),
          f"your side takes the parts of the packed projection in the order {order}",
          "take the parts in torch's order")
      for order in (*itertools.permutations(range(3)), (1, 0)) if list(order) != sorted(order)),
    *(Way("axes-order", ("view", "reshape", "unflatten", "flatten"), made, f"your side {words}",
          "split into (heads, size), put the axes back before they are merged, and merge an "
          "image's as (height, width)", everywhere=True)
      for made, words in (
        (attention.grouped(True, False), "splits heads as (size of a head, heads)"),
        (attention.grouped(False, True),
         "merges heads as (size of a head, heads), or an image's width before its height"),
        (attention.grouped(True, True), "splits and merges heads as (size of a head, heads)"),
        (attention.merged(-3), "merges heads where they stand, before the positions"))),
    *(Way("flatten-order", ("flatten", "reshape", "view"), layers.turned(turn),
          f"your side flattens the axes in the order {turn} of torch's before a layer",
          "transpose before the flattening, so that it is torch's order (N, C, H, W), or "
          "rearrange the kernel's rows on import")
      for turn in itertools.permutations((1, 2, 3)) if turn != (1, 2, 3)),
    *RECURRENT_WAYS,
    *(Way("position", ("getitem", "select"), layers.taken_at(index, end),
          f"your side takes the {mine} position where torch takes the {torchs}",
          "take torch's position", everywhere=True)
      for index, end, mine, torchs in ((-1, 0, "first", "last"), (0, -1, "last", "first"))),
    Way("padding", _CONVOLUTIONS, layers.same_padding,
        "your side pads a strided convolution as SAME does, more at the end; torch pads both ends "
        "alike", "give the padding in numbers: padding=((1, 1), (1, 1))"),
    Way("kernel-flipped", (*_CONVOLUTIONS, *_TRANSPOSED),
        lambda call: call.put(1, "weight", call.args[1].flip(tuple(range(2, call.args[1].ndim)))),
        "your side's convolution has its kernel flipped",
        "flip the kernel when it is imported, or give transpose_kernel=True"),
    *(Way("left-out", (name,), layers.as_given, f"your side leaves an activation out ({name})",
          "add it, or take it out of torch's module")
      for name in layers.ACTIVATIONS),
    *(Way("activation", (name,), layers.activation(other),
          f"your side has {other} where torch has {name}", "use torch's activation")
      for name, other in itertools.product(layers.ACTIVATIONS, layers.OTHERS) if name != other),
    *(Way("activation", ("leaky_relu",), layers.argument(1, "negative_slope", slope),
          f"your side's leaky ReLU has a slope of {slope:g}; torch's another",
          "give negative_slope as torch has it: 0.01 is both sides' default")
      for slope in (0.01, 0.1, 0.2, 0.3)),
    *(Way("activation", ("elu",), layers.argument(1, "alpha", alpha),
          f"your side's ELU has alpha={alpha:g}; torch's another", "give alpha as torch has it")
      for alpha in (0.1, 0.5, 1.0, 2.0)),
    *(Way("pooling", (name,), layers.pooled(other),
          f"your side has {other} where torch has {name}", "use torch's pooling")
      for name, other in itertools.permutations(_POOLS)),
    Way("pooling", ("avg_pool2d",), layers.turned_over(5, "count_include_pad", True),
        "your side's average pooling counts the padding otherwise than torch's",
        "give count_include_pad as torch has it"),
    *(Way("pooling", (name,), made, f"your side {words} where torch takes the mean ({{name}})",
          "take the mean of the same axes")
      for name, made, words in (("mean", _LARGEST, "takes the largest"),
                                ("adaptive_avg_pool2d", layers.adaptive, "takes the largest"),
                                ("mean", layers.reduced(layers.last), "takes what stands last"),
                                ("mean", _SUM, "adds up"))),
    Way("shifted-lookup", ("embedding",),
        lambda call: call.put(0, "input", (call.get(0, "input") + 1)
                              .clamp(max=len(call.args[1]) - 1)),
        "your side looks up the row after torch's in an embedding",
        "count positions, or classes, from where torch's side does"),
    Way("join-order", ("cat", "concat", "stack"), layers.turned_round,
        "your side joins parts in the opposite order ({name})",
        "give jnp.concatenate the parts in torch's order"),
    *(Way("left-out", names, layers.as_given, "your side leaves a normalisation out ({name})",
          "add the layer, or take it out of torch's module")
      for names in (_NORMS, *((name,) for name in _NORMS))),
    Way("left-out", ("linear", *_CONVOLUTIONS, *_TRANSPOSED),
        lambda call: None if call.get(2, "bias") is None else call.put(2, "bias", None),
        "your side leaves a bias out ({name})", "add the bias, or give torch's layer bias=False"),
    Way("left-out", _SUMS, layers.left_out,
        "your side leaves an addition out: a residual connection, a position embedding",
        "add what torch adds"),
    Way("left-out", _SUMS, layers.first_left_out,
        "your side leaves out what a branch is added to: a residual connection",
        "add what torch adds"),
    Way("left-out", layers.PRODUCTS, layers.left_out,
        "your side leaves a factor out: a scale, a temperature",
        "multiply by what torch multiplies by"),
    Way("left-out", ("mul",), layers.first_factor_left_out,
        "your side leaves a factor out: a scale, a gate, a mask",
        "multiply by what torch multiplies by"),
    Way("embedding-scale", ("embedding",),
        lambda call: (made := call.again(*call.args)) * made.shape[-1] ** 0.5,
        "your side multiplies embeddings by the root of their size; torch does not",
        "leave the factor out"),
)  # fmt: skip
