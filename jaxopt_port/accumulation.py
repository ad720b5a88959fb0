"""Gradient accumulation as torch's users do it: several backward passes, then one step."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._untraceable import name_of, why
from .engine import (
    GroupsState,
    check_transformation,
    grouped_states,
    untrained_paths,
    with_joined,
)
from .trees import checked_gradients, leaf_paths, to_array

# Whether `GradScaler.step`, around the transformation, has found an infinity in the gradients.
overflow: ContextVar[jax.Array | None] = ContextVar("overflow", default=None)


class AccumulationState(NamedTuple):
    """The state of `accumulate_grads`.

    Attributes:
        taken: gradients that have been added up since the last step.
        grads: their sum.
        inner_state: the state of the optimizer, which has seen the sums alone.
        total: gradients since the beginning, int32.
        found_inf: whether one of a window's gradients was infinite, for `GradScaler`: of the window
            that goes on, or of the last one where none has been added since.
    """

    taken: jax.Array
    grads: Any
    inner_state: Any
    total: jax.Array
    found_inf: jax.Array


def accumulations(state: Any) -> list[AccumulationState]:
    """Return the states of `accumulate_grads` within a state."""

    def is_one(x: Any) -> bool:
        return isinstance(x, AccumulationState)

    return [leaf for leaf in jax.tree.leaves(state, is_leaf=is_one) if is_one(leaf)]


def accumulate_grads(
    tx: optax.GradientTransformation, steps: int | Callable[[Any], Any]
) -> optax.GradientTransformationExtraArgs:
    """Add gradients up, and let the optimizer take a step for every ``steps`` of them.

    The counterpart of torch's loop that calls ``optimizer.step()`` and ``zero_grad()`` after every
    ``steps`` backward passes: gradients are added, so the loss is to be divided by ``steps`` as it
    is there. (``optax.MultiSteps`` takes the mean.) In between the updates are zero, and the
    optimizer's state, its step count included, stays as it is. `jp.step` keeps every bit of the
    optimizer's own step.

    ``update`` and `jp.step` take an extra argument ``take_step``: a condition, which may be traced,
    by which the step is taken though fewer gradients have come, as torch's loops do at the end of
    an epoch. What stands in a chain within ``tx`` sees the sum, what stands around it each
    gradient: to clip as torch does before ``optimizer.step()``, ``accumulate_grads(optax.chain(
    jp.clip_by_grad_norm(1.0), jp.SGD(…)), 4)``.

    Args:
        tx: the optimizer, and what belongs before it, such as clipping.
        steps: how many gradients make one step; or a function, in JAX's operations, of the number
            of gradients before this one. A step is taken where as many have come since the last.

    Raises:
        ValueError: ``steps`` is no positive integer; by ``update``, gradients whose tree or shapes
            are not the parameters', or one that is None though its parameter is trained.
        TypeError: ``tx`` is no transformation; by ``update``, gradients whose dtypes are not the
            parameters', a state that is another's, ``steps`` that cannot be traced or whose result
            is no integer, a ``take_step`` that is not one boolean.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> tx = jp.accumulate_grads(jp.SGD(lr=0.5), steps=2)
        >>> params = jnp.zeros(1)
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     params, state = jp.step(tx, jnp.ones(1) / 2, state, params)
        ...     print(params)
        [0.]
        [-0.5]
    """
    check_transformation(tx)
    length: Any = steps if callable(steps) else _positive(steps)
    tx = optax.with_extra_args_support(tx)

    def init(params: Any) -> AccumulationState:
        zeros = jax.tree.map(jnp.zeros_like, to_array(params))
        # Each in memory of its own, so that the state can be donated.
        taken, total = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        return AccumulationState(taken, zeros, tx.init(params), total, jnp.zeros((), bool))

    def update(
        grads: Any,
        state: AccumulationState,
        params: Any = None,
        *,
        take_step: Any = False,
        **extra_args: Any,
    ) -> Any:
        if not isinstance(state, AccumulationState):
            raise TypeError(
                f"the state is a {type(state).__name__}, not one of accumulate_grads: make it by "
                "the init of what accumulate_grads returned"
            )
        if params is not None:
            held = with_joined(state.grads, params, state.inner_state, jnp.zeros_like)
            state = state._replace(grads=held)
        given = _checked(grads, state)
        sums, treedef = jax.tree.flatten(state.grads)
        pairs = zip(sums, given, strict=True)
        added = [old if grad is None else old + grad for old, grad in pairs]
        # A parameter that is frozen has no gradient.
        seen = [None if grad is None else new for grad, new in zip(given, added, strict=True)]
        found = jnp.asarray(False if overflow.get() is None else overflow.get())
        found = found | (state.found_inf & (state.taken > 0))

        def stay(grads: Sequence[jax.Array]) -> Any:
            zeros = jax.tree.unflatten(treedef, [jnp.zeros_like(x) for x in sums])
            return zeros, inner_state, list(grads)

        if "value_fn" in extra_args and length != 1:
            extra_args["value_fn"] = _of_one_batch

        def step() -> Any:
            updates, inner = tx.update(
                jax.tree.unflatten(treedef, seen), state.inner_state, params, **extra_args
            )
            return updates, inner, none

        none = [jnp.zeros_like(x) for x in sums]
        inner_state = as_after(state.inner_state, jax.eval_shape(lambda: step()[1]))
        due = state.taken + 1 >= (_called(length, state.total) if callable(length) else length)
        due = due | _condition(take_step)
        case = jnp.where(due, jnp.where(found, 1, 2), 0)
        updates, inner, held = jax.lax.switch(case, [lambda: stay(added), lambda: stay(none), step])
        return updates, AccumulationState(
            jnp.where(due, 0, state.taken + 1).astype(jnp.int32),
            jax.tree.unflatten(treedef, held),
            inner,
            state.total + 1,
            found,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _of_one_batch(params: Any) -> Any:
    raise TypeError(
        "the optimizer within accumulate_grads evaluates the loss itself, and this is that of the "
        "last gradient alone: give it the loss of all batches, without accumulation"
    )


def _positive(steps: Any) -> int:
    try:
        number = 0 if isinstance(steps, bool) else operator.index(steps)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"Expected positive integer steps, but got {steps}")
    return number


def _called(steps: Callable[[Any], Any], total: jax.Array) -> Any:
    try:
        length = steps(total)
    except TypeError as error:  # as all of JAX's errors about traced values are
        if not isinstance(total, jax.core.Tracer):
            raise
        raise TypeError(f"steps: {why(steps, error)}") from error
    if not isinstance(length, jax.core.Tracer):
        return _positive(length)
    if length.ndim or not jnp.issubdtype(length.dtype, jnp.integer):
        raise TypeError(
            f"steps: {name_of(steps)} must return one integer; it has returned an array of "
            f"{length.dtype} and shape {length.shape}"
        )
    return length


def _condition(take_step: Any) -> jax.Array:
    try:
        condition = jnp.asarray(take_step)
    except (TypeError, ValueError):
        condition = None
    if condition is None or condition.ndim or condition.dtype != bool:
        raise TypeError(f"take_step must be one boolean; got {take_step!r}")
    return condition


def as_after(state: Any, after: Any) -> Any:
    """Return a state as it is, in the structure that a step gives it, for one that is not taken.

    What the step would make, such as a buffer, is zero, and the leaves that count steps apart from
    then on do so already.
    """
    parted = iter(grouped_states(after))
    state = jax.tree.map(
        lambda x: _parted(x, next(parted)) if isinstance(x, GroupsState) else x,
        state,
        is_leaf=lambda x: isinstance(x, GroupsState),
    )
    held = dict(jax.tree_util.tree_leaves_with_path(state))
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: held[path] if path in held else jnp.zeros(leaf.shape, leaf.dtype), after
    )


def _parted(state: GroupsState, after: GroupsState) -> GroupsState:
    if state.table.clocks == after.table.clocks:
        return state
    origin = dict(zip(after.table.clocks, state.table.clocks, strict=True))
    clocks = np.array([origin.get(c, c) for c in range(len(after.table.of_clocks))])
    scalars = {name: vector[clocks] for name, vector in state.scalars.items()}
    return replace(state, scalars=scalars, table=after.table)


def _checked(grads: Any, state: AccumulationState) -> list[Any]:
    """Return the gradient of each leaf, or None where the leaf is frozen; raise for bad ones."""
    given = checked_gradients(grads, state.grads)
    untrained = untrained_paths(state.inner_state)
    for (path, _), grad in zip(leaf_paths(state.grads), given, strict=True):
        if grad is None and path not in untrained:
            raise ValueError(
                f'the gradient of "{path}" is None, and cannot be added up: it is not known when a '
                "program is made whether another of the same step will be there. Give zeros, which "
                "add nothing, or freeze the group for as long, by "
                "jp.set_hyperparams(state, group=…, frozen=True)"
            )
    return given
