"""torch's own optimizer beside `TorchOptimizer`, on copies of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
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
    """torch's optimizer over copies of the parameters, which go their own way.

    Args:
        optimizer: torch's class.
    """

    def __init__(self, optimizer: Callable[..., torch.optim.Optimizer]) -> None:
        self._class = optimizer
        self._optimizer: Any = None
        self._copies: dict[torch.Tensor, torch.Tensor] = {}
        self._left: dict[torch.Tensor, torch.Tensor] = {}  # as the last step left them
        self._steps = 0

    def begin(self, groups: Sequence[dict[str, Any]]) -> None:
        """Take over groups as they are, and values that were changed since the last step."""
        copied = [{**group, "params": [self._copy(p) for p in group["params"]]} for group in groups]
        for group in copied:
            group.pop("param_names", None)
        if self._optimizer is None:
            self._optimizer = self._class(copied)
        defaults = self._optimizer.defaults
        self._optimizer.param_groups = [{**defaults, **group} for group in copied]

    def load(self, groups: Sequence[dict[str, Any]], state: Mapping[torch.Tensor, Any]) -> None:
        """Take over a state that was loaded, and the values of the parameters."""
        self._left.clear()
        self._copies.clear()
        self.begin(groups)
        self._optimizer.state.clear()
        for p, copy in self._copies.items():
            if p in state:
                self._optimizer.state[copy] = deepcopy(state[p])

    def step(self, names: Sequence[str]) -> Distance:
        """Take the same step, and compare."""
        copies = [copy for group in self._optimizer.param_groups for copy in group["params"]]
        own = {copy: p for p, copy in self._copies.items()}
        pairs = [(own[copy], copy) for copy in copies]
        for p, copy in pairs:
            copy.grad = p.grad
        self._optimizer.step()
        self._steps += 1
        self._left = {p: p.detach().clone() for p, _ in pairs}
        arrays = [(array_of(p), array_of(copy)) for p, copy in pairs]
        each = [ulps(_reals(a), _reals(b)) for a, b in arrays]
        worst = max(range(len(each)), key=each.__getitem__)
        far = max(relative(_reals(a), _reals(b)) for a, b in arrays)
        return Distance(self._steps, names[worst], each[worst], far)

    def _copy(self, p: torch.Tensor) -> torch.Tensor:
        copy = self._copies.get(p)
        if copy is None:
            copy = p.detach().clone().requires_grad_(p.requires_grad)
            self._copies[p] = copy
        elif p in self._left and array_of(p).tobytes() != array_of(self._left[p]).tobytes():
            with torch.no_grad():
                copy.copy_(p)
        return copy


def _reals(array: NDArray[Any]) -> NDArray[Any]:
    return array.view(array.real.dtype) if np.iscomplexobj(array) and array.ndim else array
