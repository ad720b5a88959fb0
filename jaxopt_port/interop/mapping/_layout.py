from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """How a leaf is laid out, against torch's tensor: rows, then a view, a transposition, flips.

    Args:
        axes: how the rows, or their view, are transposed; None leaves them.
        rows: the part ``(start, stop)`` of torch's first axis; None for all.
        view: the shape into which the rows are reshaped first; None leaves it.
        flip: the axes of the leaf along which it is reversed.

    Example:
        >>> Layout(axes=(1, 0)).shape_of((2, 3))
        (3, 2)
    """

    axes: tuple[int, ...] | None = None
    rows: tuple[int, int] | None = None
    view: tuple[int, ...] | None = None
    flip: tuple[int, ...] = ()

    def shape_of(self, torch_shape: Sequence[int]) -> tuple[int, ...]:
        """Return the leaf's shape for a torch tensor's.

        Raises:
            ValueError: the layout does not fit the shape.
        """
        shape = self._rows_of(tuple(torch_shape))
        if self.view is not None:
            if math.prod(self.view) != math.prod(shape):
                raise ValueError(f"{shape} cannot be viewed as {self.view}")
            shape = self.view
        if self.axes is not None:
            if sorted(self.axes) != list(range(len(shape))):
                raise ValueError(f"axes {self.axes} do not transpose {shape}")
            shape = tuple(shape[axis] for axis in self.axes)
        if any(not 0 <= axis < len(shape) for axis in self.flip):
            raise ValueError(f"flip {self.flip} is not of {len(shape)} axes")
        return shape

    def fits(self, torch_shape: Sequence[int], shape: Sequence[int]) -> bool:
        """Return whether a torch tensor's shape becomes the leaf's."""
        try:
            return self.shape_of(torch_shape) == tuple(shape)
        except ValueError:
            return False

    def to_jax(self, tensor: Array) -> Array:
        """Return a whole torch tensor's values in the leaf's layout."""
        self.shape_of(np.shape(tensor))
        part = tensor if self.rows is None else tensor[slice(*self.rows)]
        part = part if self.view is None else part.reshape(self.view)
        part = part if self.axes is None else part.transpose(self.axes)
        return np.flip(part, self.flip) if self.flip else part

    def to_torch(self, leaf: Array, torch_shape: Sequence[int]) -> Array:
        """Return a leaf's values as its rows of the torch tensor.

        Raises:
            ValueError: the leaf has another shape.
        """
        if np.shape(leaf) != self.shape_of(torch_shape):
            raise ValueError(f"shape {np.shape(leaf)}, not {self.shape_of(torch_shape)}")
        part = np.flip(leaf, self.flip) if self.flip else leaf
        part = part if self.axes is None else part.transpose(np.argsort(self.axes))
        return part if self.view is None else part.reshape(self._rows_of(tuple(torch_shape)))

    def same_effect(self, other: Layout, torch_shape: Sequence[int]) -> bool:
        """Return whether two layouts give the same leaf, as where the axes that move have size 1.

        Only of layouts without rows and view.
        """
        return self._moves(torch_shape) == other._moves(torch_shape)

    def _moves(self, torch_shape: Sequence[int]) -> list[tuple[int, bool]]:
        axes = self.axes or tuple(range(len(torch_shape)))
        return [(a, i in self.flip) for i, a in enumerate(axes) if torch_shape[a] != 1]

    def _rows_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.rows is None:
            return shape
        start, stop = self.rows
        if not shape or not 0 <= start <= stop <= shape[0]:
            raise ValueError(f"rows {start} to {stop} are not within {shape}")
        return (stop - start, *shape[1:])

    def __str__(self) -> str:
        words = []
        if self.rows is not None:
            words.append(f"rows {self.rows[0]} to {self.rows[1]}")
        if self.view is not None:
            words.append(f"viewed as {self.view}")
        if self.axes is not None and self.axes != tuple(range(len(self.axes))):
            words.append(f"transposed {self.axes}")
        if self.flip:
            words.append(f"reversed along {self.flip}")
        return ", ".join(words) or "as is"
