"""Faults that the diagnosis was not built on: what a port may have that the other table has not.

Step, stage, leaves and cause were written down before any of them was run.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from torch import optim

import jaxopt_port as jp
from parity_tests.faults.changes import (
    ADAM,
    ADAM_DECAY,
    ADAMW,
    ALL,
    COSINE,
    DECAY,
    EXPONENTIAL,
    RIGHT_SGD,
    RMS,
    SGD,
    SOME,
    C,
    L,
    P,
    T,
    by_value,
    chained,
    changed_leaf,
    clipped,
    falling,
    first_moments,
    forgetting,
    imported,
    not_zero,
    of,
    own_batches,
    scaled_gradient,
    scheduled,
    shuffled,
    with_gradient,
)
from parity_tests.faults.models import (
    convolutions_apply,
    convolved,
    dense,
    jax_loss,
    perceptron_apply,
    transformer_apply,
)
from parity_tests.faults.network_data import masked
from parity_tests.faults.seeded import Fault

SQUARE, BIASES = ("0", "3", "5"), ("q", "k", "v", "o", "up", "down", "head")
SQUARES = tuple(f"{n}/{k}" for n in SQUARE for k in ("kernel", "bias"))
STATISTICS = tuple(f"batch_stats/{n}/{s}" for n in ("bn1", "bn2") for s in ("mean", "var"))


def by_leaf(most):
    """Clip each leaf by its own norm."""

    def clip(grads):
        def of_leaf(g):
            return g * jnp.minimum(1.0, most / (jnp.linalg.norm(g.ravel()) + 1e-6))

        return jax.tree.map(of_leaf, grads)

    return clip


def no_decay_of_vectors(module):
    """Two groups, as training scripts make them: vectors are not decayed."""
    params = list(module.parameters())
    groups = [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in params if p.ndim == 1], "weight_decay": 0.0},
    ]
    return optim.AdamW(groups, lr=1e-3)


def evaluating(params, state, batch):
    """Convolutions that normalise by their running statistics."""
    x, stats = batch[0], state["batch_stats"]
    for i, stride in (("1", 1), ("2", 2)):
        norm, held = params[f"bn{i}"], stats[f"bn{i}"]
        x = convolved(params[f"conv{i}"], x, stride)
        x = (x - held["mean"]) * jax.lax.rsqrt(held["var"] + 1e-5) * norm["scale"] + norm["bias"]
        x = jax.nn.relu(x)
    return dense(params["head"], x.transpose(0, 3, 1, 2).reshape(len(x), -1)), state


def then(apply, last):
    return lambda params, batch: last(apply(params, batch))


def a_quarter(output, batch):
    return jax_loss(output, batch) / 4


def in_bfloat16(params):
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(x.dtype), params)


def lenet_kernel(params, layer, change):
    part, i = layer
    own = {**params[part][i], "kernel": change(params[part][i]["kernel"])}
    return {**params, part: {**params[part], i: own}}


def flipped_import(params):
    return lenet_kernel(params, ("features", 0), lambda x: x[::-1, ::-1])


def rows_import(params):
    def turned(x):
        return x.reshape(16, 5, 5, -1).transpose(1, 2, 0, 3).reshape(x.shape)

    return lenet_kernel(params, ("classifier", 0), turned)


def narrow_inputs(batches):
    return [(x.astype(np.float16).astype(np.float32), y) for x, y in batches]


def next_label(batches):
    return [(x, (y + 1) % 4) for x, y in batches]


def shuffled_late(batches):
    return [*batches[:20], *shuffled(batches[20:])]


def restarted(count):
    return falling(0)(jnp.where(count < 23, count, count - 23))


def warm_from_zero(count):
    return 0.05 * jnp.minimum(count / 10, 1.0)


WARM = scheduled("LambdaLR", lr_lambda=lambda s: min((s + 1) / 10, 1.0))
CONSTANT_DECAY = optax.chain(
    optax.scale_by_adam(),
    optax.scale_by_schedule(lambda c: -0.05 * 0.9**c),
    DECAY(-0.005),
)

HELD_OUT = [
    # optimizers
    Fault("eps of another library", P, ADAM, optax.adam(1e-3, eps=1e-7), 0, "update", ALL, "number"),
    Fault("nadam by optax", T, of(optim.NAdam, lr=1e-3), optax.nadam(1e-3), 0, "update", ALL, "nesterov"),
    Fault("rmsprop without momentum", L, of(optim.RMSprop, lr=1e-3, momentum=0.9), optax.rmsprop(1e-3, **RMS), 1, "update", ALL, "number"),
    Fault("no decay of adagrad's rate", C, of(optim.Adagrad, lr=1e-2, lr_decay=0.1), jp.Adagrad(lr=1e-2), 0, "hyperparameters", ALL, "number"),
    Fault("torch maximizes", P, of(optim.SGD, lr=0.05, momentum=0.9, maximize=True), optax.sgd(0.05, 0.9), 0, "update", ALL, "sign"),
    Fault("another rate", T, ADAMW, optax.adamw(3e-3, weight_decay=0.1), 0, "update", ALL, "number"),
    Fault("amsgrad added", C, ADAM, jp.Adam(lr=1e-3, amsgrad=True), 1, "update", SOME, "amsgrad"),
    Fault("a moment in bfloat16", T, ADAM, optax.adam(1e-3, mu_dtype=jnp.bfloat16), 0, "state", first_moments, "low-precision"),
    Fault("every other step", P, SGD, optax.MultiSteps(optax.sgd(0.05, 0.9), 2).gradient_transformation(), 0, "update", ALL, "accumulation"),
    Fault("moments lost at step 23", L, ADAM, forgetting(optax.adam(1e-3), 23), 23, "update", ALL, None),
    # decay
    Fault("only kernels decayed", P, ADAMW, optax.adamw(1e-3, weight_decay=0.1, mask=lambda t: jax.tree.map(lambda p: p.ndim > 1, t)), 0, "update", (*(f"{n}/bias" for n in SQUARE), "1/scale"), "number"),
    Fault("vectors decayed too", T, no_decay_of_vectors, optax.adamw(1e-3, weight_decay=0.1), 0, "update", (*(f"{n}/bias" for n in BIASES), "norm1/scale", "norm2/scale"), "group-options"),
    Fault("decay does not follow the schedule", P, of(optim.AdamW, lr=0.05, weight_decay=0.1), CONSTANT_DECAY, 1, "update", ALL, "decay-order", theirs=EXPONENTIAL),
    # clipping
    Fault("by norm for by value", T, SGD, optax.chain(jp.clip_by_grad_norm(0.1), optax.sgd(0.05, 0.9)), 0, "update", ALL, "clip-kind", theirs=by_value(0.01)),
    Fault("by value for by norm", P, SGD, optax.chain(optax.clip(0.01), optax.sgd(0.05, 0.9)), 0, "update", ALL, "clip-kind", theirs=clipped(0.1)),
    Fault("each leaf by its norm", L, SGD, RIGHT_SGD, 0, "clipping", ALL, "clip-per-group", theirs=clipped(0.1), mine={"clip": by_leaf(0.1)}),
    # schedules
    Fault("a warm-up from zero", T, SGD, optax.sgd(warm_from_zero, 0.9), 0, "update", ALL, "schedule-offset", theirs=WARM),
    Fault("a shorter cosine", C, SGD, optax.sgd(optax.cosine_decay_schedule(0.05, 45), 0.9), 1, "update", ALL, "schedule-length", theirs=COSINE),
    Fault("the schedule begins anew", P, SGD, optax.sgd(restarted, 0.9), 23, "update", ALL, "schedule-offset", theirs=EXPONENTIAL),
    # networks, losses, gradients
    Fault("one gradient too large", T, SGD, RIGHT_SGD, 0, "gradient", "embed/embedding", "gradient-scale", mine={"apply": changed_leaf(transformer_apply, "embed/embedding", lambda x: 4.0 * x - jax.lax.stop_gradient(3.0 * x))}),
    Fault("running statistics in training", C, SGD, RIGHT_SGD, 0, "forward", "output", "training-mode", mine={"apply": evaluating}),
    Fault("Flax's momentum in both layers", C, SGD, RIGHT_SGD, 0, "buffers", STATISTICS, "batchnorm-momentum", mine={"apply": functools.partial(convolutions_apply, stats={n: {"momentum": 0.9} for n in ("bn1", "bn2")})}),
    Fault("LayerNorm's eps too large", P, SGD, RIGHT_SGD, 0, "forward", "output", "layer-eps", mine={"apply": functools.partial(perceptron_apply, epsilon=1e-3)}),
    Fault("log-softmax too early", T, SGD, RIGHT_SGD, 0, "forward", "output", "output-activation", mine={"apply": then(transformer_apply, jax.nn.log_softmax)}),
    Fault("softmax too early", P, SGD, RIGHT_SGD, 0, "forward", "output", "output-activation", mine={"apply": then(perceptron_apply, jax.nn.softmax)}),
    Fault("a token taken for padding", T, SGD, RIGHT_SGD, 0, "loss", "loss", "ignored-labels", mine={"loss": masked}),
    Fault("the mean over classes too", P, SGD, RIGHT_SGD, 0, "loss", "loss", "loss-scale", mine={"loss": a_quarter}),
    Fault("an average over devices twice", P, SGD, RIGHT_SGD, 0, "gradient", ALL, "gradient-scale", mine={"apply": scaled_gradient(perceptron_apply, 0.125)}),
    # data and parameters
    Fault("data a batch early", T, SGD, RIGHT_SGD, 0, "data", ("batch/0", "batch/1"), "data-offset", mine=own_batches("transformer", lambda b: b[-1:] + b[:-1])),
    Fault("inputs in float16", P, SGD, RIGHT_SGD, 0, "data", "batch/0", "low-precision", mine=own_batches("perceptron", narrow_inputs)),
    Fault("labels one further", P, SGD, RIGHT_SGD, 0, "data", "batch/1", "labels-shifted", mine=own_batches("perceptron", next_label)),
    Fault("examples shuffled from step 20", P, SGD, RIGHT_SGD, 20, "data", ("batch/0", "batch/1"), "data-order", mine=own_batches("perceptron", shuffled_late)),
    Fault("a kernel imported flipped", L, SGD, RIGHT_SGD, 0, "parameters", "features/0/kernel", "kernel-flipped", mine=imported("lenet", flipped_import)),
    Fault("rows imported in another order", L, SGD, RIGHT_SGD, 0, "parameters", "classifier/0/kernel", "flatten-order", mine=imported("lenet", rows_import)),
    Fault("imported through bfloat16", P, SGD, RIGHT_SGD, 0, "parameters", SQUARES, "low-precision", mine=imported("perceptron", in_bfloat16)),
    # in other dtypes
    Fault("bfloat16: adamw for adam", P, ADAM_DECAY, optax.adamw(1e-3, weight_decay=0.1), 0, "update", not_zero, "decay-coupling", dtype="bfloat16"),
    Fault("bfloat16: clipping without 1e-6", T, SGD, optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.05, 0.9)), 0, "update", with_gradient, "clip-epsilon", theirs=clipped(0.1), dtype="bfloat16"),
    Fault("bfloat16: the biased variance", C, SGD, RIGHT_SGD, 0, "buffers", "batch_stats/bn1/var", "biased-variance", mine={"apply": functools.partial(convolutions_apply, stats={"bn1": {"unbiased": False}})}, dtype="bfloat16"),
    Fault("float64: eps in the root", P, ADAM, optax.adam(1e-3, eps=0.0, eps_root=1e-8), 0, "update", ALL, "eps-placement", dtype="float64"),
    Fault("float64: a kernel transposed", T, SGD, RIGHT_SGD, 0, "forward", "output", "transposed", mine={"apply": changed_leaf(transformer_apply, "v/kernel", jnp.transpose)}, dtype="float64"),
    Fault("float64: decay before the average", P, of(optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.1), chained(optax.trace(0.9), DECAY(0.1), lr=0.05), 1, "update", not_zero, "decay-order", dtype="float64"),
]  # fmt: skip
