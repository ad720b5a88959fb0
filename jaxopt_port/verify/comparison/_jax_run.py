"""The model of a JAX side at work, and the programs that are made of a side."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._jax_side import JaxSide, output_of
from ._lifted import lifted
from ._meant import MODEL, OPTIMIZER, Seen


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


# Of one comparison: what a function reads from outside may have changed by the next.
_PROGRAMS: dict[tuple[str, _ById], Any] = {}


def compiled(kind: str, make: Callable[..., Any], *objects: Any, donates: Any = ()) -> Any:
    """Return ``make(*objects)``, compiled, the same for the same kind and objects."""
    key = (f"{kind} {donates}", _ById(*objects))
    if key not in _PROGRAMS:
        _PROGRAMS[key] = jax.jit(make(*objects), donate_argnums=donates)
    return _PROGRAMS[key]


def _evaluator(apply: Any, loss: Any) -> Callable[..., Any]:
    def evaluate(params: Any, model_state: Any, batch: Any) -> Any:
        def total(params: Any) -> Any:
            output, new_state = output_of(apply, params, model_state, batch)
            return loss(output, batch), (output, new_state)

        (value, (output, new_state)), grads = jax.value_and_grad(total, has_aux=True)(params)
        return Evaluated(jax.tree.leaves(output), value, grads, new_state)

    return evaluate


def _closed(apply: Any, loss: Any, lift: Any = None) -> Callable[..., Any]:
    """Return the loss as a function of the model's state, a batch and, the last, the parameters.

    Args:
        apply: a JAX side's.
        loss: likewise.
        lift: makes a function of one that calculates in float64 throughout, or None.
    """

    def total(model_state: Any, batch: Any, params: Any) -> Any:
        return loss(output_of(apply, params, model_state, batch)[0], batch)

    if lift is None:
        return total

    # A derivative is lifted with its function: a rule written by hand is lost in lifting.
    lifted_loss = jax.custom_vjp(lift(total))
    with_grads = lift(jax.value_and_grad(total, argnums=2))
    lifted_loss.defvjp(
        lambda *given: with_grads(*given),
        lambda grads, scale: (None, None, jax.tree.map(lambda g: scale * g, grads)),
    )
    return lifted_loss


def cast(tree: Any, dtype: str) -> Any:
    """Return a tree with a dtype where it has floating numbers; NumPy's arrays stay such."""

    def one(x: Any) -> Any:
        if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
            return x
        is_numpy = isinstance(x, (np.ndarray, np.generic))
        return x.astype(dtype) if is_numpy else jnp.asarray(x, dtype)

    with np.errstate(over="ignore"):
        return jax.tree.map(one, tree)


def in_float64(tree: Any) -> Any:
    """Return a tree with float64 where it has floating numbers of any other precision."""
    return cast(tree, "float64")


@contextmanager
def float64(on: bool = True) -> Iterator[None]:
    """Have float64 in JAX while ``on``; otherwise the user's setting stays."""
    try:
        with jax.enable_x64(True) if on else nullcontext():
            yield
    except ValueError as error:
        if "verifier errors" not in str(error):
            raise
        # JAX keeps the constant as it met it first.
        raise ValueError(
            "your forward pass or loss uses a NumPy array of float64 from outside, which "
            "JAX cannot take once in float32 and once in float64: hold it as jnp.asarray(…)"
        ) from error


# What the traces of lifted programs have shown, by their keys.
_SEEN: dict[tuple[str, _ById], Seen] = {}


def forget_programs() -> None:
    """Have all functions traced again: a comparison begins."""
    _PROGRAMS.clear()
    _SEEN.clear()


def compiled_lifted(
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

    return compiled(key[0], made, *objects, donates=donates), seen


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
        self.seen = Seen()
        self._objects = (side.apply, side.loss)
        if own:
            self._evaluate, self.seen = compiled_lifted(
                "evaluate", _evaluator, self._dtypes, own, *self._objects
            )
        else:
            self._evaluate = compiled("evaluate", _evaluator, *self._objects)

    def evaluate(self, params: Any, model_state: Any, batch: Any) -> Evaluated:
        """Run forward and backward."""
        with float64(self._x64):
            given = (params, model_state, batch)
            done: Evaluated = self._evaluate(*(map(in_float64, given) if self._wide else given))
            return done

    def closure(self, model_state: Any, batch: Any) -> Callable[[Any], Any]:
        """Return the loss of a batch as a function of the parameters."""
        make: Any = _closed
        if self._own:
            lift = functools.partial(lifted, dtypes=self._dtypes, seen=self.seen, own=self._own)
            make = functools.partial(_closed, lift=lift)
        total = compiled(f"closure {self._own} {self._dtypes}", make, *self._objects)
        if self._wide:
            model_state, batch = in_float64((model_state, batch))
        return jax.tree_util.Partial(total, model_state, batch)

    def disturbed(self, params: Any, model_state: Any, batch: Any) -> list[Any]:
        """Return the output with all random bits turned over."""

        def output(*given: Any) -> Any:
            return output_of(self._side.apply, *given)[0]

        with float64(self._x64):
            run = jax.jit(lifted(output, self._dtypes, Seen(), self._own, disturbed=True))
            return jax.tree.leaves(run(*map(in_float64, (params, model_state, batch))))

    def loss_gradients(self, output: Any, batch: Any) -> list[Any]:
        """Return the gradients of the loss in the floating arrays of the output, in float64."""
        with float64(True):
            of_loss = (self._dtypes, self._own, self._side.loss)
            program, _ = compiled_lifted("gradient of loss", _in_output, *of_loss)
            grads: list[Any] = program(in_float64(output), in_float64(batch))
            return grads

    def loss_of(self, output: Any, batch: Any) -> float:
        """Return the loss of an output, a tree of arrays."""
        with float64(self._x64):
            if self._wide:
                output, batch = in_float64(output), in_float64(batch)
            if self._own:
                of_loss = (self._dtypes, self._own, self._side.loss)
                program, _ = compiled_lifted("loss", _of_output, *of_loss)
            else:
                program = compiled("loss", _of_output, self._side.loss)
            return float(program(output, batch))


def _in_output(loss: Any) -> Callable[..., list[Any]]:
    def gradients(output: Any, batch: Any) -> list[Any]:
        grads = jax.tree.leaves(jax.grad(loss, allow_int=True)(output, batch))
        return [g for g in grads if g.dtype != jax.dtypes.float0]

    return gradients


def _of_output(loss: Any) -> Callable[..., Any]:
    return lambda output, batch: loss(output, batch)
