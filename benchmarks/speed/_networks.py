"""The networks that the suite ``train`` trains, and their data, on both sides."""

from __future__ import annotations

from typing import Any

import numpy as np

BATCH_SEED = 7
# A decoder with as many parameters as its embeddings allow on two cores: 1.2 million.
TRANSFORMER = {"vocabulary": 512, "width": 128, "heads": 4, "layers": 4, "length": 64}


def lenet_batch(batch: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return images and labels."""
    rng = np.random.default_rng(BATCH_SEED)
    images = rng.standard_normal((batch, 3, 32, 32), dtype=np.float32)
    return images, rng.integers(0, 10, batch)


def words(batch: int) -> np.ndarray[Any, Any]:
    """Return token numbers, (batch, length + 1)."""
    shape = (batch, TRANSFORMER["length"] + 1)
    return np.random.default_rng(BATCH_SEED).integers(0, TRANSFORMER["vocabulary"], shape)


def lenet_torch() -> Any:
    """Return LeNet in torch, the same in every process."""
    import torch
    from torch import nn

    torch.manual_seed(0)

    class LeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            pool = nn.MaxPool2d(2)
            self.features = nn.Sequential(
                *(nn.Conv2d(3, 6, 5), nn.ReLU(), pool, nn.Conv2d(6, 16, 5), nn.ReLU(), pool)
            )
            self.classifier = nn.Sequential(
                *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))
            )

        def forward(self, images: Any) -> Any:
            return self.classifier(self.features(images).flatten(1))

    return LeNet()


def transformer_torch() -> Any:
    """Return a decoder in torch, the same in every process."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    width, heads = TRANSFORMER["width"], TRANSFORMER["heads"]

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            n, t, _ = x.shape
            q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, heads, -1).permute(2, 0, 3, 1, 4)
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(mixed.transpose(1, 2).reshape(n, t, width))
            return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(TRANSFORMER["vocabulary"], width)
            self.places = nn.Embedding(TRANSFORMER["length"], width)
            self.blocks = nn.Sequential(*(Block() for _ in range(TRANSFORMER["layers"])))
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, TRANSFORMER["vocabulary"])

        def forward(self, tokens: Any) -> Any:
            places = self.places(torch.arange(tokens.shape[1], device=tokens.device))
            return self.head(self.norm(self.blocks(self.words(tokens) + places)))

    return Decoder()


def transformer_nnx(layers: int | None = None) -> Any:
    """Return the same decoder in Flax NNX, with weights of its own."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    width, heads, rngs = TRANSFORMER["width"], TRANSFORMER["heads"], nnx.Rngs(0)
    layers = TRANSFORMER["layers"] if layers is None else layers

    def norm() -> nnx.LayerNorm:
        return nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)

    class Block(nnx.Module):
        def __init__(self) -> None:
            self.norm1, self.norm2 = norm(), norm()
            self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
            self.out = nnx.Linear(width, width, rngs=rngs)
            self.up = nnx.Linear(width, 4 * width, rngs=rngs)
            self.down = nnx.Linear(4 * width, width, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            n, t, _ = x.shape
            q, k, v = jnp.moveaxis(self.qkv(self.norm1(x)).reshape(n, t, 3, heads, -1), 2, 0)
            mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(mixed.reshape(n, t, width))
            return x + self.down(jax.nn.gelu(self.up(self.norm2(x)), approximate=False))

    class Decoder(nnx.Module):
        def __init__(self) -> None:
            self.words = nnx.Embed(TRANSFORMER["vocabulary"], width, rngs=rngs)
            self.places = nnx.Embed(TRANSFORMER["length"], width, rngs=rngs)
            self.blocks = nnx.List([Block() for _ in range(layers)])
            self.norm = norm()
            self.head = nnx.Linear(width, TRANSFORMER["vocabulary"], rngs=rngs)

        def __call__(self, tokens: jax.Array) -> jax.Array:
            x = self.words(tokens) + self.places(jnp.arange(tokens.shape[1]))
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    return Decoder()
