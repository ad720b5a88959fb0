"""Networks that are right ports: layers of Linen, NNX and Equinox as they come, and plain JAX."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import torch
from flax import nnx
from torch import nn
from torch.nn import functional

from jaxopt_port import verify
from parity_tests.faults.flax_networks import (
    NnxCell,
    NnxGPT,
    TorchCell,
    TorchGPT,
    cell_batches,
    gpt_batches,
)
from parity_tests.faults.linen_networks import (
    LSTM,
    TX,
    Attention,
    Images,
    Normed,
    attention_side,
    images_side,
    lstm_side,
    normed_side,
)
from parity_tests.faults.models import MODELS, jax_loss, sides, torch_loss
from parity_tests.faults.network_data import (
    CLASSES,
    FEATURES,
    images,
    masked,
    pixels,
    sequences,
    smooth,
    targets,
    texts,
    torch_masked,
    torch_smooth,
    vectors,
)


class Network(NamedTuple):
    """A network on both sides.

    ``side`` makes the JAX side, whose ``tx`` is another in each training. ``theirs``: more
    arguments of `TorchSide`; ``options``: of `compare`.
    """

    torch: Callable[[], nn.Module]
    side: Callable[[], verify.JaxSide]
    batches: Callable[[int, int], list[Any]]
    theirs: Mapping[str, Any] = MappingProxyType({})
    options: Mapping[str, Any] = MappingProxyType({})


# ── NNX ────────────────────────────────────────────────────────────────────────────────────────


class NnxEvaluated(nnx.Module):
    """A network that is trained with its statistics at rest, its dropout off."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(2, 4, (3, 3), padding="VALID", rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(4, CLASSES, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.head(self.drop(nnx.relu(self.norm(self.conv(x))).mean((1, 2))))


class Evaluated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(4, CLASSES)
        self.eval()

    def forward(self, x: Any) -> Any:
        return self.head(self.drop(torch.relu(self.norm(self.conv(x))).mean((2, 3))))


class NnxAutoencoder(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, between: Any = nnx.elu) -> None:
        self.between = between
        self.into = nnx.Conv(1, 3, (2, 2), strides=2, padding="VALID", rngs=rngs)
        self.out = nnx.ConvTranspose(
            3, 1, (2, 2), strides=(2, 2), padding="VALID", transpose_kernel=True, rngs=rngs
        )

    def __call__(self, x: Any) -> Any:
        return self.out(self.between(self.into(x))).transpose(0, 3, 1, 2)


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Conv2d(1, 3, 2, 2), nn.ConvTranspose2d(3, 1, 2, 2)

    def forward(self, x: Any) -> Any:
        return self.out(functional.elu(self.into(x)))


def per_image(output: Any, batch: Any) -> Any:
    """Return the binary cross entropy, summed over pixels."""
    wanted = batch[0].transpose(0, 3, 1, 2)
    return optax.sigmoid_binary_cross_entropy(output, wanted).sum((1, 2, 3)).mean()


def torch_per_image(output: Any, batch: Any) -> Any:
    """Return the same of torch's."""
    whole = functional.binary_cross_entropy_with_logits(output, batch[0], reduction="none")
    return whole.sum((1, 2, 3)).mean()


class NnxBags(nnx.Module):
    """Means of embeddings; a layer that nothing uses; a gate that is a number."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(11, 6, rngs=rngs)
        self.gate = nnx.Param(jnp.array(0.5))
        self.head = nnx.LinearGeneral(6, 11, rngs=rngs)
        self.unused = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, ids: Any) -> Any:
        x = self.embed(ids)
        seen = jnp.cumsum(x, 1) / jnp.arange(1, 6)[:, None]
        return self.head(jax.nn.softplus(seen) * jax.nn.sigmoid(self.gate[...]))


class Bags(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.gate = nn.Embedding(11, 6), nn.Parameter(torch.tensor(0.5))
        self.head, self.unused = nn.Linear(6, 11), nn.Linear(3, 2)

    def forward(self, ids: Any) -> Any:
        seen = self.embed(ids).cumsum(1) / torch.arange(1, 6)[:, None]
        return self.head(functional.softplus(seen) * torch.sigmoid(self.gate))


def nhwc(batch: Any) -> Any:
    """Return a batch with channels last."""
    return tuple(x.transpose(0, 2, 3, 1) if x.ndim == 4 else x for x in batch)


# ── Equinox and plain functions ────────────────────────────────────────────────────────────────


class EqxNet(eqx.Module):
    first: eqx.nn.Linear
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear

    def __init__(self) -> None:
        keys = jax.random.split(jax.random.key(0))
        self.first = eqx.nn.Linear(FEATURES, 8, key=keys[0])
        self.norm = eqx.nn.LayerNorm(8)
        self.head = eqx.nn.Linear(8, 3, use_bias=False, key=keys[1])

    def __call__(self, x: Any, over: float = 255.0, approximate: bool = False) -> Any:
        return self.head(jax.nn.gelu(self.norm(self.first(x / over)), approximate=approximate))


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(FEATURES, 8), nn.LayerNorm(8)
        self.head = nn.Linear(8, 3, bias=False)

    def forward(self, x: Any) -> Any:
        return self.head(functional.gelu(self.norm(self.first(x / 255.0))))


def eqx_side(**options: Any) -> verify.JaxSide:
    return verify.equinox_side(
        EqxNet(),
        tx=TX,
        loss=lambda o, b: optax.l2_loss(o, b[1]).mean() * 2,
        forward=lambda model, batch: jax.vmap(functools.partial(model, **options))(batch[0]),
    )


@jax.custom_vjp
def clamped(x: Any) -> Any:
    """Return a hard tanh, with a gradient written by hand."""
    return jnp.clip(x, -1.0, 1.0)


clamped.defvjp(
    lambda x: (jnp.clip(x, -1.0, 1.0), x),
    lambda x, g: (jnp.where(jnp.abs(x) < 1.0, g, 0.0),),
)


def stacked(params: Any, batch: Any) -> Any:
    """Return what three residual layers give, by a loop over their stacked weights."""

    def layer(x: Any, weights: Any) -> Any:
        kernel, bias = weights
        return x + clamped(jnp.einsum("bi,ij->bj", x, kernel) + bias) / jnp.sqrt(3.0), None

    x = jnp.einsum("bi,io->bo", batch[0], params["into"]["kernel"]) + params["into"]["bias"]
    x, _ = jax.lax.scan(layer, x, (params["layers"]["kernel"], params["layers"]["bias"]))
    return jax.lax.cond(x.sum() > 1e9, jnp.zeros_like, lambda x: x, x)


class Stacked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into, self.layers = nn.Linear(FEATURES, CLASSES), nn.Module()
        self.layers.kernel = nn.Parameter(torch.randn(3, CLASSES, CLASSES) / 2)
        self.layers.bias = nn.Parameter(torch.zeros(3, CLASSES))

    def forward(self, x: Any) -> Any:
        x = self.into(x)
        for kernel, bias in zip(self.layers.kernel, self.layers.bias, strict=True):
            x = x + functional.hardtanh(x @ kernel + bias) / 3**0.5
        return x


def plain_side() -> verify.JaxSide:
    params = {
        "into": {"kernel": jnp.zeros((FEATURES, CLASSES)), "bias": jnp.zeros(CLASSES)},
        "layers": {"kernel": jnp.zeros((3, CLASSES, CLASSES)), "bias": jnp.zeros((3, CLASSES))},
    }
    return verify.JaxSide(apply=stacked, params=params, tx=TX, loss=smooth)


def nnx_of(kind: Callable[[nnx.Rngs], nnx.Module], **given: Any) -> Callable[[], verify.JaxSide]:
    return lambda: verify.nnx_side(kind(nnx.Rngs(0)), **{"tx": TX, "loss": jax_loss, **given})


def evaluated() -> verify.JaxSide:
    model = NnxEvaluated(nnx.Rngs(0))
    model.eval()
    return verify.nnx_side(model, tx=TX, loss=jax_loss, batch=nhwc)


def older(name: str) -> Network:
    """Return one of the networks that faults are seeded into."""
    model = MODELS[name]
    return Network(model.torch, lambda: sides(name, lambda m: None, TX)[1], model.batches)


NETWORKS: dict[str, Network] = {
    "perceptron": older("perceptron"),
    "convolutions": older("convolutions"),
    "gpt": Network(TorchGPT, nnx_of(NnxGPT), gpt_batches),
    "cell": Network(TorchCell, nnx_of(NnxCell), cell_batches),
    "linen": Network(Normed, normed_side, vectors, {"loss": torch_smooth}),
    "linen images": Network(Images, images_side, images),
    "linen LSTM": Network(LSTM, lstm_side, sequences, {"loss": lambda o, b: functional.huber_loss(o, b[1])}),
    "linen attention": Network(Attention, attention_side, texts, {"loss": torch_masked, "forward": lambda m, b: m(b["ids"])}),
    "nnx at rest": Network(Evaluated, evaluated, images),
    "nnx autoencoder": Network(Autoencoder, nnx_of(NnxAutoencoder, loss=per_image, batch=nhwc), pixels, {"loss": torch_per_image}),
    "nnx bags": Network(Bags, nnx_of(NnxBags, loss=masked, forward=lambda m, b: m(b["ids"])), texts, {"loss": torch_masked, "forward": lambda m, b: m(b["ids"])}),
    "equinox": Network(Scaled, eqx_side, targets, {"loss": lambda o, b: functional.mse_loss(o, b[1])}),
    "plain": Network(Stacked, plain_side, vectors, {"loss": torch_smooth}, {"layouts": {"layers.*": None}}),
}  # fmt: skip


@functools.cache
def _made(make: Callable[[], verify.JaxSide]) -> verify.JaxSide:
    return make()


def side(network: Network) -> verify.JaxSide:
    """Return the JAX side of a network, one for all trainings."""
    return _made(network.side)


def torch_side(network: Network, optimizer: Callable[[Any], Any], seed: int, more: Any) -> Any:
    """Return torch's side of a network; ``more`` makes further arguments of module, optimizer."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = network.torch()
    own = optimizer(module)
    given = {"loss": torch_loss, **network.theirs, **more(module, own)}
    return verify.TorchSide(**{"module": module, "optimizer": own, **given})
