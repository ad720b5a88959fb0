"""Networks of Linen's layers as they come, beside the same in torch."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import torch
from flax import linen
from torch import nn
from torch.nn import functional

from jaxopt_port import verify
from parity_tests.faults.models import jax_loss, to_nhwc
from parity_tests.faults.network_data import CLASSES, FEATURES, masked, smooth

TX = optax.identity()


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
