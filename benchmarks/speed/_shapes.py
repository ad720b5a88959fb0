"""The parameter shapes of real models, and grids of made-up ones."""

from __future__ import annotations

import math
from collections.abc import Callable

Shapes = list[tuple[int, ...]]


def _lenet() -> Shapes:
    convolutions = [(6, 3, 5, 5), (6,), (16, 6, 5, 5), (16,)]
    return [*convolutions, (120, 400), (120,), (84, 120), (84,), (10, 84), (10,)]


def _resnet50() -> Shapes:
    shapes: Shapes = [(64, 3, 7, 7), (64,), (64,)]
    width = 64
    for planes, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            convolutions = [
                (planes, width, 1, 1),
                (planes, planes, 3, 3),
                (4 * planes, planes, 1, 1),
            ]
            if block == 0:
                convolutions.append((4 * planes, width, 1, 1))
            for shape in convolutions:
                shapes += [shape, (shape[0],), (shape[0],)]
            width = 4 * planes
    return [*shapes, (1000, 2048), (1000,)]


def _encoder(layers: int, width: int, hidden: int) -> Shapes:
    """Layers with separate query, key and value, as BERT's and ViT's."""
    linear = [(width, width), (width,)] * 4 + [
        (hidden, width),
        (hidden,),
        (width, hidden),
        (width,),
    ]
    return (linear + [(width,)] * 4) * layers


def _bert_base() -> Shapes:
    embeddings = [(30522, 768), (512, 768), (2, 768), (768,), (768,)]
    return [*embeddings, *_encoder(12, 768, 3072), (768, 768), (768,)]


def _vit_b16() -> Shapes:
    stem = [(1, 1, 768), (1, 197, 768), (768, 3, 16, 16), (768,)]
    return [*stem, *_encoder(12, 768, 3072), (768,), (768,), (1000, 768), (1000,)]


def _gpt2_small() -> Shapes:
    block = [(768,), (768,), (768, 2304), (2304,), (768, 768), (768,)]
    block += [(768,), (768,), (768, 3072), (3072,), (3072, 768), (768,)]
    return [(50257, 768), (1024, 768), *block * 12, (768,), (768,)]


def _llama_1b() -> Shapes:
    block = [(2048, 2048), (512, 2048), (512, 2048), (2048, 2048)]
    block += [(8192, 2048), (8192, 2048), (2048, 8192), (2048,), (2048,)]
    return [(32000, 2048), *block * 16, (2048,), (32000, 2048)]


MODELS: dict[str, Callable[[], Shapes]] = {
    "LeNet": _lenet,
    "ResNet-50": _resnet50,
    "ViT-B/16": _vit_b16,
    "BERT-base": _bert_base,
    "GPT-2 small": _gpt2_small,
    "Llama-like 1 B": _llama_1b,
}

_SMALL = [(64, 32), (32,), (3, 3, 16, 16), (128,)]


def shapes_of(model: str, optimizer: str = "") -> Shapes:
    """Return the shapes that an optimizer is given of a model; Muon takes matrices alone.

    Args:
        model: a model's name, or such as ``300 small leaves`` and ``8 leaves of 4096``.
        optimizer: torch's name.
    """
    count, _, rest = model.partition(" ")
    if model in MODELS:
        shapes = MODELS[model]()
    elif rest == "small leaves":
        shapes = [_SMALL[i % len(_SMALL)] for i in range(int(count))]
    else:
        shapes = [(int(rest.split(" of ")[1]),)] * int(count)
    return [shape for shape in shapes if optimizer != "Muon" or len(shape) == 2]


def elements(shapes: Shapes) -> int:
    """Return the number of parameters."""
    return sum(map(math.prod, shapes))
