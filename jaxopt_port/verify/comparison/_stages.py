"""Both sides at one step after another."""

from __future__ import annotations

from typing import Any

import jax

from ._after import AfterStep
from ._before import BeforeStep
from ._context import Context
from ._free_run import FreeInFloat64
from ._names import numpy_of


class Stages:
    """Compares all stages of a step.

    Args:
        context: both sides.
        free_torch: torch's side on its own in float64, or None.
        free_steps: for how many steps both are.
        large: whether memory counts more than the curves of your side on its own.
    """

    def __init__(
        self,
        context: Context,
        free_torch: FreeInFloat64 | None,
        free_steps: int,
        large: bool = False,
    ) -> None:
        self.context = context
        self._free = (free_torch, free_steps, large)
        self._before = BeforeStep(context)
        self._after: AfterStep | None = None

    def step(self, step: int, given: Any, own: Any, checks: bool) -> None:
        """Take a step on both sides, and compare.

        Args:
            step: counted from 0.
            given: the batch, or None where a trace holds it.
            own: this side's own batch, or None.
            checks: whether everything is compared.
        """
        context = self.context
        context.told = context.results.told()
        context.reference.has_gradients64 = not context.explained("gradient")
        evaluation = context.reference.evaluate(given)
        context.curves.loss_torch.append(float(evaluation.loss))
        context.not_finite_loss(step, float(evaluation.loss))
        data = jax.tree.map(numpy_of, evaluation.batch)
        batch = data if context.side.batch is None else context.side.batch(data)
        context.evidence.note_batch(step, batch)
        if own is not None:
            own = jax.tree.map(numpy_of, own)
            self._before.data(step, own, batch)
            own = jax.tree.map(lambda x, like: x.astype(like.dtype), own, batch)
        begins = self._after is None
        if begins and evaluation.checked is None:
            raise ValueError("step 0 must be checked: it has the initial parameters")
        if begins:
            self._before.dtypes(evaluation.checked)
            if not context.side.imports:
                self._before.parameters(evaluation.checked)
        grads = None
        if evaluation.checked is not None:
            grads = self._before.check(step, evaluation, batch)
        if self._after is None:
            free_torch, free_steps, large = self._free
            if large and context.results.found:  # which explains where training leads
                free_torch = None
            self._after = AfterStep(context, evaluation, free_torch, free_steps, large)
        batches = batch, batch if own is None else own
        self._after.step(step, evaluation, batches, checks, grads)

    def end(self) -> None:
        """Judge what takes the whole run."""
        self.context.results.end()
        if self._after is not None:
            self._after.end()

    def snapshot(self) -> Any:
        """Return all that a step changes."""
        assert self._after is not None
        steps = len(self.context.curves.loss_torch)
        return self.context.reference.snapshot(), self._after.snapshot(), steps

    def restore(self, snapshot: Any) -> None:
        """Go back to a snapshot, and forget what was found since."""
        assert self._after is not None
        context = self.context
        reference, after, steps = snapshot
        context.reference.restore(reference)
        self._after.restore(after)
        context.history.truncate(steps)
        context.evidence.truncate(steps)
        curves = context.curves
        for values in (
            curves.loss_torch, curves.loss_yours, *curves.lr_torch, *curves.lr_yours
        ):  # fmt: skip
            del values[steps:]
        context.results.forget(steps)
