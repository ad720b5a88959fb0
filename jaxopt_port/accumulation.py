"""Gradient accumulation as torch's users do it: several backward passes, then one step."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from .engine import recorder


class AccumulationState(NamedTuple):
    """The state of `accumulate_grads`.

    Attributes:
        taken: gradients that have been added up since the last step.
        grads: their sum.
        inner_state: the state of the optimizer, which has seen the sums alone.
    """

    taken: jax.Array
    grads: Any
    inner_state: Any


def accumulate_grads(
    tx: optax.GradientTransformation, steps: int
) -> optax.GradientTransformationExtraArgs:
    """Add gradients up, and let the optimizer take a step for every ``steps`` of them.

    The counterpart of torch's loop that calls ``optimizer.step()`` and ``zero_grad()`` after every
    ``steps`` backward passes: gradients are added, so the loss is to be divided by ``steps`` as it
    is there. (``optax.MultiSteps`` takes the mean.) In between the updates are zero, and the
    optimizer's state, its step count included, stays as it is. `jp.step` keeps every bit of the
    optimizer's own step.

    Args:
        tx: the optimizer, and what belongs before it, such as clipping.
        steps: how many gradients make one step.

    Raises:
        ValueError: ``steps`` is no positive integer.

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
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"Expected positive integer steps, but got {steps}")
    tx = optax.with_extra_args_support(tx)

    def init(params: Any) -> AccumulationState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AccumulationState(jnp.zeros((), jnp.int32), zeros, tx.init(params))

    def update(grads: Any, state: AccumulationState, params: Any = None, **extra_args: Any) -> Any:
        added = jax.tree.map(jnp.add, state.grads, grads)
        exact = recorder.get()

        def take_step() -> Any:
            updates, inner = tx.update(added, state.inner_state, params, **extra_args)
            pairs = zip(jax.tree.leaves(params), jax.tree.leaves(updates), strict=True)
            new = None if exact is None else [exact.apply(*pair) for pair in pairs]
            return updates, new, inner, jax.tree.map(jnp.zeros_like, added)

        def wait() -> Any:
            new = None if exact is None else jax.tree.leaves(params)
            return jax.tree.map(jnp.zeros_like, grads), new, state.inner_state, added

        last = state.taken == steps - 1
        updates, new, inner, added = jax.lax.cond(last, take_step, wait)
        if exact is not None:  # so that jp.step takes the new parameters themselves
            for each in zip(jax.tree.leaves(updates), new, strict=True):
                exact.record(*each)
        return updates, AccumulationState(jnp.where(last, 0, state.taken + 1), added, inner)

    return optax.GradientTransformationExtraArgs(init, update)
