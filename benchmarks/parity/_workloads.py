"""What the optimizers are given: parameters, and for each call gradients or an objective."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

Arrays = dict[str, np.ndarray]

MATRICES = {"matrix": (5, 7), "wide": (2, 1023)}
SHAPES = {"scalar": (), "matrix": (5, 7), "kernel": (17, 3, 3), "wide": (2, 1023)}
TABLES = {"table": (50, 8), "kernel": (17, 3, 3), "long": (1023, 2)}
_POOL = 16  # sets of gradients, taken in random order


class Gradients:
    """Random gradients, none of them zero, that do not depend on the parameters.

    Attributes:
        start: the parameters to start from, by name.
        calls: how many optimizer steps there are.
        iterations: Optax updates that take the place of one step.
    """

    iterations = 1

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], calls: int, dtype: Any):
        self.calls = calls
        self._random, self._dtype = np.random.default_rng(0), dtype
        self.start = {name: self._normal(shape) for name, shape in shapes.items()}
        pool = [
            {name: self._gradient(shape) for name, shape in shapes.items()} for _ in range(_POOL)
        ]
        order = self._random.integers(_POOL, size=calls)
        self._of_torch, self._of_port, self._of_optax = (
            [per_set[i] for i in order]
            for per_set in (
                [{k: self._as_tensor(g, shapes[k]) for k, g in grads.items()} for grads in pool],
                [jax.tree.map(jnp.asarray, grads) for grads in pool],
                [{k: self._dense(g, shapes[k]) for k, g in grads.items()} for grads in pool],
            )
        )

    def _normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.asarray(self._random.standard_normal(shape), self._dtype)

    def _gradient(self, shape: tuple[int, ...]) -> Any:
        return self._normal(shape)

    def _as_tensor(self, grad: Any, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.from_numpy(grad)

    def _dense(self, grad: Any, shape: tuple[int, ...]) -> jax.Array:
        return jnp.asarray(grad)

    def closure(self, call: int, tensors: Mapping[str, torch.Tensor]) -> Callable[[], Any]:
        """Return what torch's ``step`` is given."""

        def assign() -> float:
            for name, grad in self._of_torch[call].items():
                tensors[name].grad = grad
            return 0.0

        return assign

    def for_port(self, call: int) -> Any:
        """Return what ``jp.step`` is given."""
        return self._of_port[call]

    def for_optax(self, call: int) -> Any:
        """Return what Optax's ``update`` is given: dense gradients, or an objective."""
        return self._of_optax[call]


class RowGradients(Gradients):
    """Row-sparse gradients, pairs of indices and values, in which rows occur twice."""

    def _gradient(self, shape: tuple[int, ...]) -> Any:
        rows = max(2, shape[0] // 3)
        indices = self._random.integers(shape[0], size=rows)
        return indices, self._normal((rows, *shape[1:]))

    def _as_tensor(self, grad: Any, shape: tuple[int, ...]) -> torch.Tensor:
        indices, values = grad
        return torch.sparse_coo_tensor(indices[None], values, shape, check_invariants=True)

    def _dense(self, grad: Any, shape: tuple[int, ...]) -> jax.Array:
        indices, values = grad
        return jnp.zeros(shape, values.dtype).at[indices].add(values)


class Objective:
    """The sum of Rosenbrock's function and a quadratic one, for what evaluates its gradient."""

    def __init__(self, calls: int, dtype: Any):
        self.calls, self.iterations = calls, int(_lbfgs_defaults()["max_iter"])
        random = np.random.default_rng(0)
        self._matrix = np.asarray(np.eye(10) + 0.1 * random.standard_normal((10, 10)), dtype)
        self.start = {
            "rosenbrock": np.asarray([-1.2, 1.0], dtype),
            "quadratic": np.asarray(random.standard_normal(10), dtype),
        }
        of_jax = jnp.asarray(self._matrix)
        self._loss = jax.tree_util.Partial(lambda params: _objective(params, of_jax))

    def closure(self, call: int, tensors: Mapping[str, torch.Tensor]) -> Callable[[], Any]:
        matrix = torch.from_numpy(self._matrix)

        def evaluate() -> torch.Tensor:
            for tensor in tensors.values():
                tensor.grad = None
            loss = _objective(tensors, matrix)
            loss.backward()
            return loss

        return evaluate

    def for_port(self, call: int) -> Any:
        return self._loss

    def for_optax(self, call: int) -> Any:
        return self._loss

    def moved(self) -> Objective:
        """Return the same from a start whose parameters are one unit in the last place further."""
        other = copy.copy(self)
        other.start = {name: np.nextafter(array, np.inf) for name, array in self.start.items()}
        return other


def _objective(params: Mapping[str, Any], matrix: Any) -> Any:
    x, y = params["rosenbrock"][:-1], params["rosenbrock"][1:]
    residual = matrix @ params["quadratic"]
    return (100 * (y - x**2) ** 2 + (1 - x) ** 2).sum() + (residual * residual - residual).sum() / 2


def _lbfgs_defaults() -> dict[str, Any]:
    return torch.optim.LBFGS([torch.zeros(1)]).defaults


def workload(optimizer: str, calls: int, dtype: Any) -> Gradients | Objective:
    """Return what an optimizer of torch's name is compared on."""
    if optimizer == "LBFGS":
        return Objective(max(2, calls // 10), dtype)
    if optimizer == "SparseAdam":
        return RowGradients(TABLES, calls, dtype)
    return Gradients(MATRICES if optimizer == "Muon" else SHAPES, calls, dtype)
