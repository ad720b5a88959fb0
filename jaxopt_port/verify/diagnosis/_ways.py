"""The ways of calling torch's functions that are tried, the likeliest first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from . import _other_attention as attention
from . import _other_layers as layers
from ._calls import Way
from ._other_recurrent import recurrent_ways

_EPS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-12)
_SLOPES = (0.01, 0.1, 0.2, 0.3)


def ways() -> Iterator[Way]:
    """Yield what is tried, the likeliest first."""
    names: tuple[str, ...]
    for kind, names, place in (
        ("LayerNorm", ("layer_norm",), 4),
        ("BatchNorm", ("batch_norm",), 7),
        ("GroupNorm", ("group_norm",), 4),
        ("RMSNorm", ("rms_norm",), 3),
    ):
        for eps in _EPS:
            yield Way(
                "layer-eps", names, layers.argument(place, "eps", eps),
                f"your side's {kind} has eps={eps:g}; torch's {{eps}}",
                "give the layer epsilon={eps} (Equinox: eps): of LayerNorm Flax's default is 1e-6, "
                "torch's 1e-5",
            )  # fmt: skip
    for form, words in (("tanh", "the tanh approximation"), ("none", "the exact form")):
        yield Way(
            "activation", ("gelu",), layers.argument(1, "approximate", form),
            f"your side's GELU is {words}; torch's is not",
            "give jax.nn.gelu the same approximate= as torch's (True is JAX's default, and "
            "approximate='tanh' torch's name of it)",
        )  # fmt: skip
    yield Way(
        "training-mode", ("batch_norm",), layers.turned_over(5, "training"),
        "your side's BatchNorm normalises by the {running}; torch by the {other}",
        "give use_running_average as torch's module has it: module.train() is False, eval() True",
    )  # fmt: skip
    for power, words in (
        (0.5, "without the division by the root of the head's size"),
        (-0.5, "with one division by the root of the head's size more"),
        (1.0, "multiplied by the root of the head's size, not divided"),
    ):
        yield Way(
            "attention-scale", ("softmax", attention.ATTENTION), attention.scaled(power),
            f"your side's attention is {words}",
            "scale queries by head_size ** -0.5, once",
        )  # fmt: skip
    for offset, words in (
        (1, "sees one position more of the future than torch's"),
        (-1, "does not see its own position; torch's does"),
    ):
        for names, made in (
            (("masked_fill",), attention.causal(offset)),
            (("softmax", attention.ATTENTION), attention.causal(offset)),
        ):
            yield Way(
                "attention-mask", names, made, f"your side's attention {words}",
                "make the causal mask as jnp.tril(jnp.ones((t, t), bool)), of diagonal 0",
            )  # fmt: skip
    for more, words in ((True, "more"), (False, "less")):
        yield Way(
            "attention-mask", ("masked_fill", attention.ATTENTION), attention.windowed(more),
            f"your side's attention sees one position {words} of the past",
            "count the window alike: with the position itself, or without it",
        )  # fmt: skip
    yield Way(
        "attention-mask", ("masked_fill", attention.ATTENTION), attention.unmasked,
        "your side's attention has no mask where torch's has one",
        "give the attention the mask (causal, of padding) that torch's has",
    )  # fmt: skip
    yield Way(
        "attention-mask", ("softmax", attention.ATTENTION), attention.masked_late,
        "your side's attention is masked after its softmax; torch's before",
        "set what is hidden to -inf before the softmax",
    )  # fmt: skip
    yield Way(
        "attention-mask", ("softmax", attention.ATTENTION), attention.causal(0),
        "your side's attention is causal; torch's sees the future",
        "leave the causal mask out, or give torch's side one",
    )  # fmt: skip
    for axis in (-2, 0, 1):
        yield Way(
            "softmax-axis", ("softmax", "log_softmax"), layers.argument(1, "dim", axis),
            f"your side's softmax goes along axis {axis}; torch's along another",
            "give jax.nn.softmax torch's dim as its axis: -1 by default",
        )  # fmt: skip
    packing = ("chunk", "split", "unbind", "tensor_split")
    for heads in (1, 2, 3, 4, 6, 8, 12, 16, 32):
        yield Way(
            "packed-layout", packing, attention.by_head(heads),
            f"your side takes the packed projection head by head ({heads} heads); torch takes it "
            "part by part",
            "split the packed projection as torch does (all of q, then k, then v), or rearrange "
            "its columns when it is imported",
        )  # fmt: skip
    yield Way(
        "packed-layout", packing, attention.interleaved,
        "your side takes the parts of the packed projection in turns, column by column",
        "split the packed projection as torch does (all of q, then k, then v)",
    )  # fmt: skip
    for order in (*itertools.permutations(range(3)), (1, 0)):
        if list(order) != sorted(order):
            yield Way(
                "packed-layout", packing, attention.ordered(order),
                f"your side takes the parts of the packed projection in the order {order}",
                "take the parts in torch's order",
            )  # fmt: skip
    for made, words in (
        (attention.grouped(True, False), "splits heads as (size of a head, heads)"),
        (
            attention.grouped(False, True),
            "merges heads as (size of a head, heads), or an image's width before its height",
        ),
        (attention.grouped(True, True), "splits and merges heads as (size of a head, heads)"),
        (attention.merged(-3), "merges heads where they stand, before the positions"),
    ):
        yield Way(
            "axes-order", ("view", "reshape", "unflatten", "flatten"), made, f"your side {words}",
            "split into (heads, size), put the axes back before they are merged, and merge an "
            "image's as (height, width)",
            everywhere=True,
        )  # fmt: skip
    for turn in itertools.permutations((1, 2, 3)):
        if turn != (1, 2, 3):
            yield Way(
                "flatten-order", ("flatten", "reshape", "view"), layers.turned(turn),
                f"your side flattens the axes in the order {turn} of torch's before a layer",
                "transpose before the flattening, so that it is torch's order (N, C, H, W), or "
                "rearrange the kernel's rows on import",
            )  # fmt: skip
    yield from recurrent_ways()
    for index, end, places in ((-1, 0, ("first", "last")), (0, -1, ("last", "first"))):
        yield Way(
            "position", ("getitem", "select"), layers.taken_at(index, end),
            f"your side takes the {places[0]} position where torch takes the {places[1]}",
            "take torch's position", everywhere=True,
        )  # fmt: skip
    convolutions = ("conv1d", "conv2d", "conv3d")
    transposed = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
    yield Way(
        "padding", convolutions, layers.same_padding,
        "your side pads a strided convolution as SAME does, more at the end; torch pads both ends "
        "alike",
        "give the padding in numbers: padding=((1, 1), (1, 1))",
    )  # fmt: skip
    yield Way(
        "kernel-flipped", (*convolutions, *transposed), layers.flipped,
        "your side's convolution has its kernel flipped",
        "flip the kernel when it is imported, or give transpose_kernel=True",
    )  # fmt: skip
    for name in layers.ACTIVATIONS:
        yield Way("left-out", (name,), layers.as_given,
                  f"your side leaves an activation out ({name})",
                  "add it, or take it out of torch's module")  # fmt: skip
    for name, other in itertools.permutations(layers.ACTIVATIONS, 2):
        yield Way(
            "activation", (name,), layers.activation(other),
            f"your side has {other} where torch has {name}", "use torch's activation",
        )  # fmt: skip
    for slope in _SLOPES:
        yield Way(
            "activation", ("leaky_relu",), layers.argument(1, "negative_slope", slope),
            f"your side's leaky ReLU has a slope of {slope:g}; torch's another",
            "give negative_slope as torch has it: 0.01 is both sides' default",
        )  # fmt: skip
    pools = {"max_pool2d": "avg_pool2d", "avg_pool2d": "max_pool2d"}
    for name, other in pools.items():
        yield Way(
            "pooling", (name,), layers.pooled(other),
            f"your side has {other} where torch has {name}", "use torch's pooling",
        )  # fmt: skip
    yield Way(
        "pooling", ("avg_pool2d",), layers.turned_over(5, "count_include_pad", True),
        "your side's average pooling counts the padding otherwise than torch's",
        "give count_include_pad as torch has it",
    )  # fmt: skip
    largest = layers.reduced(lambda x, dim, keepdim: x.amax(dim, keepdim))
    for names, made, words in (
        (("mean",), largest, "takes the largest"),
        (("adaptive_avg_pool2d",), layers.adaptive, "takes the largest"),
        (("mean",), layers.reduced(layers.last), "takes what stands last"),
        (("mean",), layers.reduced(lambda x, dim, keepdim: x.sum(dim, keepdim)), "adds up"),
    ):
        yield Way(
            "pooling", names, made, f"your side {words} where torch takes the mean ({{name}})",
            "take the mean of the same axes",
        )  # fmt: skip
    yield Way("shifted-lookup", ("embedding",), layers.further,
              "your side looks up the row after torch's in an embedding",
              "count positions, or classes, from where torch's side does")  # fmt: skip
    yield Way("join-order", ("cat", "concat", "stack"), layers.turned_round,
              "your side joins parts in the opposite order ({name})",
              "give jnp.concatenate the parts in torch's order")  # fmt: skip
    norms = ("layer_norm", "batch_norm", "group_norm", "rms_norm", "normalize")
    yield Way("left-out", norms, layers.as_given, "your side leaves a normalisation out ({name})",
              "add the layer, or take it out of torch's module")  # fmt: skip
    yield Way("left-out", ("linear", *convolutions, *transposed), layers.without_bias,
              "your side leaves a bias out ({name})",
              "add the bias, or give torch's layer bias=False")  # fmt: skip
    yield Way("left-out", ("add", "iadd", "radd"), layers.left_out,
              "your side leaves an addition out: a residual connection, a position embedding",
              "add what torch adds")  # fmt: skip
    yield Way("left-out", ("add", "iadd", "radd"), layers.first_left_out,
              "your side leaves out what a branch is added to: a residual connection",
              "add what torch adds")  # fmt: skip
    yield Way("left-out", layers.PRODUCTS, layers.left_out,
              "your side leaves a factor out: a scale, a temperature",
              "multiply by what torch multiplies by")  # fmt: skip
    yield Way("embedding-scale", ("embedding",), layers.rooted,
              "your side multiplies embeddings by the root of their size; torch does not",
              "leave the factor out")  # fmt: skip
