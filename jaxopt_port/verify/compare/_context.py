"""What all stages of a comparison share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._distances import FLOAT64, Judgement, Measured, Values, furthest
from ._evidence import Evidence
from ._history import History
from ._jax_run import Model
from ._jax_side import JaxSide
from ._names import Array, Names
from ._report import Curves
from ._results import Diagnosis, Results


class Context:
    """The two sides of a comparison, and what was found so far.

    Args:
        reference: torch's side: a `TorchRun` or a trace of one.
        side: the JAX side.
        names: which leaf is which tensor.
        evidence: what a diagnosis may ask for.

    Attributes:
        dtype: the run's.
        narrow: whether that is less than float64.
        x64: whether JAX has float64 at all in this program.
        has_wide: whether your forward pass calculates in float64 when it is given float64.
        reasons: why a stage is not compared, by stage.
        zero: leaves whose gradient is zero but for rounding; an optimizer may make any step of it.
        notes: what a reader of the report should know.
    """

    def __init__(self, reference: Any, side: JaxSide, names: Names, evidence: Evidence) -> None:
        self.reference, self.side, self.names, self.evidence = reference, side, names, evidence
        self.dtype: str = reference.dtype
        self.narrow = self.dtype != "float64"
        self.x64 = not self.narrow or bool(jax.enable_x64.value)
        self.model = Model(side, wide=not self.narrow, x64=self.x64)
        self.exact = Model(side, wide=True, x64=True)
        self.results, self.curves, self.history = Results(), Curves(), History()
        self.has_wide = True
        self.notes: list[str] = []
        self.zero: set[str] = set()
        self.reasons: dict[str, str] = {}

    def cast(self, batch: Any) -> Any:
        """Return a batch with its floating numbers in the run's dtype."""

        def cast(x: Array) -> Array:
            return x.astype(self.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

        return jax.tree.map(cast, batch)

    def see(
        self,
        stage: str,
        step: int,
        leaf: str,
        torch_name: str,
        values: Values,
        diagnosis: Diagnosis | None,
        *,
        in_float64: bool = True,
        in_own_dtype: bool = True,
        start: Array | None = None,
        floor: float = FLOAT64,
        zero: bool = False,
    ) -> None:
        """Judge a leaf at a stage, and take it in.

        Args:
            stage: one of `STAGES`.
            step: counted from 0.
            leaf: its path.
            torch_name: torch's name of it.
            values: on both sides.
            diagnosis: what may find the cause.
            in_float64: whether the float64 results are what they seem.
            in_own_dtype: whether your rounding is held against torch's.
            start: where a parameter began.
            floor: what float64 results may differ by, of their largest magnitude.
            zero: whether it is zero but for rounding.
        """
        measured = Measured(values, start if self.narrow and in_own_dtype else None)
        surely = measured.in_float64(self.dtype, floor) if in_float64 else None
        likely = measured.in_own_dtype(zero) if self.narrow and in_own_dtype else None
        shown = values[2:] if in_float64 else values[:2]
        self.results.see(
            stage,
            step,
            leaf,
            torch_name,
            measured.distance,
            lambda: furthest(*shown),
            surely=surely,
            likely=likely,
            diagnosis=diagnosis,
        )

    def see_equal(
        self,
        stage: str,
        step: int,
        leaf: str,
        torch_name: str,
        yours: Array,
        torchs: Array,
        diagnosis: Diagnosis,
    ) -> None:
        """Take in what must be equal in every bit."""
        measured = Measured(Values(yours, torchs, yours, torchs), exact=False)
        same = (yours == torchs) | ((yours != yours) & (torchs != torchs))
        why = f"{int(np.sum(~same))} of {np.size(same)} elements differ; none may."
        judgement = Judgement(0.0 if np.all(same) else float("inf"), 0.0, why)
        self.results.see(
            stage,
            step,
            leaf,
            torch_name,
            measured.distance,
            lambda: furthest(yours, torchs),
            surely=judgement,
            diagnosis=diagnosis,
        )


def owner_of(names: Names, path: str) -> str:
    """Return torch's name of a parameter's or a running statistic's leaf."""
    states: Mapping[str, int] = {p: i for i, p in names.state_paths.items()}
    return names.state[states[path]].torch_name if path in states else names.torch_name(path)
