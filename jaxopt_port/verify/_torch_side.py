"""The torch side of a recipe."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ..interop import params_from_torch
from ._recipes import Recipe
from ._torch_lenet import Net

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


class Batch(NamedTuple):
    """Images of shape (N, 3, 32, 32) and labels of shape (N,)."""

    images: NDArray[Any]
    labels: NDArray[np.int32]


def make_net(seed: int, dtype: str) -> Net:
    """Return the net with torch's own initial weights; the global generator is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net().to(DTYPES[dtype])


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: its idle ones spin, and would take the cores from XLA's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class TorchRun:
    """A net and its optimizer."""

    def __init__(self, recipe: Recipe, net: Net, dtype: str | None = None) -> None:
        self._recipe = recipe
        self.net = copy.deepcopy(net).to(None if dtype is None else DTYPES[dtype])
        self._carrier, self._initial = copy.deepcopy(self.net), copy.deepcopy(self.net)
        self.optimizer = recipe.torch_start(self.net)

    def restart(self) -> None:
        self.net.load_state_dict(self._initial.state_dict())
        self.optimizer = self._recipe.torch_start(self.net)

    def evaluate(self, batch: Batch) -> tuple[torch.Tensor, float]:
        """Run forward and backward; return output and loss."""
        images = torch.from_numpy(batch.images).to(next(self.net.parameters()).dtype)
        self.optimizer.zero_grad()
        output = self.net(images)
        if self._recipe.output_as_cotangent:
            loss = 0.5 * (output.detach() ** 2).sum()
            output.backward(output)
        else:
            loss = F.cross_entropy(output, torch.from_numpy(batch.labels).long())
            loss.backward()
        return output.detach(), loss.item()

    def step(self) -> None:
        self.optimizer.step()

    def change(self) -> None:
        if self._recipe.torch_change is not None:
            self.optimizer = self._recipe.torch_change(self.net, self.optimizer)

    def params(self, like: Any) -> Any:
        return params_from_torch(self.net, like)

    def grads(self, like: Any) -> Any:
        return self._carried({p: p.grad for p in self.net.parameters()}, like)

    def momentum_buffers(self, like: Any) -> Any:
        """Return the momentum buffers as a tree; zeros where there is none yet."""
        state = self.optimizer.state
        held = {p: state[p].get("momentum_buffer") for p in self.net.parameters() if p in state}
        return self._carried(held, like)

    def has_momentum(self) -> bool:
        return any(s.get("momentum_buffer") is not None for s in self.optimizer.state.values())

    def _carried(self, tensors: dict[Any, torch.Tensor | None], like: Any) -> Any:
        """Bring a tensor per parameter across as the parameters are brought."""
        with torch.no_grad():
            for carrier, p in zip(self._carrier.parameters(), self.net.parameters(), strict=True):
                tensor = tensors.get(p)
                carrier.zero_() if tensor is None else carrier.copy_(tensor)
        return params_from_torch(self._carrier, like)

    def accuracy(self, batch: Batch) -> float:
        with torch.no_grad():
            output = self.net(torch.from_numpy(batch.images).to(next(self.net.parameters()).dtype))
        return float((output.argmax(1).numpy() == batch.labels).mean())
