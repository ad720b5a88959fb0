"""Layers that people write themselves, in torch, beside Flax's; and what is said of each pair."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import torch
from flax import nnx

T, F = torch.nn, torch.nn.functional


class OwnLayer(NamedTuple):
    torch: Callable[[], Any]
    nnx: Callable[[nnx.Rngs], Any]
    warning: str = ""  # how it begins, behind the layer's name; "": there is none
    note: str = ""
    rename: Any = ()


class _Weighted(T.Module):
    """A layer of weights of its own, given as shapes."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            setattr(self, name, T.Parameter(torch.zeros(shape)))


class NanoLayerNorm(_Weighted):
    """nanoGPT's: the eps stands in a call."""

    def forward(self, x: Any) -> Any:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class Unweighted(T.Module):
    def forward(self, x: Any) -> Any:
        return F.layer_norm(x, (6,))


class LlamaRMSNorm(_Weighted):
    def __init__(self, eps: float) -> None:
        super().__init__(weight=(6,))
        self.variance_epsilon = eps

    def forward(self, x: Any) -> Any:
        held = x.to(torch.float32)
        held = held * torch.rsqrt(held.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * held.to(x.dtype)


class GemmaRMSNorm(LlamaRMSNorm):
    def forward(self, x: Any) -> Any:
        held = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return (1 + self.weight) * held


class AnnotatedNorm(_Weighted):
    """The Annotated Transformer's: of the standard deviation, with n - 1."""

    def forward(self, x: Any) -> Any:
        mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        return self.weight * (x - mean) / (std + 1e-6) + self.bias


class ChannelsFirst(_Weighted):
    """ConvNeXt's, over the second axis."""

    def forward(self, x: Any) -> Any:
        mean = x.mean(1, keepdim=True)
        var = (x - mean).pow(2).mean(1, keepdim=True)
        weight, bias = (w[:, None, None] for w in (self.weight, self.bias))
        return weight * (x - mean) / torch.sqrt(var + 1e-6) + bias


class CastLayerNorm(T.LayerNorm):
    """CLIP's: torch's in float32, whatever comes."""

    def forward(self, x: Any) -> Any:
        return super().forward(x.float()).to(x.dtype)


class FrozenBatchNorm(T.Module):
    """torchvision's: four buffers."""

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(6))
        self.eps = eps

    def forward(self, x: Any) -> Any:
        shape = (1, -1, 1, 1)
        scale = self.weight / torch.sqrt(self.running_var + self.eps)
        return x * scale.view(shape) + (self.bias - self.running_mean * scale).view(shape)


class BookBatchNorm(_Weighted):
    """As textbooks write it: Flax's variance, and a momentum for the old average."""

    def __init__(self, unbiased: bool = False, momentum: float = 0.9) -> None:
        super().__init__(weight=(6,), bias=(6,))
        self.register_buffer("running_mean", torch.zeros(6))
        self.register_buffer("running_var", torch.ones(6))
        self.unbiased, self.momentum = unbiased, momentum

    def forward(self, x: Any) -> Any:
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = x.mean(0), x.var(0, unbiased=False)
            kept = x.var(0, unbiased=self.unbiased)
            for held, new in ((self.running_mean, mean), (self.running_var, kept)):
                held.copy_(self.momentum * held + (1 - self.momentum) * new)
        return self.weight * (x - mean) / torch.sqrt(var + 1e-5) + self.bias


class OwnLinear(_Weighted):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(weight=(3, 6), bias=(3,))
        self.scale = scale

    def forward(self, x: Any) -> Any:
        return x @ (self.scale * self.weight.T) + self.bias


class ScaledEmbedding(T.Embedding):
    def forward(self, ids: Any) -> Any:
        return super().forward(ids) * math.sqrt(self.embedding_dim)


class OwnEmbedding(_Weighted):
    def forward(self, ids: Any) -> Any:
        return self.weight[ids]


class StandardizedConv(T.Conv2d):
    """BiT's: of each filter's weights the mean is taken off."""

    def forward(self, x: Any) -> Any:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Residual(_Weighted):
    def forward(self, x: Any, residual: Any) -> Any:
        return x + residual


class NewGELU(T.Module):
    """nanoGPT's of before torch had it."""

    def forward(self, x: Any) -> Any:
        cubic = math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))
        return 0.5 * x * (1.0 + torch.tanh(cubic))


class QuickGELU(T.Module):
    def forward(self, x: Any) -> Any:
        return x * torch.sigmoid(1.702 * x)


class FlaxsOwnNorm(nnx.Module):
    def __init__(self, eps: float, bias: bool = False) -> None:
        self.scale, self.eps = nnx.Param(jnp.ones(6)), eps
        self.bias = nnx.Param(jnp.ones(6)) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.bias is not None:
            x = x - x.mean(-1, keepdims=True)
        normed = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.scale[...]
        return normed if self.bias is None else normed + self.bias[...]


def _nano(bias: bool = True) -> NanoLayerNorm:
    layer = NanoLayerNorm(weight=(6,), **({"bias": (6,)} if bias else {}))
    if not bias:
        layer.bias = None
    return layer


def _norm(kind: str, **options: Any) -> Callable[[nnx.Rngs], Any]:
    return lambda r: getattr(nnx, kind)(6, **options, rngs=r)


EPS = "eps is 1e-05 in torch and 1e-06 in Flax; give epsilon=1e-05"
ELSE = "computes something else than nnx."
OWN_LAYERS: dict[str, OwnLayer] = {
    "nanoGPT's LayerNorm": OwnLayer(_nano, _norm("LayerNorm"), EPS),
    "nanoGPT's, without bias": OwnLayer(
        lambda: _nano(False), _norm("LayerNorm", use_bias=False), EPS
    ),
    "nanoGPT's, right": OwnLayer(_nano, _norm("LayerNorm", epsilon=1e-5)),
    "nanoGPT's, in bfloat16": OwnLayer(
        lambda: _nano().bfloat16(), _norm("LayerNorm", epsilon=1e-5, dtype=jnp.bfloat16)
    ),
    "Llama's RMSNorm": OwnLayer(lambda: LlamaRMSNorm(1e-5), _norm("RMSNorm"), EPS),
    "Llama's, right": OwnLayer(lambda: LlamaRMSNorm(1e-6), _norm("RMSNorm")),
    "Llama's, an eps of nobody else": OwnLayer(
        lambda: LlamaRMSNorm(3e-6), _norm("RMSNorm"), "eps is 3e-06 in torch and 1e-06 in Flax"
    ),
    "Llama's, and Flax's own": OwnLayer(
        lambda: LlamaRMSNorm(1e-6), lambda r: FlaxsOwnNorm(1e-5),
        "computes something else than your FlaxsOwnNorm",
    ),
    "Llama's, and Flax's own, right": OwnLayer(
        lambda: LlamaRMSNorm(1e-6), lambda r: FlaxsOwnNorm(1e-6)
    ),
    "torch's RMSNorm, and Flax's own": OwnLayer(
        lambda: T.RMSNorm(6, eps=1e-5), lambda r: FlaxsOwnNorm(1e-6),
        "eps is 1e-05 in torch and 1e-06 in your FlaxsOwnNorm",
    ),
    "torch's LayerNorm, and Flax's own": OwnLayer(
        lambda: T.LayerNorm(6), lambda r: FlaxsOwnNorm(1e-6, True),
        "eps is 1e-05 in torch and 1e-06 in your FlaxsOwnNorm",
    ),
    "torch's LayerNorm, and Flax's own, right": OwnLayer(
        lambda: T.LayerNorm(6), lambda r: FlaxsOwnNorm(1e-5, True)
    ),
    "Gemma's RMSNorm": OwnLayer(
        lambda: GemmaRMSNorm(1e-6), _norm("RMSNorm"), f"{ELSE}RMSNorm with the same parameters"
    ),
    "the Annotated Transformer's": OwnLayer(
        lambda: AnnotatedNorm(weight=(6,), bias=(6,)), _norm("LayerNorm"), f"{ELSE}LayerNorm"
    ),
    "OLMo's, without parameters": OwnLayer(
        Unweighted,
        _norm("LayerNorm", use_bias=False, use_scale=False),
        EPS,
    ),
    "OLMo's, right": OwnLayer(
        Unweighted, _norm("LayerNorm", use_bias=False, use_scale=False, epsilon=1e-5)
    ),
    "RMSNorm for LayerNorm": OwnLayer(
        lambda: LlamaRMSNorm(1e-6), _norm("LayerNorm", use_bias=False), f"{ELSE}LayerNorm"
    ),
    "ConvNeXt's": OwnLayer(
        lambda: ChannelsFirst(weight=(6,), bias=(6,)), _norm("LayerNorm", epsilon=1e-5),
        "eps is 1e-06 in torch and 1e-05 in Flax; give epsilon=1e-06",
    ),
    "ConvNeXt's, right": OwnLayer(
        lambda: ChannelsFirst(weight=(6,), bias=(6,)), _norm("LayerNorm")
    ),
    "CLIP's": OwnLayer(lambda: CastLayerNorm(6), _norm("LayerNorm"), EPS),
    "CLIP's, right": OwnLayer(lambda: CastLayerNorm(6), _norm("LayerNorm", epsilon=1e-5)),
    "frozen statistics": OwnLayer(
        FrozenBatchNorm, _norm("BatchNorm"), "keeps its statistics fixed while training; give"
    ),
    "frozen, right": OwnLayer(FrozenBatchNorm, _norm("BatchNorm", use_running_average=True)),
    "frozen, another eps": OwnLayer(
        lambda: FrozenBatchNorm(1e-3), _norm("BatchNorm", use_running_average=True),
        "eps is 0.001 in torch and 1e-05 in Flax",
    ),
    "a textbook's BatchNorm": OwnLayer(
        BookBatchNorm, _norm("BatchNorm"),
        "0.1 of the new batch's mean goes into the running one in torch and 0.01 in Flax; give"
        " momentum=0.9",
    ),
    "a textbook's, right": OwnLayer(BookBatchNorm, _norm("BatchNorm", momentum=0.9)),
    "torch's variance": OwnLayer(
        lambda: BookBatchNorm(unbiased=True), _norm("BatchNorm", momentum=0.9),
        "while training, torch's running variance takes n / (n - 1) times",
    ),
    "a linear layer": OwnLayer(OwnLinear, lambda r: nnx.Linear(6, 3, rngs=r)),
    "a scaled linear layer": OwnLayer(
        lambda: OwnLinear(0.5), lambda r: nnx.Linear(6, 3, rngs=r),
        note=f"layer (OwnLinear) {ELSE}Linear",
    ),
    "an embedding": OwnLayer(
        lambda: OwnEmbedding(weight=(5, 6)), lambda r: nnx.Embed(5, 6, rngs=r)
    ),
    "a scaled embedding": OwnLayer(
        lambda: ScaledEmbedding(5, 6), lambda r: nnx.Embed(5, 6, rngs=r),
        note=f"layer (ScaledEmbedding) {ELSE}Embed",
    ),
    "a standardized convolution": OwnLayer(
        lambda: StandardizedConv(4, 3, 2),
        lambda r: nnx.Conv(4, 3, (2, 2), padding="VALID", rngs=r),
        note=f"layer (StandardizedConv) {ELSE}Conv",
    ),
    "what takes more than one input": OwnLayer(
        lambda: Residual(weight=(6,)), _norm("RMSNorm"),
        note="layer (Residual) could not be run beside nnx.RMSNorm with the same parameters"
        " (TypeError: ",
    ),
    "GELU's approximation": OwnLayer(NewGELU, lambda r: nnx.gelu),
    "GELU's approximation, exact here": OwnLayer(
        NewGELU, lambda r: functools.partial(nnx.gelu, approximate=False),
        "computes something else than gelu: the outputs differ by 9e-05 of the largest; torch's is"
        " the tanh approximation",
    ),
    "CLIP's GELU": OwnLayer(QuickGELU, lambda r: nnx.gelu, "computes something else than gelu"),
    "CLIP's GELU, right": OwnLayer(QuickGELU, lambda r: lambda x: x * jax.nn.sigmoid(1.702 * x)),
}  # fmt: skip
