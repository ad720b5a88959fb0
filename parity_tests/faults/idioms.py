"""Right ports: networks, optimizers, and what Optax's users write; each trains as torch does.

A port may keep in float32 what Optax and Flax have so by their own habit.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from torch import optim

import jaxopt_port as jp
from jaxopt_port import verify
from parity_tests.faults.changes import labels
from parity_tests.faults.models import BATCH, MODELS, jax_loss, sides, torch_loss

RATE, STEPS = 0.02, 16


class Kind(NamedTuple):
    """An optimizer on both sides; ``tx`` makes it of a rate or a schedule."""

    torch: Any
    options: dict[str, Any]
    tx: Callable[[Any], Any]
    factory: Any = None
    given: dict[str, Any] = {}  # noqa: RUF012


OPTIMIZERS = {
    "sgd": Kind(optim.SGD, {}, optax.sgd, optax.sgd),
    "momentum": Kind(
        optim.SGD, {"momentum": 0.9}, lambda r: optax.sgd(r, 0.9), optax.sgd, {"momentum": 0.9}
    ),
    "nesterov": Kind(
        optim.SGD, {"momentum": 0.9, "nesterov": True}, lambda r: optax.sgd(r, 0.9, nesterov=True)
    ),
    "adam": Kind(optim.Adam, {}, optax.adam, optax.adam),
    "adamw": Kind(
        optim.AdamW, {"weight_decay": 0.1}, lambda r: optax.adamw(r, weight_decay=0.1),
        optax.adamw, {"weight_decay": 0.1},
    ),
    "adam, L2": Kind(
        optim.Adam, {"weight_decay": 0.1},
        lambda r: optax.chain(optax.add_decayed_weights(0.1), optax.adam(r)),
    ),
    "rmsprop": Kind(
        optim.RMSprop, {}, lambda r: optax.rmsprop(r, decay=0.99, eps_in_sqrt=False)
    ),
    "jp.adamw": Kind(
        optim.AdamW, {"weight_decay": 0.1}, lambda r: jp.AdamW(lr=r, weight_decay=0.1)
    ),
    "jp.sgd": Kind(optim.SGD, {"momentum": 0.9}, lambda r: jp.SGD(lr=r, momentum=0.9)),
}  # fmt: skip


def _scheduler(kind: str, **options: Any) -> Callable[[Any], Any]:
    return lambda optimizer: getattr(optim.lr_scheduler, kind)(optimizer, **options)


def _warm_up(optimizer: Any) -> Any:
    parts = optim.lr_scheduler
    first = parts.LinearLR(optimizer, 0.1, 1.0, 5)
    return parts.SequentialLR(optimizer, [first, parts.CosineAnnealingLR(optimizer, 15)], [5])


SCHEDULES: dict[str, tuple[Any, Callable[[float], Any]]] = {
    "constant": (None, lambda r: r),
    "exponential": (
        _scheduler("ExponentialLR", gamma=0.9), lambda r: optax.exponential_decay(r, 1, 0.9)
    ),
    "staircase": (
        _scheduler("StepLR", step_size=4, gamma=0.3),
        lambda r: optax.exponential_decay(r, 4, 0.3, staircase=True),
    ),
    "linear": (
        _scheduler("LinearLR", start_factor=1.0, end_factor=0.1, total_iters=12),
        lambda r: optax.linear_schedule(r, 0.1 * r, 12),
    ),
    "polynomial": (
        _scheduler("PolynomialLR", total_iters=20, power=2.0),
        lambda r: optax.polynomial_schedule(r, 0.0, 2, 20),
    ),
    "cosine": (
        _scheduler("CosineAnnealingLR", T_max=20), lambda r: optax.cosine_decay_schedule(r, 20)
    ),
    "cosine to a tenth": (
        _scheduler("CosineAnnealingLR", T_max=20, eta_min=RATE / 10),
        lambda r: optax.cosine_decay_schedule(r, 20, alpha=0.1),
    ),
    "warm-up and cosine": (
        _warm_up,
        lambda r: optax.join_schedules(
            [optax.linear_schedule(0.1 * r, r, 5), optax.cosine_decay_schedule(r, 15)], [5]
        ),
    ),
    "warmup_cosine": (
        _scheduler(
            "LambdaLR",
            lr_lambda=lambda s: s / 4 if s < 4 else (1 + np.cos(np.pi * (s - 4) / 16)) / 2,
        ),
        lambda r: optax.warmup_cosine_decay_schedule(0.0, r, 4, 20),
    ),
    "piecewise": (
        _scheduler("MultiStepLR", milestones=[5, 10], gamma=0.1),
        lambda r: optax.piecewise_constant_schedule(r, {5: 0.1, 10: 0.1}),
    ),
    "lambda": (
        _scheduler("LambdaLR", lr_lambda=lambda s: min((s + 1) / 7, 1.0)),
        lambda r: lambda count: r * jnp.minimum((count + 1) / 7, 1.0),
    ),
    "inverse root": (
        _scheduler("LambdaLR", lr_lambda=lambda s: (s + 1) ** -0.5),
        lambda r: lambda count: r * jax.lax.rsqrt((count + 1).astype(jnp.float32)),
    ),
    "table": (
        _scheduler("LambdaLR", lr_lambda=lambda s: (1.0, 0.5, 0.1, 0.05)[min(s // 4, 3)]),
        lambda r: lambda count: r * jnp.array([1.0, 0.5, 0.1, 0.05])[jnp.minimum(count // 4, 3)],
    ),
}  # fmt: skip


def _plain(kind: Kind, rate: Any) -> Any:
    return kind.tx(rate)


def _injected(kind: Kind, rate: Any) -> Any:
    return optax.inject_hyperparams(kind.factory)(learning_rate=rate, **kind.given)


def _finite(kind: Kind, rate: Any) -> Any:
    return optax.apply_if_finite(kind.tx(rate), 3)


def _masked(kind: Kind, rate: Any) -> Any:
    return optax.masked(kind.tx(rate), lambda tree: jax.tree.map(lambda _: True, tree))


def _partitioned(kind: Kind, rate: Any) -> Any:
    parts = {"matrix": kind.tx(rate), "vector": kind.tx(rate)}
    return optax.multi_transform(
        parts, lambda tree: jax.tree.map(lambda p: "matrix" if p.ndim > 1 else "vector", tree)
    )


def _clipped(kind: Kind, rate: Any) -> Any:
    return optax.chain(jp.clip_by_grad_norm(0.5), kind.tx(rate))


WRAPS = {
    "as it is": _plain, "injected": _injected, "apply_if_finite": _finite, "masked": _masked,
    "multi_transform": _partitioned, "clipped": _clipped,
}  # fmt: skip


# ── networks of Flax's layers as they come ─────────────────────────────────────────────────────

TOKENS, LENGTH, WIDTH, HEADS = 13, 7, 12, 3


class TorchGPT(torch.nn.Module):
    """A causal language model; head and embedding are one where ``tied``."""

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


FLAX = {"gpt": (TorchGPT, NnxGPT, gpt_batches), "cell": (TorchCell, NnxCell, cell_batches)}
NETWORKS = ("perceptron", "transformer", "convolutions", *FLAX)


@functools.cache
def flax_model(network: str) -> nnx.Module:
    """Return a Flax model, one for all cases."""
    return FLAX[network][1](nnx.Rngs(0))


def both(
    network: str,
    optimizer: Callable[[Any], Any],
    tx: Any,
    *,
    theirs: Any = None,
    mine: dict[str, Any] | None = None,
    model: Any = None,
    seed: int = 0,
) -> tuple[Any, Any]:
    """Return both sides of a network; ``theirs`` and ``mine`` as for `models.sides`."""
    if network in MODELS:
        return sides(network, optimizer, tx, theirs=theirs, mine=mine, seed=seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = FLAX[network][0]()
    own = optimizer(module)
    more = {} if theirs is None else theirs(module, own)
    given = {"tx": tx, "loss": jax_loss, **(mine or {})}
    torch_side = verify.TorchSide(
        **{"module": module, "optimizer": own, "loss": torch_loss, **more}
    )
    return torch_side, verify.nnx_side(model or flax_model(network), **given)


def batches(network: str, seed: int, steps: int) -> list[Any]:
    """Return the batches of a network."""
    made = MODELS[network].batches if network in MODELS else FLAX[network][2]
    return made(seed, steps)


def idioms() -> list[tuple[str, str, str, str]]:
    """Return network, optimizer, schedule and wrapping of all right ports."""
    return [
        (network, name, schedule, wrap)
        for network in NETWORKS
        for name, kind in OPTIMIZERS.items()
        for schedule in SCHEDULES
        for wrap in WRAPS
        if (wrap != "injected" or kind.factory) and (wrap == "as it is" or "jp." not in name)
    ]


def right_port(network: str, name: str, schedule: str, wrap: str, seed: int = 0) -> Any:
    """Compare a right port."""
    kind = OPTIMIZERS[name]
    scheduler, made = SCHEDULES[schedule]

    def more(module: Any, optimizer: Any) -> dict[str, Any]:
        given = {} if scheduler is None else {"scheduler": scheduler(optimizer)}
        if wrap == "clipped":
            given["clip"] = lambda params: torch.nn.utils.clip_grad_norm_(params, 0.5)
        return given

    theirs, mine = both(
        network,
        lambda module: kind.torch(module.parameters(), lr=RATE, **kind.options),
        WRAPS[wrap](kind, made(RATE)),
        theirs=more,
        seed=seed,
    )
    return verify.compare(theirs, mine, batches(network, seed, STEPS))


def of_part(first: str) -> Callable[[Any], Any]:
    """Return what labels a tree's leaves: "first" where their path begins so, else "rest"."""
    return labels(lambda path: "first" if path.startswith(first) else "rest")
