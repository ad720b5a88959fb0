"""Both sides on their own: no value of the other side's goes in after the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._jax_run import Model, Stepper, in_float64
from ._jax_side import JaxSide


class FreeRun:
    """The JAX side on its own.

    Args:
        side: the JAX side.
        model: its model, of the precision of the run.
        start: parameters, and the model's state.
        wide: in float64, whatever the run's dtype.
        x64: whether JAX has float64 at all in this program.
        donates: whether there is no going back.
    """

    def __init__(
        self, side: JaxSide, model: Model, start: tuple[Any, Any], *, wide: bool, x64: bool,
        donates: bool,
    ) -> None:  # fmt: skip
        self._model, (params, model_state) = model, start
        self.stepper = Stepper(side, params, wide=wide, x64=x64, donates=donates)
        self._model_state = in_float64(model_state) if wide else model_state

    def step(self, batch: Any, stepped: bool) -> Any:
        """Take a step and return the loss before it, which may not have been calculated yet."""
        done = self._model.evaluate(self.stepper.params, self._model_state, batch)
        self._model_state = done.model_state
        self.stepper.step(done.grads, done.loss, stepped)
        return done.loss

    def snapshot(self) -> Any:
        """Return all that a step changes."""
        return self.stepper.snapshot(), self._model_state

    def restore(self, snapshot: Any) -> None:
        """Go back to a snapshot."""
        stepper, self._model_state = snapshot
        self.stepper.restore(stepper)


class FreeInFloat64:
    """torch's side on its own in float64, its learning rates those of the run.

    Args:
        side: torch's side, before its first step.
    """

    def __init__(self, side: Any) -> None:
        from ..recorder import TorchRun, TorchSide, all_float64, in_float64

        module, optimizer, _ = in_float64(side.module, side.optimizer)
        self._optimizer = optimizer
        own = TorchSide(
            module=module, optimizer=optimizer, loss=side.loss, forward=side.forward,
            clip=side.clip, accumulation_steps=side.accumulation_steps, changes=side.changes,
        )  # fmt: skip
        self._run = TorchRun(own, lambda step: False)
        self._all_float64 = all_float64

    def step(self, batch: Any, groups: list[Mapping[str, Any]]) -> dict[str, Any]:
        """Take a step with these options of each group; return the parameters after it."""
        with self._all_float64():
            self._run.evaluate(batch)
        for group, options in zip(self._optimizer.param_groups, groups, strict=True):
            group.update({name: value for name, value in options.items() if name != "params"})
        params: dict[str, Any] = self._run.update().params
        return params

    def snapshot(self) -> Any:
        """Return all that a step changes."""
        return self._run.snapshot()

    def restore(self, snapshot: Any) -> None:
        """Go back to a snapshot."""
        self._run.restore(snapshot)
