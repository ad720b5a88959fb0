"""A torch module of two layers, and its parameters as a JAX tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import pytest
import torch


def make_module(seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """A convolution, and a square linear layer, whose layout its shape does not reveal."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        features = torch.nn.Sequential(torch.nn.Conv2d(2, 3, (4, 5)), torch.nn.ReLU())
        classifier = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(6, 6))
    module = torch.nn.Sequential()
    module.add_module("features", features)
    module.add_module("classifier", classifier)
    return module.to(dtype)


def plain() -> dict[str, Any]:
    return {
        "features": {"0": {"kernel": jnp.zeros((4, 5, 2, 3)), "bias": jnp.zeros(3)}},
        "classifier": {"1": {"kernel": jnp.zeros((6, 6)), "bias": jnp.zeros(6)}},
    }


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def listed(call: Callable[[], Any], message: str) -> list[str]:
    """The lines of what a call is refused with."""
    with pytest.raises(ValueError, match=message) as caught:
        call()
    return str(caught.value).split("\n  ")[1:]


def assert_begin(lines: Sequence[str], begins: Sequence[str]) -> None:
    assert len(lines) == len(begins), lines
    for line, begin in zip(lines, begins, strict=True):
        assert line.startswith(begin), (line, begin)


class Tied(torch.nn.Module):
    """An embedding and a linear layer with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = torch.nn.Embedding(5, 4), torch.nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
