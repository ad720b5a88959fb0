"""torch's own optimizer beside `TorchOptimizer`, on copies of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..numerics import relative, ulps
from ._tensors import array_of


class Distance(NamedTuple):
    """How far the parameters are from those of torch's own optimizer, after one step.

    Attributes:
        step: which step, from 1.
        name: the parameter that is furthest, in units in the last place.
        ulps: how far that one is, in units in the last place.
        relative: the largest difference of any parameter, as a part of its largest magnitude.
    """

    step: int
    name: str
    ulps: int
    relative: float


class Shadow:
    """Copies of the parameters, and torch's optimizer over them.

    Args:
        optimizer: torch's class.
        groups: the groups to copy.
        names: of the parameters, in the order of the groups.
    """

    def __init__(
        self,
        optimizer: Callable[..., torch.optim.Optimizer],
        groups: Sequence[dict[str, Any]],
        names: Sequence[str],
    ) -> None:
        self._names = list(names)
        self._optimizer: Any = optimizer([_copied(group) for group in groups])
        self._steps = 0

    def add_param_group(self, group: dict[str, Any], names: Sequence[str]) -> None:
        self._names = list(names)
        self._optimizer.add_param_group(_copied(group))

    def step(self, groups: Sequence[dict[str, Any]]) -> Distance:
        """Take the same step, and compare."""
        pairs = []
        for theirs, ours in zip(self._optimizer.param_groups, groups, strict=True):
            theirs.update({k: v for k, v in ours.items() if k not in ("params", "param_names")})
            pairs += list(zip(ours["params"], theirs["params"], strict=True))
        for p, copy in pairs:
            copy.grad = p.grad
        self._optimizer.step()
        self._steps += 1
        arrays = [(array_of(p), array_of(copy)) for p, copy in pairs]
        each = [ulps(_reals(a), _reals(b)) for a, b in arrays]
        worst = max(range(len(each)), key=each.__getitem__)
        far = max(relative(_reals(a), _reals(b)) for a, b in arrays)
        return Distance(self._steps, self._names[worst], each[worst], far)


def _copied(group: dict[str, Any]) -> dict[str, Any]:
    copies = [p.detach().clone().requires_grad_(p.requires_grad) for p in group["params"]]
    options = {k: v for k, v in group.items() if k not in ("params", "param_names")}
    return {**options, "params": copies}


def _reals(array: NDArray[Any]) -> NDArray[Any]:
    return array.view(array.real.dtype) if np.iscomplexobj(array) and array.ndim else array
