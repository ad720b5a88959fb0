"""The JAX side at work: evaluations of a batch, and optimizers that are fed with gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...accumulation import AccumulationState
from ._jax_side import JaxSide
from ._lifted import lifted
from ._meant import MODEL, OPTIMIZER, Seen, widened


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


def _updater(
    tx: Any, step: Any, clip: Any, scaler: Any, accumulation_steps: int
) -> Callable[..., Any]:
    def update(grads: Any, state: Any, params: Any) -> Any:
        # torch's gradients come in the run's dtype; the float64 optimizer has them in float64.
        grads = jax.tree.map(
            lambda g, p: jnp.asarray(g).astype(p.dtype) / accumulation_steps, grads, params
        )
        clipped = grads if clip is None else clip(grads)
        if scaler is None:
            params, state = step(tx, clipped, state, params)
        else:
            found_inf = ~jnp.all(jnp.stack([jnp.isfinite(g).all() for g in jax.tree.leaves(grads)]))
            params, state = scaler.step(tx, clipped, state, params, found_inf)
        return params, state, clipped

    return update


def in_float64(tree: Any) -> Any:
    """Return a tree with float64 where it has floating numbers of any other precision."""

    def wide(x: Any) -> Any:
        floating = jnp.issubdtype(jnp.result_type(x), jnp.floating)
        if isinstance(x, np.ndarray):
            return x.astype(np.float64) if floating else x
        return jnp.asarray(x, jnp.float64) if floating else x

    return jax.tree.map(wide, tree)


@contextmanager
def float64(on: bool = True) -> Iterator[None]:
    """Have float64 in JAX while ``on``; otherwise the user's setting stays."""
    if on:
        with jax.enable_x64(True):
            yield
    else:
        yield


# What the traces of lifted programs have shown, by their keys.
_SEEN: dict[tuple[str, _ById], Seen] = {}


def _lifted_program(
    kind: str,
    make: Callable[..., Any],
    dtypes: Any,
    own: str,
    *objects: Any,
    traced: Any = (),
    donates: Any = (),
) -> tuple[Any, Seen]:
    """Return a program that calculates in float64 throughout, and what its trace shows."""
    key = (f"lifted {kind} {own} {dtypes} {traced}", _ById(*objects))
    seen = _SEEN.setdefault(key, Seen())

    def made(*given: Any) -> Any:
        return lifted(make(*given), dtypes, seen, own, traced=traced)

    return _program(key[0], made, *objects, donates=donates), seen


class Model:
    """The model of a JAX side, in the run's dtype or in float64.

    Args:
        side: the JAX side.
        wide: float64, whatever the run's dtype.
        x64: whether JAX has float64 at all in this program.
        own: the run's dtype; given, what the code keeps in narrower dtypes is lifted to float64.

    Attributes:
        seen: what its trace has shown, where it is lifted.
    """

    def __init__(self, side: JaxSide, *, wide: bool, x64: bool, own: str = "") -> None:
        self._side, self._wide, self._x64 = side, wide, x64 or wide
        self._own, self._dtypes = own, OPTIMIZER if own == "float64" else MODEL
        self._has_state = side.model_state is not None
        self.seen = Seen()
        made = (_evaluator, side.apply, side.loss, self._has_state)
        if own:
            self._evaluate, self.seen = _lifted_program(
                "evaluate", made[0], self._dtypes, own, *made[1:]
            )
        else:
            self._evaluate = _program("evaluate", *made)

    def evaluate(self, params: Any, model_state: Any, batch: Any) -> Evaluated:
        """Run forward and backward."""
        with float64(self._x64):
            given = (params, model_state, batch)
            done: Evaluated = self._evaluate(*(map(in_float64, given) if self._wide else given))
            return done

    def disturbed(self, params: Any, model_state: Any, batch: Any) -> list[Any]:
        """Return the output with all random bits turned over."""
        apply, has_state = self._side.apply, self._has_state

        def output(params: Any, model_state: Any, batch: Any) -> Any:
            return apply(params, model_state, batch)[0] if has_state else apply(params, batch)

        with float64(self._x64):
            run = jax.jit(lifted(output, self._dtypes, Seen(), self._own, disturbed=True))
            return jax.tree.leaves(run(*map(in_float64, (params, model_state, batch))))

    def loss_gradients(self, output: Any, batch: Any) -> list[Any]:
        """Return the gradients of the loss in the output, a tree of arrays, in float64."""
        with float64(True):
            of_loss = (self._dtypes, self._own, self._side.loss)
            program, _ = _lifted_program("gradient of loss", jax.grad, *of_loss)
            return jax.tree.leaves(program(in_float64(output), in_float64(batch)))

    def loss_of(self, output: Any, batch: Any) -> float:
        """Return the loss of an output, a tree of arrays."""
        with float64(self._x64):
            if self._wide:
                output, batch = in_float64(output), in_float64(batch)
            if self._own:
                of_loss = (self._dtypes, self._own, self._side.loss)
                program, _ = _lifted_program("loss", _of_output, *of_loss)
            else:
                program = _program("loss", _of_output, self._side.loss)
            return float(program(output, batch))


def _of_output(loss: Any) -> Callable[..., Any]:
    return lambda output, batch: loss(output, batch)


class Stepper:
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
    """

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
                leaves = jax.tree.leaves((self.params, self.state, self.params))
                self._update, self.seen = _lifted_program(
                    "update", _updater, OPTIMIZER, "", *objects,
                    traced=tuple(str(jnp.result_type(x)) for x in leaves), donates=given,
                )  # fmt: skip
                self.state = self._widened(self.state)
            else:
                self._update = _program("update", _updater, *objects, donates=given)
            self.rounded = wide and not lifts and bool(_foreign(self.state))
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
            grads: of the parameters.
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

    def snapshot(self) -> Any:
        """Return all that a step changes; JAX's arrays stay as they are."""
        held = self.params, self.state, self._schedule_state, self.averages
        return *held, self._begun, self._steps

    def restore(self, snapshot: Any) -> None:
        """Go back to a snapshot."""
        *held, self._begun, self._steps = snapshot
        self.params, self.state, self._schedule_state, self.averages = held


def _is_own(node: Any) -> bool:
    """Whether it is the state of an optimizer of this library; a window is the wrapped one's."""
    own = type(node).__module__.startswith("jaxopt_port.")
    return own and not isinstance(node, AccumulationState)


def _has_own_state(state: Any) -> bool:
    return any(map(_is_own, jax.tree.leaves(state, is_leaf=_is_own)))


def _foreign(state: Any) -> list[Any]:
    return [x for x in jax.tree.leaves(state, is_leaf=_is_own) if not _is_own(x)]
