"""What a scheduler configuration is."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ONE = (0.1,)
THREE = (0.3, 0.05, 0.007)


@contextlib.contextmanager
def epochs_given():
    """Without torch's and our warning of what is told an epoch."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The epoch parameter")
        yield


@dataclass(frozen=True)
class Case:
    """A scheduler, the groups it is made for, and what it is told at each step.

    Attributes:
        make: the expression.
        lrs: the groups' learning rates.
        optimizer: "SGD" (momentum) or "Adam" (beta1).
        metric: of the step, for a plateau scheduler.
        epoch: of the step, where the epoch is given.
        resumed: entries of ``param_groups`` that an earlier run has left, by name.
        own_function: whether a function of the user's calculates in JAX's own arithmetic when
            traced, which XLA may round otherwise than Python does.
        since: the first torch that does it so.
    """

    make: Callable[[Any], Any]
    lrs: Sequence[float] = THREE
    optimizer: str = "SGD"
    metric: Callable[[int], float] | None = None
    epoch: Callable[[int], float] | None = None
    resumed: Mapping[str, Sequence[float]] = field(default_factory=dict)
    own_function: bool = False
    since: str = "2.11"

    def told(self, step: Any) -> list[Any]:
        """Metric and epoch."""
        return [of(step) for of in (self.metric, self.epoch) if of is not None]
