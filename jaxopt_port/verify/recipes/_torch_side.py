"""The torch side of a recipe."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ...interop import Entry, array_of, param_map
from ._loops import Loop, TorchLoop
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
    """A net and its optimizer; what it gives away is laid out as the JAX tree ``like``."""

    def __init__(self, recipe: Recipe, net: Net, like: Any, steps: int) -> None:
        self._recipe = recipe
        self.net = copy.deepcopy(net)
        self._initial = copy.deepcopy(net.state_dict())
        self.optimizer = recipe.torch_start(self.net)
        self._entries = param_map(self.net, like).entries
        self._params = dict(self.net.named_parameters())
        self._structure = jax.tree.structure(like)
        self.loop = TorchLoop(recipe.loop or Loop(), self.net, self.optimizer, steps)

    def restart(self) -> None:
        self.net.load_state_dict(self._initial)
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

    def clip(self) -> Any:
        """Clip the gradients, where the recipe does, and return them."""
        self.loop.clip()
        return self.grads()

    def step(self, loss: float) -> None:
        self.optimizer.step()
        self.loop.after_step(loss)

    def change(self) -> None:
        if self._recipe.torch_change is not None:
            self.optimizer = self._recipe.torch_change(self.net, self.optimizer)

    def params(self) -> Any:
        """Return the parameters as a tree of NumPy arrays."""
        return self._tree([self._param(entry) for entry in self._entries])

    def grads(self) -> Any:
        """Return the gradients of the last evaluation, likewise."""
        return self._tree([self._param(entry).grad for entry in self._entries])

    def averages(self) -> dict[str, NDArray[Any]]:
        """Return the averaged parameters, by path; none where the recipe takes no averages."""
        averaged = dict(zip(self.net.parameters(), self.loop.averages(), strict=False))
        entries = [entry for entry in self._entries if self._param(entry) in averaged]
        return {e.path: _laid_out(e, averaged[self._param(e)]) for e in entries}

    def momentum_buffers(self) -> dict[str, NDArray[Any]]:
        """Return the buffers that the optimizer holds, by path."""
        state = self.optimizer.state
        with_state = [e for e in self._entries if self._param(e) in state]
        held = {e: state[self._param(e)].get("momentum_buffer") for e in with_state}
        return {e.path: _laid_out(e, buffer) for e, buffer in held.items() if buffer is not None}

    def _param(self, entry: Entry) -> torch.nn.Parameter:
        return self._params[entry.torch_name]

    def _tree(self, tensors: list[Any]) -> Any:
        pairs = zip(self._entries, tensors, strict=True)
        leaves = [_laid_out(entry, tensor) for entry, tensor in pairs]
        return jax.tree.unflatten(self._structure, leaves)

    def accuracy(self, batch: Batch) -> float:
        with torch.no_grad():
            output = self.net(torch.from_numpy(batch.images).to(next(self.net.parameters()).dtype))
        return float((output.argmax(1).numpy() == batch.labels).mean())


def _laid_out(entry: Entry, tensor: torch.Tensor) -> NDArray[Any]:
    """Return a copy of NumPy's own: JAX may read it later, and torch overwrites the tensor."""
    return np.array(entry.to_jax(array_of(tensor)), order="C")
