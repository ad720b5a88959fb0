"""Keeps the batches around a step, to be found again where they should not be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ._names import Array

_MOST = 256
_MOST_BYTES = 128 * 2**20


class Batches:
    """The last batches of one side, by step; as many as fit."""

    def __init__(self) -> None:
        self.kept: dict[int, list[Array]] = {}
        self._bytes = 0

    def add(self, step: int, arrays: Sequence[Array]) -> None:
        """Keep a copy of a batch, and forget the oldest where there is no room."""
        self.kept[step] = [np.array(x) for x in arrays]
        self._bytes += _bytes(self.kept[step])
        while len(self.kept) > 1 and (len(self.kept) > _MOST or self._bytes > _MOST_BYTES):
            self._bytes -= _bytes(self.kept.pop(min(self.kept)))

    def truncate(self, steps: int) -> None:
        """Forget what came after a step, which will be run again."""
        for step in [step for step in self.kept if step >= steps]:
            self._bytes -= _bytes(self.kept.pop(step))

    def after(self, step: int) -> list[list[Array]]:
        """Return the batches of the steps after one, in order, up to the first that is not kept."""
        found = []
        while (step := step + 1) in self.kept:
            found.append(self.kept[step])
        return found


def _bytes(arrays: Sequence[Array]) -> int:
    return sum(x.nbytes for x in arrays)
