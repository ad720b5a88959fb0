"""What `compare` tells of each step to a function that watches it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ._names import Array, Names, numpy_of

Arrays = Mapping[str, Array]


class Step(NamedTuple):
    """A step of both sides, for ``compare(…, watch=…)``. Arrays hold until the next step.

    Attributes:
        step: counted from 0. A run that goes back, to look closer, tells of steps once more.
        loss: torch's.
        grads: torch's, before clipping, which both optimizers are fed with: a tree like
            `JaxSide.params`.
        clipped: the same after torch's clipping.
        torch: torch's parameters after it, by path.
        torch_state: what torch's optimizer holds of each, by path and name, in your layout.
        torch_averages: torch's running averages, by path; empty where there are none.
        yours: the parameters that your optimizer makes of the same gradients.
        state: its state, as that step left it.
        alone: your parameters, trained on gradients of their own; empty where they are not.
        alone64: yours and torch's, each on its own in float64; empty beyond ``free_steps``.
    """

    step: int
    loss: float
    grads: Any
    clipped: Any
    torch: Arrays
    torch_state: Mapping[str, Arrays]
    torch_averages: Arrays
    yours: Arrays
    state: Any
    alone: Arrays
    alone64: tuple[Arrays, Arrays] | tuple[()]


def torch_state(names: Names, state: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what torch holds in the shape of each parameter, by path and name."""
    return {
        path: {
            name: entry.to_jax(numpy_of(value))
            for name, value in state.get(entry.torch_name, {}).items()
            if value is not None and np.shape(value) == entry.torch_shape
        }
        for path, entry in zip(names.paths, names.params, strict=True)
    }
