"""Fine-tune a torch checkpoint in Flax: the head first, then everything.

A LeNet is trained in torch on the digits 0 to 4 and saved. Here its features are loaded and
frozen, a new head learns all ten digits, and half way the features join it with a rate of their
own: torch's ``requires_grad_(True)`` and ``optimizer.add_param_group``. The head's momentum stays.

Run it: ``python examples/finetune_from_torch.py``
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import torch
from flax import nnx
from sklearn.datasets import load_digits

import jaxopt_port as jp
from jaxopt_port import interop
from jaxopt_port.models import LeNet


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return 1,797 images of LeNet's size, (N, 3, 32, 32), and their labels."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 1, 8, 8).repeat(3, 1).repeat(4, 2).repeat(4, 3) / 16
    return images.astype(np.float32), labels.astype(np.int64)


class TorchLeNet(torch.nn.Module):
    """The network of the checkpoint."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        nn = torch.nn
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        )
        self.classifier = nn.Sequential(
            *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of N × 3 × 32 × 32 pixels."""
        return self.classifier(self.features(x).flatten(1))


def pretrain(file: Path) -> None:
    """Train in torch on five digits, and save the parameters."""
    torch.manual_seed(0)
    images, labels = (torch.from_numpy(x) for x in digits())
    known = torch.nonzero(labels[:1500] < 5)[:, 0]
    module = TorchLeNet()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    for _ in range(80):
        chosen = known[torch.randint(len(known), (32,))]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(images[chosen]), labels[chosen]).backward()
        optimizer.step()
    torch.save(module.state_dict(), file)


def main() -> None:
    """Print the accuracy on digits that were not trained on, after each phase."""
    with tempfile.TemporaryDirectory() as folder:
        pretrain(Path(folder, "lenet.pt"))
        checkpoint = interop.load(Path(folder, "lenet.pt"))

    model = LeNet(rngs=nnx.Rngs(1))
    names = interop.param_map(TorchLeNet(), model)
    loaded = interop.params_from_torch(checkpoint.params, model, names)
    nnx.update(model.features, loaded["features"])  # the head stays new
    graph, params = nnx.split(model, nnx.Param)
    images, labels = digits()

    tx = jp.SGD(
        [{"params": "classifier/**", "name": "head"}, {"params": jp.REST, "frozen": True}],
        lr=0.02,
        momentum=0.9,
    )
    state = tx.init(params)

    def phase(tx: Any, params: Any, state: Any, seed: int) -> Any:
        @jax.jit(donate_argnums=(0, 1))
        def step(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
            def loss(params: Any) -> jax.Array:
                logits = nnx.merge(graph, params)(x)
                return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

            return jp.step(tx, jax.grad(loss)(params), state, params)

        rng = np.random.default_rng(seed)
        for _ in range(100):
            chosen = rng.integers(0, 1500, 32)
            params, state = step(params, state, images[chosen], labels[chosen])
        return params, state

    def accuracy(params: Any) -> float:
        right = nnx.merge(graph, params)(images[1500:]).argmax(-1) == labels[1500:]
        return float(right.mean())

    print(f"loaded:              {accuracy(params):.2f}")
    before = jax.tree.map(np.asarray, params["features"])
    params, state = phase(tx, params, state, seed=0)
    kept = jax.tree.map(np.array_equal, before, jax.tree.map(np.asarray, params["features"]))
    print(
        f"head trained:        {accuracy(params):.2f}  features kept: {all(jax.tree.leaves(kept))}"
    )

    tx, state = jp.add_param_group(
        tx, state, params, {"params": "features/**", "name": "features", "lr": 0.005}
    )
    state = jp.set_hyperparams(state, lr=0.01, group="head")
    params, state = phase(tx, params, state, seed=1)
    print(f"everything trained:  {accuracy(params):.2f}")
    print("rates:", {g["name"]: g["lr"] for g in jp.get_hyperparams(state) if "lr" in g})


if __name__ == "__main__":
    main()
