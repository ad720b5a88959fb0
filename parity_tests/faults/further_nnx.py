"""A decoder by hand, a VAE, a network of segments, in NNX; options make faults of them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from torch import nn
from torch.nn import functional

from jaxopt_port import verify
from parity_tests.faults.models import to_nhwc

BATCH, TX = 6, optax.identity()
TOKENS, LENGTH, WIDTH, HEADS, WINDOW = 13, 7, 12, 2, 4
HEAD = WIDTH // HEADS


# ── a decoder block by hand: rotary positions, a window, SwiGLU, capped logits ─────────────────


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, WIDTH)
        self.norm1, self.norm2, self.norm3 = (nn.RMSNorm(WIDTH, 1e-5) for _ in range(3))
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(WIDTH, 20, bias=False) for _ in range(2))
        self.down, self.head = nn.Linear(20, WIDTH, bias=False), nn.Linear(WIDTH, TOKENS)

    def rotated(self, x: Any) -> Any:
        half = HEAD // 2
        rates = 10000.0 ** (-torch.arange(half, dtype=x.dtype) / half)
        angles = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * rates
        one, two = x[..., :half], x[..., half:]
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([one * cos - two * sin, two * cos + one * sin], -1)

    def forward(self, ids: Any) -> Any:
        x = self.embed(ids)
        h, (b, n) = self.norm1(x), ids.shape
        q, k, v = (f(h).view(b, n, HEADS, HEAD).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = self.rotated(q) @ self.rotated(k).transpose(-1, -2) / HEAD**0.5
        apart = torch.arange(n)[:, None] - torch.arange(n)
        scores = scores.masked_fill((apart < 0) | (apart >= WINDOW), float("-inf"))
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, WIDTH)
        x = x + self.o(mixed)
        h = self.norm2(x)
        x = x + self.down(functional.silu(self.gate(h)) * self.up(h))
        return 5.0 * torch.tanh(self.head(self.norm3(x)) / 5.0)


class NnxDecoder(nnx.Module):
    """The same; options of its call make faults."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        norm = functools.partial(nnx.RMSNorm, WIDTH, epsilon=1e-5, rngs=rngs)
        linear = functools.partial(nnx.Linear, use_bias=False, rngs=rngs)
        self.embed = nnx.Embed(TOKENS, WIDTH, rngs=rngs)
        self.norm1, self.norm2, self.norm3 = norm(), norm(), norm()
        self.q, self.k, self.v, self.o = (linear(WIDTH, WIDTH) for _ in range(4))
        self.gate, self.up = linear(WIDTH, 20), linear(WIDTH, 20)
        self.down, self.head = linear(20, WIDTH), nnx.Linear(WIDTH, TOKENS, rngs=rngs)

    def __call__(
        self,
        ids: Any,
        *,
        sign: float = 1.0,
        pairs: bool = False,
        base: float = 10000.0,
        turn: str = "qk",
        window: int = WINDOW,
        axis: int = -1,
        cap: float | None = 5.0,
        after: bool = False,
        parallel: bool = False,
        merged: bool = True,
        one_plus: float = 0.0,
        exchanged: bool = False,
    ) -> Any:
        def rotated(x: Any) -> Any:
            half = HEAD // 2
            rates = base ** (-jnp.arange(half, dtype=x.dtype) / half)
            angles = sign * jnp.arange(x.shape[-2], dtype=x.dtype)[:, None] * rates
            cos, sin = jnp.cos(angles), jnp.sin(angles)
            if pairs:
                one, two = x[..., ::2], x[..., 1::2]
                both = jnp.stack([one * cos - two * sin, two * cos + one * sin], -1)
                return both.reshape(x.shape)
            one, two = x[..., :half], x[..., half:]
            return jnp.concatenate([one * cos - two * sin, two * cos + one * sin], -1)

        x = self.embed(ids)
        b, n = ids.shape

        def normed(layer: Any, x: Any) -> Any:
            return layer(x) if not one_plus else layer(x) * (1 + one_plus / layer.scale[...])

        h = x if after else normed(self.norm1, x)
        q, k, v = (f(h).reshape(b, n, HEADS, HEAD).swapaxes(1, 2) for f in (self.q, self.k, self.v))
        q, k = (rotated(p) if name in turn else p for name, p in (("q", q), ("k", k)))
        scores = q @ k.swapaxes(-1, -2) / jnp.sqrt(HEAD).astype(q.dtype)
        apart = jnp.arange(n)[:, None] - jnp.arange(n)
        scores = jnp.where((apart >= 0) & (apart < window), scores, -1e30)
        mixed = jax.nn.softmax(scores, axis) @ v
        if merged:
            mixed = mixed.swapaxes(1, 2)
        mixed = self.o(mixed.reshape(b, n, WIDTH))
        if after:
            x = normed(self.norm1, x + mixed)
        elif not parallel:
            x = x + mixed
        h = normed(self.norm2, x)
        one, two = (self.up(h), self.gate(h)) if exchanged else (self.gate(h), self.up(h))
        x = x + self.down(jax.nn.silu(one) * two)
        if parallel:
            x = x + mixed
        logits = self.head(normed(self.norm3, x))
        return logits if cap is None else cap * jnp.tanh(logits / cap)


def texts(seed: int, steps: int) -> list[Any]:
    """Return tokens and the next ones, of which a prompt of some length does not count."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, TOKENS, (steps, BATCH, LENGTH + 1))
    prompt = np.arange(LENGTH) < rng.integers(0, 4, (steps, BATCH, 1))
    return [
        {"ids": t[:, :-1], "labels": np.where(p, -100, t[:, 1:])}
        for t, p in zip(tokens, prompt, strict=True)
    ]


def torch_next(output: Any, batch: Any) -> Any:
    return functional.cross_entropy(output.flatten(0, 1), batch["labels"].flatten())


def each_next(output: Any, batch: Any) -> tuple[Any, Any]:
    """Return the loss of each position, and which count."""
    kept = batch["labels"] >= 0
    labels = jnp.where(kept, batch["labels"], 0)
    return optax.softmax_cross_entropy_with_integer_labels(output, labels), kept


def next_loss(output: Any, batch: Any) -> Any:
    each, kept = each_next(output, batch)
    return jnp.where(kept, each, 0).sum() / kept.sum()


def decoder_side(**options: Any) -> verify.JaxSide:
    return verify.nnx_side(
        NnxDecoder(nnx.Rngs(0)), tx=TX, loss=next_loss,
        forward=lambda m, b: m(b["ids"], **options),
    )  # fmt: skip


# ── a conditional VAE with a classifier on its latents ─────────────────────────────────────────


class VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc, self.mean, self.logvar = nn.Linear(12, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.dec, self.out, self.classify = nn.Linear(8, 8), nn.Linear(8, 7), nn.Linear(3, 5)

    def forward(self, x: Any, label: Any, noise: Any) -> Any:
        label = functional.one_hot(label, 5).to(x.dtype)
        h = torch.tanh(self.enc(torch.cat([x, label], -1)))
        mean, logvar = self.mean(h), self.logvar(h)
        z = mean + torch.exp(0.5 * logvar) * noise
        pixels = self.out(functional.softplus(self.dec(torch.cat([z, label], -1))))
        return {"pixels": pixels, "mean": mean, "logvar": logvar, "logits": self.classify(mean)}


class NnxVAE(nnx.Module):
    """The same; options of its call make faults."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        linear = functools.partial(nnx.Linear, rngs=rngs)
        self.enc, self.mean, self.logvar = linear(12, 8), linear(8, 3), linear(8, 3)
        self.dec, self.out, self.classify = linear(8, 8), linear(8, 7), linear(3, 5)

    def __call__(
        self, x: Any, label: Any, noise: Any, *, half: float = 0.5, label_first: bool = False,
        read: Any = lambda mean, z: mean,
    ) -> Any:  # fmt: skip
        label = jax.nn.one_hot(label, 5, dtype=x.dtype)
        h = jnp.tanh(self.enc(jnp.concatenate([x, label], -1)))
        mean, logvar = self.mean(h), self.logvar(h)
        z = mean + jnp.exp(half * logvar) * noise
        parts = [label, z] if label_first else [z, label]
        pixels = self.out(jax.nn.softplus(self.dec(jnp.concatenate(parts, -1))))
        logits = self.classify(read(mean, z))
        return {"pixels": pixels, "mean": mean, "logvar": logvar, "logits": logits}


def drawn(seed: int, steps: int) -> list[Any]:
    """Return pixels, labels and the noise of the latents."""
    rng = np.random.default_rng(seed)
    return [
        {
            "x": rng.random((BATCH, 7)).astype(np.float32),
            "label": rng.integers(0, 5, BATCH),
            "noise": rng.normal(size=(BATCH, 3)).astype(np.float32),
        }
        for _ in range(steps)
    ]


def torch_elbo(output: Any, batch: Any) -> Any:
    mean, logvar = output["mean"], output["logvar"]
    whole = functional.binary_cross_entropy_with_logits(
        output["pixels"], batch["x"], reduction="sum"
    )
    kl = -0.5 * (1 + logvar - mean**2 - logvar.exp()).sum()
    classes = functional.cross_entropy(output["logits"], batch["label"])
    return (whole + 0.5 * kl) / len(mean) + 0.3 * classes


def elbo(
    output: Any, batch: Any, *, beta: float = 0.5, reduce: Any = jnp.sum, squares: bool = False
) -> Any:
    mean, logvar = output["mean"], output["logvar"]
    each = optax.sigmoid_binary_cross_entropy(output["pixels"], batch["x"])
    if squares:
        each = (jax.nn.sigmoid(output["pixels"]) - batch["x"]) ** 2
    kl = reduce(-0.5 * (1 + logvar - mean**2 - jnp.exp(logvar)), -1).mean()
    classes = optax.softmax_cross_entropy_with_integer_labels(output["logits"], batch["label"])
    return each.sum(-1).mean() + beta * kl + 0.3 * classes.mean()


def vae_side(**options: Any) -> verify.JaxSide:
    return verify.nnx_side(
        NnxVAE(nnx.Rngs(0)), tx=TX, loss=elbo,
        forward=lambda m, b: m(b["x"], b["label"], b["noise"], **options),
    )  # fmt: skip


# ── a network of segments: a strided convolution, its transpose, a skip, a head resized ────────


class Segments(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.norm, self.aux = nn.GroupNorm(2, 6), nn.Conv2d(6, 4, 1)
        self.up = nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1)
        self.last = nn.Conv2d(7, 4, 1)

    def forward(self, x: Any) -> Any:
        h = functional.leaky_relu(self.norm(self.down(x)), 0.1)
        side = functional.interpolate(self.aux(h), scale_factor=2, mode="bilinear")
        up = torch.relu(self.up(h))
        return self.last(torch.cat([up, x], 1)) + side


def resized(x: Any) -> Any:
    b, h, w, c = x.shape
    return jax.image.resize(x, (b, 2 * h, 2 * w, c), "bilinear")


def nearest(x: Any) -> Any:
    return x.repeat(2, 1).repeat(2, 2)


def corners(x: Any) -> Any:
    """Resize so that the corners' centres keep their places."""
    b, h, w, c = x.shape
    scale = jnp.array([(2 * h - 1) / (h - 1), (2 * w - 1) / (w - 1)], x.dtype)
    return jax.image.scale_and_translate(
        x, (b, 2 * h, 2 * w, c), (1, 2), scale, 0.5 - 0.5 * scale,
        "linear", antialias=False,
    )  # fmt: skip


class NnxSegments(nnx.Module):
    """The same; options make faults of it."""

    def __init__(self, rngs: nnx.Rngs, same: bool = False) -> None:
        conv = functools.partial(nnx.Conv, rngs=rngs)
        self.down = conv(3, 6, (3, 3), strides=2, padding=1)
        self.norm, self.aux = nnx.GroupNorm(6, 2, epsilon=1e-5, rngs=rngs), conv(6, 4, (1, 1))
        self.up = nnx.ConvTranspose(
            6, 4, (3, 3), strides=(2, 2), padding="SAME" if same else ((1, 2), (1, 2)),
            transpose_kernel=True, rngs=rngs,
        )  # fmt: skip
        self.last = conv(7, 4, (1, 1))

    def __call__(
        self, x: Any, *, resize: Any = resized, skip_first: bool = False, up_bias: bool = True
    ) -> Any:
        h = nnx.leaky_relu(self.norm(self.down(x)), 0.1)
        up = self.up(h)
        up = nnx.relu(up if up_bias else up - self.up.bias[...])
        joined = jnp.concatenate([x, up] if skip_first else [up, x], -1)
        return (self.last(joined) + resize(self.aux(h))).transpose(0, 3, 1, 2)


def maps(seed: int, steps: int) -> list[Any]:
    """Return images of 6 × 8 and a class of each pixel, where 255 is none."""
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(steps, 4, 3, 6, 8)).astype(np.float32)
    labels = rng.integers(0, 4, (steps, 4, 6, 8))
    labels[rng.random(labels.shape) < 0.15] = 255
    return list(zip(data, labels, strict=True))


WEIGHTS = (1.0, 2.0, 0.5, 1.5)


def torch_pixels(output: Any, batch: Any) -> Any:
    weights = torch.tensor(WEIGHTS, dtype=output.dtype)
    return functional.cross_entropy(output, batch[1], weight=weights, ignore_index=255)


def pixels(
    output: Any, batch: Any, *, weights: tuple[float, ...] = WEIGHTS, by_count: bool = False,
    dice: float = 0.0, small: float | None = None,
) -> Any:  # fmt: skip
    logits, labels = output.transpose(0, 2, 3, 1), batch[1]
    kept = labels != 255
    labels = jnp.where(kept, labels, 0)
    each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    hot = jax.nn.one_hot(labels, 4, dtype=logits.dtype)
    p = jax.nn.softmax(logits)
    if small is not None:
        each = -jnp.log(jnp.clip((p * hot).sum(-1), small, 1 - small))
    count = kept * jnp.array(weights, logits.dtype)[labels]
    total = kept.sum() if by_count else count.sum()
    more = 1 - 2 * (p * hot).sum() / (p.sum() + hot.sum())
    return (each * count).sum() / total + dice * more


def segments_side(same: bool = False, **options: Any) -> verify.JaxSide:
    return verify.nnx_side(
        NnxSegments(nnx.Rngs(0), same), tx=TX, loss=pixels,
        batch=to_nhwc, forward=lambda m, b: m(b[0], **options),
    )  # fmt: skip
