"""Faults of a second table that the diagnosis was not built on, and several at once.

Stage and causes were written down before any of them was run. Where two causes cannot be told
apart, either name will do, and both are to be said.
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
from parity_tests.faults.changes import clipped, of, scheduled
from parity_tests.faults.flax_networks import HEADS, WIDTH, NnxGPT, batches, both
from parity_tests.faults.models import convolutions_apply, jax_loss, perceptron_apply
from parity_tests.faults.seeded import searched

STEPS = 10
SGD, ADAM = of(optim.SGD, lr=0.05), of(optim.Adam, lr=1e-3)
ADAMW = of(optim.AdamW, lr=1e-3, weight_decay=0.1)
TX = optax.sgd(0.05)


class Unseen(NamedTuple):
    """One fault, or several; ``causes`` by stage."""

    name: str
    network: str
    torch: Callable[[Any], Any]
    tx: Any
    causes: tuple[tuple[str, str], ...]
    theirs: Any = None
    mine: dict[str, Any] | None = None
    model: Callable[[], Any] | None = None
    data: Callable[[Any], Any] | None = None


def gpt(**options: Any) -> dict[str, Any]:
    return {"forward": lambda model, batch: model(batch[0], **options)}


def by_head(x: Any) -> Any:
    whole = x.reshape(*x.shape[:-1], HEADS, 3, WIDTH // HEADS)
    return [whole[..., i, :].reshape(*x.shape[:-1], WIDTH) for i in range(3)]


def losses(output: Any, batch: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(output, batch[1])


def torch_padded(smoothing: float = 0.0) -> Any:
    def loss(output: Any, batch: Any) -> Any:
        return torch.nn.functional.cross_entropy(
            output.flatten(0, 1), batch[1].flatten(), ignore_index=0, label_smoothing=smoothing
        )

    return lambda module, optimizer: {"loss": loss}


def masked(output: Any, batch: Any) -> Any:
    kept = batch[1] != 0
    return jnp.where(kept, losses(output, batch), 0).sum() / kept.sum()


def by_sequence(output: Any, batch: Any) -> Any:
    kept = batch[1] != 0
    return (jnp.where(kept, losses(output, batch), 0).sum(1) / kept.sum(1)).mean()


def z_loss(output: Any, batch: Any) -> Any:
    return jax_loss(output, batch) + 1e-3 * (jax.nn.logsumexp(output, -1) ** 2).mean()


def weighted(output: Any, batch: Any) -> Any:
    weights = jnp.array([1.0, 2.0, 0.5, 1.0])[batch[1]]
    return (losses(output, batch) * weights).mean()


def same_tokens(output: Any, batch: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(output, batch[0]).mean()


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


def own(network: str, change: Any) -> dict[str, Any]:
    return {"batches": change(batches(network, 0, STEPS))}


def clipped_warm(module: Any, optimizer: Any) -> Any:
    warm = optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / 8, 1.0))
    return {"scheduler": warm, **clipped(0.1)(module, optimizer)}


def warm(count: Any) -> Any:
    return 0.05 * jnp.minimum((count + 1) / 8, 1.0)


def frozen_first(module: Any) -> Any:
    module[0].weight.requires_grad_(False)
    return optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.05)


def rounded_softmax(x: Any) -> Any:
    return jax.nn.softmax(x.astype(jnp.bfloat16)).astype(x.dtype)


_NOISE = np.random.default_rng(11)
P, C, G = "perceptron", "convolutions", "gpt"

UNSEEN = [
    # networks
    Unseen("LayerNorm of Flax's own eps", G, SGD, TX, (("forward", "layer-eps"),), model=lambda: NnxGPT(nnx.Rngs(0), epsilon=1e-6)),
    Unseen("GELU as JAX has it", G, SGD, TX, (("forward", "activation"),), mine=gpt(approximate=True)),
    Unseen("dropout left on", G, SGD, TX, (("forward", "not-repeatable"),), model=lambda: NnxGPT(nnx.Rngs(0), dropout=0.1)),
    Unseen("noise from the host", G, SGD, TX, (("forward", "not-repeatable"),), mine=gpt(noise=lambda: float(_NOISE.normal()))),
    Unseen("the last norm left out", G, SGD, TX, (("forward", "left-out"),), mine=gpt(last_norm=False)),
    Unseen("a mask that shows the next token", G, SGD, TX, (("forward", "attention-mask"),), mine=gpt(diagonal=1)),
    Unseen("no mask at all", G, SGD, TX, (("forward", "attention-mask"),), mine=gpt(diagonal=99)),
    Unseen("attention without its scale", G, SGD, TX, (("forward", "attention-scale"),), mine=gpt(scale=1.0)),
    Unseen("q, k, v by head", G, SGD, TX, (("forward", "packed-layout"),), mine=gpt(split=by_head)),
    Unseen("a softmax in bfloat16", G, SGD, TX, (("forward", "low-precision"),), mine=gpt(soft=rounded_softmax)),
    Unseen("embeddings times a root", G, SGD, TX, (("forward", "embedding-scale"),), mine=gpt(embedded=WIDTH**0.5)),
    Unseen("no places", G, SGD, TX, (("forward", "left-out"),), mine=gpt(places=False)),
    Unseen("tanh GELU and eps", P, SGD, TX, (("forward", "activation"), ("forward", "layer-eps")), mine={"apply": functools.partial(perceptron_apply, approximate=True, epsilon=1e-3)}),
    # losses
    Unseen("padding counted", G, SGD, TX, (("loss", "ignored-labels"),), theirs=torch_padded()),
    Unseen("the mean of each sequence", G, SGD, TX, (("loss", "sequence-mean"),), theirs=torch_padded(), mine={"loss": by_sequence}),
    Unseen("no smoothing beside padding", G, SGD, TX, (("loss", "label-smoothing"),), theirs=torch_padded(0.1), mine={"loss": masked}),
    Unseen("a z-loss", G, SGD, TX, (("loss", "additional-term"),), mine={"loss": z_loss}),
    Unseen("the tokens for the next ones", G, SGD, TX, (("loss", "labels-shifted"),), mine={"loss": same_tokens}),
    Unseen("class weights", P, SGD, TX, (("loss", "class-weights"),), mine={"loss": weighted}),
    Unseen("the loss times 128", P, SGD, TX, (("loss", "loss-scale"),), mine={"loss": lambda o, b: 128 * jax_loss(o, b)}),
    Unseen("squares for Huber", P, SGD, TX, (("loss", "loss-kind"),), theirs=regression("smooth_l1_loss"), mine={"loss": squared}, data=with_targets),
    # optimizers
    Unseen("eight times the rate of SGD", P, SGD, optax.sgd(0.4), (("update", "number|gradient-scale"),)),
    Unseen("eight times the rate of Adam", P, ADAM, optax.adam(8e-3), (("update", "number"),)),
    Unseen("twice the limit", P, ADAM, optax.chain(jp.clip_by_grad_norm(0.2), optax.adam(1e-3)), (("update", "clip-limit"),), theirs=clipped(0.1)),
    Unseen("no 1e-6 in a warm-up", P, SGD, optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(warm)), (("update", "clip-epsilon"),), theirs=clipped_warm),
    Unseen("a longer cosine", P, ADAMW, optax.adamw(optax.cosine_decay_schedule(1e-3, 40), weight_decay=0.1), (("update", "schedule-length"),), theirs=scheduled("CosineAnnealingLR", T_max=30)),
    Unseen("a half for a tenth", P, SGD, optax.sgd(optax.piecewise_constant_schedule(0.05, {4: 0.5})), (("update", "schedule"),), theirs=scheduled("MultiStepLR", milestones=[4], gamma=0.1)),
    Unseen("Lion for AdamW", P, ADAMW, optax.lion(1e-4, weight_decay=0.1), (("update", "another-optimizer"),)),
    Unseen("RAdam for Adam", P, ADAM, jp.RAdam(lr=1e-3), (("update", "another-optimizer"),)),
    Unseen("a step in four", P, ADAM, optax.MultiSteps(optax.adam(1e-3), 4).gradient_transformation(), (("update", "accumulation"),)),
    Unseen("frozen in torch", P, frozen_first, TX, (("update", "frozen-leaf"),)),
    # data
    Unseen("a column that is NaN", P, SGD, TX, (("forward", "not-finite"),), data=broken),
    Unseen("images mirrored", C, SGD, TX, (("data", "data-layout"),), mine=own(C, mirrored)),
    Unseen("columns in other units", P, SGD, TX, (("data", "data-scale"),), mine=own(P, brighter)),
    # several
    Unseen("eps, a half loss, coupled decay", P, ADAMW, optax.chain(optax.add_decayed_weights(0.1), optax.adam(1e-3)), (("forward", "layer-eps"), ("loss", "loss-scale"), ("update", "decay-coupling")), mine={"apply": functools.partial(perceptron_apply, epsilon=1e-6), "loss": lambda o, b: jax_loss(o, b) / 2}),
    Unseen("GELU, a rate from step 4", P, SGD, optax.sgd(lambda c: jnp.where(c < 4, 0.05, 0.02)), (("forward", "activation"), ("update", "number|schedule")), mine={"apply": functools.partial(perceptron_apply, approximate=True)}),
    Unseen("variance, momentum, sign", C, SGD, optax.sgd(-0.05), (("buffers", "biased-variance"), ("update", "sign")), mine={"apply": functools.partial(convolutions_apply, stats={"bn1": {"unbiased": False}, "bn2": {"unbiased": False}})}),
]  # fmt: skip


class Told(NamedTuple):
    """What was said of a fault: all found, and named right, wrong, or not at all."""

    found: bool
    named: int
    wrong: int
    said: str


def report(fault: Unseen) -> Any:
    """Run the comparison of a fault."""
    theirs, mine = both(
        fault.network, fault.torch, fault.tx, theirs=fault.theirs, mine=fault.mine,
        model=None if fault.model is None else fault.model(),
    )  # fmt: skip
    data = batches(fault.network, 0, STEPS)
    return verify.compare(theirs, mine, data if fault.data is None else fault.data(data))


def told(fault: Unseen) -> Told:
    """Compare what is said with what is so."""
    return judged(fault.causes, report(fault))


def judged(causes: tuple[tuple[str, str], ...], made: Any) -> Told:
    """Compare what a report says with the causes, by stage; "" is a cause without a name."""
    said = [(d.stage, d.cause.name if d.cause else "") for d in searched(made).found]
    more = [
        (d.stage, also.name) for d in made.found if d.cause is not None for also in d.cause.also
    ]
    named = sum(
        any(stage == s and n in names.split("|") for s, n in said + more) for stage, names in causes
    )
    right = [(stage, name) for stage, names in causes for name in names.split("|")]
    wrong = sum(bool(name) and (stage, name) not in right for stage, name in said + more)
    stages = {stage for stage, _ in said}
    words = "; ".join(
        f"{d.step} {d.stage}: {n or None}" for d, (_, n) in zip(made.found, said, strict=True)
    ) + "".join(f"; also {stage}: {name}" for stage, name in more)
    return Told(all(stage in stages for stage, _ in causes), named, wrong, words or "nothing")
