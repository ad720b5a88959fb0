"""A small network of the kinds of layers that the scripts tell apart, and gradients for it.

Each script is the part of a well-known training script that is around the optimizer, written anew
in torch (``in_torch``) and here (``in_jax``). Both are given the same gradients, so that what
differs is the optimizer's side alone; both yield the learning rates and the parameters after each
step.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
import torch

from jaxopt_port import interop

LIKE = {
    "stem": {"kernel": jnp.zeros((6, 8)), "bias": jnp.zeros(8)},
    "blocks": {
        str(i): {
            "norm": {"scale": jnp.zeros(8), "bias": jnp.zeros(8)},
            "up": {"kernel": jnp.zeros((8, 16)), "bias": jnp.zeros(16)},
            "down": {"kernel": jnp.zeros((16, 8)), "bias": jnp.zeros(8)},
        }
        for i in range(2)
    },
    "head": {"kernel": jnp.zeros((8, 3)), "bias": jnp.zeros(3)},
}


class Block(torch.nn.Module):
    """A norm and two layers."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.LayerNorm(8)
        self.up, self.down = torch.nn.Linear(8, 16), torch.nn.Linear(16, 8)


class Net(torch.nn.Module):
    """A stem, two blocks and a head."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Linear(6, 8)
        self.blocks = torch.nn.ModuleList([Block(), Block()])
        self.head = torch.nn.Linear(8, 3)


def made(seed: int = 0) -> tuple[Net, dict, interop.ParamMap]:
    """Return torch's network, its parameters here, and which is which."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Net()
    mapped = interop.param_map(net, LIKE)
    return net, interop.params_from_torch(net, LIKE, mapped), mapped


def gradients(net: Net, steps: int, seed: int = 1) -> Iterator[dict[str, np.ndarray]]:
    """Yield gradients by torch's names."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        yield {
            name: rng.normal(size=tuple(p.shape)).astype(np.float32)
            for name, p in net.named_parameters()
        }


def give(net: Net, grads: dict[str, np.ndarray], scale: float = 1.0) -> None:
    """``loss.backward()``: add to each ``.grad``."""
    for name, p in net.named_parameters():
        if p.requires_grad:
            grad = torch.from_numpy(grads[name]) * scale
            p.grad = grad if p.grad is None else p.grad + grad


def tree(leaves: dict[str, np.ndarray]) -> dict:
    """Return a tree of arrays by path."""
    nested: dict = {}
    for path, leaf in leaves.items():
        node = nested
        *parents, last = path.split("/")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = jnp.asarray(leaf)
    return nested


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    """Return the learning rates of an optimizer's groups."""
    return [group["lr"] for group in optimizer.param_groups]
