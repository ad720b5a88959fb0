"""What a step costs before it runs: tracing and compiling Adam over 300 leaves."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_port as jp

from ._timing import Spread

LEAVES = 300
_SHAPES = [(64, 32), (32,), (3, 3, 16, 16), (128,)]


def _plain(tx: optax.GradientTransformation) -> Callable[..., Any]:
    def step(grads: Any, state: Any, params: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def _port(tx: optax.GradientTransformation) -> Callable[..., Any]:
    return lambda grads, state, params: jp.step(tx, grads, state, params)


# The factories with fixed numbers, and with numbers that can be set between steps.
_CONTENDERS = {
    "optax.adam": (lambda: optax.adam(1e-3), _plain),
    "jp.adam": (jp.adam, _port),
    "optax.inject_hyperparams(optax.adam)": (
        lambda: optax.inject_hyperparams(optax.adam)(1e-3),
        _plain,
    ),
    "jp.Adam": (jp.Adam, _port),
    "optax.inject_hyperparams(optax.adamw)": (
        lambda: optax.inject_hyperparams(optax.adamw)(1e-3),
        _plain,
    ),
    "jp.AdamW": (jp.AdamW, _port),
}


def _seconds(tx: optax.GradientTransformation, step: Callable[..., Any], params: Any) -> float:
    """Return the processor time of tracing and compiling, which no other process adds to."""
    state = tx.init(params)
    jax.clear_caches()
    start = time.process_time()
    jax.jit(step).lower(params, state, params).compile()
    return time.process_time() - start


def measure(quick: bool = False) -> dict[str, Spread]:
    """Return seconds of processor time to trace and compile one step, contenders in turns."""
    leaves = 60 if quick else LEAVES
    params = {f"layer{i:04}": jnp.ones(_SHAPES[i % len(_SHAPES)]) for i in range(leaves)}
    seen: dict[str, list[float]] = {name: [] for name in _CONTENDERS}
    for _ in range(3 if quick else 7):
        for name, (make, form) in _CONTENDERS.items():
            tx = make()
            seen[name].append(_seconds(tx, form(tx), params))
    return {
        name: Spread(*(float(q) for q in np.quantile(times, [0.5, 0.25, 0.75])))
        for name, times in seen.items()
    }
