"""Two towers and a GRU by hand, in plain JAX; options make faults of them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch import nn
from torch.nn import functional

from jaxopt_port import verify

BATCH, TX = 6, optax.identity()


# ── two towers and a contrastive loss, plain JAX ───────────────────────────────────────────────


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(7, 6), nn.Linear(5, 6)
        self.log_scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, image: Any, text: Any) -> Any:
        image = functional.normalize(self.image(image), dim=-1)
        text = functional.normalize(self.text(text), dim=-1)
        return image, text, self.log_scale.exp()


def unit(x: Any) -> Any:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def towers(params: Any, batch: Any, *, exp: Any = jnp.exp, text_unit: Any = unit) -> Any:
    def linear(name: str, x: Any) -> Any:
        return x @ params[name]["kernel"] + params[name]["bias"]

    image, text = linear("image", batch["image"]), linear("text", batch["text"])
    return unit(image), text_unit(text), exp(params["log_scale"])


def pairs(seed: int, steps: int) -> list[Any]:
    """Return two views of each example."""
    rng = np.random.default_rng(seed)
    return [
        {
            "image": rng.normal(size=(BATCH, 7)).astype(np.float32),
            "text": rng.normal(size=(BATCH, 5)).astype(np.float32),
        }
        for _ in range(steps)
    ]


def torch_clip_loss(output: Any, batch: Any) -> Any:
    image, text, scale = output
    logits = scale * image @ text.T
    wanted = torch.arange(len(logits))
    both = functional.cross_entropy(logits, wanted) + functional.cross_entropy(logits.T, wanted)
    return both / 2


def clip_loss(
    output: Any, batch: Any, *, rows: float = 0.5, columns: float = 0.5, inverse: bool = False
) -> Any:
    image, text, scale = output
    logits = image @ text.T / scale if inverse else scale * image @ text.T
    wanted = jnp.arange(len(logits))
    each = optax.softmax_cross_entropy_with_integer_labels
    return rows * each(logits, wanted).mean() + columns * each(logits.T, wanted).mean()


def towers_side(**options: Any) -> verify.JaxSide:
    params = {
        "image": {"kernel": jnp.zeros((7, 6)), "bias": jnp.zeros(6)},
        "text": {"kernel": jnp.zeros((5, 6)), "bias": jnp.zeros(6)},
        "log_scale": jnp.zeros(()),
    }
    apply = functools.partial(towers, **options)
    return verify.JaxSide(apply=apply, params=params, tx=TX, loss=clip_loss)


# ── a GRU by hand, which says a mean and a variance of what follows ────────────────────────────


class GRU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ih, self.hh, self.head = nn.Linear(7, 12), nn.Linear(4, 12), nn.Linear(4, 6)

    def forward(self, x: Any, lengths: Any) -> Any:
        h, held = torch.zeros(len(x), 4, dtype=x.dtype), []
        for now in x.unbind(1):
            i, g = self.ih(now).chunk(3, -1), self.hh(h).chunk(3, -1)
            r, z = torch.sigmoid(i[0] + g[0]), torch.sigmoid(i[1] + g[1])
            n = torch.tanh(i[2] + r * g[2])
            h = (1 - z) * n + z * h
            held.append(h)
        whole = torch.stack(held, 1)
        mean, logvar = self.head(whole[torch.arange(len(x)), lengths - 1]).chunk(2, -1)
        return mean, logvar


def gru(
    params: Any, batch: Any, *, order: tuple[int, int, int] = (0, 1, 2), reset_first: bool = False,
    turned: bool = False, always_last: bool = False, bias: float = 1.0,
) -> Any:  # fmt: skip
    def linear(name: str, x: Any, bias: float = 1.0) -> Any:
        return x @ params[name]["kernel"] + bias * params[name]["bias"]

    def step(h: Any, now: Any) -> Any:
        i, g = jnp.split(linear("ih", now), 3, -1), jnp.split(linear("hh", h, bias), 3, -1)
        (ir, iz, i_n), (hr, hz, hn) = (i[k] for k in order), (g[k] for k in order)
        r, z = jax.nn.sigmoid(ir + hr), jax.nn.sigmoid(iz + hz)
        if reset_first:
            n = jnp.tanh(i_n + jnp.split(linear("hh", r * h), 3, -1)[2])
        else:
            n = jnp.tanh(i_n + r * hn)
        h = z * n + (1 - z) * h if turned else (1 - z) * n + z * h
        return h, h

    x = batch["x"].swapaxes(0, 1)
    _, held = jax.lax.scan(step, jnp.zeros((x.shape[1], 4), x.dtype), x)
    held = held.swapaxes(0, 1)
    at = jnp.full_like(batch["lengths"], held.shape[1]) if always_last else batch["lengths"]
    mean, logvar = jnp.split(linear("head", held[jnp.arange(len(held)), at - 1]), 2, -1)
    return mean, logvar


def series(seed: int, steps: int) -> list[Any]:
    """Return sequences of several lengths, and numbers."""
    rng = np.random.default_rng(seed)
    return [
        {
            "x": rng.normal(size=(BATCH, 5, 7)).astype(np.float32),
            "lengths": rng.integers(2, 6, BATCH),
            "y": rng.normal(size=(BATCH, 3)).astype(np.float32),
        }
        for _ in range(steps)
    ]


def torch_likelihood(output: Any, batch: Any) -> Any:
    mean, logvar = output
    return functional.gaussian_nll_loss(mean, batch["y"], logvar.exp())


def likelihood(
    output: Any, batch: Any, *, half: float = 0.5, power: float = 1.0, constant: float = 0.0
) -> Any:
    mean, logvar = output
    each = power * logvar + (mean - batch["y"]) ** 2 / jnp.exp(power * logvar)
    return half * each.mean() + constant


def gru_side(**options: Any) -> verify.JaxSide:
    sizes = {"ih": (7, 12), "hh": (4, 12), "head": (4, 6)}
    params = {n: {"kernel": jnp.zeros(s), "bias": jnp.zeros(s[1])} for n, s in sizes.items()}
    apply = functools.partial(gru, **options)
    return verify.JaxSide(apply=apply, params=params, tx=TX, loss=likelihood)
