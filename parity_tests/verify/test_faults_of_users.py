"""Faults as people make them, several at a time or beside what rounds: what each is called."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import torch.nn.functional as F
from flax import nnx

import jaxopt_port as jp
from jaxopt_port import verify

LIMIT, STEPS = 0.1, 10
SGD = {"lr": 1e-2, "momentum": 0.9}


def by_leaf(updates, params=None):
    return jax.tree.map(lambda g: g * jnp.minimum(1, LIMIT / jnp.linalg.norm(g.ravel())), updates)


def cosine(length):
    return optax.cosine_decay_schedule(SGD["lr"], length)


CLIP = optax.clip_by_global_norm(LIMIT)
# Your optimizer, torch's class and options, whether torch clips, and follows a cosine; the causes.
FAULTS = {
    "Optax's clipping, no decay": (
        optax.chain(CLIP, optax.adamw(1e-3, weight_decay=0.0)),
        *(torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.0}, True, False),
        ["clip-epsilon"],
    ),
    "clipped leaf by leaf": (
        optax.chain(optax.stateless(by_leaf), optax.sgd(1e-2, momentum=0.9)),
        *(torch.optim.SGD, SGD, True, False),
        ["clip-per-group"],
    ),
    "another limit and a longer cosine": (
        optax.chain(jp.clip_by_grad_norm(2 * LIMIT), optax.sgd(cosine(20), momentum=0.9)),
        *(torch.optim.SGD, SGD, True, True),
        ["clip-limit", "schedule-length"],
    ),
    "no clipping and a longer cosine": (
        optax.sgd(cosine(20), momentum=0.9),
        *(torch.optim.SGD, SGD, True, True),
        ["clip-missing", "schedule-length"],
    ),
    "an average for momentum": (
        optax.chain(optax.ema(0.9), optax.scale(-1e-2)),
        *(torch.optim.SGD, SGD, False, False),
        ["dampening"],
    ),
    "an average from zero for momentum": (
        optax.chain(optax.ema(0.9, debias=False), optax.scale(-1e-2)),
        *(torch.optim.SGD, SGD, False, False),
        ["number", "gradient-scale", "dampening"],
    ),
}


class Net(nnx.Module):
    def __init__(self, rngs):
        self.a = nnx.Linear(8, 16, rngs=rngs)
        self.n = nnx.LayerNorm(16, epsilon=1e-5, rngs=rngs)
        self.b = nnx.Linear(16, 4, rngs=rngs)

    def __call__(self, x):
        return self.b(jnp.tanh(self.n(self.a(x))))


def torchs_net():
    torch.manual_seed(0)
    layers = [("a", torch.nn.Linear(8, 16)), ("n", torch.nn.LayerNorm(16))]
    layers += [("tanh", torch.nn.Tanh()), ("b", torch.nn.Linear(16, 4))]
    return torch.nn.Sequential(OrderedDict(layers))


def batches(*shape):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(STEPS, *shape, 8)).astype(np.float32)
    return list(zip(inputs, rng.integers(0, 4, (STEPS, *shape)), strict=True))


def each(output, labels):
    return optax.softmax_cross_entropy_with_integer_labels(output, labels)


def causes(report):
    return [c.name for one in report.found for c in (one.cause, *one.cause.also)]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_fault_is_called(fault):
    tx, optimizer, options, clips, schedules, expected = FAULTS[fault]
    module = torchs_net()
    made = optimizer(module.parameters(), **options)
    theirs = verify.TorchSide(
        module=module,
        optimizer=made,
        loss=lambda output, batch: F.cross_entropy(output, batch[1]),
        clip=(lambda ps: torch.nn.utils.clip_grad_norm_(ps, LIMIT)) if clips else None,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(made, STEPS) if schedules else None,
    )
    mine = verify.nnx_side(
        Net(nnx.Rngs(0)), tx=tx, loss=lambda output, batch: each(output, batch[1]).mean()
    )
    report = verify.compare(theirs, mine, batches(16))
    assert causes(report) == expected, str(report)
    assert report.first.stage == "update"
    if fault == "clipped leaf by leaf":  # some are within the limit
        assert len(report.first.leaves) == 6


@pytest.mark.parametrize("shape", [(24,), (4, 6)], ids=["rows", "sequences"])
def test_a_mean_over_labels_that_are_to_be_ignored(shape):
    module = torchs_net()
    data = [(x, np.where(y == 3, -100, y)) for x, y in batches(*shape)]
    theirs = verify.TorchSide(
        module=module,
        optimizer=torch.optim.SGD(module.parameters(), **SGD),
        loss=lambda output, batch: F.cross_entropy(output.flatten(0, -2), batch[1].flatten()),
    )

    def loss(output, batch):
        counts = batch[1] != -100
        return (each(output, jnp.where(counts, batch[1], 0)) * counts).mean()

    mine = verify.nnx_side(Net(nnx.Rngs(0)), tx=optax.sgd(1e-2, momentum=0.9), loss=loss)
    cause = verify.compare(theirs, mine, data[:3]).first.cause
    assert cause.name == "loss-scale"
    assert "a mean over all 24 labels" in cause.message


def test_weights_of_classes_divided_by_the_number_of_labels():
    weights = np.array([1.0, 0.25, 2.0, 0.7], np.float32)
    module = torchs_net()
    theirs = verify.TorchSide(
        module=module,
        optimizer=torch.optim.SGD(module.parameters(), **SGD),
        loss=lambda output, batch: F.cross_entropy(
            output, batch[1], weight=torch.as_tensor(weights).to(output.dtype)
        ),
    )
    mine = verify.nnx_side(
        Net(nnx.Rngs(0)),
        tx=optax.sgd(1e-2, momentum=0.9),
        loss=lambda output, batch: (each(output, batch[1]) * jnp.asarray(weights)[batch[1]]).mean(),
    )
    cause = verify.compare(theirs, mine, batches(24)[:3]).first.cause
    assert cause.name == "class-weights"
    assert "by the number of labels (24)" in cause.message
