"""Both sides on their own: no value of the other side's goes in after the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._context import Context
from ._distances import FREE, Values
from ._held import Held
from ._jax_run import Model, in_float64
from ._jax_side import JaxSide
from ._results import Place
from ._stepper import Stepper
from ._watched import Arrays


class FreeRun(Held):
    """The JAX side on its own.

    Args:
        side: the JAX side.
        model: its model, of the precision of the run.
        start: parameters, and the model's state.
        wide: in float64, whatever the run's dtype.
        x64: whether JAX has float64 at all in this program.
        donates: whether there is no going back.
    """

    held = ("stepper", "_model_state")

    def __init__(
        self, side: JaxSide, model: Model, start: tuple[Any, Any], *, wide: bool, x64: bool,
        donates: bool,
    ) -> None:  # fmt: skip
        self._side, self._model, (params, model_state) = side, model, start
        self.stepper = Stepper(side, params, wide=wide, x64=x64, donates=donates)
        self._model_state = in_float64(model_state) if wide else model_state

    def step(self, batch: Any, stepped: bool) -> Any:
        """Take a step and return the loss before it, which may not have been calculated yet."""
        done = self._model.evaluate(self.stepper.params, self._model_state, batch)
        closes = self._side.closure
        given = self._model.closure(self._model_state, batch) if closes else done.grads
        self._model_state = done.model_state
        self.stepper.step(given, done.loss, stepped)
        return done.loss


class FreeInFloat64(Held):
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
            clip=side.clip, accumulation_steps=side.accumulation_steps, closure=side.closure,
            changes=side.changes,
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


class OnTheirOwn(Held):
    """Both sides on their own, and whether they end up in one place.

    Args:
        context: both sides.
        start: this side's parameters, and its model's state.
        free_torch: torch's side on its own in float64, or None.
        free_steps: for how many steps both are.
        large: whether memory counts more than the curves of your side on its own.
    """

    held = ("_free", "_exact", "_torch")

    def __init__(
        self,
        context: Context,
        start: tuple[Any, Any],
        free_torch: FreeInFloat64 | None,
        free_steps: int,
        large: bool,
    ) -> None:
        self._context, self._steps, self._large = context, free_steps, large
        self._torch, side = free_torch, context.side
        self._free: FreeRun | None = None
        self._exact: FreeRun | None = None
        self._both64: tuple[Arrays, Arrays] | tuple[()] = ()
        if not large or free_torch is not None:
            self._free = FreeRun(
                side, context.model, start, wide=False, x64=context.x64, donates=large
            )
        if free_torch is not None:
            self._exact = FreeRun(side, context.exact, start, wide=True, x64=True, donates=large)

    def seen(self) -> tuple[Arrays, tuple[Arrays, Arrays] | tuple[()]]:
        """Return where your side is, and where both are in float64, as far as they are followed."""
        leaves_of = self._context.names.leaves_of
        return {} if self._free is None else leaves_of(self._free.stepper.params), self._both64

    def step(
        self, step: int, evaluation: Any, batch: Any, update: Any, slack: Mapping[str, float]
    ) -> None:
        """Take a step of both, and compare.

        Args:
            step: counted from 0.
            evaluation: torch's.
            batch: this side's own.
            update: torch's.
            slack: what parameters may be apart by for a rate's rounding, by path.
        """
        context, names, self._both64 = self._context, self._context.names, ()
        if self._large and (step >= self._steps or context.results.found):
            self._free = self._exact = self._torch = None
        if self._free is None:
            return
        context.curves.loss_yours.append(self._free.step(context.cast(batch), update.stepped))
        if not context.has_wide:
            context.reasons["trajectory"] = "your forward pass is not to be had in float64"
            return
        if self._exact is None or self._torch is None or step >= self._steps:
            return
        if context.results.found:  # what differs already explains where training leads
            self._steps = 0
            return
        torchs64 = names.by_path(self._torch.step(evaluation.batch, evaluation.options))
        self._exact.step(batch, update.stepped)
        yours64 = names.leaves_of(self._exact.stepper.params)
        self._both64 = yours64, torchs64
        torchs = names.by_path(update.params)
        yours = names.leaves_of(self._free.stepper.params)
        for path, exact in torchs64.items():
            if path in context.zero:
                continue
            values = Values(yours[path], torchs[path], yours64[path], exact)
            context.see(
                Place(step, "trajectory", path, names.torch_name(path)), values, None,
                in_own_dtype=False, floor=max(FREE, 1e3 * context.floor),
                extra=1e3 * slack.get(path, 0.0),
            )  # fmt: skip
