"""A group for each layer: the learning rate falls from the last layer to the first.

Fine-tuning recipes (BEiT's, ELECTRA's) give layer ``i`` of ``n`` the rate
``lr * decay ** (n - i)``. In torch that is a list of parameter groups; so it is here. A hundred
groups cost no more than one: those that differ in numbers alone share one program.

Run it: ``python examples/layerwise_lr_decay.py``
"""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

import jaxopt_port as jp

DEPTH, WIDTH = 98, 32


class Residual(nnx.Module):
    """One of many layers."""

    def __init__(self, rngs: nnx.Rngs):
        """Make the layer."""
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.linear = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return N × WIDTH numbers of as many."""
        return x + nnx.relu(self.linear(self.norm(x))) / DEPTH**0.5


class Deep(nnx.Module):
    """A stem, 98 residual layers and a head."""

    def __init__(self, rngs: nnx.Rngs):
        """Make the layers."""
        self.stem = nnx.Linear(64, WIDTH, rngs=rngs)
        self.layers = nnx.List([Residual(rngs) for _ in range(DEPTH)])
        self.head = nnx.Linear(WIDTH, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits of N × 64 pixels."""
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def groups(lr: float, decay: float) -> list[dict[str, Any]]:
    """Return a group per layer, the last with the highest rate."""
    patterns = ["stem/**", *(f"layers/{i}/**" for i in range(DEPTH)), "head/**"]
    return [
        {"params": pattern, "name": pattern.removesuffix("/**"), "lr": lr * decay**below}
        for pattern, below in zip(patterns, range(len(patterns) - 1, -1, -1), strict=True)
    ]


def main() -> None:
    """Train on the digits and print the rates and the accuracy."""
    images, labels = load_digits(return_X_y=True)
    images = images.astype(np.float32) / 16
    graph, params = nnx.split(Deep(nnx.Rngs(0)), nnx.Param)

    tx = jp.AdamW(groups(lr=3e-3, decay=0.98), weight_decay=0.01)
    state = tx.init(params)
    scheduler = jp.lr_scheduler.CosineAnnealingLR(T_max=150)  # of every group's own rate
    state, sched_state = scheduler.init(state)

    @jax.jit(donate_argnums=(0, 1))
    def step(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            logits = nnx.merge(graph, params)(x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        return jp.step(tx, jax.grad(loss)(params), state, params)

    rng = np.random.default_rng(0)
    begun = time.monotonic()
    for i in range(150):
        chosen = rng.integers(0, 1500, 64)
        params, state = step(params, state, images[chosen], labels[chosen])
        state, sched_state = scheduler.step(state, sched_state)
        if i == 0:
            print(f"traced and compiled in {time.monotonic() - begun:.1f} s")
        if i == 74:
            rates = {group["name"]: group["lr"] for group in jp.get_hyperparams(state)}
            for name in ("stem", "layers/0", f"layers/{DEPTH - 1}", "head"):
                print(f"half way, {name:10} lr {rates[name]:.2e}")
    right = nnx.merge(graph, params)(images[1500:]).argmax(-1) == labels[1500:]
    print(f"{len(jp.get_hyperparams(state))} groups; accuracy {right.mean():.2f}")


if __name__ == "__main__":
    main()
