"""Two networks of Flax's layers as they come, beside the same in torch."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from parity_tests.faults.models import BATCH

TOKENS, LENGTH, WIDTH, HEADS = 13, 7, 12, 3


class TorchGPT(torch.nn.Module):
    """A causal language model."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.embed, self.place = nn.Embedding(TOKENS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(WIDTH) for _ in range(3))
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, TOKENS, bias=False)

    def forward(self, tokens: Any) -> Any:
        functional = torch.nn.functional
        x = self.embed(tokens) + self.place(torch.arange(tokens.shape[1]))
        q, k, v = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        x = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return self.head(self.norm3(x))


class NnxGPT(nnx.Module):
    """The same in Flax, its layers as they come but for eps; options make faults of it."""

    def __init__(self, rngs: nnx.Rngs, epsilon: float = 1e-5, dropout: float = 0.0) -> None:
        norm = functools.partial(nnx.LayerNorm, WIDTH, epsilon=epsilon, rngs=rngs)
        linear = functools.partial(nnx.Linear, rngs=rngs)
        self.embed = nnx.Embed(TOKENS, WIDTH, rngs=rngs)
        self.place = nnx.Embed(LENGTH, WIDTH, rngs=rngs)
        self.norm1, self.norm2, self.norm3 = norm(), norm(), norm()
        self.qkv, self.out = linear(WIDTH, 3 * WIDTH), linear(WIDTH, WIDTH)
        self.up, self.down = linear(WIDTH, 4 * WIDTH), linear(4 * WIDTH, WIDTH)
        self.head = linear(WIDTH, TOKENS, use_bias=False)
        self.drop = nnx.Dropout(dropout, rngs=rngs) if dropout else None

    def __call__(
        self,
        tokens: Any,
        *,
        approximate: bool = False,
        scale: float = (WIDTH // HEADS) ** -0.5,
        diagonal: int = 0,
        split: Callable[[Any], Any] = lambda x: jnp.split(x, 3, -1),
        soft: Callable[[Any], Any] = jax.nn.softmax,
        last_norm: bool = True,
        places: bool = True,
        embedded: float = 1.0,
        noise: Callable[[], float] = lambda: 0.0,
    ) -> Any:
        x = self.embed(tokens) * embedded
        if places:
            x = x + self.place(jnp.arange(tokens.shape[1]))
        heads = (*x.shape[:2], HEADS, WIDTH // HEADS)
        q, k, v = (p.reshape(heads).swapaxes(1, 2) for p in split(self.qkv(self.norm1(x))))
        mask = jnp.tril(jnp.ones((x.shape[1],) * 2, bool), diagonal)
        weights = soft(jnp.where(mask, q @ k.swapaxes(-1, -2) * scale, -jnp.inf))
        x = x + self.out((weights @ v).swapaxes(1, 2).reshape(x.shape))
        h = jax.nn.gelu(self.up(self.norm2(x)), approximate=approximate)
        if self.drop is not None:
            h = self.drop(h)
        x = x + self.down(h) + noise()
        return self.head(self.norm3(x) if last_norm else x)


class TorchCell(torch.nn.Module):
    """A recurrent network: its state begins with zeros."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.into, self.on, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        h = torch.zeros(x.shape[0], 8)
        for i in range(x.shape[1]):
            h = torch.tanh(self.into(x[:, i]) + self.on(h))
        return self.head(h)


class NnxCell(nnx.Module):
    """The same by ``lax.scan``, with a carry that is float32 whatever it is given."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        linear = functools.partial(nnx.Linear, rngs=rngs)
        self.into, self.on, self.head = linear(4, 8), linear(8, 8), linear(8, 5)

    def __call__(self, x: Any) -> Any:
        def step(h: Any, now: Any) -> Any:
            return jnp.tanh(self.into(now) + self.on(h)), None

        h, _ = jax.lax.scan(step, jnp.zeros((x.shape[0], 8), jnp.float32), x.swapaxes(0, 1))
        return self.head(h)


def gpt_batches(seed: int, steps: int) -> list[Any]:
    """Return tokens and the next ones; 0 is padding where a fault takes it so."""
    tokens = np.random.default_rng(seed).integers(0, TOKENS, (steps, BATCH, LENGTH + 1))
    return [(batch[:, :-1], batch[:, 1:]) for batch in tokens]


def cell_batches(seed: int, steps: int) -> list[Any]:
    """Return sequences and a class of each."""
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(steps, BATCH, 6, 4)).astype(np.float32)
    return list(zip(data, rng.integers(0, 5, (steps, BATCH)), strict=True))
