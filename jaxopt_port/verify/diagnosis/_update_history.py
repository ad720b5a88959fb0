"""What is known of one leaf under both optimizers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Wide = NDArray[np.float64]


@dataclass
class Steps:
    """A leaf as a whole, in the first steps.

    Attributes:
        start: before step 0.
        grads: of each step, before clipping.
        after: your side's parameters after each.
    """

    start: Wide
    grads: list[Wide]
    after: list[Wide]


@dataclass
class UpdateHistory:
    """Elements of one leaf, by step; both optimizers in float64, fed with the same gradients.

    Attributes:
        optimizer: torch's class.
        options: torch's, of the leaf's group, in force at each step.
        other_options: the other groups' at step 0.
        grads: (steps, n), before clipping.
        start: (n,), before step 0.
        yours: (steps, n), after each step.
        torchs: (steps, n), after each step.
        first: the first step at which they differ.
        clip: by step, torch's factor on this leaf and the 2-norms of all gradients, the group's
            and the leaf's: ``factor``, ``total``, ``group``, ``leaf``; and what torch clips each
            number to, ``limit``, infinite where it does not.
        batch_size: examples in a batch.
        steps_per_epoch: 1 where that is not known.
        whole: a matrix of the same group, for rules that do not go element by element.
        hooked: whether hooks come after torch's step, so that it is not its optimizer's alone.
        moved: the 2-norms of your side's first steps, over all leaves, as far as they are known.
    """

    optimizer: str
    options: list[dict[str, Any]]
    other_options: list[dict[str, Any]]
    grads: Wide
    start: Wide
    yours: Wide
    torchs: Wide
    first: int
    clip: list[dict[str, float]] | None
    batch_size: int
    steps_per_epoch: int
    whole: Steps | None = None
    hooked: bool = False
    moved: Sequence[float] = ()

    def __post_init__(self) -> None:
        # None is no number: an optimizer without a rate (Adafactor) has none to be compared.
        self.options = [{k: v for k, v in o.items() if v is not None} for o in self.options]

    def moves(self, after: Wide) -> Wide:
        """Return the steps that lead to the parameters after each."""
        return np.diff(np.concatenate([self.start[None], after]), axis=0)

    def until(self, end: int) -> UpdateHistory:
        """Return the same without the steps from ``end`` on."""
        cut = {name: getattr(self, name)[:end] for name in ("options", "grads", "yours", "torchs")}
        return replace(self, **cut, clip=None if self.clip is None else self.clip[:end])
