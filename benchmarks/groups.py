"""What parameter groups cost: one jitted step of 400 small leaves, by the number of groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

import jaxopt_port as jp

from ._timing import Spread, interleaved

LEAVES = 400
_SHAPE = (16, 16)


def _parameters() -> dict[str, jax.Array]:
    random = np.random.default_rng(0)
    leaves = random.standard_normal((LEAVES, *_SHAPE)).astype(np.float32)
    return {f"layer{i:04}": jax.numpy.asarray(leaf) for i, leaf in enumerate(leaves)}


def _names(group: int, groups: int) -> list[str]:
    return [f"layer{i:04}" for i in range(LEAVES) if i % groups == group]


def _port(groups: int) -> jp.GroupedTransformation:
    return jp.SGD(
        [{"params": _names(g, groups), "lr": 1e-3 * (g + 1)} for g in range(groups)], momentum=0.9
    )


def _plain_optax(groups: int) -> optax.GradientTransformation:
    labels = {f"layer{i:04}": str(i % groups) for i in range(LEAVES)}
    inject = optax.inject_hyperparams(optax.sgd)
    return optax.multi_transform(
        {str(g): inject(learning_rate=1e-3 * (g + 1), momentum=0.9) for g in range(groups)}, labels
    )


def _stepper(tx: optax.GradientTransformation) -> Callable[[], Any]:
    """Return a call that takes one donated step and keeps what it made for the next."""
    params = _parameters()
    grads = jax.tree.map(lambda p: 1e-3 * p, params)
    held = [params, tx.init(params)]
    step = jax.jit(lambda params, state: jp.step(tx, grads, state, params), donate_argnums=(0, 1))

    def call() -> Any:
        held[:] = step(*held)
        return held

    return call


def _count(groups: int) -> str:
    return "1 group" if groups == 1 else f"{groups} groups"


def measure(quick: bool = False) -> dict[str, Spread]:
    """Return the time of a step for this library and for plain Optax, by the number of groups."""
    contenders = {f"jp.SGD, {_count(n)}": _stepper(_port(n)) for n in (1, 10, 100)}
    contenders |= {f"plain Optax, {_count(n)}": _stepper(_plain_optax(n)) for n in (1, 10, 100)}
    return interleaved(contenders, rounds=10 if quick else 30, calls=10)
