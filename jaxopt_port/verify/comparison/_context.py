"""What all stages of a comparison share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ...trees import listed
from ..report import Cause, Curves
from ._distances import FLOAT64, UNITS, Judgement, Measured, Values, distance_of, furthest
from ._evidence import Evidence
from ._history import History
from ._jax_run import Evaluated, Model, cast, forget_programs
from ._jax_side import JaxSide
from ._names import Array, Names
from ._results import Diagnosis, Place, Results, explained, owner
from ._ties import Tie, finding
from ._watched import Step

# What a constant of the model that float32 has rounded may do.
_ROUNDED = 1e-6


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
        has_wide: whether your forward pass is to be had in float64.
        finite: whether all that both sides have so far is.
        floor: what its float64 results may differ by, of their largest magnitude.
        reasons: why a stage is not compared, by stage.
        zero: leaves whose gradient is zero but for rounding; an optimizer may make any step of it.
        apart: leaves that are one tensor in torch, whose gradient is the sum of theirs.
        second: those of them but the first, which are given no gradient: a norm of all has it once.
        at_rest: leaves that torch gives a rate of 0, and your side, at the last check, no gradient.
        lacking: whether torch has tensors that have no leaf.
        told: what differed in the steps before, as stages and leaves.
        notes: what a reader of the report should know.
        watch: is told of each step, or None.
    """

    def __init__(self, reference: Any, side: JaxSide, names: Names, evidence: Evidence) -> None:
        forget_programs()
        self.reference, self.side, self.names, self.evidence = reference, side, names, evidence
        self.dtype: str = reference.dtype
        self.narrow = self.dtype != "float64"
        self.x64 = not self.narrow or bool(jax.enable_x64.value)
        self.model = Model(side, wide=not self.narrow, x64=self.x64)
        self.exact = Model(side, wide=True, x64=True, own=self.dtype)
        self._single: Model | None = None if self.narrow else Model(side, wide=False, x64=True)
        self.results, self.curves = Results(), Curves()
        self.history = History(reference.accumulation_steps, hooked=reference.steps_hooked)
        evidence.every = reference.accumulation_steps
        self.has_wide = True
        self.floor, self._said, self.finite = FLOAT64, False, True
        self._habits: set[str] = set()
        self.notes: list[str] = []
        self.zero: set[str] = set()
        self.apart: set[str] = set()
        self.second: set[str] = set()
        self.at_rest: set[str] = set()
        self.lacking = False
        self.told: frozenset[tuple[str, str]] = frozenset()
        self.reasons: dict[str, str] = {}
        self.watch: Callable[[Step], None] | None = None

    def in_float64(self, given: tuple[Any, Any], batch: Any, narrow: Evaluated) -> Evaluated:
        """Evaluate your side in float64; ``narrow``, with a note, where it cannot be."""
        if self.has_wide:
            try:
                wide = self.exact.evaluate(*given, batch)
            except (TypeError, ValueError, NotImplementedError) as error:
                self.has_wide = False
                self.notes.append(
                    "your forward pass cannot be had in float64 "
                    f"({type(error).__name__}: {str(error).splitlines()[0]}): forward, loss and "
                    "gradients are judged in the run's dtype only, beside torch's float64"
                )
            else:
                self._say_lifted()
                return wide
        return narrow

    def in_float32(self, given: tuple[Any, Any], batch: Any) -> Evaluated | None:
        """Evaluate your side in float32, in a run in float64; else None.

        How far that is from float64 tells what rounding does, as torch's own rounding does in other
        runs. None also where it cannot be had, with a note.
        """
        if self._single is None:
            return None
        try:
            return self._single.evaluate(*cast((*given, batch), "float32"))
        except (TypeError, ValueError, NotImplementedError) as error:
            self._single = None
            self.notes.append(
                f"your forward pass cannot be had in float32 ({type(error).__name__}: "
                f"{str(error).splitlines()[0]}): how large rounding is was not measured"
            )
            return None

    def _say_lifted(self) -> None:
        seen = self.exact.seen
        if (seen.narrow or seen.fixed) and not self._said:
            self._said = True
            kinds = ", ".join(sorted(seen.narrow)) or self.dtype
            self.notes.append(
                f"your forward pass calculates partly in {kinds} though it is given float64 (a "
                "layer with a fixed dtype, a carry, a constant): for the float64 check it was "
                "lifted"
            )
        if self.floor == _ROUNDED:
            return
        mapped = {entry.torch_name for entry in self.names.state.values()}
        theirs = sorted(self.reference.rounded - mapped)
        if theirs or seen.tables or seen.inexact:
            self.floor = _ROUNDED
            whose = f"torch's side ({listed(theirs)})" if theirs else "your side"
            self.notes.append(
                f"{whose} holds numbers that float32 has rounded (a table, a constant), and what "
                f"was meant is not known: forward, loss and gradients may differ by {_ROUNDED:g} "
                "of their largest"
            )

    def see_ties(self, ties: Sequence[Tie]) -> None:
        """Take in what only one side ties."""
        for tie in ties:
            self.results.add(*finding(tie))
            if tie.by_torch:
                self.apart.update(tie.paths)
                self.second.update(tie.paths[1:])
            self.lacking |= not tie.by_torch

    def cast(self, batch: Any) -> Any:
        """Return a batch with its floating numbers in the run's dtype."""
        return cast(batch, self.dtype)

    def explained(self, stage: str, leaf: str = "") -> bool:
        """Whether what differed in a step before explains all that may differ here."""
        return owner(leaf) in self.second or explained(stage, leaf, self.told)

    def see(
        self,
        place: Place,
        values: Values,
        diagnosis: Diagnosis | None,
        *,
        in_float64: bool = True,
        in_own_dtype: bool = True,
        start: Array | None = None,
        floor: float = FLOAT64,
        extra: float = 0.0,
        zero: bool = False,
        made_of: float = 0.0,
    ) -> None:
        """Judge a leaf at a stage, and take it in.

        Args:
            place: of it.
            values: on both sides.
            diagnosis: what may find the cause.
            in_float64: whether the float64 results are what they seem.
            in_own_dtype: whether your rounding is held against torch's.
            start: where a parameter began.
            floor: what float64 results may differ by, of their largest magnitude.
            extra: likewise, absolute.
            zero: whether it is zero but for rounding.
            made_of: the magnitude of what it is the difference of.
        """
        if self.explained(place.stage, place.leaf):
            return
        measured = Measured(values, start if self.narrow and in_own_dtype else None)
        extra += UNITS * float(np.finfo(np.float64).eps) * made_of
        surely = measured.in_float64(self.dtype, floor, extra) if in_float64 else None
        rounds = self.narrow and in_own_dtype and values.torchs.dtype.kind not in "biu"
        likely = measured.in_own_dtype(zero, made_of) if rounds else None
        if place.stage == "state" and measured.by_habit:
            self._say_habit(place.leaf, measured.distance.relative)
        shown = values[2:] if in_float64 else values[:2]
        infinite = measured.both_infinite if place.stage != "forward" else 0  # logits may be masked
        if measured.both_nan or infinite:
            self._not_finite(place, measured, values.torchs)
        self.results.see(
            place, measured.distance, lambda: furthest(*shown),
            surely=surely, likely=likely, diagnosis=diagnosis,
        )  # fmt: skip

    def _say_habit(self, leaf: str, relative: float) -> None:
        name = leaf.rpartition(" · ")[2]
        if name not in self._habits:
            self._habits.add(name)
            self.notes.append(
                f"your {name} is calculated less exactly than torch's, by up to {relative:.2g} of "
                "its largest: numbers that Optax keeps in float32 (injected betas). In "
                "float64 both are the same: no fault of the port"
            )

    def not_finite_loss(self, step: int, loss: float) -> None:
        """Take in a loss of torch's that is NaN or infinite, whatever yours is at this step."""
        if not np.isfinite(loss):
            values = Values(*[np.asarray(loss)] * 4)
            place = Place(step, "loss", "loss")
            self._not_finite(place, Measured(values, exact=False), values.torchs)

    def _not_finite(self, place: Place, measured: Measured, torchs: Array) -> None:
        """Take in what is NaN or infinite on both sides: nothing can be compared there."""
        self.finite = False
        odd = measured.both_nan + measured.both_infinite
        words = f"{odd} of {np.size(torchs)} elements are NaN or infinite on both sides"
        cause = Cause(
            "not-finite",
            f"{words}: the training itself breaks down here, and nothing after it can be compared",
            "find the operation (torch.autograd.set_detect_anomaly, jax.debug_nans): a logarithm "
            "or a root of 0, a division by 0, a row with all of it masked, a rate too large",
        )
        why = "NaN equals nothing, and a comparison of two is none."
        self.results.add(place, words, why, cause, measured.distance)

    def see_equal(self, place: Place, yours: Array, torchs: Array, diagnosis: Diagnosis) -> None:
        """Take in what must be equal in every bit."""
        same = (yours == torchs) | ((yours != yours) & (torchs != torchs))
        why = f"{int(np.sum(~same))} of {np.size(same)} elements differ; none may."
        judgement = Judgement(0.0 if np.all(same) else float("inf"), 0.0, why)
        self.results.see(
            place, distance_of(yours, torchs), lambda: furthest(yours, torchs),
            surely=judgement, diagnosis=diagnosis,
        )  # fmt: skip


def owner_of(names: Names, path: str) -> str:
    """Return torch's name of a parameter's or a running statistic's leaf."""
    states: Mapping[str, int] = {p: i for i, p in names.state_paths.items()}
    return names.state[states[path]].torch_name if path in states else names.torch_name(path)
