"""The optimizer of a JAX side, which is fed with gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ...accumulation import AccumulationState
from ...engine import grouped_states
from ._held import Held
from ._jax_run import compiled, compiled_lifted, float64, in_float64
from ._jax_side import JaxSide
from ._meant import OPTIMIZER, Seen, widened


def _updater(
    tx: Any, step: Any, clip: Any, scaler: Any, accumulation_steps: int
) -> Callable[..., Any]:
    def update(grads: Any, state: Any, params: Any) -> Any:
        # A loss, that is; gradients may be callable themselves, a module's.
        if isinstance(grads, jax.tree_util.Partial):
            return *step(tx, grads, state, params), None
        # torch's gradients come in the run's dtype; the float64 optimizer has them in float64.
        grads = jax.tree.map(
            lambda g, p: jnp.asarray(g).astype(p.dtype) / accumulation_steps, grads, params
        )
        clipped = grads if clip is None else clip(grads)
        structures: list[Any] = [jax.tree.structure(tree) for tree in (clipped, grads)]
        if structures[0] != structures[1]:
            raise TypeError(
                "clip must return the gradients, clipped, in their tree; it has returned "
                f"{type(clipped).__name__}"
            )
        if scaler is None:
            params, state = step(tx, clipped, state, params)
        else:
            found_inf = ~jnp.all(jnp.stack([jnp.isfinite(g).all() for g in jax.tree.leaves(grads)]))
            params, state = scaler.step(tx, clipped, state, params, found_inf)
        return params, state, clipped

    return update


class Stepper(Held):
    """An optimizer of a JAX side and the parameters that it moves.

    Args:
        side: the JAX side.
        params: where they start, in the run's dtype.
        wide: in float64, whatever that dtype is, and numbers that the optimizer has in float32 too.
        x64: whether JAX has float64 at all in this program.
        donates: whether a step may overwrite what it began with: there is no going back then.

    Attributes:
        seen: what its trace has shown, where it is lifted.
        rounded: whether there is something that is not lifted, and may be in float32: a wrapper
            around one of this library's optimizers (`optax.MultiSteps`), a schedule beside it.
        unread: whether a schedule sets a rate that the state does not hold, of a lower-case one.
    """

    held = ("params", "state", "_schedule_state", "averages", "_begun", "_steps")

    def __init__(
        self, side: JaxSide, params: Any, *, wide: bool, x64: bool, donates: bool = False
    ) -> None:
        self._side, self._wide, self._x64 = side, wide, x64 or wide
        given = (1, 2) if donates else ()
        objects = (side.tx, side.step, side.clip, side.scaler, side.accumulation_steps)
        self.seen = Seen()
        with float64(self._x64):
            self.params = jax.tree.map(jnp.array, in_float64(params) if wide else params)
            self.state = side.state
            if self.state is None:
                self.state = side.tx.init(self.params)
            # This library's optimizers have float64 numbers already, in parts of float32.
            self._lifts = lifts = wide and not _has_own_state(self.state)
            if lifts:
                # Its state has the dtypes that its code goes by, though the values are float64.
                like = (self.params, self.state, self.params)
                leaves = [] if side.closure else jax.tree.leaves(like)
                self._update, self.seen = compiled_lifted(
                    "update", _updater, OPTIMIZER, "", *objects,
                    traced=tuple(str(jnp.result_type(x)) for x in leaves), donates=given,
                )  # fmt: skip
                self.state = self._widened(self.state)
            else:
                self._update = compiled("update", _updater, *objects, donates=given)
            self.rounded = wide and not lifts and bool(_foreign(self.state))
            groups = [g for own in grouped_states(self.state) for g in own.table.groups]
            self.unread = any(group.bare and group.scheduled for group in groups)
            if wide and side.state is not None:
                self.state = in_float64(self.state)
            self._schedule_state: Any = None
            if side.scheduler is not None:
                self.state, self._schedule_state = side.scheduler.init(self.state)
            self.averages = None if side.averaged is None else side.averaged.init(self.params)
        self.clipped: Any = None
        self.updated: Any = self.state  # as the last update left it, before the scheduler
        self._begun = self._steps = 0

    def step(self, grads: Any, loss: Any, stepped: bool = True) -> None:
        """Take a step, and the scheduler's and the average's where they are due.

        Args:
            grads: of the parameters; or the loss as a function of them.
            loss: of the batch.
            stepped: whether torch's optimizer has, or has added gradients up.
        """
        with float64(self._x64):
            change = self._side.changes.get(self._begun)
            if change is not None:
                self.state = self._taken(change(self.state, self.params))
            self._begun += 1
            # One program, whichever gradients it is given.
            grads = in_float64(grads) if self._wide else grads
            self.params, self.state, self.clipped = self._update(grads, self.state, self.params)
            self.updated = self.state
            if not stepped:
                return
            self._steps += 1
            if self.averages is not None:
                update = self._side.averaged.update_parameters
                self.averages = update(self.averages, self.params)
            side = self._side
            if side.scheduler is not None and self._steps % side.scheduler_every == 0:
                told = [float(loss)] if side.metric else []
                self.state, self._schedule_state = side.scheduler.step(
                    self.state, self._schedule_state, *told
                )

    def _taken(self, changed: Any) -> Any:
        """Return the state that a change has made."""
        if type(changed) is not type(self.state):
            raise TypeError(
                f"changes[{self._begun}] of your side returned {type(changed).__name__}, not the "
                f"state of its optimizer, {type(self.state).__name__}"
            )
        return self._widened(changed) if self._lifts else changed

    def _widened(self, state: Any) -> Any:
        return jax.tree.map(lambda x: widened(x, seen=self.seen), state)


def _is_own(node: Any) -> bool:
    """Whether it is the state of an optimizer of this library; a window is the wrapped one's."""
    own = type(node).__module__.startswith("jaxopt_port.")
    return own and not _is_window(node)


def adds_up(state: Any) -> bool:
    """Whether gradients of several batches are added up before a step, by `jp.accumulate_grads`."""
    return any(map(_is_window, jax.tree.leaves(state, is_leaf=_is_window)))


def _is_window(node: Any) -> bool:
    return isinstance(node, AccumulationState)


def _has_own_state(state: Any) -> bool:
    return any(map(_is_own, jax.tree.leaves(state, is_leaf=_is_own)))


def _foreign(state: Any) -> list[Any]:
    return [x for x in jax.tree.leaves(state, is_leaf=_is_own) if not _is_own(x)]
