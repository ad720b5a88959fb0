"""The same parameters, gradients and samples on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ._shapes import shapes_of

# Options that both frameworks have, so that every contender does the same work.
OPTIONS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 1e-3, "momentum": 0.9},
    "Adam": {"lr": 1e-3},
    "AdamW": {"lr": 1e-3, "weight_decay": 1e-2},
    "RMSprop": {"lr": 1e-3},
    "Adagrad": {"lr": 1e-3},
    "Adafactor": {"lr": 1e-3},
    "Muon": {"lr": 1e-3},
    "Adadelta": {"lr": 1e-1},
    "Adamax": {"lr": 1e-3},
    "NAdam": {"lr": 1e-3},
    "RAdam": {"lr": 1e-3},
    "Rprop": {"lr": 1e-3},
    "ASGD": {"lr": 1e-3},
}
STEPS_BEFORE_CHECK = 3
_SAMPLES = 64  # of each leaf


def arrays(model: str, optimizer: str, seed: int) -> Iterator[np.ndarray[Any, Any]]:
    """Make random arrays of a model's shapes, none of them zero anywhere."""
    rng = np.random.default_rng(seed)
    for shape in shapes_of(model, optimizer):
        made = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        yield np.where(made == 0, np.float32(0.02), made)


def sample(leaves: Iterable[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Take some numbers of each leaf, to be compared."""
    flat = (np.asarray(leaf).reshape(-1) for leaf in leaves)
    return np.concatenate([x[:: max(1, x.size // _SAMPLES)][:_SAMPLES].copy() for x in flat])
