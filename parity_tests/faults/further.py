"""Faults of a fourth table, on seven more networks that the diagnosis was not built beside.

Stage and causes were written down before any of them was run. Where two causes cannot be told
apart, either name will do. A fault without a known cause has "" for it: no name may be given.
Four rows were corrected after it: three have a second name, and Rprop's is what `optax.rprop` does.
"""

from collections.abc import Callable
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
from parity_tests.faults.changes import clipped, of, scheduled
from parity_tests.faults.idioms import matrices
from parity_tests.faults.outside import (
    ADAM,
    ADAMW,
    MOMENTUM,
    SGD,
    TX,
    Outside,
    averaged,
    own,
    two_groups,
)

LM, VAE, CNN, CLIP, KD, SEG, GRU = (
    "decoder", "VAE", "residual", "towers", "student", "segments", "GRU",
)  # fmt: skip


# losses


def all_positions(output: Any, batch: Any) -> Any:
    return in_nnx.each_next(output, batch)[0].mean()


def mean_with_zeros(output: Any, batch: Any) -> Any:
    each, kept = in_nnx.each_next(output, batch)
    return jnp.where(kept, each, 0).mean()


def shifted_again(output: Any, batch: Any) -> Any:
    """Shift labels that are shifted already."""
    return in_nnx.next_loss(output[:, :-1], {"labels": batch["labels"][:, 1:]})


def focal(output: Any, batch: Any) -> Any:
    each = optax.softmax_cross_entropy_with_integer_labels(output, batch[1])
    return ((1 - jnp.exp(-each)) ** 2 * each).mean()


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


def leaf(tree: Any, name: str) -> Any:
    """Return a tree of whether a leaf is of the layer of a name."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: name in jax.tree_util.keystr(path, simple=True, separator="/").split("/"),
        tree,
    )


def others(name: str) -> Callable[[Any], Any]:
    return lambda tree: jax.tree.map(lambda one: not one, leaf(tree, name))


def frozen(name: str, kind: Any, **options: Any) -> Callable[[Any], Any]:
    def made(module: Any) -> Any:
        for p in getattr(module, name).parameters():
            p.requires_grad_(False)
        return kind([p for p in module.parameters() if p.requires_grad], **options)

    return made


def without(name: str, tx: Any) -> Any:
    return optax.multi_transform(
        {"on": tx, "off": optax.set_to_zero()},
        lambda tree: jax.tree.map(lambda one: "off" if one else "on", leaf(tree, name)),
    )


def by_layer(module: Any) -> Any:
    """Return torch's optimizer with a smaller rate in each layer below."""
    names = [("dec", "out", "classify"), ("mean", "logvar"), ("enc",)]
    groups = [
        {"params": [p for n in layer for p in getattr(module, n).parameters()], "lr": 0.08 / 2**i}
        for i, layer in enumerate(names)
    ]
    return optim.SGD(groups, lr=0.08)


def layers(top: float, middle: float, low: float) -> Any:
    def labels(tree: Any) -> Any:
        middles = jax.tree.map(lambda a, b: a or b, leaf(tree, "mean"), leaf(tree, "logvar"))
        return jax.tree.map(
            lambda m, e: "middle" if m else "low" if e else "top", middles, leaf(tree, "enc")
        )

    rates = {"top": top, "middle": middle, "low": low}
    return optax.multi_transform({k: optax.sgd(r) for k, r in rates.items()}, labels)


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


JP_SWA = jp.swa_utils.AveragedModel()
JP_EMA = jp.swa_utils.AveragedModel(multi_avg_fn=jp.swa_utils.get_ema_multi_avg_fn(0.9))

FURTHER = [
    # a decoder block by hand
    Outside("rotation of queries only", LM, SGD, TX, (("forward", ""),), partial(in_nnx.decoder_side, turn="q")),
    Outside("rotation the other way", LM, SGD, TX, (("forward", ""),), partial(in_nnx.decoder_side, sign=-1.0)),
    Outside("rotation of neighbours, not of halves", LM, SGD, TX, (("forward", ""),), partial(in_nnx.decoder_side, pairs=True)),
    Outside("rotary base of a newer model", LM, SGD, TX, (("forward", ""),), partial(in_nnx.decoder_side, base=500000.0)),
    Outside("a window one wider", LM, SGD, TX, (("forward", "attention-mask"),), partial(in_nnx.decoder_side, window=5)),
    Outside("softmax over the queries", LM, SGD, TX, (("forward", "softmax-axis"),), partial(in_nnx.decoder_side, axis=-2)),
    Outside("heads not turned back", LM, SGD, TX, (("forward", "axes-order"),), partial(in_nnx.decoder_side, merged=False)),
    Outside("no cap of the logits", LM, SGD, TX, (("forward", "output-activation|left-out"),), partial(in_nnx.decoder_side, cap=None)),
    Outside("norms after the residual", LM, SGD, TX, (("forward", ""),), partial(in_nnx.decoder_side, after=True)),
    Outside("attention and MLP in parallel", LM, SGD, TX, (("forward", ""),), partial(in_nnx.decoder_side, parallel=True)),
    Outside("a norm's weight plus one", LM, ADAM, optax.adam(2e-3), (("forward", ""),), partial(in_nnx.decoder_side, one_plus=1.0)),
    Outside("SiLU of the other half", LM, SGD, TX, (("forward", "swapped-leaves"),), partial(in_nnx.decoder_side, exchanged=True)),
    Outside("-100 taken for token 0", LM, SGD, TX, (("loss", "ignored-labels"),), mine={"loss": all_positions}),
    Outside("zeros in the mean", LM, SGD, TX, (("loss", "loss-scale"),), mine={"loss": mean_with_zeros}),
    Outside("labels shifted once more", LM, SGD, TX, (("loss", "labels-shifted"),), mine={"loss": shifted_again}),
    # a conditional VAE
    Outside("the variance for the deviation", VAE, ADAM, optax.adam(2e-3), (("forward", "left-out"),), partial(in_nnx.vae_side, half=1.0)),
    Outside("the label before the latents", VAE, ADAM, optax.adam(2e-3), (("forward", "join-order"),), partial(in_nnx.vae_side, label_first=True)),
    Outside("classes of the sample", VAE, SGD, TX, (("forward", ""),), partial(in_nnx.vae_side, read=lambda mean, z: z)),
    Outside("classes of a detached mean", VAE, SGD, TX, (("gradient", ""),), partial(in_nnx.vae_side, read=lambda mean, z: jax.lax.stop_gradient(mean))),
    Outside("the divergence's mean over latents", VAE, SGD, TX, (("loss", "loss-terms"),), mine={"loss": partial(in_nnx.elbo, reduce=jnp.mean)}),
    Outside("squares for the cross entropy", VAE, SGD, TX, (("loss", "loss-kind"),), mine={"loss": partial(in_nnx.elbo, squares=True)}),
    # a residual CNN
    Outside("SAME of a strided convolution", CNN, SGD, TX, (("forward", "padding"),), partial(in_linen.residual_side, padding="SAME")),
    Outside("padding left out of the average", CNN, SGD, TX, (("forward", "pooling"),), partial(in_linen.residual_side, count_padding=False)),
    Outside("groups of three for three groups", CNN, MOMENTUM, optax.sgd(0.05, 0.9), (("forward", "layer-setting"),), partial(in_linen.residual_side, groups=None, group_size=3)),
    Outside("the activation before the sum", CNN, SGD, TX, (("forward", ""),), partial(in_linen.residual_side, inside=False)),
    Outside("the maximum of the whole image", CNN, SGD, TX, (("forward", "pooling"),), partial(in_linen.residual_side, last=jnp.max)),
    Outside("focal loss", CNN, SGD, TX, (("loss", "loss-kind"),), mine={"loss": focal}),
    Outside("BGR's means for RGB's", CNN, SGD, TX, (("data", "data-scale"),), mine=own(CNN, standardized)),
    Outside("reshaped, not transposed", CNN, SGD, TX, (("data", "data-layout"),), mine=own(CNN, reshaped)),
    Outside("upside down", SEG, SGD, TX, (("data", "data-layout"),), mine=own(SEG, upside_down)),
    # two towers, a student
    Outside("the logarithm of the scale itself", CLIP, ADAM, optax.adam(2e-3), (("forward", "left-out|activation"),), partial(plain.towers_side, exp=lambda x: x)),
    Outside("texts not of length one", CLIP, SGD, TX, (("forward", "left-out"),), partial(plain.towers_side, text_unit=lambda x: x)),
    Outside("the scale at rest", CLIP, SGD, TX, (("gradient", "frozen-leaf"),), partial(plain.towers_side, exp=lambda x: jnp.exp(jax.lax.stop_gradient(x)))),
    Outside("images to texts only", CLIP, SGD, TX, (("loss", "loss-terms"),), mine={"loss": partial(plain.clip_loss, rows=1.0, columns=0.0)}),
    Outside("divided by the scale", CLIP, SGD, TX, (("loss", ""),), mine={"loss": partial(plain.clip_loss, inverse=True)}),
    Outside("texts of other images", CLIP, SGD, TX, (("data", "data-order"),), mine=own(CLIP, texts_shuffled)),
    Outside("no square of the temperature", KD, SGD, TX, (("loss", "loss-terms"),), mine={"loss": partial(in_linen.distilled, square=1.0)}),
    Outside("a temperature of four", KD, SGD, TX, (("loss", "|loss-kind"),), mine={"loss": partial(in_linen.distilled, t=4.0, square=16.0)}),
    Outside("the divergence the other way", KD, SGD, TX, (("loss", "loss-kind"),), mine={"loss": partial(in_linen.distilled, reverse=True)}),
    Outside("the teacher of the next batch", KD, SGD, TX, (("data", "data-offset"),), mine=own(KD, teacher_of_next)),
    # segments
    Outside("SAME of a transposed convolution", SEG, SGD, TX, (("forward", "padding"),), partial(in_nnx.segments_side, same=True)),
    Outside("nearest for bilinear", SEG, SGD, TX, (("forward", ""),), partial(in_nnx.segments_side, resize=in_nnx.nearest)),
    Outside("corners aligned", SEG, SGD, TX, (("forward", ""),), partial(in_nnx.segments_side, resize=in_nnx.corners)),
    Outside("no bias after the transpose", SEG, SGD, TX, (("forward", "left-out"),), partial(in_nnx.segments_side, up_bias=False)),
    Outside("over the count, not the weights", SEG, SGD, TX, (("loss", "class-weights|loss-scale"),), mine={"loss": partial(in_nnx.pixels, by_count=True)}),
    Outside("a Dice term besides", SEG, SGD, TX, (("loss", "additional-term|ignored-labels"),), mine={"loss": partial(in_nnx.pixels, dice=0.5)}),
    Outside("probabilities clipped", SEG, of(optim.SGD, lr=0.5), optax.sgd(0.5), (("loss", ""),), mine={"loss": partial(in_nnx.pixels, small=0.15)}),
    # a GRU
    Outside("gates in another order", GRU, SGD, TX, (("forward", "packed-layout"),), partial(plain.gru_side, order=(1, 0, 2))),
    Outside("the reset before the product", GRU, SGD, TX, (("forward", ""),), partial(plain.gru_side, reset_first=True)),
    Outside("the update gate turned", GRU, SGD, TX, (("forward", ""),), partial(plain.gru_side, turned=True)),
    Outside("the last of the padded steps", GRU, SGD, TX, (("forward", ""),), partial(plain.gru_side, always_last=True)),
    Outside("one bias of the two", GRU, MOMENTUM, optax.sgd(0.05, 0.9), (("forward", "left-out"),), partial(plain.gru_side, bias=0.0)),
    Outside("the likelihood without its half", GRU, SGD, TX, (("loss", "loss-scale"),), mine={"loss": partial(plain.likelihood, half=1.0)}),
    Outside("a logarithm of the deviation", GRU, SGD, TX, (("loss", "|loss-kind"),), mine={"loss": partial(plain.likelihood, power=2.0)}),
    Outside("the likelihood with its constant", GRU, SGD, TX, (("loss", "additional-term"),), mine={"loss": partial(plain.likelihood, constant=0.5 * float(np.log(2 * np.pi)))}),
    # optimizers
    Outside("Adam with Nesterov", VAE, ADAM, optax.adam(2e-3, nesterov=True), (("update", "nesterov"),)),
    Outside("AdaBelief for Adam", KD, ADAM, optax.adabelief(2e-3), (("update", "another-optimizer"),)),
    Outside("gradients with noise", VAE, SGD, optax.chain(optax.add_noise(0.01, 0.55, 0), optax.sgd(0.05)), (("update", "changed-gradient"),)),
    Outside("decay clipped with the gradient", KD, of(optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.1), optax.chain(optax.add_decayed_weights(0.1), jp.clip_by_grad_norm(0.1), optax.sgd(0.05, 0.9)), (("update", "clip-order"),), theirs=clipped(0.1)),
    Outside("blocks clipped by their mean square", SEG, SGD, optax.chain(optax.clip_by_block_rms(0.02), optax.sgd(0.05)), (("update", "clip-kind|clip-per-group"),), theirs=clipped(0.1)),
    Outside("a sum of two batches", KD, SGD, optax.chain(optax.apply_every(2), optax.sgd(0.05)), (("update", "gradient-scale|number"),), theirs=accumulated),
    Outside("a mask that lets gradients through", LM, frozen("embed", optim.SGD, lr=0.05), optax.masked(optax.sgd(0.05), others("embed")), (("update", "frozen-leaf|passed-on"),)),
    Outside("the wrong layer at rest", LM, frozen("embed", optim.SGD, lr=0.05), without("head", optax.sgd(0.05)), (("update", "frozen-leaf"),)),
    Outside("layers' rates upside down", VAE, by_layer, layers(0.02, 0.04, 0.08), (("update", "group-options|number"),)),
    Outside("a decay injected as it comes", KD, ADAMW, optax.inject_hyperparams(optax.adamw)(learning_rate=2e-3), (("hyperparameters", "number"),)),
    Outside("Rprop of Optax's own bounds", GRU, of(optim.Rprop, lr=1e-3, step_sizes=(1e-6, 1.3e-3)), optax.rprop(1e-3), (("update", "first-step"),)),
    # schedules
    Outside("one cycle, by Optax", KD, SGD, optax.sgd(optax.cosine_onecycle_schedule(12, 0.1, 0.3, 25.0, 1e4)), (("update", "schedule-length|schedule"),), theirs=scheduled("OneCycleLR", max_lr=0.1, total_steps=12, cycle_momentum=False)),
    Outside("a warm-up within the cosine's length", KD, MOMENTUM, optax.sgd(optax.warmup_cosine_decay_schedule(0.0125, 0.05, 3, 9), 0.9), (("update", "schedule-length"),), theirs=warm_cosine),
    Outside("no restart", VAE, ADAM, optax.adam(optax.cosine_decay_schedule(2e-3, 4)), (("update", "schedule"),), theirs=scheduled("CosineAnnealingWarmRestarts", T_0=4)),
    Outside("the least rate as a share", VAE, ADAM, optax.adam(optax.cosine_decay_schedule(2e-3, 10, alpha=1e-4)), (("update", "schedule"),), theirs=scheduled("CosineAnnealingLR", T_max=10, eta_min=1e-4)),
    Outside("a line for a square", GRU, SGD, optax.sgd(optax.polynomial_schedule(0.05, 0.0, 1, 10)), (("update", "schedule"),), theirs=scheduled("PolynomialLR", total_iters=10, power=2.0)),
    Outside("no stairs", GRU, SGD, optax.sgd(optax.exponential_decay(0.05, 4, 0.5)), (("update", "schedule"),), theirs=scheduled("StepLR", step_size=4, gamma=0.5)),
    Outside("a change a step late", CLIP, SGD, optax.sgd(optax.piecewise_constant_schedule(0.05, {7: 0.2})), (("update", "schedule-offset|schedule"),), theirs=later(6, 0.01)),
    # averages
    Outside("an equal average for an exponential one", KD, SGD, TX, (("averages", "average-decay"),), mine={"averaged": JP_SWA}, theirs=averaged),
    Outside("an exponential average for an equal one", VAE, ADAM, optax.adam(2e-3), (("averages", "average-decay"),), mine={"averaged": JP_EMA}, theirs=swa),
    # several
    Outside("a window, zeros in the mean, a decay of all", LM, two_groups, optax.adamw(2e-3, weight_decay=0.05), (("forward", "attention-mask"), ("loss", "loss-scale"), ("update", "group-options|number")), partial(in_nnx.decoder_side, window=5), {"loss": mean_with_zeros}),
    Outside("the label first, a beta, a square", VAE, ADAM, optax.adam(2e-3, eps=1e-6), (("forward", "join-order"), ("loss", "loss-terms"), ("update", "number")), partial(in_nnx.vae_side, label_first=True), {"loss": partial(in_nnx.elbo, beta=1.0)}),
    Outside("SAME, padding left out, L2 for decay", CNN, ADAMW, optax.chain(optax.add_decayed_weights(0.05), optax.adam(2e-3)), (("forward", "padding"), ("forward", "pooling"), ("update", "decay-coupling")), partial(in_linen.residual_side, padding="SAME", count_padding=False)),
    Outside("the skip first, no weights, no decay of vectors", SEG, ADAMW, optax.adamw(2e-3, weight_decay=0.05, mask=matrices), (("forward", "join-order"), ("loss", "class-weights"), ("update", "group-options|number")), partial(in_nnx.segments_side, skip_first=True), {"loss": partial(in_nnx.pixels, weights=(1.0, 1.0, 1.0, 1.0))}),
    Outside("Mish, a temperature's square, stairs a step early", KD, SGD, optax.sgd(lambda c: 0.05 * 0.5 ** ((c + 1) // 4)), (("forward", "activation"), ("loss", "loss-terms"), ("update", "schedule-offset")), partial(in_linen.student_side, second=jax.nn.silu), {"loss": partial(in_linen.distilled, square=1.0)}, scheduled("StepLR", step_size=4, gamma=0.5)),
]  # fmt: skip
