"""Parameters and gradients, the same on both sides and on every machine."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

# A leaf smaller than a warp, one with rows, one longer than a block.
SHAPES = {"odd": (5, 7), "wide": (64, 257), "long": (20_001,)}
MATRICES = {"odd": (5, 7), "wide": (64, 257), "tall": (96, 40)}
TABLES = {"table": (50, 8), "wide": (64, 257)}
POINTS = {"rosenbrock": (2,), "quadratic": (10,)}
POOL = 8  # sets of gradients, taken in turn

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


class Item(NamedTuple):
    """An optimizer with options.

    Attributes:
        optimizer: torch's name.
        options: this library's keyword arguments, Python numbers.
        torchs: what torch is given beside them (``capturable``).
    """

    optimizer: str
    options: dict[str, Any]
    torchs: dict[str, Any]

    def __str__(self) -> str:
        text = ", ".join(f"{k}={v!r}" for k, v in {**self.options, **self.torchs}.items())
        return f"{self.optimizer}({text})"


class Batch(NamedTuple):
    """Items whose steps are one program, and the type of their parameters."""

    items: tuple[Item, ...]
    dtype: str


def shapes_for(optimizer: str) -> Mapping[str, tuple[int, ...]]:
    return {"Muon": MATRICES, "SparseAdam": TABLES, "LBFGS": POINTS}.get(optimizer, SHAPES)


def _drawn(optimizer: str, name: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(f"{optimizer} {name}".encode()), seed])


def start(optimizer: str, dtype: str) -> dict[str, Any]:
    """Return the parameters to start from."""
    return {
        name: np.asarray(_drawn(optimizer, name, 0).standard_normal(shape), DTYPES[dtype])
        for name, shape in shapes_for(optimizer).items()
    }


def gradients(optimizer: str, step: int, dtype: str) -> dict[str, Any]:
    """Return the gradients of a step; pairs of indices and values for SparseAdam."""
    made: dict[str, Any] = {}
    for name, shape in shapes_for(optimizer).items():
        rng = _drawn(optimizer, name, 1 + step % POOL)
        if optimizer == "SparseAdam":
            indices = rng.integers(shape[0], size=shape[0] // 3)
            values = rng.standard_normal((indices.size, *shape[1:]))
            made[name] = (indices, np.asarray(values, DTYPES[dtype]))
        else:
            made[name] = np.asarray(rng.standard_normal(shape), DTYPES[dtype])
    return made


def objective(params: Mapping[str, Any]) -> Any:
    """Return Rosenbrock's function and a quadratic one, for L-BFGS; in torch or in JAX."""
    x, y = params["rosenbrock"][:-1], params["rosenbrock"][1:]
    q = params["quadratic"]
    return (100 * (y - x**2) ** 2 + (1 - x) ** 2).sum() + ((q - 0.5) ** 2 * 3).sum()


# Large arrays are made where they are needed: a number is (h + 1/2 - 2**22) * SCALE, where h is the
# upper 23 bits of (index + seed) * FACTOR in 32 bits. Only the last product is rounded.
FACTOR, SHIFT, MIDDLE = 2654435761, 9, 2.0**22 - 0.5
SCALE = float(np.float32(0.04 / 2**23))

_MOST_CHECKED = 200_000_000


def checked(elements: int) -> bool:
    """Whether the results of so many elements are compared: more take long to be fetched."""
    return elements <= _MOST_CHECKED
