"""A trace in the place of torch."""

from __future__ import annotations

from typing import Any

from ..recorder import Evaluation, Update
from ._trace import Trace


class TraceReference:
    """Gives the steps of a trace one by one, as `verify.recorder.TorchRun` gives those of torch.

    Attributes:
        names: of the parameters, tied ones once.
        optimizer_name: torch's class.
        dtype: of the run.
        steps_hooked: whether hooks of a step may change parameters.
        rounded: what else torch's side holds that float32 has rounded: names of buffers.
        accumulation_steps: how many batches make one step of the optimizer.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace, self._step = trace, 0
        self.names = trace.names
        self.optimizer_name = trace.optimizer_name
        self.dtype = trace.dtype
        self.steps_hooked: bool = trace.facts.get("steps_hooked", False)
        self.rounded = set(trace.facts.get("rounded", ()))
        self.accumulation_steps: int = trace.facts.get("accumulation_steps", 1)

    def evaluate(self, batch: Any = None) -> Evaluation:
        """Return the next step before the optimizer made it.

        Args:
            batch: where the trace holds hashes only, the batch; else it is passed over.

        Raises:
            IndexError: the trace ends before this step.
            ValueError: the batch is another one, or the step's file is damaged.
        """
        return self._trace.evaluation(self._step, batch)

    def update(self) -> Update:
        """Return what the optimizer's step left, and go on to the next step."""
        update = self._trace.update(self._step)
        self._step += 1
        return update

    def snapshot(self) -> int:
        """Return where in the trace this is."""
        return self._step

    def restore(self, snapshot: int) -> None:
        """Go back to where `snapshot` was called."""
        self._step = snapshot
