"""Keeps a few elements of each leaf over the run, for the diagnosis of an optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..diagnosis import Steps, UpdateHistory
from ._distances import blocks, near, sum_of_squares
from ._names import Array

_ELEMENTS = 32  # of a leaf; rules are elementwise, so a few tell
_POOL = 4096  # of a large leaf, from which they are taken
_MOST_LEAVES = 256
_MOST_STEPS = 5000
# Matrices that are held as a whole, for rules that go by their norms, rows or singular values.
_MATRICES, _MATRIX, _WHOLE_STEPS = 4, 2**16, 4
_COPIED, _MOVED = 10**7, 2  # elements, and steps whose norm is held
_NO_NORMS = {"factor": 0.0, "limit": math.inf, "total": 0.0, "group": 0.0, "leaf": 0.0, "kind": 0.0}


class History:
    """Elements of gradients and of both sides' parameters, by step.

    Args:
        every: how many batches make one step of the optimizer.
        seed: which elements.
        hooked: whether hooks come after torch's step.
    """

    def __init__(self, every: int = 1, seed: int = 0, hooked: bool = False) -> None:
        self.every, self.hooked = every, hooked
        self._rng = np.random.default_rng(seed)
        self._chosen: dict[str, NDArray[np.intp]] = {}
        self._start: dict[str, NDArray[np.float64]] = {}
        self._grads: dict[str, list[NDArray[np.float64]]] = {}
        self._yours: dict[str, list[NDArray[np.float64]]] = {}
        self._torchs: dict[str, list[NDArray[np.float64]]] = {}
        self._options: list[list[dict[str, Any]]] = []
        self._norms: list[dict[str, dict[str, float]]] = []
        self._group: dict[str, int] = {}
        self._whole: dict[str, Steps] = {}
        self._before: dict[str, Array] = {}  # your side's parameters, as they were last
        self._moved: list[float] = []

    def begin(self, params: Mapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Choose elements: half those of the largest gradients, half at random."""
        if sum(np.size(leaf) for leaf in params.values()) <= _COPIED:
            self._before = {path: np.array(leaf, np.float64) for path, leaf in params.items()}
        for path in list(params)[:_MOST_LEAVES]:
            param = np.asarray(params[path])
            pool = np.arange(param.size)
            if param.size > _POOL:
                pool = np.unique(self._rng.integers(param.size, size=_POOL))
            size = np.abs(_at(grads[path], pool)) if path in grads else np.zeros(len(pool))
            n = min(_ELEMENTS, param.size)
            order = np.argsort(-np.ravel(size).astype(np.float64), kind="stable")
            drawn = self._rng.choice(order[n // 2 :], n - n // 2, replace=False)
            self._chosen[path] = pool[np.concatenate([order[: n // 2], drawn])]
            self._start[path] = self._of(path, param)
        matrices = [
            p for p in self._chosen if params[p].ndim > 1 and 16 <= params[p].size <= _MATRIX
        ]
        for path in sorted(matrices, key=lambda p: params[p].size)[:_MATRICES]:
            self._whole[path] = Steps(np.array(params[path], np.float64), [], [])

    def _of(self, path: str, leaf: Array) -> NDArray[np.float64]:
        return np.asarray(_at(leaf, self._chosen[path]), np.float64)

    @property
    def steps(self) -> int:
        """How many steps are held."""
        return len(self._options)

    def add(
        self,
        grads: Mapping[str, Array],
        clipped: Mapping[str, Array],
        yours: Mapping[str, Array],
        torchs: Mapping[str, Array],
        groups: Sequence[Mapping[str, Any]],
        group: Mapping[str, int],
    ) -> None:
        """Take in a step: gradients before and after clipping, parameters after it, options."""
        if self.steps >= _MOST_STEPS:
            return
        for path in [path for path in self._chosen if path not in torchs]:
            del self._chosen[path]  # a trace may have no updates of it
        if self._before and len(self._moved) == self.steps < _MOVED:
            steps = (yours[p] - x for p, x in self._before.items() if p in yours)
            with np.errstate(all="ignore"):
                self._moved.append(math.sqrt(sum(map(sum_of_squares, steps))))
            more = self._before if len(self._moved) < _MOVED else ()
            self._before = {path: np.array(yours[path]) for path in more if path in yours}
        for path in self._chosen:
            zeros = np.zeros(len(self._chosen[path]))
            grad = self._of(path, grads[path]) if path in grads else zeros
            self._grads.setdefault(path, []).append(grad)
            self._yours.setdefault(path, []).append(self._of(path, yours[path]))
            self._torchs.setdefault(path, []).append(self._of(path, torchs[path]))
        for path, whole in self._whole.items():
            if len(whole.after) == self.steps < _WHOLE_STEPS and path in grads and path in yours:
                whole.grads.append(np.array(grads[path], np.float64))
                whole.after.append(np.array(yours[path], np.float64))
        self._options.append([dict(options) for options in groups])
        self._group = dict(group)
        self._norms.append(_norms(grads, clipped, group))

    def truncate(self, steps: int) -> None:
        """Forget what came after so many batches, which will be run again."""
        steps //= self.every
        for held in (self._grads, self._yours, self._torchs):
            for values in held.values():
                del values[steps:]
        for whole in self._whole.values():
            del whole.grads[steps:], whole.after[steps:]
        del self._options[steps:], self._norms[steps:]

    def first_difference(self, path: str) -> int | None:
        """Return the first batch after which the sides' parameters differ, if one is held."""
        pairs = zip(self._yours.get(path, []), self._torchs.get(path, []), strict=True)
        for step, (yours, torchs) in enumerate(pairs):
            if not near(yours, torchs):
                return step * self.every
        return None

    def of(
        self, path: str, optimizer: str, first: int, batch_size: int, steps_per_epoch: int
    ) -> UpdateHistory | None:
        """Return what a diagnosis needs of one leaf, or None where it is not held."""
        first //= self.every
        if path not in self._chosen or first >= self.steps:
            return None
        own = self._group.get(path)
        options = [groups[own] if own is not None else {} for groups in self._options]
        others = [g for i, g in enumerate(self._options[0]) if i != own]
        return UpdateHistory(
            optimizer=str(options[0].get("optimizer", optimizer)),
            options=options,
            other_options=others,
            grads=np.array(self._grads[path]),
            start=self._start[path],
            yours=np.array(self._yours[path]),
            torchs=np.array(self._torchs[path]),
            first=first,
            clip=[norms.get(path, _NO_NORMS) for norms in self._norms],
            batch_size=batch_size,
            steps_per_epoch=steps_per_epoch,
            whole=next((w for p, w in self._whole.items() if self._group.get(p) == own), None),
            hooked=self.hooked,
            moved=self._moved,
        )


def _at(leaf: Array, places: NDArray[np.intp]) -> Array:
    """Return the elements at these places of the flat array."""
    if not leaf.ndim:
        return np.array(leaf).reshape(1)  # no view: torch changes its numbers in place
    # take() of a transposed view copies all of it, indexing by coordinates does not.
    elements: Array = leaf[np.unravel_index(places, leaf.shape)]
    return elements


def _norms(
    grads: Mapping[str, Array], clipped: Mapping[str, Array], group: Mapping[str, int]
) -> dict[str, dict[str, float]]:
    """Return, by leaf, torch's clipping factor and the norms that a clipping may go by."""
    squares = {path: sum_of_squares(grad) for path, grad in grads.items()}
    total = float(np.sqrt(sum(squares.values())))
    limit = _limit(grads, clipped)
    of_group: dict[int | None, float] = {}
    of_kind: dict[bool, float] = {}
    for path, square in squares.items():
        kind = _is_matrix(path, grads)
        of_kind[kind] = of_kind.get(kind, 0.0) + square
        of_group[group.get(path)] = of_group.get(group.get(path), 0.0) + square
    return {
        path: {
            "factor": _factor(grads, clipped, path),
            "limit": limit,
            "total": total,
            "group": float(np.sqrt(of_group.get(group.get(path), 0.0))),
            "kind": float(np.sqrt(of_kind[_is_matrix(path, grads)])),
            "leaf": float(np.sqrt(squares.get(path, 0.0))),
        }
        for path in grads
    }


def _is_matrix(path: str, grads: Mapping[str, Array]) -> bool:
    """Whether a leaf is no vector, and no bias of attention, which has two axes in Flax."""
    return grads[path].ndim > 1 and not path.endswith("bias")


def _limit(grads: Mapping[str, Array], clipped: Mapping[str, Array]) -> float:
    """Return what torch clips each number of all gradients to, or infinity where it does not."""
    pairs = [(grads[path], clipped[path]) for path in grads.keys() & clipped.keys()]
    limit = max((float(np.max(np.abs(after), initial=0.0)) for _, after in pairs), default=0.0)
    beyond = False
    for pair in pairs:
        for a, b in blocks(*pair):
            if not np.array_equal(np.clip(a.astype(np.float64), -limit, limit), b):
                return math.inf
            beyond = beyond or bool(np.any(np.abs(a) > limit))
    return limit if beyond else math.inf


def _factor(grads: Mapping[str, Array], clipped: Mapping[str, Array], path: str) -> float:
    """Return what torch's clipping has multiplied a leaf's gradient by."""
    if path not in clipped or path not in grads:
        return 1.0
    before = after = 0.0
    for a, b in blocks(grads[path], clipped[path]):
        at = int(np.argmax(np.abs(a))) if a.size else 0
        if a.size and abs(float(a[at])) > abs(before):
            before, after = float(a[at]), float(b[at])
    return after / before if before else 1.0
