"""Two linear layers in torch, the tree that Flax has of them, and steps of fixed gradients."""

import torch

from parity_tests.oracles.two_networks import like_of


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))


LIKE = like_of(network())


def stepped(module, optimizer, steps=2):
    for step in range(steps):
        for k, p in enumerate(p for p in module.parameters() if p.requires_grad):
            p.grad = torch.full_like(p, 0.1 * (k + 1) * (step + 1))
        optimizer.step()
    return optimizer
