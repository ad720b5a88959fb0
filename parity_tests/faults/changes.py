"""Changes to the JAX side of a training, as real ports have them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch import optim

import jaxopt_port as jp
from jaxopt_port.interop import params_from_torch
from parity_tests.faults.models import (
    BATCH,
    MODELS,
    each,
    jax_loss,
    lenet_apply,
    sides,
    transformer_apply,
)

STEPS = 45
NORMALISATIONS = ("1", "norm1", "norm2", "bn1", "bn2")


# Which leaves of a stage differ.


def every(leaf):
    return True


def not_zero(leaf):
    """Leave out the biases of normalisations: they start at zero, where decay does nothing."""
    layer, _, kind = leaf.rpartition("/")
    return kind != "bias" or layer not in NORMALISATIONS


def with_gradient(leaf):
    """Leave out the keys' bias: a number that is added to all keys changes no softmax."""
    return leaf != "k/bias"


def first_moments(leaf):
    return leaf.endswith("exp_avg")


def second_moments(leaf):
    return leaf.endswith("exp_avg_sq")


ALL = every
SOME = None  # as the numbers have it


def of(kind, **options):
    return lambda module: kind(module.parameters(), **options)


def chained(*parts, lr):
    return optax.chain(*parts, optax.scale_by_learning_rate(lr))


DECAY = optax.add_decayed_weights
SGD = of(optim.SGD, lr=0.05, momentum=0.9)
SGD_DECAY = of(optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.1)
ADAM, ADAM_DECAY = of(optim.Adam, lr=1e-3), of(optim.Adam, lr=1e-3, weight_decay=0.1)
ADAMW = of(optim.AdamW, lr=1e-3, weight_decay=0.1)
RIGHT_SGD, RIGHT_ADAM = jp.SGD(lr=0.05, momentum=0.9), jp.Adam(lr=1e-3)
RMS = {"decay": 0.99, "eps_in_sqrt": False}


# ── transformations that people write by hand ──────────────────────────────────────────────────


def by_hand(update):
    """An optimizer of momenta and a count: ``update(g, m, v, t) -> (step, m, v)`` of a leaf."""

    def init(params):
        zeros = functools.partial(jax.tree.map, jnp.zeros_like, params)
        return jnp.zeros((), jnp.int32), zeros(), zeros()

    def update_fn(grads, state, params=None):
        t, m, v = state
        made = jax.tree.map(lambda *leaf: update(*leaf, t + 1), grads, m, v)
        step, m, v = (jax.tree.map(lambda _, x, i=i: x[i], grads, made) for i in range(3))
        return step, (t + 1, m, v)

    return optax.GradientTransformation(init, update_fn)


def moments(b1, b2, correct1, correct2, eps=1e-8):
    def update(g, m, v, t):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        c1 = 1 - b1**t if correct1 else 1.0
        c2 = 1 - b2**t if correct2 else 1.0
        return (m / c1) / (jnp.sqrt(v / c2) + eps), m, v

    return by_hand(update)


def momentum(mu, dampening, first):
    """Momentum with dampening; ``first`` is what the first gradient is multiplied by."""

    def update(g, m, v, t):
        m = jnp.where(t == 1, first * g, mu * m + (1 - dampening) * g)
        return m, m, v

    return by_hand(update)


def rate_in_momentum(rate, mu):
    def init(params):
        return jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params)

    def update(grads, state, params=None):
        t, held = state
        held = jax.tree.map(lambda h, g: mu * h + rate(t) * g, held, grads)
        return jax.tree.map(jnp.negative, held), (t + 1, held)

    return optax.GradientTransformation(init, update)


def forgetting(tx, at):
    """Begin with a new state at a step, as after a checkpoint that lacks it."""

    def init(params):
        return jnp.zeros((), jnp.int32), tx.init(params)

    def update(grads, state, params=None):
        t, held = state
        held = jax.tree.map(lambda h, f: jnp.where(t == at, f, h), held, tx.init(params))
        updates, held = tx.update(grads, held, params)
        return updates, (t + 1, held)

    return optax.GradientTransformation(init, update)


def accumulating():
    def update(grads, state, params=None):
        state = jax.tree.map(jnp.add, state, grads)
        return state, state

    return optax.GradientTransformation(lambda p: jax.tree.map(jnp.zeros_like, p), update)


def labels(choose):
    """Label leaves by their path."""

    def label(params):
        def of_leaf(path, _):
            return choose(jax.tree_util.keystr(path, simple=True, separator="/"))

        return jax.tree_util.tree_map_with_path(of_leaf, params)

    return label


def without(first, tx):
    """Freeze the leaves whose path begins so, as a wrong mask does."""
    parts = {True: optax.set_to_zero(), False: tx}
    return optax.multi_transform(parts, labels(lambda path: path.startswith(first)))


def each_group(make, first):
    """Two groups by the beginning of the path, each with a transformation of its own."""
    parts = {"a": make(), "b": make()}
    return optax.multi_transform(parts, labels(lambda p: "a" if p.startswith(first) else "b"))


# ── schedules, clipping ────────────────────────────────────────────────────────────────────────


def scheduled(kind, every=1, **options):
    def theirs(module, optimizer):
        return {
            "scheduler": getattr(optim.lr_scheduler, kind)(optimizer, **options),
            "scheduler_every": every,
        }

    return theirs


def clipped(most):
    def clip(parameters):
        torch.nn.utils.clip_grad_norm_(parameters, most)

    return lambda module, optimizer: {"clip": clip}


def by_value(most):
    def clip(parameters):
        torch.nn.utils.clip_grad_value_(parameters, most)

    return lambda module, optimizer: {"clip": clip}


EXPONENTIAL = scheduled("ExponentialLR", gamma=0.9)
COSINE = scheduled("CosineAnnealingLR", T_max=60)
EPOCHS = scheduled("ExponentialLR", every=10, gamma=0.5)
STEPWISE = scheduled("StepLR", step_size=37, gamma=0.1)


def falling(offset):
    return lambda count: 0.05 * 0.9 ** (count + offset)


# ── models and losses ──────────────────────────────────────────────────────────────────────────


def changed_leaf(apply, path, change):
    """Change one leaf on its way into the network."""

    def changed(params, *rest):
        def of_leaf(p, leaf):
            return (
                change(leaf)
                if jax.tree_util.keystr(p, simple=True, separator="/") == path
                else leaf
            )

        return apply(jax.tree_util.tree_map_with_path(of_leaf, params), *rest)

    return changed


@jax.custom_vjp
def _as_it_is(x, factor):
    return x


_as_it_is.defvjp(lambda x, factor: (x, factor), lambda factor, g: (factor * g, None))


def scaled_gradient(apply, factor):
    """What a sum over devices in place of a mean does to gradients."""
    return lambda params, batch: apply(jax.tree.map(lambda p: _as_it_is(p, factor), params), batch)


@jax.custom_vjp
def _penalised(x, factor):
    return x


_penalised.defvjp(lambda x, f: (x, (x, f)), lambda held, g: (g + held[1] * held[0], None))


def penalised(apply, factor):
    """What a penalty outside of the reported loss does to gradients."""
    return lambda params, batch: apply(jax.tree.map(lambda p: _penalised(p, factor), params), batch)


def exchanged(params, batch):
    return transformer_apply({**params, "q": params["k"], "k": params["q"]}, batch)


def lenet_flattened_hwc(params, batch):
    rows = params["classifier"][0]["kernel"].reshape(16, 5, 5, -1)
    return lenet_apply(
        {
            **params,
            "classifier": {
                **params["classifier"],
                0: {
                    **params["classifier"][0],
                    "kernel": rows.transpose(1, 2, 0, 3).reshape(400, -1),
                },
            },
        },
        batch,
    )


def sum_loss(output, batch):
    return each(output, batch).sum()


def half_loss(output, batch):
    return 0.5 * jax_loss(output, batch)


def smoothed(alpha):
    def loss(output, batch):
        hot = jax.nn.one_hot(batch[1], output.shape[-1], dtype=output.dtype)
        return optax.softmax_cross_entropy(output, optax.smooth_labels(hot, alpha)).mean()

    return loss


def low(output, batch):
    return jax_loss(output.astype(jnp.bfloat16), batch).astype(output.dtype)


def imported(model, change):
    """Parameters imported by hand, with one of them changed; made where they are asked for."""

    def made():
        torch_side, side = sides(model, SGD, RIGHT_SGD)
        imported = params_from_torch(torch_side.module, side.params)
        return {"params": change(imported), "imports": False}

    return made


def transposed_import(params):
    return {**params, "v": {**params["v"], "kernel": params["v"]["kernel"].T}}


def swapped_import(params):
    return {**params, "q": params["k"], "k": params["q"]}


def random_import(params):
    noise = np.random.default_rng(5).normal(size=(WIDE, WIDE)).astype(np.float32)
    return {**params, "o": {**params["o"], "kernel": jnp.asarray(noise)}}


WIDE = 16


def own_batches(model, change):
    """A data pipeline of the JAX side's own; ``change`` takes all of torch's batches."""
    return {"batches": change(MODELS[model].batches(0, STEPS + 2))}


def shuffled(batches):
    order = np.random.default_rng(3).permutation(BATCH)
    return [tuple(part[order] for part in batch) for batch in batches]


def reshuffled(batches):
    rows = np.random.default_rng(3).permutation(BATCH * len(batches))
    parts = [np.concatenate([b[i] for b in batches])[rows] for i in range(2)]
    return [tuple(p[i * BATCH : (i + 1) * BATCH] for p in parts) for i in range(len(batches))]


def frozen_in_torch(name, kind, **options):
    def make(module):
        module.get_parameter(name).requires_grad_(False)
        return kind(module.parameters(), **options)

    return make


def frozen(first, kind, **options):
    """An optimizer without the parameters whose name begins so, which have no gradient."""

    def make(module):
        for name, p in module.named_parameters():
            p.requires_grad_(not name.startswith(first))
        return kind([p for p in module.parameters() if p.requires_grad], **options)

    return make


def two_groups(first, kind, options, other):
    def make(module):
        named = list(module.named_parameters())
        groups = [
            {"params": [p for n, p in named if n.startswith(first)], **options},
            {"params": [p for n, p in named if not n.startswith(first)], **other},
        ]
        return kind(groups)

    return make


P, L, T, C = "perceptron", "lenet", "transformer", "convolutions"
