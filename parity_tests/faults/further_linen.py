"""A residual network and a student of a teacher, in Linen; options make faults of them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import linen
from torch import nn
from torch.nn import functional

from jaxopt_port import verify
from parity_tests.faults.models import jax_loss, to_nhwc

BATCH, TX = 6, optax.identity()


# ── a residual CNN in Linen: batch statistics at rest, group normalisation ─────────────────────


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False)
        self.bn, self.gn = nn.BatchNorm2d(6), nn.GroupNorm(3, 6)
        self.conv1, self.conv2 = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)
        self.bn.running_mean.copy_(0.3 * torch.randn(6))
        self.bn.running_var.copy_(0.5 + torch.rand(6))
        self.eval()

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.bn(self.stem(x)))
        x = functional.avg_pool2d(x, 3, 1, 1)
        h = self.conv2(torch.relu(self.gn(self.conv1(x))))
        return self.head(torch.relu(x + h).mean((2, 3)))


class LinenResidual(linen.Module):
    """The same; options make faults of it."""

    padding: Any = 1
    count_padding: bool = True
    groups: int | None = 3
    group_size: int | None = None
    inside: bool = True
    last: Any = jnp.mean

    @linen.compact
    def __call__(self, x: Any) -> Any:
        conv = functools.partial(linen.Conv, 6, (3, 3))
        x = conv(strides=2, padding=self.padding, use_bias=False, name="stem")(x)
        x = linen.relu(linen.BatchNorm(use_running_average=True, epsilon=1e-5, name="bn")(x))
        x = linen.avg_pool(
            x, (3, 3), (1, 1), ((1, 1), (1, 1)), count_include_pad=self.count_padding
        )
        h = conv(padding=1, name="conv1")(x)
        norm = linen.GroupNorm(self.groups, self.group_size, epsilon=1e-5, name="gn")
        h = conv(padding=1, name="conv2")(linen.relu(norm(h)))
        x = linen.relu(x + h) if self.inside else x + linen.relu(h)
        return linen.Dense(5, name="head")(self.last(x, (1, 2)))


def photos(seed: int, steps: int) -> list[Any]:
    """Return images of 8 × 6, channels first, and a class of each."""
    rng = np.random.default_rng(seed)
    data = rng.normal(0.2, 1.0, size=(steps, BATCH, 3, 8, 6)).astype(np.float32)
    return list(zip(data, rng.integers(0, 5, (steps, BATCH)), strict=True))


def residual_side(**options: Any) -> verify.JaxSide:
    module, example = LinenResidual(**options), jnp.zeros((1, 8, 6, 3))
    variables = module.init(jax.random.key(0), example)
    return verify.linen_side(
        module, variables, tx=TX, loss=jax_loss, batch=to_nhwc, inputs=(example,),
        forward=lambda variables, batch: module.apply(variables, batch[0], mutable=["batch_stats"]),
    )  # fmt: skip


# ── a student that learns of a teacher, in Linen ───────────────────────────────────────────────


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(7, 10), nn.LayerNorm(10)
        self.second, self.head = nn.Linear(10, 10), nn.Linear(10, 5)

    def forward(self, x: Any) -> Any:
        x = functional.gelu(self.norm(self.first(x)), approximate="tanh")
        return self.head(functional.mish(self.second(x)) + x)


class LinenStudent(linen.Module):
    """The same; options make faults of it."""

    second: Any = jax.nn.mish

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.LayerNorm(epsilon=1e-5, name="norm")(linen.Dense(10, name="first")(x))
        x = linen.gelu(x)
        return linen.Dense(5, name="head")(self.second(linen.Dense(10, name="second")(x)) + x)


def taught(seed: int, steps: int) -> list[Any]:
    """Return vectors, classes and the logits of a teacher."""
    rng = np.random.default_rng(seed)
    return [
        {
            "x": rng.normal(size=(BATCH, 7)).astype(np.float32),
            "label": rng.integers(0, 5, BATCH),
            "teacher": 2 * rng.normal(size=(BATCH, 5)).astype(np.float32),
        }
        for _ in range(steps)
    ]


def torch_distilled(output: Any, batch: Any) -> Any:
    soft = functional.kl_div(
        functional.log_softmax(output / 2.0, -1),
        functional.softmax(batch["teacher"] / 2.0, -1),
        reduction="batchmean",
    )
    return 0.7 * 4.0 * soft + 0.3 * functional.cross_entropy(output, batch["label"])


def distilled(
    output: Any, batch: Any, *, t: float = 2.0, square: float = 4.0, reverse: bool = False
) -> Any:
    mine, theirs = jax.nn.log_softmax(output / t), jax.nn.log_softmax(batch["teacher"] / t)
    p, q = (mine, theirs) if reverse else (theirs, mine)
    kl = (jnp.exp(p) * (p - q)).sum(-1).mean()
    return 0.7 * square * kl + 0.3 * jax_loss(output, (None, batch["label"]))


def student_side(**options: Any) -> verify.JaxSide:
    module, example = LinenStudent(**options), jnp.zeros((1, 7))
    return verify.linen_side(
        module, module.init(jax.random.key(0), example), tx=TX, loss=distilled, inputs=(example,),
        forward=lambda variables, batch: module.apply(variables, batch["x"]),
    )  # fmt: skip
