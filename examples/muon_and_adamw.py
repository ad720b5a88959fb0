"""Muon for the hidden matrices and AdamW for all else, in one optimizer.

In torch these are two optimizers, two ``step`` and two ``zero_grad``. Here a group names its own:
one state, one step, one set of hyperparameters to read and change.

Run it: ``python examples/muon_and_adamw.py``
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

import jaxopt_port as jp
from jaxopt_port import interop


class Network(nnx.Module):
    """Two hidden layers."""

    def __init__(self, rngs: nnx.Rngs):
        """Make the layers."""
        self.embed = nnx.Linear(8, 32, rngs=rngs)
        self.hidden = nnx.Linear(32, 64, rngs=rngs)
        self.head = nnx.Linear(64, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return one number for each of N × 8 inputs."""
        x = nnx.relu(self.embed(x))
        return self.head(nnx.relu(self.hidden(x)))[:, 0]


def main() -> None:
    """Train on a function of eight variables and print the loss."""
    model = Network(nnx.Rngs(0))
    graph, params = nnx.split(model, nnx.Param)
    x = jax.random.normal(jax.random.key(1), (256, 8))
    y = jnp.sin(x[:, 0]) * x[:, 1]

    def loss(params: nnx.State) -> jax.Array:
        return jnp.mean((nnx.merge(graph, params)(x) - y) ** 2)

    tx = jp.Muon(
        [
            {"params": "hidden/kernel"},
            {"params": "**/bias", "optimizer": jp.AdamW, "lr": 3e-3, "weight_decay": 0.0},
            {"params": jp.REST, "optimizer": jp.AdamW, "lr": 3e-3},
        ],
        lr=0.02,
    )
    # Muon scales its step by the rows of a matrix, and torch's weights are (out, in).
    tx = interop.in_torch_layout(tx, params)
    state = tx.init(params)
    print(f"loss before: {loss(params):.3f}")
    for _ in range(200):
        params, state = jp.step(tx, loss, state, params)
    print(f"loss after:  {loss(params):.3f}")
    print("rates:", [group["lr"] for group in jp.get_hyperparams(state)])


if __name__ == "__main__":
    main()
