"""Networks that are right ports: layers of Linen, NNX and Equinox as they come, and plain JAX."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import linen, nnx
from torch import nn
from torch.nn import functional

from jaxopt_port import verify
from parity_tests.faults.flax_networks import FLAX
from parity_tests.faults.models import MODELS, jax_loss, sides, to_nhwc, torch_loss

BATCH, CLASSES, FEATURES = 6, 5, 7
TX = optax.identity()


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


def vectors(seed: int, steps: int) -> list[Any]:
    """Return vectors and a class of each."""
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(steps, BATCH, FEATURES)).astype(np.float32)
    return list(zip(data, rng.integers(0, CLASSES, (steps, BATCH)), strict=True))


def targets(seed: int, steps: int) -> list[Any]:
    """Return vectors of large numbers, and numbers to be told from them."""
    rng = np.random.default_rng(seed)
    data = rng.uniform(0, 255, size=(steps, BATCH, FEATURES)).astype(np.float32)
    return list(zip(data, rng.normal(size=(steps, BATCH, 3)).astype(np.float32), strict=True))


def images(seed: int, steps: int) -> list[Any]:
    """Return images of 6 × 6, channels first, and a class of each."""
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(steps, BATCH, 2, 6, 6)).astype(np.float32)
    return list(zip(data, rng.integers(0, CLASSES, (steps, BATCH)), strict=True))


def texts(seed: int, steps: int) -> list[Any]:
    """Return tokens, of which 0 is padding, and the next ones, as a dict."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 11, (steps, BATCH, 6))
    tokens[:, :, 4:] *= rng.integers(0, 2, (steps, BATCH, 2))
    return [{"ids": t[:, :-1], "labels": t[:, 1:]} for t in tokens]


def sequences(seed: int, steps: int) -> list[Any]:
    """Return sequences and numbers."""
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(steps, BATCH, 5, FEATURES)).astype(np.float32)
    return list(zip(data, 3 * rng.normal(size=(steps, BATCH, 2)).astype(np.float32), strict=True))


def pixels(seed: int, steps: int) -> list[Any]:
    """Return images of ones and zeros, which are their own targets."""
    rng = np.random.default_rng(seed)
    return [((rng.random((BATCH, 1, 4, 4)) < 0.4).astype(np.float32),) for _ in range(steps)]


def smooth(output: Any, batch: Any) -> Any:
    """Return a cross entropy of smoothed labels."""
    labels = optax.smooth_labels(jax.nn.one_hot(batch[1], CLASSES), 0.1)
    return optax.softmax_cross_entropy(output, labels).mean()


def torch_smooth(output: Any, batch: Any) -> Any:
    """Return the same of torch's."""
    return functional.cross_entropy(output, batch[1], label_smoothing=0.1)


def masked(output: Any, batch: Any) -> Any:
    """Return the mean over what is no padding."""
    kept = batch["labels"] != 0
    each = optax.softmax_cross_entropy_with_integer_labels(output, batch["labels"])
    return jnp.where(kept, each, 0.0).sum() / jnp.maximum(kept.sum(), 1)


def torch_masked(output: Any, batch: Any) -> Any:
    """Return the same of torch's."""
    labels = batch["labels"].flatten()
    return functional.cross_entropy(output.flatten(0, 1), labels, ignore_index=0)


# ── Linen ──────────────────────────────────────────────────────────────────────────────────────


class LinenNormed(linen.Module):
    """A layer that is recomputed, a norm, two activations; options make faults of it."""

    dtype: Any = None

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.Dense(8, dtype=self.dtype, name="first")(x)
        x = linen.silu(linen.LayerNorm(epsilon=1e-5, name="norm")(x))
        x = linen.tanh(linen.remat(linen.Dense)(8, name="second")(x))
        return linen.Dense(CLASSES, name="head", kernel_init=linen.initializers.zeros)(x)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(FEATURES, 8), nn.LayerNorm(8)
        self.second, self.head = nn.Linear(8, 8), nn.Linear(8, CLASSES)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Any) -> Any:
        return self.head(torch.tanh(self.second(functional.silu(self.norm(self.first(x))))))


class LinenImages(linen.Module):
    """Convolutions with a group normalisation; options make faults of it."""

    groups: int = 2
    epsilon: float = 1e-5
    padding: Any = "SAME"
    pool: Any = linen.max_pool
    slope: float = 0.01
    flat: tuple[int, ...] = (0, 3, 1, 2)

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.Conv(4, (3, 3), padding=self.padding, name="conv1")(x)
        x = linen.relu(linen.GroupNorm(self.groups, epsilon=self.epsilon, name="norm")(x))
        x = self.pool(x, (2, 2), (2, 2))
        x = linen.Conv(4, (3, 3), feature_group_count=2, padding=1, name="conv2")(x)
        x = linen.leaky_relu(x, self.slope).transpose(self.flat)
        return linen.Dense(CLASSES, name="head")(x.reshape(len(x), -1))


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(2, 4, 3, padding="same"), nn.GroupNorm(2, 4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.head = nn.Linear(36, CLASSES)

    def forward(self, x: Any) -> Any:
        x = functional.max_pool2d(torch.relu(self.norm(self.conv1(x))), 2)
        return self.head(functional.leaky_relu(self.conv2(x)).flatten(1))


class LinenLSTM(linen.Module):
    """An LSTM whose last output is looked at; options make faults of it."""

    gate: Any = linen.sigmoid
    last: int = -1

    @linen.compact
    def __call__(self, x: Any) -> Any:
        cell = linen.OptimizedLSTMCell(4, gate_fn=self.gate, name="cell")
        return linen.Dense(2, name="head")(linen.RNN(cell, name="rnn")(x)[:, self.last])


class LSTM(nn.Module):
    """An LSTM with Flax's one bias for each gate."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.Module(), nn.Linear(4, 2)
        for gate in "ifgo":
            setattr(self.cell, f"i{gate}", nn.Linear(FEATURES, 4, bias=False))
            setattr(self.cell, f"h{gate}", nn.Linear(4, 4))

    def forward(self, x: Any) -> Any:
        h = c = torch.zeros(len(x), 4)
        for now in x.unbind(1):
            i, f, g, o = (
                getattr(self.cell, f"i{gate}")(now) + getattr(self.cell, f"h{gate}")(h)
                for gate in "ifgo"
            )
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.head(h)


class LinenAttention(linen.Module):
    """A causal language model of one layer, whose head is its embedding; options make faults."""

    epsilon: float = 1e-6
    causal: bool = True
    scale: float = 1.0
    places: float = 1.0
    residual: float = 1.0

    @linen.compact
    def __call__(self, ids: Any) -> Any:
        embed = linen.Embed(11, 8, name="embed")
        place = self.param("place", linen.initializers.normal(0.1), (5, 8))
        x = embed(ids) * self.scale + place * self.places
        mask = linen.make_causal_mask(ids) if self.causal else None
        mixed = linen.MultiHeadDotProductAttention(2, name="attn")(x, mask=mask)
        x = x * self.residual + mixed
        return embed.attend(linen.RMSNorm(epsilon=self.epsilon, name="norm")(x))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(11, 8), nn.Parameter(0.1 * torch.randn(5, 8))
        self.attn, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.RMSNorm(8, 1e-6)

    def forward(self, ids: Any) -> Any:
        x = self.embed(ids) + self.place
        mask = torch.ones(5, 5, dtype=torch.bool).triu(1)
        mixed, _ = self.attn(x, x, x, attn_mask=mask, need_weights=False)
        return self.norm(x + mixed) @ self.embed.weight.T


def of_linen(module: linen.Module, example: Any, **given: Any) -> verify.JaxSide:
    variables = module.init(jax.random.key(0), example)
    return verify.linen_side(
        module, variables, **{"tx": TX, "loss": jax_loss, "inputs": (example,), **given}
    )


def normed_side(**options: Any) -> verify.JaxSide:
    return of_linen(LinenNormed(**options), jnp.zeros((1, FEATURES)), loss=smooth)


def images_side(**options: Any) -> verify.JaxSide:
    return of_linen(LinenImages(**options), jnp.zeros((1, 6, 6, 2)), batch=to_nhwc)


def huber(output: Any, batch: Any) -> Any:
    return optax.huber_loss(output, batch[1]).mean()


def lstm_side(**options: Any) -> verify.JaxSide:
    return of_linen(LinenLSTM(**options), jnp.zeros((1, 5, FEATURES)), loss=huber)


def attention_side(**options: Any) -> verify.JaxSide:
    module = LinenAttention(**options)

    def forward(variables: Any, batch: Any) -> Any:
        return module.apply(variables, batch["ids"])

    return of_linen(module, jnp.zeros((1, 5), int), loss=masked, forward=forward)


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


def nnx_of(kind: type, **given: Any) -> Callable[[], verify.JaxSide]:
    return lambda: verify.nnx_side(kind(nnx.Rngs(0)), **{"tx": TX, "loss": jax_loss, **given})


def evaluated() -> verify.JaxSide:
    model = NnxEvaluated(nnx.Rngs(0))
    model.eval()
    return verify.nnx_side(model, tx=TX, loss=jax_loss, batch=nhwc)


def older(name: str) -> Network:
    """Return one of the networks that faults are seeded into."""
    if name in FLAX:
        made, kind, batches = FLAX[name]
        return Network(made, nnx_of(kind), batches)
    model = MODELS[name]
    return Network(model.torch, lambda: sides(name, lambda m: None, TX)[1], model.batches)


NETWORKS: dict[str, Network] = {
    **{name: older(name) for name in ("perceptron", "convolutions", *FLAX)},
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
def side(name: str) -> verify.JaxSide:
    """Return the JAX side of a network, one for all trainings: its programs are compiled once."""
    return NETWORKS[name].side()


def torch_side(name: str, optimizer: Callable[[Any], Any], seed: int, more: Any) -> Any:
    """Return torch's side of a network; ``more`` makes further arguments of module, optimizer."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = NETWORKS[name].torch()
    own = optimizer(module)
    given = {"loss": torch_loss, **NETWORKS[name].theirs, **more(module, own)}
    return verify.TorchSide(**{"module": module, "optimizer": own, **given})
