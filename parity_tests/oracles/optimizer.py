"""torch.optim on NumPy arrays by path: what the port is compared with."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch.testing._internal.common_optimizers import optim_db

import jaxopt_port as jp
from parity_tests.oracles.bits import assert_same_bits

_BITS = {torch.bfloat16: (torch.int16, ml_dtypes.bfloat16)}
Arrays = Mapping[str, np.ndarray]


def to_torch(array: Any) -> torch.Tensor:
    array = np.asarray(array)
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().clone()
    if tensor.dtype in _BITS:
        integer, dtype = _BITS[tensor.dtype]
        return tensor.view(integer).numpy().view(dtype)
    return tensor.numpy()


def in_torch(grad: Any, shape: Sequence[int]) -> torch.Tensor:
    """torch's gradient: of an array, or of indices, a row each, and what is there."""
    if not isinstance(grad, tuple):
        return torch.tensor(grad)
    places, values = np.atleast_2d(np.asarray(grad[0], np.int64).T), torch.tensor(grad[1])
    # Which says to torch for all that follows, as it wants to be told, whether it checks.
    with torch.sparse.check_sparse_tensor_invariants(True):
        return torch.sparse_coo_tensor(places, values, shape)


class TorchOracle:
    """A torch optimizer over named parameters, one group for each list of names."""

    def __init__(
        self,
        optimizer: type[torch.optim.Optimizer],
        params: Arrays,
        groups: Sequence[Sequence[str]],
        options: Mapping[str, Any],
        per_group: Sequence[Mapping[str, Any]] | None = None,
    ):
        self.tensors = {name: to_torch(array).requires_grad_() for name, array in params.items()}
        own = per_group or [{}] * len(groups)
        self.optimizer = optimizer(
            [
                {"params": [self.tensors[name] for name in names], **extra}
                for names, extra in zip(groups, own, strict=True)
            ],
            **options,
        )

    def step(self, grads: Mapping[str, Any]):
        """Take a step with torch's gradients, or with arrays; None is none."""
        for name, tensor in self.tensors.items():
            grad = grads[name]
            known = grad is None or isinstance(grad, torch.Tensor)
            tensor.grad = grad if known else to_torch(grad)
        self.optimizer.step()

    def change(self, group: int | None, values: Mapping[str, Any]):
        chosen = self.optimizer.param_groups
        for options in chosen if group is None else [chosen[group]]:
            options.update(values)

    def params(self) -> dict[str, np.ndarray]:
        return {name: to_numpy(tensor) for name, tensor in self.tensors.items()}

    def held(self, path: str) -> dict[str, np.ndarray]:
        """By torch's name, all that torch holds for a parameter."""
        state = self.optimizer.state[self.tensors[path]]
        return {name: to_numpy(torch.as_tensor(v)) for name, v in state.items() if v is not None}

    def state(self, name: str) -> dict[str, np.ndarray]:
        """By path, one entry of torch's state; parameters that have none are left out."""
        held = {path: self.optimizer.state[tensor] for path, tensor in self.tensors.items()}
        return {path: to_numpy(s[name]) for path, s in held.items() if s.get(name) is not None}


def beside(
    oracle: TorchOracle, tx: Any, start: Arrays, gradients: Iterable[Arrays]
) -> Iterator[tuple[Any, Any]]:
    """Step this library and torch with the same gradients; yield parameters and state here."""
    params, state = start, tx.init(start)
    for grads in gradients:
        params, state = jp.step(tx, grads, state, params)
        oracle.step(grads)
        yield params, state


def check_bits(oracle: TorchOracle, tx: Any, start: Arrays, gradients: Iterable[Arrays]) -> None:
    """Compare the parameters after each step, to the bit."""
    for step, (params, _) in enumerate(beside(oracle, tx, start, gradients)):
        assert_same_bits(params, oracle.params(), f"after step {step}")


def torchs_parameters(
    optimizer: type[torch.optim.Optimizer],
    start: Arrays,
    options: Mapping[str, Any],
    gradients: Iterable[Arrays],
) -> dict[str, np.ndarray]:
    """Where torch ends, with one group."""
    oracle = TorchOracle(optimizer, start, [list(start)], options)
    for grads in gradients:
        oracle.step(grads)
    return oracle.params()


def configurations(optimizer: type[torch.optim.Optimizer]) -> list[tuple[str, dict[str, Any]]]:
    """torch's own table: (description, options) of each configuration of an optimizer."""
    (info,) = [info for info in optim_db if info.optim_cls is optimizer]
    return [(i.desc, dict(i.kwargs)) for i in info.optim_inputs_func(device="cpu")]


def bad_arguments(optimizer: type[torch.optim.Optimizer]) -> dict[str, Any]:
    """torch's own table of errors, by description."""
    (info,) = [info for info in optim_db if info.optim_cls is optimizer]
    errors = info.optim_error_inputs_func(device="cpu", dtype=torch.float32)
    return {error.optimizer_error_input.desc: error for error in errors}
