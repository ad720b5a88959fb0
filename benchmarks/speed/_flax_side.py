"""Flax's own loops around an optimizer step: with this library's classes, and with Flax's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from flax.training import train_state

from jaxopt_port import flax as ours

from ._contender import Contender
from ._data import STEPS_BEFORE_CHECK, sample

# The first takes a step, and returns an array that is there when it is done; the second returns
# the parameters.
Calls = tuple[Callable[[], Any], Callable[[], Any]]


class Leaves(nnx.Module):
    """Nothing but parameters."""

    def __init__(self, arrays: Sequence[jax.Array]) -> None:
        for i, array in enumerate(arrays):
            setattr(self, f"leaf{i:04}", nnx.Param(array))


def _update(model: nnx.Module, optimizer: Any, grads: list[jax.Array]) -> None:
    params = nnx.state(model, nnx.Param)
    optimizer.update(model, jax.tree.unflatten(jax.tree.structure(params), grads))


def _idle(model: nnx.Module, optimizer: Any, grads: list[jax.Array]) -> None:
    """What Flax's walk over the same arguments costs."""


def _under_nnx_jit(
    update: Callable[..., None], model: nnx.Module, optimizer: Any, grads: list[jax.Array]
) -> Calls:
    step = nnx.jit(update, donate_argnums=(0, 1))

    def call() -> Any:
        step(model, optimizer, grads)
        return model.leaf0000.get_value()

    return call, lambda: nnx.state(model, nnx.Param)


def _by_cached_partial(model: nnx.Module, optimizer: Any, grads: list[jax.Array]) -> Calls:
    step = nnx.cached_partial(nnx.jit(_update, donate_argnums=(0, 1)), model, optimizer)

    def call() -> Any:
        step(grads)
        return model.leaf0000.get_value()

    return call, lambda: nnx.state(model, nnx.Param)


def split_and_merged(model: nnx.Module, optimizer: Any, grads: list[jax.Array]) -> Calls:
    graph, state = nnx.split((model, optimizer))

    def update(state: Any, grads: list[jax.Array]) -> Any:
        model, optimizer = nnx.merge(graph, state)
        _update(model, optimizer, grads)
        return nnx.state((model, optimizer))

    step, held = jax.jit(update, donate_argnums=0), [state]

    def call() -> Any:
        held[0] = step(held[0], grads)
        return held[0]

    return call, lambda: nnx.state(nnx.merge(graph, held[0])[0], nnx.Param)


def _by_train_state(
    kind: type[train_state.TrainState], tx: Any, params: list[jax.Array], grads: list[jax.Array]
) -> Calls:
    step = jax.jit(lambda state, grads: state.apply_gradients(grads=grads), donate_argnums=0)
    held = [kind.create(apply_fn=None, params=params, tx=tx)]

    def call() -> Any:
        held[0] = step(held[0], grads)
        return held[0].params

    return call, lambda: held[0].params


def loop(
    name: str,
    tx: optax.GradientTransformation,
    params: list[jax.Array],
    grads: list[jax.Array],
) -> Contender:
    """Make a contender.

    Args:
        name: a loop, and whose classes it has: ``"nnx.jit, jp"``.
        tx: the transformation.
        params: parameters, which it may overwrite.
        grads: gradients.
    """
    form, _, whose = name.rpartition(", ")
    if form == "TrainState":
        kind = ours.TrainState if whose == "jp" else train_state.TrainState
        call, now = _by_train_state(kind, tx, params, grads)
    else:
        model = Leaves(params)
        make: Any = ours.Optimizer if whose == "jp" else nnx.Optimizer
        optimizer = make(model, tx, wrt=nnx.Param)
        call, now = {
            "nnx.jit": lambda: _under_nnx_jit(_update, model, optimizer, grads),
            "empty nnx.jit": lambda: _under_nnx_jit(_idle, model, optimizer, grads),
            "cached_partial": lambda: _by_cached_partial(model, optimizer, grads),
            "split and merge": lambda: split_and_merged(model, optimizer, grads),
        }[form]()
    for _ in range(STEPS_BEFORE_CHECK):
        jax.block_until_ready(call())
    check = None if "empty" in name else sample(map(np.asarray, jax.tree.leaves(now())))
    return Contender([call], check, wait=jax.block_until_ready)
