"""Faults of a second table that the diagnosis was not built on, and several at once."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch import optim

import jaxopt_port as jp
from parity_tests.faults.changes import clipped, frozen, of, scheduled
from parity_tests.faults.flax_networks import HEADS, WIDTH, NnxGPT
from parity_tests.faults.models import convolutions_apply, each, jax_loss, perceptron_apply
from parity_tests.faults.network_data import by_sequence, masked, torch_masked
from parity_tests.faults.right_networks import nnx_of
from parity_tests.faults.trainings import Training, own

SGD, ADAM = of(optim.SGD, lr=0.05), of(optim.Adam, lr=1e-3)
ADAMW = of(optim.AdamW, lr=1e-3, weight_decay=0.1)
TX = optax.sgd(0.05)


def gpt(**options: Any) -> Any:
    return nnx_of(NnxGPT, forward=lambda model, batch: model(batch[0], **options))


def by_head(x: Any) -> Any:
    whole = x.reshape(*x.shape[:-1], HEADS, 3, WIDTH // HEADS)
    return [whole[..., i, :].reshape(*x.shape[:-1], WIDTH) for i in range(3)]


def torch_padded(smoothing: float = 0.0) -> Any:
    loss = functools.partial(torch_masked, smoothing=smoothing)
    return lambda module, optimizer: {"loss": loss}


def z_loss(output: Any, batch: Any) -> Any:
    return jax_loss(output, batch) + 1e-3 * (jax.nn.logsumexp(output, -1) ** 2).mean()


def weighted(output: Any, batch: Any) -> Any:
    weights = jnp.array([1.0, 2.0, 0.5, 1.0])[batch[1]]
    return (each(output, batch) * weights).mean()


def same_tokens(output: Any, batch: Any) -> Any:
    return jax_loss(output, (None, batch[0]))


def regression(kind: str) -> Any:
    def loss(output: Any, batch: Any) -> Any:
        return getattr(torch.nn.functional, kind)(output, batch[2])

    return lambda module, optimizer: {"loss": loss}


def with_targets(data: Any) -> Any:
    rng = np.random.default_rng(7)
    return [(*b, 2 * rng.normal(size=(len(b[0]), 4)).astype(np.float32)) for b in data]


def squared(output: Any, batch: Any) -> Any:
    return ((output - batch[2]) ** 2).mean()


def broken(data: Any) -> Any:
    data = list(data)
    x, y = data[4]
    data[4] = (np.where(np.arange(x.shape[-1]) == 3, np.nan, x).astype(x.dtype), y)
    return data


def mirrored(data: Any) -> Any:
    return [(np.flip(x.transpose(0, 2, 3, 1), 2), y) for x, y in data]


def brighter(data: Any) -> Any:
    scale = np.linspace(0.5, 2, 12).astype(np.float32)
    return [(x * scale + 0.1, y) for x, y in data]


def clipped_warm(module: Any, optimizer: Any) -> Any:
    warm = optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / 8, 1.0))
    return {"scheduler": warm, **clipped(0.1)(module, optimizer)}


def warm(count: Any) -> Any:
    return 0.05 * jnp.minimum((count + 1) / 8, 1.0)


def rounded_softmax(x: Any) -> Any:
    return jax.nn.softmax(x.astype(jnp.bfloat16)).astype(x.dtype)


_NOISE = np.random.default_rng(11)
P, C, G = "perceptron", "convolutions", "gpt"

UNSEEN = [
    # networks
    Training("LayerNorm of Flax's own eps", G, SGD, TX, (("forward", "layer-eps"),), side=nnx_of(lambda rngs: NnxGPT(rngs, epsilon=1e-6))),
    Training("GELU as JAX has it", G, SGD, TX, (("forward", "activation"),), side=gpt(approximate=True)),
    Training("dropout left on", G, SGD, TX, (("forward", "not-repeatable"),), side=nnx_of(lambda rngs: NnxGPT(rngs, dropout=0.1))),
    Training("noise from the host", G, SGD, TX, (("forward", "not-repeatable"),), side=gpt(noise=lambda: float(_NOISE.normal()))),
    Training("the last norm left out", G, SGD, TX, (("forward", "left-out"),), side=gpt(last_norm=False)),
    Training("a mask that shows the next token", G, SGD, TX, (("forward", "attention-mask"),), side=gpt(diagonal=1)),
    Training("no mask at all", G, SGD, TX, (("forward", "attention-mask"),), side=gpt(diagonal=99)),
    Training("attention without its scale", G, SGD, TX, (("forward", "attention-scale"),), side=gpt(scale=1.0)),
    Training("q, k, v by head", G, SGD, TX, (("forward", "packed-layout"),), side=gpt(split=by_head)),
    Training("a softmax in bfloat16", G, SGD, TX, (("forward", "low-precision"),), side=gpt(soft=rounded_softmax)),
    Training("embeddings times a root", G, SGD, TX, (("forward", "embedding-scale"),), side=gpt(embedded=WIDTH**0.5)),
    Training("no places", G, SGD, TX, (("forward", "left-out"),), side=gpt(places=False)),
    Training("tanh GELU and eps", P, SGD, TX, (("forward", "activation"), ("forward", "layer-eps")), mine={"apply": functools.partial(perceptron_apply, approximate=True, epsilon=1e-3)}),
    # losses
    Training("padding counted", G, SGD, TX, (("loss", "ignored-labels"),), theirs=torch_padded()),
    Training("the mean of each sequence", G, SGD, TX, (("loss", "sequence-mean"),), theirs=torch_padded(), mine={"loss": by_sequence}),
    Training("no smoothing beside padding", G, SGD, TX, (("loss", "label-smoothing"),), theirs=torch_padded(0.1), mine={"loss": masked}),
    Training("a z-loss", G, SGD, TX, (("loss", "additional-term"),), mine={"loss": z_loss}),
    Training("the tokens for the next ones", G, SGD, TX, (("loss", "labels-shifted"),), mine={"loss": same_tokens}),
    Training("class weights", P, SGD, TX, (("loss", "class-weights"),), mine={"loss": weighted}),
    Training("the loss times 128", P, SGD, TX, (("loss", "loss-scale"),), mine={"loss": lambda o, b: 128 * jax_loss(o, b)}),
    Training("squares for Huber", P, SGD, TX, (("loss", "loss-kind"),), theirs=regression("smooth_l1_loss"), mine={"loss": squared}, data=with_targets),
    # optimizers
    Training("eight times the rate of SGD", P, SGD, optax.sgd(0.4), (("update", "number|gradient-scale"),)),
    Training("eight times the rate of Adam", P, ADAM, optax.adam(8e-3), (("update", "number"),)),
    Training("twice the limit", P, ADAM, optax.chain(jp.clip_by_grad_norm(0.2), optax.adam(1e-3)), (("update", "clip-limit"),), theirs=clipped(0.1)),
    Training("no 1e-6 in a warm-up", P, SGD, optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(warm)), (("update", "clip-epsilon"),), theirs=clipped_warm),
    Training("a longer cosine", P, ADAMW, optax.adamw(optax.cosine_decay_schedule(1e-3, 40), weight_decay=0.1), (("update", "schedule-length"),), theirs=scheduled("CosineAnnealingLR", T_max=30)),
    Training("a half for a tenth", P, SGD, optax.sgd(optax.piecewise_constant_schedule(0.05, {4: 0.5})), (("update", "schedule"),), theirs=scheduled("MultiStepLR", milestones=[4], gamma=0.1)),
    Training("Lion for AdamW", P, ADAMW, optax.lion(1e-4, weight_decay=0.1), (("update", "another-optimizer"),)),
    Training("RAdam for Adam", P, ADAM, jp.RAdam(lr=1e-3), (("update", "another-optimizer"),)),
    Training("a step in four", P, ADAM, optax.MultiSteps(optax.adam(1e-3), 4).gradient_transformation(), (("update", "accumulation"),)),
    Training("frozen in torch", P, frozen("0.weight", optim.SGD, lr=0.05), TX, (("update", "frozen-leaf"),)),
    # data
    Training("a column that is NaN", P, SGD, TX, (("forward", "not-finite"),), data=broken),
    Training("images mirrored", C, SGD, TX, (("data", "data-layout"),), mine=own(C, mirrored)),
    Training("columns in other units", P, SGD, TX, (("data", "data-scale"),), mine=own(P, brighter)),
    # several
    Training("eps, a half loss, coupled decay", P, ADAMW, optax.chain(optax.add_decayed_weights(0.1), optax.adam(1e-3)), (("forward", "layer-eps"), ("loss", "loss-scale"), ("update", "decay-coupling")), mine={"apply": functools.partial(perceptron_apply, epsilon=1e-6), "loss": lambda o, b: jax_loss(o, b) / 2}),
    Training("GELU, a rate from step 4", P, SGD, optax.sgd(lambda c: jnp.where(c < 4, 0.05, 0.02)), (("forward", "activation"), ("update", "number|schedule")), mine={"apply": functools.partial(perceptron_apply, approximate=True)}),
    Training("variance, momentum, sign", C, SGD, optax.sgd(-0.05), (("buffers", "biased-variance"), ("update", "sign")), mine={"apply": functools.partial(convolutions_apply, stats={"bn1": {"unbiased": False}, "bn2": {"unbiased": False}})}),
]  # fmt: skip
