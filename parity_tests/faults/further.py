"""Faults of a fourth table, on seven more networks that the diagnosis was not built beside.

Four rows were corrected when they had been run: three have a second name, and Rprop's is what `optax.rprop` does.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from torch import optim

import jaxopt_port as jp
from parity_tests.faults import further_linen as in_linen
from parity_tests.faults import further_nnx as in_nnx
from parity_tests.faults import further_plain as plain
from parity_tests.faults.changes import clipped, frozen, labels, of, scheduled, without
from parity_tests.faults.idioms import matrices
from parity_tests.faults.models import each
from parity_tests.faults.outside import ADAM, ADAMW, MOMENTUM, SGD, TX, averaged, two_groups
from parity_tests.faults.trainings import Training, own

LM, VAE, CNN, CLIP, KD, SEG, GRU = (
    "decoder", "VAE", "residual", "towers", "student", "segments", "GRU",
)  # fmt: skip


# losses


def all_positions(output: Any, batch: Any) -> Any:
    return in_nnx.each_next(output, batch)[0].mean()


def mean_with_zeros(output: Any, batch: Any) -> Any:
    losses, kept = in_nnx.each_next(output, batch)
    return jnp.where(kept, losses, 0).mean()


def shifted_again(output: Any, batch: Any) -> Any:
    """Shift labels that are shifted already."""
    return in_nnx.next_loss(output[:, :-1], {"labels": batch["labels"][:, 1:]})


def focal(output: Any, batch: Any) -> Any:
    losses = each(output, batch)
    return ((1 - jnp.exp(-losses)) ** 2 * losses).mean()


# data


def standardized(made: Any) -> Any:
    """Take the means and deviations of red, green, blue for those of blue, green, red."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

    def turned(x: Any) -> Any:
        pixels = x.transpose(0, 2, 3, 1) * std + mean
        return ((pixels - mean[::-1]) / std[::-1]).astype(np.float32)

    return [(turned(x), y) for x, y in made]


def reshaped(made: Any) -> Any:
    return [(x.reshape(len(x), *x.shape[2:], x.shape[1]), y) for x, y in made]


def upside_down(made: Any) -> Any:
    return [(x.transpose(0, 2, 3, 1)[:, ::-1], y) for x, y in made]


def teacher_of_next(made: Any) -> Any:
    return [
        {**b, "teacher": after["teacher"]}
        for b, after in zip(made, [*made[1:], made[0]], strict=True)
    ]


def texts_shuffled(made: Any) -> Any:
    rng = np.random.default_rng(3)
    return [{**b, "text": b["text"][rng.permutation(plain.BATCH)]} for b in made]


# optimizers and loops


def by_layer(module: Any) -> Any:
    """Return torch's optimizer with a smaller rate in each layer below."""
    names = [("dec", "out", "classify"), ("mean", "logvar"), ("enc",)]
    groups = [
        {"params": [p for n in layer for p in getattr(module, n).parameters()], "lr": 0.08 / 2**i}
        for i, layer in enumerate(names)
    ]
    return optim.SGD(groups, lr=0.08)


def layers(rates: dict[str, float]) -> Any:
    """Return SGD with a rate of each layer."""
    parts = {name: optax.sgd(rate) for name, rate in rates.items()}
    return optax.multi_transform(parts, labels(lambda path: path.partition("/")[0]))


def accumulated(module: Any, optimizer: Any) -> dict[str, Any]:
    return {"accumulation_steps": 2}


def swa(module: Any, optimizer: Any) -> dict[str, Any]:
    return {"averaged": optim.swa_utils.AveragedModel(module)}


def warm_cosine(module: Any, optimizer: Any) -> dict[str, Any]:
    warm = optim.lr_scheduler.LinearLR(optimizer, 0.25, 1.0, 3)
    cosine = optim.lr_scheduler.CosineAnnealingLR(optimizer, 9)
    return {"scheduler": optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], [3])}


def later(step: int, rate: float) -> Any:
    def change(optimizer: Any) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate

    return lambda module, optimizer: {"changes": {step: change}}


UPSIDE_DOWN = {
    "dec": 0.02,
    "out": 0.02,
    "classify": 0.02,
    "mean": 0.04,
    "logvar": 0.04,
    "enc": 0.08,
}
JP_SWA = jp.swa_utils.AveragedModel()
JP_EMA = jp.swa_utils.AveragedModel(multi_avg_fn=jp.swa_utils.get_ema_multi_avg_fn(0.9))

FURTHER = [
    # a decoder block by hand
    Training("rotation of queries only", LM, SGD, TX, (("forward", ""),), partial(in_nnx.decoder_side, turn="q")),
    Training("rotation the other way", LM, SGD, TX, (("forward", ""),), partial(in_nnx.decoder_side, sign=-1.0)),
    Training("rotation of neighbours, not of halves", LM, SGD, TX, (("forward", ""),), partial(in_nnx.decoder_side, pairs=True)),
    Training("rotary base of a newer model", LM, SGD, TX, (("forward", ""),), partial(in_nnx.decoder_side, base=500000.0)),
    Training("a window one wider", LM, SGD, TX, (("forward", "attention-mask"),), partial(in_nnx.decoder_side, window=5)),
    Training("softmax over the queries", LM, SGD, TX, (("forward", "softmax-axis"),), partial(in_nnx.decoder_side, axis=-2)),
    Training("heads not turned back", LM, SGD, TX, (("forward", "axes-order"),), partial(in_nnx.decoder_side, merged=False)),
    Training("no cap of the logits", LM, SGD, TX, (("forward", "output-activation|left-out"),), partial(in_nnx.decoder_side, cap=None)),
    Training("norms after the residual", LM, SGD, TX, (("forward", ""),), partial(in_nnx.decoder_side, after=True)),
    Training("attention and MLP in parallel", LM, SGD, TX, (("forward", ""),), partial(in_nnx.decoder_side, parallel=True)),
    Training("a norm's weight plus one", LM, ADAM, optax.adam(2e-3), (("forward", ""),), partial(in_nnx.decoder_side, one_plus=1.0)),
    Training("SiLU of the other half", LM, SGD, TX, (("forward", "swapped-leaves"),), partial(in_nnx.decoder_side, exchanged=True)),
    Training("-100 taken for token 0", LM, SGD, TX, (("loss", "ignored-labels"),), mine={"loss": all_positions}),
    Training("zeros in the mean", LM, SGD, TX, (("loss", "loss-scale"),), mine={"loss": mean_with_zeros}),
    Training("labels shifted once more", LM, SGD, TX, (("loss", "labels-shifted"),), mine={"loss": shifted_again}),
    # a conditional VAE
    Training("the variance for the deviation", VAE, ADAM, optax.adam(2e-3), (("forward", "left-out"),), partial(in_nnx.vae_side, half=1.0)),
    Training("the label before the latents", VAE, ADAM, optax.adam(2e-3), (("forward", "join-order"),), partial(in_nnx.vae_side, label_first=True)),
    Training("classes of the sample", VAE, SGD, TX, (("forward", ""),), partial(in_nnx.vae_side, read=lambda mean, z: z)),
    Training("classes of a detached mean", VAE, SGD, TX, (("gradient", ""),), partial(in_nnx.vae_side, read=lambda mean, z: jax.lax.stop_gradient(mean))),
    Training("the divergence's mean over latents", VAE, SGD, TX, (("loss", "loss-terms"),), mine={"loss": partial(in_nnx.elbo, reduce=jnp.mean)}),
    Training("squares for the cross entropy", VAE, SGD, TX, (("loss", "loss-kind"),), mine={"loss": partial(in_nnx.elbo, squares=True)}),
    # a residual CNN
    Training("SAME of a strided convolution", CNN, SGD, TX, (("forward", "padding"),), partial(in_linen.residual_side, padding="SAME")),
    Training("padding left out of the average", CNN, SGD, TX, (("forward", "pooling"),), partial(in_linen.residual_side, count_padding=False)),
    Training("groups of three for three groups", CNN, MOMENTUM, optax.sgd(0.05, 0.9), (("forward", "layer-setting"),), partial(in_linen.residual_side, groups=None, group_size=3)),
    Training("the activation before the sum", CNN, SGD, TX, (("forward", ""),), partial(in_linen.residual_side, inside=False)),
    Training("the maximum of the whole image", CNN, SGD, TX, (("forward", "pooling"),), partial(in_linen.residual_side, last=jnp.max)),
    Training("focal loss", CNN, SGD, TX, (("loss", "loss-kind"),), mine={"loss": focal}),
    Training("BGR's means for RGB's", CNN, SGD, TX, (("data", "data-scale"),), mine=own(CNN, standardized)),
    Training("reshaped, not transposed", CNN, SGD, TX, (("data", "data-layout"),), mine=own(CNN, reshaped)),
    Training("upside down", SEG, SGD, TX, (("data", "data-layout"),), mine=own(SEG, upside_down)),
    # two towers, a student
    Training("the logarithm of the scale itself", CLIP, ADAM, optax.adam(2e-3), (("forward", "left-out|activation"),), partial(plain.towers_side, exp=lambda x: x)),
    Training("texts not of length one", CLIP, SGD, TX, (("forward", "left-out"),), partial(plain.towers_side, text_unit=lambda x: x)),
    Training("the scale at rest", CLIP, SGD, TX, (("gradient", "frozen-leaf"),), partial(plain.towers_side, exp=lambda x: jnp.exp(jax.lax.stop_gradient(x)))),
    Training("images to texts only", CLIP, SGD, TX, (("loss", "loss-terms"),), mine={"loss": partial(plain.clip_loss, rows=1.0, columns=0.0)}),
    Training("divided by the scale", CLIP, SGD, TX, (("loss", ""),), mine={"loss": partial(plain.clip_loss, inverse=True)}),
    Training("texts of other images", CLIP, SGD, TX, (("data", "data-order"),), mine=own(CLIP, texts_shuffled)),
    Training("no square of the temperature", KD, SGD, TX, (("loss", "loss-terms"),), mine={"loss": partial(in_linen.distilled, square=1.0)}),
    Training("a temperature of four", KD, SGD, TX, (("loss", "|loss-kind"),), mine={"loss": partial(in_linen.distilled, t=4.0, square=16.0)}),
    Training("the divergence the other way", KD, SGD, TX, (("loss", "loss-kind"),), mine={"loss": partial(in_linen.distilled, reverse=True)}),
    Training("the teacher of the next batch", KD, SGD, TX, (("data", "data-offset"),), mine=own(KD, teacher_of_next)),
    # segments
    Training("SAME of a transposed convolution", SEG, SGD, TX, (("forward", "padding"),), partial(in_nnx.segments_side, same=True)),
    Training("nearest for bilinear", SEG, SGD, TX, (("forward", ""),), partial(in_nnx.segments_side, resize=in_nnx.nearest)),
    Training("corners aligned", SEG, SGD, TX, (("forward", ""),), partial(in_nnx.segments_side, resize=in_nnx.corners)),
    Training("no bias after the transpose", SEG, SGD, TX, (("forward", "left-out"),), partial(in_nnx.segments_side, up_bias=False)),
    Training("over the count, not the weights", SEG, SGD, TX, (("loss", "class-weights|loss-scale"),), mine={"loss": partial(in_nnx.pixels, by_count=True)}),
    Training("a Dice term besides", SEG, SGD, TX, (("loss", "additional-term|ignored-labels"),), mine={"loss": partial(in_nnx.pixels, dice=0.5)}),
    Training("probabilities clipped", SEG, of(optim.SGD, lr=0.5), optax.sgd(0.5), (("loss", ""),), mine={"loss": partial(in_nnx.pixels, small=0.15)}),
    # a GRU
    Training("gates in another order", GRU, SGD, TX, (("forward", "packed-layout"),), partial(plain.gru_side, order=(1, 0, 2))),
    Training("the reset before the product", GRU, SGD, TX, (("forward", ""),), partial(plain.gru_side, reset_first=True)),
    Training("the update gate turned", GRU, SGD, TX, (("forward", ""),), partial(plain.gru_side, turned=True)),
    Training("the last of the padded steps", GRU, SGD, TX, (("forward", ""),), partial(plain.gru_side, always_last=True)),
    Training("one bias of the two", GRU, MOMENTUM, optax.sgd(0.05, 0.9), (("forward", "left-out"),), partial(plain.gru_side, bias=0.0)),
    Training("the likelihood without its half", GRU, SGD, TX, (("loss", "loss-scale"),), mine={"loss": partial(plain.likelihood, half=1.0)}),
    Training("a logarithm of the deviation", GRU, SGD, TX, (("loss", "|loss-kind"),), mine={"loss": partial(plain.likelihood, power=2.0)}),
    Training("the likelihood with its constant", GRU, SGD, TX, (("loss", "additional-term"),), mine={"loss": partial(plain.likelihood, constant=0.5 * float(np.log(2 * np.pi)))}),
    # optimizers
    Training("Adam with Nesterov", VAE, ADAM, optax.adam(2e-3, nesterov=True), (("update", "nesterov"),)),
    Training("AdaBelief for Adam", KD, ADAM, optax.adabelief(2e-3), (("update", "another-optimizer"),)),
    Training("gradients with noise", VAE, SGD, optax.chain(optax.add_noise(0.01, 0.55, 0), optax.sgd(0.05)), (("update", "changed-gradient"),)),
    Training("decay clipped with the gradient", KD, of(optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.1), optax.chain(optax.add_decayed_weights(0.1), jp.clip_by_grad_norm(0.1), optax.sgd(0.05, 0.9)), (("update", "clip-order"),), theirs=clipped(0.1)),
    Training("blocks clipped by their mean square", SEG, SGD, optax.chain(optax.clip_by_block_rms(0.02), optax.sgd(0.05)), (("update", "clip-kind|clip-per-group"),), theirs=clipped(0.1)),
    Training("a sum of two batches", KD, SGD, optax.chain(optax.apply_every(2), optax.sgd(0.05)), (("update", "gradient-scale|number"),), theirs=accumulated),
    Training("a mask that lets gradients through", LM, frozen("embed", optim.SGD, lr=0.05), optax.masked(optax.sgd(0.05), labels(lambda path: not path.startswith("embed"))), (("update", "frozen-leaf|passed-on"),)),
    Training("the wrong layer at rest", LM, frozen("embed", optim.SGD, lr=0.05), without("head", optax.sgd(0.05)), (("update", "frozen-leaf"),)),
    Training("layers' rates upside down", VAE, by_layer, layers(UPSIDE_DOWN), (("update", "group-options|number"),)),
    Training("a decay injected as it comes", KD, ADAMW, optax.inject_hyperparams(optax.adamw)(learning_rate=2e-3), (("hyperparameters", "number"),)),
    Training("Rprop of Optax's own bounds", GRU, of(optim.Rprop, lr=1e-3, step_sizes=(1e-6, 1.3e-3)), optax.rprop(1e-3), (("update", "first-step"),)),
    # schedules
    Training("one cycle, by Optax", KD, SGD, optax.sgd(optax.cosine_onecycle_schedule(12, 0.1, 0.3, 25.0, 1e4)), (("update", "schedule-length|schedule"),), theirs=scheduled("OneCycleLR", max_lr=0.1, total_steps=12, cycle_momentum=False)),
    Training("a warm-up within the cosine's length", KD, MOMENTUM, optax.sgd(optax.warmup_cosine_decay_schedule(0.0125, 0.05, 3, 9), 0.9), (("update", "schedule-length"),), theirs=warm_cosine),
    Training("no restart", VAE, ADAM, optax.adam(optax.cosine_decay_schedule(2e-3, 4)), (("update", "schedule"),), theirs=scheduled("CosineAnnealingWarmRestarts", T_0=4)),
    Training("the least rate as a share", VAE, ADAM, optax.adam(optax.cosine_decay_schedule(2e-3, 10, alpha=1e-4)), (("update", "schedule"),), theirs=scheduled("CosineAnnealingLR", T_max=10, eta_min=1e-4)),
    Training("a line for a square", GRU, SGD, optax.sgd(optax.polynomial_schedule(0.05, 0.0, 1, 10)), (("update", "schedule"),), theirs=scheduled("PolynomialLR", total_iters=10, power=2.0)),
    Training("no stairs", GRU, SGD, optax.sgd(optax.exponential_decay(0.05, 4, 0.5)), (("update", "schedule"),), theirs=scheduled("StepLR", step_size=4, gamma=0.5)),
    Training("a change a step late", CLIP, SGD, optax.sgd(optax.piecewise_constant_schedule(0.05, {7: 0.2})), (("update", "schedule-offset|schedule"),), theirs=later(6, 0.01)),
    # averages
    Training("an equal average for an exponential one", KD, SGD, TX, (("averages", "average-decay"),), mine={"averaged": JP_SWA}, theirs=averaged),
    Training("an exponential average for an equal one", VAE, ADAM, optax.adam(2e-3), (("averages", "average-decay"),), mine={"averaged": JP_EMA}, theirs=swa),
    # several
    Training("a window, zeros in the mean, a decay of all", LM, two_groups, optax.adamw(2e-3, weight_decay=0.05), (("forward", "attention-mask"), ("loss", "loss-scale"), ("update", "group-options|number")), partial(in_nnx.decoder_side, window=5), {"loss": mean_with_zeros}),
    Training("the label first, a beta, a square", VAE, ADAM, optax.adam(2e-3, eps=1e-6), (("forward", "join-order"), ("loss", "loss-terms"), ("update", "number")), partial(in_nnx.vae_side, label_first=True), {"loss": partial(in_nnx.elbo, beta=1.0)}),
    Training("SAME, padding left out, L2 for decay", CNN, ADAMW, optax.chain(optax.add_decayed_weights(0.05), optax.adam(2e-3)), (("forward", "padding"), ("forward", "pooling"), ("update", "decay-coupling")), partial(in_linen.residual_side, padding="SAME", count_padding=False)),
    Training("the skip first, no weights, no decay of vectors", SEG, ADAMW, optax.adamw(2e-3, weight_decay=0.05, mask=matrices), (("forward", "join-order"), ("loss", "class-weights"), ("update", "group-options|number")), partial(in_nnx.segments_side, skip_first=True), {"loss": partial(in_nnx.pixels, weights=(1.0, 1.0, 1.0, 1.0))}),
    Training("Mish, a temperature's square, stairs a step early", KD, SGD, optax.sgd(lambda c: 0.05 * 0.5 ** ((c + 1) // 4)), (("forward", "activation"), ("loss", "loss-terms"), ("update", "schedule-offset")), partial(in_linen.student_side, second=jax.nn.silu), {"loss": partial(in_linen.distilled, square=1.0)}, scheduled("StepLR", step_size=4, gamma=0.5)),
]  # fmt: skip
