"""Faults seeded into the JAX side, each a small change that real ports have, and where it shows.

Step, stage, leaf and cause are what follows from the fault, not what the harness said.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from torch import optim

import jaxopt_port as jp
from jaxopt_port import verify
from parity_tests.faults.changes import (
    ADAM,
    ADAM_DECAY,
    ADAMW,
    ALL,
    DECAY,
    EPOCHS,
    EXPONENTIAL,
    RIGHT_ADAM,
    RIGHT_SGD,
    RMS,
    SGD,
    SGD_DECAY,
    SOME,
    STEPS,
    STEPWISE,
    C,
    L,
    P,
    T,
    accumulating,
    chained,
    changed_leaf,
    clipped,
    each_group,
    exchanged,
    falling,
    forgetting,
    frozen_in_torch,
    half_loss,
    imported,
    lenet_flattened_hwc,
    low,
    moments,
    momentum,
    not_zero,
    of,
    own_batches,
    penalised,
    random_import,
    rate_in_momentum,
    reshuffled,
    scaled_gradient,
    scheduled,
    second_moments,
    shuffled,
    smoothed,
    sum_loss,
    swapped_import,
    transposed_import,
    two_groups,
    with_gradient,
    without,
)
from parity_tests.faults.models import (
    MODELS,
    convolutions_apply,
    lenet_apply,
    perceptron_apply,
    sides,
    to_nhwc,
    transformer_apply,
)


class Fault(NamedTuple):
    """One fault.

    ``torch``: makes torch's optimizer of a module. ``tx``: of the JAX side. ``leaf``: the leaves
    that differ there: one, some, or what says so of each. ``theirs``, ``mine``: other arguments of
    the sides, or what makes them. ``cause``: its name, or None where no known cause is to be named.
    """

    name: str
    model: str
    torch: Callable[[Any], Any]
    tx: Any
    step: int
    stage: str
    leaf: str | tuple[str, ...] | Callable[[str], bool] | None
    cause: str | None
    theirs: Callable[[Any, Any], dict[str, Any]] | None = None
    mine: dict[str, Any] | Callable[[], dict[str, Any]] | None = None
    dtype: str = "float32"


FAULTS = [
    # eps
    Fault("adam: eps in the root", P, ADAM, optax.adam(1e-3, eps=0.0, eps_root=1e-8), 0, "update", ALL, "eps-placement"),
    Fault("rmsprop: eps in the root", L, of(optim.RMSprop, lr=1e-3), optax.rmsprop(1e-3, 0.99), 0, "update", ALL, "eps-placement"),
    Fault("adagrad: eps in the root", T, of(optim.Adagrad, lr=1e-2), optax.adagrad(1e-2, 0.0, 1e-10), 0, "update", ALL, "eps-placement"),
    # weight decay
    Fault("adamw for adam", P, ADAM_DECAY, optax.adamw(1e-3, weight_decay=0.1), 0, "update", not_zero, "decay-coupling"),
    Fault("adam with L2 for adamw", T, ADAMW, optax.chain(DECAY(0.1), optax.adam(1e-3)), 0, "update", not_zero, "decay-coupling"),
    Fault("jp.Adam for AdamW", C, ADAMW, jp.Adam(lr=1e-3, weight_decay=0.1), 0, "update", not_zero, "decay-coupling"),
    Fault("adamw with the default decay", L, ADAMW, optax.adamw(1e-3), 0, "update", ALL, "number"),
    Fault("decay after momentum", C, SGD_DECAY, chained(optax.trace(0.9), DECAY(0.1), lr=0.05), 1, "update", not_zero, "decay-order"),
    Fault("decay after momentum, LeNet", L, SGD_DECAY, chained(optax.trace(0.9), DECAY(0.1), lr=0.05), 1, "update", ALL, "decay-order"),
    Fault("decay without the rate", T, ADAMW, optax.chain(optax.adam(1e-3), DECAY(-0.1)), 0, "update", not_zero, "decay-order"),
    Fault("no decay", P, SGD_DECAY, optax.sgd(0.05, 0.9), 0, "update", not_zero, "number"),
    # momentum
    Fault("dampening left out", P, of(optim.SGD, lr=0.05, momentum=0.9, dampening=0.5), optax.sgd(0.05, 0.9), 1, "update", ALL, "dampening"),
    Fault("another dampening", L, of(optim.SGD, lr=0.05, momentum=0.9, dampening=0.1), jp.SGD(lr=0.05, momentum=0.9, dampening=0.5), 0, "hyperparameters", ALL, "dampening"),
    Fault("dampening of an average", T, SGD, chained(momentum(0.9, 0.9, 1.0), lr=0.05), 1, "update", ALL, "dampening"),
    Fault("first buffer dampened", C, of(optim.SGD, lr=0.05, momentum=0.9, dampening=0.5), chained(momentum(0.9, 0.5, 0.5), lr=0.05), 0, "update", ALL, "first-momentum"),
    Fault("first buffer dampened, transformer", T, of(optim.SGD, lr=0.05, momentum=0.8, dampening=0.3), chained(momentum(0.8, 0.3, 0.7), lr=0.05), 0, "update", ALL, "first-momentum"),
    Fault("nesterov left out", L, of(optim.SGD, lr=0.05, momentum=0.9, nesterov=True), optax.sgd(0.05, 0.9), 0, "update", ALL, "nesterov"),
    Fault("nesterov added", P, SGD, optax.sgd(0.05, 0.9, nesterov=True), 0, "update", ALL, "nesterov"),
    Fault("another momentum", C, SGD, optax.sgd(0.05, 0.95), 1, "update", ALL, "number"),
    Fault("the rate within the momentum", P, SGD, rate_in_momentum(falling(0), 0.9), 1, "update", ALL, "lr-in-momentum", theirs=EXPONENTIAL),
    # bias correction, accumulators, betas
    Fault("adam uncorrected", P, ADAM, chained(moments(0.9, 0.999, False, False), lr=1e-3), 0, "update", ALL, "bias-correction"),
    Fault("adam: second moment uncorrected", T, ADAM, chained(moments(0.9, 0.999, True, False), lr=1e-3), 0, "update", ALL, "bias-correction"),
    Fault("rmsprop corrected", C, of(optim.RMSprop, lr=1e-3), optax.rmsprop(1e-3, **RMS, bias_correction=True), 0, "update", ALL, "bias-correction"),
    Fault("adagrad from 0.1", P, of(optim.Adagrad, lr=1e-2), optax.adagrad(1e-2), 0, "update", ALL, "initial-accumulator"),
    Fault("rmsprop from 1", L, of(optim.RMSprop, lr=1e-3), optax.rmsprop(1e-3, **RMS, initial_scale=1.0), 0, "update", ALL, "initial-accumulator"),
    Fault("betas swapped", P, ADAM, optax.adam(1e-3, b1=0.999, b2=0.9), 0, "state", ALL, "betas-swapped"),
    Fault("betas swapped, adamw", T, ADAMW, optax.adamw(1e-3, b1=0.999, b2=0.9, weight_decay=0.1), 0, "state", ALL, "betas-swapped"),
    Fault("another beta", L, ADAM, optax.adam(1e-3, b2=0.99), 0, "state", second_moments, "number"),
    Fault("amsgrad left out", C, of(optim.Adam, lr=1e-3, amsgrad=True), optax.adam(1e-3), 1, "update", SOME, "amsgrad"),
    Fault("rmsprop centred", T, of(optim.RMSprop, lr=1e-3), optax.rmsprop(1e-3, **RMS, centered=True), 0, "update", ALL, "centered"),
    # schedules
    Fault("schedule a step early", P, SGD, optax.sgd(falling(1), 0.9), 0, "update", ALL, "schedule-offset", theirs=EXPONENTIAL),
    Fault("schedule a step late", T, SGD, optax.inject_hyperparams(optax.sgd)(lambda c: falling(0)(jnp.maximum(c - 1, 0)), 0.9), 1, "hyperparameters", ALL, "schedule-offset", theirs=EXPONENTIAL),
    Fault("a boundary a step early", L, SGD, optax.sgd(optax.piecewise_constant_schedule(0.05, {36: 0.1}), 0.9), 36, "update", ALL, "schedule-offset", theirs=STEPWISE),
    Fault("per step, not per epoch", P, SGD, optax.sgd(lambda c: 0.05 * 0.5**c, 0.9), 1, "update", ALL, "schedule-per-epoch", theirs=EPOCHS),
    Fault("per epoch, not per step", C, SGD, jp.SGD(lr=0.05, momentum=0.9), 1, "hyperparameters", ALL, "schedule-per-epoch", theirs=scheduled("ExponentialLR", gamma=0.5), mine={"scheduler": jp.lr_scheduler.ExponentialLR(0.5), "scheduler_every": 5}),
    Fault("no schedule", T, SGD, optax.sgd(0.05, 0.9), 37, "update", ALL, "number", theirs=STEPWISE),
    # precision
    Fault("hyperparameters in bfloat16", P, ADAM, optax.inject_hyperparams(optax.adam)(1e-3), 0, "hyperparameters", ALL, "low-precision", dtype="bfloat16"),
    Fault("a rate in bfloat16", L, SGD, optax.sgd(jnp.bfloat16(0.05), 0.9), 0, "update", ALL, "low-precision"),
    Fault("a rate in float16", T, ADAM, optax.adam(jnp.float16(1e-3)), 0, "update", ALL, "low-precision"),
    Fault("the loss in bfloat16", T, SGD, RIGHT_SGD, 0, "loss", "loss", "low-precision", mine={"loss": low}),
    # clipping
    Fault("clipping without 1e-6", P, SGD, optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.05, 0.9)), 0, "update", ALL, "clip-epsilon", theirs=clipped(0.1)),
    Fault("clipping without 1e-6, LeNet", L, SGD, optax.chain(optax.clip_by_global_norm(0.01), optax.sgd(0.05, 0.9)), 0, "update", ALL, "clip-epsilon", theirs=clipped(0.01)),
    Fault("clipped per group", T, two_groups("embed", optim.SGD, {"lr": 0.05}, {"lr": 0.05}), each_group(lambda: optax.chain(jp.clip_by_grad_norm(0.1), optax.sgd(0.05)), "embed"), 0, "update", with_gradient, "clip-per-group", theirs=clipped(0.1)),
    Fault("clipped per group, convolutions", C, two_groups("conv", optim.SGD, {"lr": 0.05}, {"lr": 0.05}), each_group(lambda: optax.chain(jp.clip_by_grad_norm(0.1), optax.sgd(0.05)), "conv"), 0, "update", ALL, "clip-per-group", theirs=clipped(0.1)),
    Fault("not clipped", P, SGD, RIGHT_SGD, 0, "update", ALL, "clip-missing", theirs=clipped(0.1)),
    Fault("clipped, and torch not", C, of(optim.SGD, lr=0.05), optax.chain(jp.clip_by_grad_norm(0.5), optax.sgd(0.05)), 0, "update", ALL, "clip-missing"),
    # losses and gradients
    Fault("sum of the loss", P, SGD, RIGHT_SGD, 0, "loss", "loss", "loss-scale", mine={"loss": sum_loss}),
    Fault("sum of the loss over positions", T, SGD, RIGHT_SGD, 0, "loss", "loss", "loss-scale", mine={"loss": sum_loss}),
    Fault("half of the loss", L, SGD, RIGHT_SGD, 0, "loss", "loss", "loss-scale", mine={"loss": half_loss}),
    Fault("labels smoothed", P, SGD, RIGHT_SGD, 0, "loss", "loss", "label-smoothing", mine={"loss": smoothed(0.1)}),
    Fault("labels smoothed, transformer", T, SGD, RIGHT_SGD, 0, "loss", "loss", "label-smoothing", mine={"loss": smoothed(0.05)}),
    Fault("gradients summed over devices", P, SGD, RIGHT_SGD, 0, "gradient", ALL, "gradient-scale", mine={"apply": scaled_gradient(perceptron_apply, 8.0)}),
    Fault("gradients summed over devices, transformer", T, SGD, RIGHT_SGD, 0, "gradient", with_gradient, "gradient-scale", mine={"apply": scaled_gradient(transformer_apply, 8.0)}),
    Fault("a penalty in the gradient", L, SGD, RIGHT_SGD, 0, "gradient", ALL, "regularized-loss", mine={"apply": penalised(lenet_apply, 0.01)}),
    Fault("gradients accumulate", P, of(optim.SGD, lr=0.05), optax.chain(accumulating(), optax.sgd(0.05)), 1, "update", ALL, "accumulated-gradient"),
    # frozen leaves
    Fault("a leaf frozen by its label", L, SGD, without("classifier/2/kernel", optax.sgd(0.05, 0.9)), 0, "update", "classifier/2/kernel", "frozen-leaf"),
    Fault("a leaf not differentiated", T, SGD, RIGHT_SGD, 0, "gradient", "up/kernel", "frozen-leaf", mine={"apply": changed_leaf(transformer_apply, "up/kernel", jax.lax.stop_gradient)}),
    Fault("a leaf frozen in torch only", P, frozen_in_torch("3.weight", optim.AdamW, lr=1e-3, weight_decay=0.1), jp.AdamW(lr=1e-3, weight_decay=0.1), 0, "update", "3/kernel", "frozen-leaf"),
    # layouts
    Fault("a kernel transposed", T, SGD, RIGHT_SGD, 0, "forward", "output", "transposed", mine={"apply": changed_leaf(transformer_apply, "o/kernel", jnp.transpose)}),
    Fault("a kernel transposed, perceptron", P, SGD, RIGHT_SGD, 0, "forward", "output", "transposed", mine={"apply": changed_leaf(perceptron_apply, "3/kernel", jnp.transpose)}),
    Fault("a kernel imported transposed", T, SGD, RIGHT_SGD, 0, "parameters", "v/kernel", "transposed", mine=imported("transformer", transposed_import)),
    Fault("two layers imported in each other's place", T, SGD, RIGHT_SGD, 0, "parameters", ("q/kernel", "q/bias", "k/kernel", "k/bias"), "swapped-leaves", mine=imported("transformer", swapped_import)),
    Fault("a kernel not imported", T, SGD, RIGHT_SGD, 0, "parameters", "o/kernel", "not-imported", mine=imported("transformer", random_import)),
    Fault("flattened HWC", C, SGD, RIGHT_SGD, 0, "forward", "output", "flatten-order", mine={"apply": functools.partial(convolutions_apply, rows_as_they_are=True)}),
    Fault("flattened HWC, LeNet", L, SGD, RIGHT_SGD, 0, "forward", "output", "flatten-order", mine={"apply": lenet_flattened_hwc}),
    Fault("a kernel flipped", C, SGD, RIGHT_SGD, 0, "forward", "output", "kernel-flipped", mine={"apply": functools.partial(convolutions_apply, flip=True)}),
    Fault("queries for keys", T, SGD, RIGHT_SGD, 0, "forward", "output", "swapped-leaves", mine={"apply": exchanged}),
    # models
    Fault("GELU by tanh", T, SGD, RIGHT_SGD, 0, "forward", "output", "activation", mine={"apply": functools.partial(transformer_apply, approximate=True)}),
    Fault("LayerNorm's eps", P, SGD, RIGHT_SGD, 0, "forward", "output", "layer-eps", mine={"apply": functools.partial(perceptron_apply, epsilon=1e-6)}),
    Fault("attention unscaled", T, SGD, RIGHT_SGD, 0, "forward", "output", "attention-scale", mine={"apply": functools.partial(transformer_apply, scale=1.0)}),
    Fault("the biased variance", C, SGD, RIGHT_SGD, 0, "buffers", "batch_stats/bn1/var", "biased-variance", mine={"apply": functools.partial(convolutions_apply, stats={"bn1": {"unbiased": False}})}),
    Fault("the biased variance, second layer", C, ADAM, RIGHT_ADAM, 0, "buffers", "batch_stats/bn2/var", "biased-variance", mine={"apply": functools.partial(convolutions_apply, stats={"bn2": {"unbiased": False}})}),
    Fault("Flax's momentum for torch's", C, SGD, RIGHT_SGD, 0, "buffers", ("batch_stats/bn1/mean", "batch_stats/bn1/var"), "batchnorm-momentum", mine={"apply": functools.partial(convolutions_apply, stats={"bn1": {"momentum": 0.9}})}),
    # groups
    Fault("a leaf in the other group", P, two_groups("0", optim.SGD, {"lr": 0.1}, {"lr": 0.01}), jp.SGD([{"params": ["0", "1/bias"], "lr": 0.1}, {"params": jp.REST, "lr": 0.01}]), 0, "hyperparameters", "1/bias", "group-options"),
    Fault("groups exchanged", T, two_groups("embed", optim.AdamW, {"lr": 1e-2}, {"lr": 1e-3}), each_group(lambda: optax.adamw(1e-3, weight_decay=1e-2), "embed"), 0, "update", "embed/embedding", "group-options"),
    # data
    Fault("data a batch late", P, SGD, RIGHT_SGD, 0, "data", ALL, "data-offset", mine=own_batches("perceptron", lambda b: b[1:])),
    Fault("examples shuffled", T, SGD, RIGHT_SGD, 0, "data", ALL, "data-order", mine=own_batches("transformer", shuffled)),
    Fault("another shuffle", P, SGD, RIGHT_SGD, 0, "data", ALL, None, mine=own_batches("perceptron", reshuffled)),
    Fault("images in another scale", L, SGD, RIGHT_SGD, 0, "data", "batch/0", "data-scale", mine=own_batches("lenet", lambda b: [(x / 2 + 0.25, y) for x, y in b])),
    Fault("height for width", C, SGD, RIGHT_SGD, 0, "data", "batch/0", "data-layout", mine=own_batches("convolutions", lambda b: [to_nhwc((x.swapaxes(2, 3), y)) for x, y in b])),
    # in mid-run
    Fault("momentum lost at step 23", P, SGD, forgetting(optax.sgd(0.05, 0.9), 23), 23, "update", ALL, None),
    Fault("a rate from step 37", L, SGD, optax.sgd(lambda c: jnp.where(c < 37, 0.05, 0.02), 0.9), 37, "update", ALL, "number"),
    Fault("up the gradient", C, of(optim.SGD, lr=0.05), optax.sgd(-0.05), 0, "update", ALL, "sign"),
]  # fmt: skip


def report(fault):
    """Run the comparison of a fault."""
    dtype = fault.dtype
    with jax.enable_x64(dtype == "float64"):
        theirs, mine = sides(
            fault.model, fault.torch, fault.tx, dtype=dtype, theirs=fault.theirs, mine=fault.mine
        )
        data = MODELS[fault.model].batches(0, STEPS + 2)
        return verify.compare(theirs, mine, data, steps=STEPS)


class Score(NamedTuple):
    """Whether a fault was found, where it is, and for what it is.

    Where no known cause is to be named, ``cause`` says that none was.
    """

    found: bool
    place: bool
    cause: bool
    said: str


def searched(found):
    """Return a report; an error where a search for a cause has failed, which costs the name."""
    failed = [note for note in found.notes if "which is a fault of this library" in note]
    if failed:
        raise AssertionError(failed[0])
    return found


def score(fault):
    """Compare what the harness says of a fault with what is so."""
    found = searched(report(fault))
    first = found.first
    if first is None:
        return Score(False, False, False, "nothing found")
    place = (first.step, first.stage) == (fault.step, fault.stage)
    if fault.leaf is not SOME:
        compared = [result.leaf for result in found.stages[first.stage].leaves]
        # Parameters that were imported wrong may each have a cause of their own.
        there = [d for d in found.found if (d.step, d.stage) == (first.step, first.stage)]
        place = place and {x for d in there for x in d.leaves} == expected(fault.leaf, compared)
    named = first.cause.name if first.cause else None
    said = f"step {first.step}, {first.stage} of {first.leaf} ({len(first.leaves)}): {named}"
    return Score(True, place, named == fault.cause, said)


def expected(leaf, compared):
    """Return the leaves of a stage that are to differ."""
    if isinstance(leaf, str):
        return {leaf}
    return {path for path in compared if leaf(path)} if callable(leaf) else set(leaf)
