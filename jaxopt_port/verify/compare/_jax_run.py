"""The JAX side at work: evaluations of a batch, and optimizers that are fed with gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._jax_side import JaxSide


class Evaluated(NamedTuple):
    """Output, loss, gradients and the new model state of a batch."""

    output: list[Any]
    loss: Any
    grads: Any
    model_state: Any


class _ById:
    """A tuple of objects that is a key by their identity, and keeps them alive."""

    def __init__(self, *objects: Any) -> None:
        self._objects = objects

    def __hash__(self) -> int:
        return hash(tuple(map(id, self._objects)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and all(
            a is b for a, b in zip(self._objects, other._objects, strict=True)
        )


# Compiled programs outlive a comparison: a table of cases has few models and many runs.
_PROGRAMS: dict[tuple[str, _ById], Any] = {}
_MOST_PROGRAMS = 64


def _program(kind: str, make: Callable[..., Any], *objects: Any, donates: Any = ()) -> Any:
    key = (f"{kind} {donates}", _ById(*objects))
    if key not in _PROGRAMS:
        if len(_PROGRAMS) >= _MOST_PROGRAMS:
            del _PROGRAMS[next(iter(_PROGRAMS))]
        _PROGRAMS[key] = jax.jit(make(*objects), donate_argnums=donates)
    return _PROGRAMS[key]


def _evaluator(apply: Any, loss: Any, has_state: bool) -> Callable[..., Any]:
    def evaluate(params: Any, model_state: Any, batch: Any) -> Any:
        def total(params: Any) -> Any:
            if has_state:
                output, new_state = apply(params, model_state, batch)
            else:
                output, new_state = apply(params, batch), model_state
            return loss(output, batch), (output, new_state)

        (value, (output, new_state)), grads = jax.value_and_grad(total, has_aux=True)(params)
        return Evaluated(jax.tree.leaves(output), value, grads, new_state)

    return evaluate


def _updater(tx: Any, step: Any, clip: Any) -> Callable[..., Any]:
    def update(grads: Any, state: Any, params: Any) -> Any:
        # torch's gradients come in the run's dtype; the float64 optimizer has them in float64.
        grads = jax.tree.map(lambda g, p: jnp.asarray(g).astype(p.dtype), grads, params)
        clipped = grads if clip is None else clip(grads)
        params, state = step(tx, clipped, state, params)
        return params, state, clipped

    return update


def in_float64(tree: Any) -> Any:
    """Return a tree with float64 where it has floating numbers of any other precision."""

    def widened(x: Any) -> Any:
        floating = jnp.issubdtype(jnp.result_type(x), jnp.floating)
        if isinstance(x, np.ndarray):
            return x.astype(np.float64) if floating else x
        return jnp.asarray(x, jnp.float64) if floating else x

    return jax.tree.map(widened, tree)


@contextmanager
def float64(on: bool = True) -> Iterator[None]:
    """Have float64 in JAX while ``on``; otherwise the user's setting stays."""
    if on:
        with jax.enable_x64(True):
            yield
    else:
        yield


class Model:
    """The model of a JAX side, in the run's dtype or in float64.

    Args:
        side: the JAX side.
        wide: float64, whatever the run's dtype.
        x64: whether JAX has float64 at all in this program.
    """

    def __init__(self, side: JaxSide, *, wide: bool, x64: bool) -> None:
        self._side, self._wide, self._x64 = side, wide, x64 or wide
        has_state = side.model_state is not None
        self._evaluate = _program("evaluate", _evaluator, side.apply, side.loss, has_state)

    def evaluate(self, params: Any, model_state: Any, batch: Any) -> Evaluated:
        """Run forward and backward."""
        with float64(self._x64):
            arguments = (params, model_state, batch)
            done: Evaluated = self._evaluate(
                *(in_float64(a) if self._wide else a for a in arguments)
            )
            return done

    def loss_of(self, output: Any, batch: Any) -> float:
        """Return the loss of an output, a tree of arrays."""
        with float64(self._x64):
            if self._wide:
                output, batch = in_float64(output), in_float64(batch)
            program = _program("loss", lambda loss: lambda o, b: loss(o, b), self._side.loss)
            return float(program(output, batch))


class Stepper:
    """An optimizer of a JAX side and the parameters that it moves.

    Args:
        side: the JAX side.
        params: where they start, in the run's dtype.
        wide: in float64, whatever that dtype is.
        x64: whether JAX has float64 at all in this program.
        donates: whether a step may overwrite what it began with: there is no going back then.
    """

    def __init__(
        self, side: JaxSide, params: Any, *, wide: bool, x64: bool, donates: bool = False
    ) -> None:
        self._side, self._x64 = side, x64 or wide
        given = (1, 2) if donates else ()
        objects = (side.tx, side.step, side.clip)
        self._update = _program("update", _updater, *objects, donates=given)
        self._schedule: Any = None
        if side.scheduler is not None:
            self._schedule = side.scheduler
        with float64(self._x64):
            self.params = jax.tree.map(jnp.array, in_float64(params) if wide else params)
            if side.state is not None:
                self.state = in_float64(side.state) if wide else side.state
            else:
                self.state = side.tx.init(self.params)
            self._schedule_state: Any = None
            if self._schedule is not None:
                self.state, self._schedule_state = self._schedule.init(self.state)
        self.clipped: Any = None
        self.updated: Any = self.state  # as the last update left it, before the scheduler
        self._steps = 0

    def step(self, grads: Any, loss: Any) -> None:
        """Take a step, and the scheduler's where it is due."""
        with float64(self._x64):
            self.params, self.state, self.clipped = self._update(grads, self.state, self.params)
            self.updated = self.state
            self._steps += 1
            if self._schedule is not None and self._steps % self._side.scheduler_every == 0:
                told = [float(loss)] if self._side.metric else []
                self.state, self._schedule_state = self._schedule.step(
                    self.state, self._schedule_state, *told
                )

    def snapshot(self) -> Any:
        """Return all that a step changes; JAX's arrays stay as they are."""
        return self.params, self.state, self._schedule_state, self._steps

    def restore(self, snapshot: Any) -> None:
        """Go back to a snapshot."""
        self.params, self.state, self._schedule_state, self._steps = snapshot
