"""Four networks in torch and in JAX that compute the same: what faults are seeded into."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import linen, nnx
from torch.nn.functional import cross_entropy

import jaxopt_port as jp
from jaxopt_port import verify
from jaxopt_port._compat import as_pure
from jaxopt_port.models.lenet import LeNet
from jaxopt_port.verify.cases import Net, load_digits
from jaxopt_port.verify.cases import batches as digit_batches

BATCH = 8
digits = functools.cache(load_digits)


class Model(NamedTuple):
    """A network on both sides.

    ``params`` and ``state`` make the JAX trees of a dtype; ``batches`` makes those of a seed.
    """

    torch: Callable[[], torch.nn.Module]
    apply: Callable[..., Any]
    params: Callable[[Any], Any]
    batches: Callable[[int, int], list[Any]]
    state: Callable[[Any], Any] = lambda dtype: None
    like: Callable[[Any], Any] = lambda dtype: None
    more: Mapping[str, Any] = MappingProxyType({})


def torch_loss(output, batch):
    return cross_entropy(output.reshape(-1, output.shape[-1]), batch[1].reshape(-1).long())


def wanted(batch):
    """Return the labels of a batch: a dict's, or the second part."""
    return batch["labels"] if isinstance(batch, dict) else batch[1]


def each(output, batch):
    return optax.softmax_cross_entropy_with_integer_labels(output, wanted(batch))


def jax_loss(output, batch):
    return each(output, batch).mean()


# ── LeNet, in NNX ──────────────────────────────────────────────────────────────────────────────


def lenet_model(dtype):
    return LeNet(param_dtype=dtype, rngs=nnx.Rngs(0))


LENET_GRAPH = nnx.split(nnx.eval_shape(lambda: lenet_model(jnp.float32)))[0]


def lenet_apply(params, batch):
    return nnx.merge(LENET_GRAPH, params)(batch[0])


def lenet_params(dtype):
    return as_pure(nnx.state(lenet_model(dtype)))


def lenet_batches(seed, steps):
    return [tuple(b) for b in digit_batches(digits(), BATCH, steps, seed)]


# ── a perceptron with layer normalisation, in Linen ────────────────────────────────────────────

WIDTH = 16


class LinenPerceptron(linen.Module):
    dtype: Any = jnp.float32
    epsilon: float = 1e-5
    approximate: bool = False

    @linen.compact
    def __call__(self, x):
        x = linen.Dense(WIDTH, param_dtype=self.dtype, name="0")(x)
        x = linen.LayerNorm(epsilon=self.epsilon, param_dtype=self.dtype, name="1")(x)
        x = linen.gelu(x, approximate=self.approximate)
        x = linen.Dense(WIDTH, param_dtype=self.dtype, name="3")(x)
        x = linen.relu(x)
        return linen.Dense(4, param_dtype=self.dtype, name="5")(x)


def perceptron():
    nn = torch.nn
    return nn.Sequential(
        nn.Linear(12, WIDTH), nn.LayerNorm(WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(),
        nn.Linear(WIDTH, 4),
    )  # fmt: skip


def perceptron_apply(params, batch, **options):
    return LinenPerceptron(**options).apply({"params": params}, batch[0])


def perceptron_params(dtype):
    net = LinenPerceptron(dtype)
    return net.init(jax.random.key(0), jnp.ones((1, 12), dtype))["params"]


def perceptron_batches(seed, steps):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(steps, BATCH, 12)).astype(np.float32)
    return list(zip(inputs, rng.integers(0, 4, (steps, BATCH)), strict=True))


# ── a transformer, in plain functions ──────────────────────────────────────────────────────────

TOKENS, LENGTH, HEADS = 11, 6, 2


class TorchTransformer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        nn = torch.nn
        self.embed = nn.Embedding(TOKENS, WIDTH)
        for name in ("q", "k", "v", "o"):
            setattr(self, name, nn.Linear(WIDTH, WIDTH))
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, TOKENS)

    def forward(self, tokens):
        x = self.embed(tokens)
        h = self.norm1(x)
        q, k, v = (
            getattr(self, n)(h).unflatten(-1, (HEADS, -1)).transpose(1, 2) for n in ("q", "k", "v")
        )
        weights = (q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5).softmax(-1)
        x = x + self.o((weights @ v).transpose(1, 2).flatten(2))
        h = torch.nn.functional.gelu(self.up(self.norm2(x)))
        return self.head(x + self.down(h))


def dense(params, x):
    return x @ params["kernel"] + params["bias"]


def normed(params, x, epsilon=1e-5):
    mean = x.mean(-1, keepdims=True)
    var = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(var + epsilon) * params["scale"] + params["bias"]


def transformer_apply(params, batch, scale=(WIDTH // HEADS) ** -0.5, approximate=False):
    x = params["embed"]["embedding"][batch[0]]
    h = normed(params["norm1"], x)
    split = (*h.shape[:-1], HEADS, WIDTH // HEADS)
    q, k, v = (dense(params[n], h).reshape(split).swapaxes(1, 2) for n in ("q", "k", "v"))
    weights = jax.nn.softmax(q @ k.swapaxes(-1, -2) * jnp.asarray(scale, h.dtype), axis=-1)
    x = x + dense(params["o"], (weights @ v).swapaxes(1, 2).reshape(h.shape))
    h = jax.nn.gelu(dense(params["up"], normed(params["norm2"], x)), approximate=approximate)
    return dense(params["head"], x + dense(params["down"], h))


def transformer_params(dtype):
    def linear(n, m):
        return {"kernel": jnp.zeros((n, m), dtype), "bias": jnp.zeros(m, dtype)}

    norm = {"scale": jnp.zeros(WIDTH, dtype), "bias": jnp.zeros(WIDTH, dtype)}
    return {
        "embed": {"embedding": jnp.zeros((TOKENS, WIDTH), dtype)},
        **{n: linear(WIDTH, WIDTH) for n in ("q", "k", "v", "o")},
        "norm1": norm,
        "norm2": dict(norm),
        "up": linear(WIDTH, 2 * WIDTH),
        "down": linear(2 * WIDTH, WIDTH),
        "head": linear(WIDTH, TOKENS),
    }


def transformer_batches(seed, steps):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, TOKENS, (steps, BATCH, LENGTH + 1))
    return [(batch[:, :-1], batch[:, 1:]) for batch in tokens]


# ── convolutions with batch normalisation, in plain functions ──────────────────────────────────

CHANNELS, SIDE = 4, 8


class TorchConvolutions(torch.nn.Module):
    def __init__(self):
        super().__init__()
        nn = torch.nn
        self.conv1, self.bn1 = nn.Conv2d(1, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS)
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, stride=2)
        self.bn2, self.head = nn.BatchNorm2d(CHANNELS), nn.Linear(CHANNELS * 16, 10)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.head(x.flatten(1))


def convolved(params, x, stride=1):
    spec = ("NHWC", "HWIO", "NHWC")
    made = jax.lax.conv_general_dilated(
        x, params["kernel"], (stride, stride), ((1, 1), (1, 1)), dimension_numbers=spec
    )
    return made + params["bias"]


def batch_normed(params, stats, x, momentum=0.1, unbiased=True):
    """Normalise by the batch; running statistics are torch's, of the unbiased variance."""
    axes, n = (0, 1, 2), x.size // x.shape[-1]
    mean = x.mean(axes)
    var = ((x - mean) ** 2).mean(axes)
    y = (x - mean) * jax.lax.rsqrt(var + 1e-5) * params["scale"] + params["bias"]
    kept = var * n / (n - 1) if unbiased else var
    new = {"mean": mean, "var": kept}
    return y, {
        k: ((1 - momentum) * stats[k] + momentum * new[k]).astype(stats[k].dtype) for k in new
    }


def convolutions_apply(params, state, batch, *, rows_as_they_are=False, flip=False, stats=None):
    """``stats``: arguments of each batch normalisation."""
    stats = stats or {}
    kernel = params["conv1"]["kernel"]
    first = {**params["conv1"], "kernel": kernel[::-1, ::-1] if flip else kernel}
    running, new = state["batch_stats"], {}
    x, new["bn1"] = batch_normed(
        params["bn1"], running["bn1"], convolved(first, batch[0]), **stats.get("bn1", {})
    )
    x = convolved(params["conv2"], jax.nn.relu(x), 2)
    x, new["bn2"] = batch_normed(params["bn2"], running["bn2"], x, **stats.get("bn2", {}))
    x = jax.nn.relu(x)
    x = x if rows_as_they_are else x.transpose(0, 3, 1, 2)  # torch flattens CHW
    return dense(params["head"], x.reshape(len(x), -1)), {"batch_stats": new}


def convolutions_params(dtype):
    def conv(i):
        return {"kernel": jnp.zeros((3, 3, i, CHANNELS), dtype), "bias": jnp.zeros(CHANNELS, dtype)}

    norm = {"scale": jnp.zeros(CHANNELS, dtype), "bias": jnp.zeros(CHANNELS, dtype)}
    head = {"kernel": jnp.zeros((CHANNELS * 16, 10), dtype), "bias": jnp.zeros(10, dtype)}
    return {"conv1": conv(1), "bn1": norm, "conv2": conv(CHANNELS), "bn2": dict(norm), "head": head}


def convolutions_state(dtype):
    stats = {"mean": jnp.zeros(CHANNELS, dtype), "var": jnp.ones(CHANNELS, dtype)}
    return {"batch_stats": {"bn1": stats, "bn2": dict(stats)}}


def convolutions_batches(seed, steps):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(steps, BATCH, 1, SIDE, SIDE)).astype(np.float32)
    return list(zip(images, rng.integers(0, 10, (steps, BATCH)), strict=True))


def to_nhwc(batch):
    return batch[0].transpose(0, 2, 3, 1), batch[1]


MODELS = {
    "lenet": Model(Net, lenet_apply, lenet_params, lenet_batches, like=lenet_model),
    "perceptron": Model(perceptron, perceptron_apply, perceptron_params, perceptron_batches),
    "transformer": Model(
        TorchTransformer, transformer_apply, transformer_params, transformer_batches
    ),
    "convolutions": Model(
        TorchConvolutions, convolutions_apply, convolutions_params, convolutions_batches,
        state=convolutions_state, more={"batch": to_nhwc},
    ),
}  # fmt: skip


@functools.cache
def trees(model, dtype):
    """Return the JAX side's parameters, state and what the map is made of."""
    made = MODELS[model]
    return made.params(dtype), made.state(dtype), made.like(dtype)


LR = {"lr": 1e-3}
# Pairs that are the same on both sides.
PAIRS = {
    "SGD": ({"lr": 0.05, "momentum": 0.9}, jp.SGD(lr=0.05, momentum=0.9)),
    "Adam": (LR, jp.Adam(lr=1e-3)),
    "AdamW": (LR | {"weight_decay": 0.1}, jp.AdamW(lr=1e-3, weight_decay=0.1)),
    "RMSprop": (LR, jp.RMSprop(lr=1e-3)),
    "Adagrad": ({"lr": 1e-2}, jp.Adagrad(lr=1e-2)),
    "NAdam": (LR, jp.NAdam(lr=1e-3)),
}


def unbroken(model, optimizer, seed, dtype, steps):
    """Compare a model and an optimizer that are the same on both sides."""
    options, tx = PAIRS[optimizer]
    kind = getattr(torch.optim, optimizer)
    theirs, mine = sides(
        model, lambda m: kind(m.parameters(), **options), tx, seed=seed, dtype=dtype
    )
    return verify.compare(theirs, mine, MODELS[model].batches(seed, steps))


def sides(model, optimizer, tx, *, seed=0, dtype="float32", theirs=None, mine=None):
    """Return both sides of a model.

    ``optimizer``: makes torch's of the module. ``theirs``: makes more arguments of `TorchSide` of
    module and optimizer. ``mine``: other arguments of `JaxSide`, or what makes them.
    """
    made = MODELS[model]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = made.torch().to(getattr(torch, dtype))
    own = optimizer(module)
    params, state, like = trees(model, jnp.dtype(dtype))
    more = {} if theirs is None else theirs(module, own)
    torch_side = verify.TorchSide(
        **{"module": module, "optimizer": own, "loss": torch_loss, **more}
    )
    given = {
        "apply": made.apply, "params": params, "tx": tx, "loss": jax_loss, "model_state": state,
        "like": like, **made.more,
    }  # fmt: skip
    return torch_side, verify.JaxSide(**{**given, **(mine() if callable(mine) else mine or {})})
