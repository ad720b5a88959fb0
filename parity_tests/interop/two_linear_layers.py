"""Two linear layers in torch, the tree that Flax has of them, and steps of fixed gradients."""

import jax.numpy as jnp
import torch

LIKE = {
    "0": {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)},
    "1": {"kernel": jnp.zeros((4, 2)), "bias": jnp.zeros(2)},
}


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))


def stepped(module, optimizer, steps=2):
    for step in range(steps):
        for k, p in enumerate(p for p in module.parameters() if p.requires_grad):
            p.grad = torch.full_like(p, 0.1 * (k + 1) * (step + 1))
        optimizer.step()
    return optimizer
