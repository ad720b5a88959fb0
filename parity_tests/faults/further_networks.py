"""Right ports of seven small networks, by name."""

from collections.abc import Callable
from typing import Any

from parity_tests.faults import further_linen as in_linen
from parity_tests.faults import further_nnx as in_nnx
from parity_tests.faults import further_plain as plain
from parity_tests.faults.right_networks import Network


def called(*names: str) -> Callable[[Any, Any], Any]:
    return lambda module, batch: module(*(batch[n] for n in names))


FURTHER: dict[str, Network] = {
    "decoder": Network(in_nnx.Decoder, in_nnx.decoder_side, in_nnx.texts, {"loss": in_nnx.torch_next, "forward": called("ids")}),
    "VAE": Network(in_nnx.VAE, in_nnx.vae_side, in_nnx.drawn, {"loss": in_nnx.torch_elbo, "forward": called("x", "label", "noise")}),
    "residual": Network(in_linen.Residual, in_linen.residual_side, in_linen.photos),
    "towers": Network(plain.Towers, plain.towers_side, plain.pairs, {"loss": plain.torch_clip_loss, "forward": called("image", "text")}),
    "student": Network(in_linen.Student, in_linen.student_side, in_linen.taught, {"loss": in_linen.torch_distilled, "forward": called("x")}),
    "segments": Network(in_nnx.Segments, in_nnx.segments_side, in_nnx.maps, {"loss": in_nnx.torch_pixels}),
    "GRU": Network(plain.GRU, plain.gru_side, plain.series, {"loss": plain.torch_likelihood, "forward": called("x", "lengths")}),
}  # fmt: skip
