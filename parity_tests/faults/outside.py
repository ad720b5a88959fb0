"""Faults of a third table, on networks that the diagnosis was not built beside.

Four rows were wrong themselves when they were first run, and are as the numbers have it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen, nnx
from torch import optim
from torch.nn import functional

import jaxopt_port as jp
from parity_tests.faults import right_networks as nets
from parity_tests.faults.changes import clipped, of, scheduled
from parity_tests.faults.idioms import by_matrix, groups_of, matrices
from parity_tests.faults.network_data import by_sequence
from parity_tests.faults.trainings import Training, own

SGD, MOMENTUM = of(optim.SGD, lr=0.05), of(optim.SGD, lr=0.05, momentum=0.9)
ADAM, ADAMW = of(optim.Adam, lr=2e-3), of(optim.AdamW, lr=2e-3, weight_decay=0.05)
RMS = of(optim.RMSprop, lr=1e-3)
TX = optax.sgd(0.05)
LM, IMAGES, LSTM, AUTO, NORMED, EQX, PLAIN = (
    "linen attention", "linen images", "linen LSTM", "nnx autoencoder", "linen", "equinox", "plain",
)  # fmt: skip


def same_tokens(output: Any, batch: Any) -> Any:
    return nets.masked(output, {"labels": batch["ids"]})


def with_z(output: Any, batch: Any) -> Any:
    z = jnp.log(jnp.exp(output).sum(-1))
    return nets.masked(output, batch) + 1e-2 * (z * z).mean()


def smoothed(output: Any, batch: Any) -> Any:
    kept = batch["labels"] != 0
    wanted = optax.smooth_labels(jax.nn.one_hot(batch["labels"], 11), 0.1)
    return jnp.where(kept, optax.softmax_cross_entropy(output, wanted), 0).sum() / kept.sum()


def from_one(output: Any, batch: Any) -> Any:
    return nets.jax_loss(output, (batch[0], jnp.maximum(batch[1] - 1, 0)))


def wide_huber(output: Any, batch: Any) -> Any:
    return optax.huber_loss(output, batch[1], delta=2.0).mean()


def squared(output: Any, batch: Any) -> Any:
    return ((output - batch[1]) ** 2).mean()


def pixel_mean(output: Any, batch: Any) -> Any:
    return optax.sigmoid_binary_cross_entropy(output, batch[0].transpose(0, 3, 1, 2)).mean()


def turned(made: Any) -> Any:
    return [(x.transpose(0, 2, 3, 1)[..., ::-1], y) for x, y in made]


def from_minus_one(made: Any) -> Any:
    return [(x.transpose(0, 2, 3, 1) * 2 - 1, y) for x, y in made]


def two_groups(module: Any) -> Any:
    return optim.AdamW(groups_of(module), lr=2e-3, weight_decay=0.05)


def averaged(module: Any, optimizer: Any) -> dict[str, Any]:
    average = optim.swa_utils.get_ema_multi_avg_fn(0.9)
    return {"averaged": optim.swa_utils.AveragedModel(module, multi_avg_fn=average)}


def warm(module: Any, optimizer: Any) -> dict[str, Any]:
    return {"scheduler": optim.lr_scheduler.LinearLR(optimizer, 0.2, 1.0, 5)}


def torch_l1(output: Any, batch: Any) -> Any:
    return functional.l1_loss(output, batch[1])


def parts(matrix: Any, vector: Any) -> Any:
    return optax.multi_transform({"matrix": matrix, "vector": vector}, by_matrix)


EMA = jp.swa_utils.AveragedModel(multi_avg_fn=jp.swa_utils.get_ema_multi_avg_fn(0.99))
GROUP_CLIP = optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.05))

OUTSIDE = [
    # a language model whose head is its embedding, in Linen
    Training("RMSNorm's eps", LM, SGD, TX, (("forward", "layer-eps"),), lambda: nets.attention_side(epsilon=1e-4)),
    Training("the causal mask forgotten", LM, SGD, TX, (("forward", "attention-mask"),), lambda: nets.attention_side(causal=False)),
    Training("embeddings times a root", LM, SGD, TX, (("forward", "embedding-scale"),), lambda: nets.attention_side(scale=8**0.5)),
    Training("places left out", LM, SGD, TX, (("forward", "left-out"),), lambda: nets.attention_side(places=0.0)),
    Training("no residual", LM, SGD, TX, (("forward", "left-out"),), lambda: nets.attention_side(residual=0.0)),
    Training("padding counted", LM, SGD, TX, (("loss", "ignored-labels"),), mine={"loss": nets.jax_loss}),
    Training("means of sequences", LM, SGD, TX, (("loss", "sequence-mean"),), mine={"loss": by_sequence}),
    Training("labels smoothed", LM, ADAM, optax.adam(2e-3), (("loss", "label-smoothing"),), mine={"loss": smoothed}),
    Training("the tokens themselves", LM, SGD, TX, (("loss", "labels-shifted"),), mine={"loss": same_tokens}),
    Training("a z-loss of all positions", LM, SGD, TX, (("loss", "additional-term"),), mine={"loss": with_z}),
    # convolutions with group normalisation, in Linen
    Training("GroupNorm as it comes", IMAGES, SGD, TX, (("forward", "layer-eps"),), lambda: nets.images_side(epsilon=1e-6)),
    Training("four groups for two", IMAGES, SGD, TX, (("forward", "layer-setting"),), lambda: nets.images_side(groups=4)),
    Training("a steeper slope", IMAGES, SGD, TX, (("forward", "activation"),), lambda: nets.images_side(slope=0.2)),
    Training("means for maxima", IMAGES, SGD, TX, (("forward", "pooling"),), lambda: nets.images_side(pool=linen.avg_pool)),
    Training("padding that goes round", IMAGES, SGD, TX, (("forward", "padding"),), lambda: nets.images_side(padding="CIRCULAR")),
    Training("channels last in the flattening", IMAGES, SGD, TX, (("forward", "flatten-order"),), lambda: nets.images_side(flat=(0, 1, 2, 3))),
    Training("channels turned round", IMAGES, SGD, TX, (("data", "data-layout"),), mine=own(IMAGES, turned)),
    Training("images from -1 to 1", IMAGES, SGD, TX, (("data", "data-scale"),), mine=own(IMAGES, from_minus_one)),
    Training("classes from one", IMAGES, SGD, TX, (("loss", "labels-shifted"),), mine={"loss": from_one}),
    # an LSTM in Linen, an autoencoder in NNX
    Training("hard gates", LSTM, SGD, TX, (("forward", "activation"),), lambda: nets.lstm_side(gate=linen.hard_sigmoid)),
    Training("the first output", LSTM, SGD, TX, (("forward", ""),), lambda: nets.lstm_side(last=0)),
    Training("a wider Huber", LSTM, SGD, TX, (("loss", "loss-kind"),), mine={"loss": wide_huber}),
    Training("squares", LSTM, SGD, TX, (("loss", "loss-kind"),), mine={"loss": squared}, theirs=lambda m, o: {"loss": torch_l1}),
    Training("the mean of pixels", AUTO, ADAM, optax.adam(2e-3), (("loss", "loss-scale"),), mine={"loss": pixel_mean}),
    Training("SiLU for ELU", AUTO, SGD, TX, (("forward", "activation"),), lambda: nets.nnx_of(lambda r: nets.NnxAutoencoder(r, nnx.silu), loss=nets.per_image, batch=nets.nhwc)()),
    # Equinox
    Training("inputs as they are", EQX, SGD, TX, (("forward", "left-out"),), lambda: nets.eqx_side(over=1.0)),
    Training("GELU by tanh", EQX, SGD, TX, (("forward", "activation"),), lambda: nets.eqx_side(approximate=True)),
    # optimizers
    Training("another second beta", NORMED, ADAM, optax.adam(2e-3, b2=0.95), (("state", "number"),)),
    Training("all leaves decay", NORMED, two_groups, optax.adamw(2e-3, weight_decay=0.05), (("update", "group-options|number"),)),
    Training("no Nesterov", PLAIN, of(optim.SGD, lr=0.05, momentum=0.9, nesterov=True), optax.sgd(0.05, 0.9), (("update", "nesterov"),)),
    Training("RMSprop as Optax has it", PLAIN, RMS, optax.rmsprop(1e-3, decay=0.99), (("update", "eps-placement"),)),
    Training("RMSprop of shorter memory", EQX, RMS, optax.rmsprop(1e-3, decay=0.9, eps_in_sqrt=False), (("update", "number"),)),
    Training("Adagrad as Optax has it", PLAIN, of(optim.Adagrad, lr=0.01, eps=1e-7), optax.adagrad(0.01), (("update", "initial-accumulator"),)),
    Training("numbers clipped, not norms", NORMED, SGD, optax.chain(optax.clip(0.1), optax.sgd(0.05)), (("update", "clip-kind"),), theirs=clipped(0.1)),
    Training("groups clipped apart", PLAIN, SGD, parts(GROUP_CLIP, GROUP_CLIP), (("update", "clip-per-group"),), theirs=clipped(0.1)),
    Training("a warm-up a step early", NORMED, SGD, optax.sgd(lambda c: 0.05 * jnp.minimum(0.2 + 0.8 * (c + 1) / 5, 1.0)), (("update", "schedule-offset"),), theirs=warm),
    Training("a cosine of epochs", NORMED, ADAM, optax.adam(optax.cosine_decay_schedule(2e-3, 10)), (("update", "schedule-length"),), theirs=scheduled("CosineAnnealingLR", T_max=100)),
    Training("decay beside the rate", NORMED, ADAMW, optax.chain(optax.adam(2e-3), optax.add_decayed_weights(-0.05)), (("update", "decay-order"),)),
    Training("an average of gradients", PLAIN, MOMENTUM, optax.chain(optax.ema(0.9, debias=False), optax.scale(-0.05)), (("update", "number|gradient-scale|dampening"),)),
    Training("a slower average", NORMED, SGD, TX, (("averages", "average-decay"),), mine={"averaged": EMA}, theirs=averaged),
    Training("steps clipped, not gradients", NORMED, ADAM, optax.chain(optax.adam(2e-3), optax.clip_by_global_norm(0.01)), (("update", "clip-order"),), theirs=clipped(0.1)),
    Training("steps clipped before the rate", LSTM, ADAM, optax.chain(optax.scale_by_adam(), optax.clip_by_global_norm(1.0), optax.scale(-2e-3)), (("update", "clip-order"),)),
    Training("kernels' gradients centred", PLAIN, MOMENTUM, optax.chain(optax.centralize(), optax.sgd(0.05, 0.9)), (("update", "changed-gradient"),)),
    Training("units clipped by their weights", NORMED, ADAMW, optax.chain(optax.adaptive_grad_clip(0.01), optax.adamw(2e-3, weight_decay=0.05)), (("update", "changed-gradient"),)),
    Training("gradients of length one", PLAIN, SGD, optax.chain(optax.normalize_by_update_norm(), optax.sgd(0.05)), (("update", "normalized-gradient"),)),
    Training("twice the rate, a shorter memory", NORMED, ADAM, optax.adam(4e-3, b2=0.99), (("update", "number"),)),
    Training("twice a warm-up, a shorter memory", NORMED, ADAM, optax.adam(lambda c: 4e-3 * jnp.minimum(0.2 + 0.8 * c / 5, 1.0), b2=0.99), (("update", "number"),), theirs=warm),
    Training("LAMB for AdamW", NORMED, ADAMW, optax.lamb(2e-3, weight_decay=0.05), (("update", "another-optimizer"),)),
    Training("vectors at rest", EQX, SGD, parts(optax.sgd(0.05), optax.set_to_zero()), (("update", "frozen-leaf"),)),
    Training("vectors at twice the rate", PLAIN, SGD, parts(optax.sgd(0.05), optax.sgd(0.1)), (("update", "number|gradient-scale"),)),
    Training("momenta in bfloat16", NORMED, ADAM, optax.adam(2e-3, mu_dtype=jnp.bfloat16), (("state", "low-precision"),)),
    Training("a layer in bfloat16", NORMED, SGD, TX, (("forward", "low-precision"),), lambda: nets.normed_side(dtype=jnp.bfloat16)),
    # several
    Training("eps, smoothing, beta", LM, ADAM, optax.adam(2e-3, b1=0.8), (("forward", "layer-eps"), ("loss", "label-smoothing"), ("state", "number")), lambda: nets.attention_side(epsilon=1e-5), {"loss": smoothed}),
    Training("flattening, classes, decay", IMAGES, ADAMW, optax.chain(optax.add_decayed_weights(0.05), optax.adam(2e-3)), (("forward", "flatten-order"), ("loss", "labels-shifted"), ("update", "decay-coupling")), lambda: nets.images_side(flat=(0, 1, 2, 3)), {"loss": from_one}),
    Training("slope, pooling, momentum", IMAGES, MOMENTUM, optax.sgd(0.05, 0.8), (("forward", "activation"), ("forward", "pooling"), ("update", "number")), lambda: nets.images_side(slope=0.2, pool=linen.avg_pool)),
    Training("pixels, an average, a mask", AUTO, ADAMW, optax.adamw(2e-3, weight_decay=0.05, mask=matrices), (("loss", "loss-scale"), ("averages", "average-decay"), ("update", "group-options|number")), mine={"loss": pixel_mean, "averaged": EMA}, theirs=averaged),
]  # fmt: skip
