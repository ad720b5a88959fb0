from __future__ import annotations

import functools
import reprlib
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .._compat import current_trace, moved, tagged, through_branches
from ..trees import check_params, leaf_paths
from ._definition import Definition
from ._state import check_not_donated

Params = TypeVar("Params")
State = TypeVar("State")


class ExactUpdates:
    """The new parameter that stands behind each update of a step, while it is being traced.

    ``old + (new - old)`` is not ``new`` where it crosses zero, so `step` takes the new parameter
    itself. It is found by the identity of the update. Where a later transformation has made another
    array of it, the new parameter counts for those elements whose update is still the same number
    (all of them after ``optax.scale(1.0)``), and the update for the others. One that comes out of a
    branch is found by its tag: `through_branches`.
    """

    def __init__(self) -> None:
        self._made: dict[int, tuple[jax.Array, jax.Array]] = {}
        self._of_param: dict[int, tuple[jax.Array, jax.Array, jax.Array]] = {}
        self._trace = current_trace()

    def record(
        self, update: jax.Array, new_param: jax.Array, param: jax.Array | None = None
    ) -> jax.Array:
        """Return the update, which is known from now on."""
        if param is not None and current_trace() != self._trace:
            update = tagged(update, new_param, param)
        elif param is not None:
            self._of_param[id(param)] = (param, update, new_param)
        # The update is kept too, so that its id cannot be given to another array.
        self._made[id(update)] = (update, new_param)
        return update

    def follow(
        self,
        update: jax.Array,
        laid_out: jax.Array,
        move: Callable[[jax.Array], jax.Array],
        param: jax.Array,
    ) -> jax.Array:
        """Record what ``move`` has made of an update; the new parameter goes through it too."""
        made = self._made.get(id(update))
        return laid_out if made is None else self.record(laid_out, move(made[1]), param)

    def apply(self, param: jax.Array, update: jax.Array) -> jax.Array:
        made = self._made.get(id(update))
        if made is not None:
            return made[1]
        _, own, new_param = self._of_param.get(id(param), (None, None, None))
        if own is None or own.shape != jnp.shape(update):
            return moved(param, update)
        return moved(param, update, own, new_param)


@dataclass(frozen=True)
class StepProgram:
    """A transformation as a compiled step has it: equal to each whose steps are the same program.

    An optimizer that is rebuilt in mid-run with other numbers, which stand in the state, compiles
    no more.

    Attributes:
        tx: the transformation.
        key: what says which program.
    """

    tx: Any = field(compare=False)
    key: Any

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self.key)

    def __hash__(self) -> int:
        return self._hash


def as_program(tx: Any) -> StepProgram:
    """Return what compiled steps have of a transformation."""
    program = getattr(tx, "program", None)
    return program if isinstance(program, StepProgram) else StepProgram(tx, tx)


# Not an extra argument of `update`: a transformation between here and the rule may take none.
recorder: ContextVar[ExactUpdates | None] = ContextVar("recorder", default=None)


def step(
    tx: optax.GradientTransformation,
    grads: Params | Callable[[Params], Any],
    state: State,
    params: Params,
    *,
    donate: bool = False,
    **extra_args: Any,
) -> tuple[Params, State]:
    """Take one optimizer step: torch's ``optimizer.step()``, to the last bit.

    The same as ``tx.update`` followed by ``optax.apply_updates``, but for the rounding of the new
    parameter, which is torch's. Compiled on its own when called eagerly; within ``jax.jit``,
    ``vmap`` or ``scan`` it is part of the caller's program. Any Optax transformation will do; the
    updates of those that are not of this library are applied as Optax applies them.

    In programs for one CPU, large steps run as kernels that the machine's C compiler makes, with
    the same bits; the environment variable ``JAXOPT_PORT_KERNELS=off`` does without.

    Args:
        tx: a transformation.
        grads: gradients, a tree of the parameters' structure, shapes and dtypes; or the loss as a
            function of the parameters, which is then evaluated here, as in torch's
            ``optimizer.step(closure)``: once for most optimizers, as often as it takes by
            ``jp.lbfgs``. Each new function compiles anew: give a function's data by
            ``jax.tree_util.Partial(loss, batch=batch)``, not by a new lambda.
        state: the state, from ``tx.init(params)`` or an earlier step.
        params: parameters.
        donate: write the results into the memory of ``state`` and ``params``, which cannot be used
            any more: torch's step in place, with no memory to be found for them. Within
            ``jax.jit`` it has no meaning: donate there, and in the order of the results, or XLA
            copies what it should overwrite: ``jax.jit(lambda params, state, grads: jp.step(tx,
            grads, state, params), donate_argnums=(0, 1))``.
        **extra_args: arrays for transformations that take more, as ``tx.update`` would.

    Returns:
        The new parameters and the new state; without ``donate``, the arguments are left as they
        were.

    Raises:
        ValueError: gradients whose tree or shapes are not the parameters'.
        TypeError: gradients whose dtypes are not the parameters'.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params = {"weight": jnp.ones(3)}
        >>> tx = jp.SGD(lr=0.5)
        >>> params, state = jp.step(tx, {"weight": jnp.ones(3)}, tx.init(params), params)
        >>> params["weight"]
        Array([0.5, 0.5, 0.5], dtype=float32)
    """
    if is_loss(grads, params) and not isinstance(grads, jax.tree_util.Partial):
        grads = jax.tree_util.Partial(grads)
    if extra_args:
        extra_args = {name: as_argument(x) for name, x in extra_args.items()}
    run = _step_in_place if donate else _step
    stepped: tuple[Params, State]
    try:
        stepped = run(as_program(tx), params, state, grads, extra_args)
    except TypeError:
        check_params(params)  # JAX speaks of its own arguments
        raise
    except (ValueError, RuntimeError) as error:
        check_transformation(tx)  # JAX speaks of a static argument that cannot be hashed
        check_not_donated(error, params=params, state=state, gradients=grads)
        if donate and isinstance(error, RuntimeError):
            _check_apart(error, params=params, state=state, gradients=grads)
        raise
    return stepped


def as_argument(x: Any) -> Any:
    """Return a function in the form in which jit takes it; anything else as it is."""
    return jax.tree_util.Partial(x) if callable(x) and jax.tree_util.all_leaves([x]) else x


def check_transformation(tx: Any) -> None:
    """Raise TypeError for what is no Optax transformation."""
    if isinstance(tx, type):
        raise TypeError(
            f"tx must be an Optax transformation; got the class {tx.__name__}: make one, by "
            f"{tx.__name__}(…)"
        )
    if not (hasattr(tx, "init") and hasattr(tx, "update")):
        raise TypeError(
            f"tx must be an Optax transformation, such as jp.SGD(…); got {reprlib.repr(tx)}"
        )


def _check_apart(cause: Exception, **trees: Any) -> None:
    """Raise ValueError for an array that stands twice in what a step donates, or is given besides.

    It is looked for where JAX has refused it, by the numbers of its own arguments.
    """
    seen: dict[int, str] = {}
    for name, tree in trees.items():
        for path, leaf in leaf_paths(tree):
            here = f"{name}/{path}".rstrip("/")
            if not isinstance(leaf, jax.Array):
                continue
            first = seen.setdefault(id(leaf), here)
            if first != here and not first.startswith("gradients/"):  # which are not written to
                raise ValueError(
                    f"{first} and {here} are one array, and a step that donates writes "
                    "its results into the memory of parameters and state: give one of them a copy "
                    "(jnp.copy), or leave donate out; nothing has been changed"
                ) from cause


def is_loss(grads: Any, params: Any) -> bool:
    """Whether a function of the parameters is given where gradients may be."""
    # Gradients, too, may be callable: a module's.
    if not callable(grads):
        return False
    structures: list[Any] = [jax.tree.structure(tree) for tree in (grads, params)]
    arrays = any(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(grads))
    return not (arrays and structures[0] == structures[1])


def _loss(value_fn: Callable[[Any], Any], params: Any) -> Callable[[Any], Any]:
    structure: Any = jax.tree.structure(params)

    def value_of(params: Any) -> Any:
        if jax.tree.structure(params) != structure:
            raise TypeError(
                "the loss is one of all parameters, and what evaluates it has been given a part of "
                "them (by optax.masked, optax.multi_transform): put it around, as "
                "contrib.sam(optax.masked(tx, mask)), or let the rest be a frozen group, as "
                'jp.LBFGS([{"params": …}, {"params": jp.REST, "frozen": True}])'
            )
        value = value_fn(params)
        if not jax.tree_util.all_leaves([value]) or np.shape(value) != ():
            raise TypeError(
                "the function must return the loss alone, one number, since its gradient is taken "
                "here: give the function that jax.grad or jax.value_and_grad would be given; it "
                f"has returned {jax.tree.map(np.shape, value)!r} (shapes)"
            )
        return value

    return value_of


def _stepped(
    program: StepProgram,
    params: Any,
    state: Any,
    grads: Any,
    extra_args: dict[str, Any],
    inner: bool = False,
) -> Any:
    """Return new parameters and state; of an inner call: updates, new leaves, state."""
    tx = program.tx
    if is_loss(grads, params):
        value_fn = _loss(grads, params)
        value, grads = jax.value_and_grad(value_fn)(params)
        extra_args = {"value": value, "grad": grads, "value_fn": value_fn, **extra_args}
    if not inner:
        check_transformation(tx)
    leaves, treedef = jax.tree.flatten(params)
    if not inner and not _is_alone(tx):

        def call(leaves: Any) -> Any:
            own = jax.tree.unflatten(treedef, leaves)
            return _stepped(program, own, state, grads, extra_args, inner=True)

        new, after = through_branches(call, leaves)
        return jax.tree.unflatten(treedef, new), after
    exact = ExactUpdates()
    before = recorder.set(exact)
    try:
        updates, after = optax.with_extra_args_support(tx).update(
            grads, state, params, **extra_args
        )
    finally:
        recorder.reset(before)
    made = jax.tree.leaves(updates)
    new = [exact.apply(*pair) for pair in zip(leaves, made, strict=True)]
    return (made, new, after) if inner else (jax.tree.unflatten(treedef, new), after)


def _is_alone(tx: Any) -> bool:
    """Whether nothing is around an optimizer of this library that could hide its updates."""
    own: Any = getattr(tx.update, "args", ())
    return bool(own) and isinstance(own[0], Definition)


# JAX pairs donated arguments with results of their shape in the order in which both come: here,
# the parameters with the parameters, and not with a momentum.
_step = jax.jit(_stepped, static_argnums=0)
_step_in_place = jax.jit(_stepped, static_argnums=0, donate_argnums=(1, 2))
