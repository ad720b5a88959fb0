"""The loops that people write around an optimizer: which of them keep torch's bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from flax.training import train_state

import jaxopt_port as jp
from jaxopt_port import flax as own
from parity_tests.oracles.optimizer import torchs_parameters

STEPS, SIZE = 20, 20_000
SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.01}
ADAMW = {"lr": 0.01, "weight_decay": 0.1}

Arrays: TypeAlias = dict[str, np.ndarray]
Loop: TypeAlias = Callable[[Any, Arrays, list[Arrays]], Any]
Wrapper: TypeAlias = Callable[[Any], Any]


def _stepped(tx: Any, params: Any, grads: list[Arrays]) -> Any:
    state = tx.init(params)
    for each in grads:
        params, state = jp.step(tx, each, state, params)
    return params


def _updated(tx: Any, params: Any, grads: list[Arrays]) -> Any:
    @jax.jit
    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for each in grads:
        params, state = step(params, state, each)
    return params


class _Model(nnx.Module):
    def __init__(self, params: Any) -> None:
        self.w, self.b = (nnx.Param(jnp.asarray(params[name])) for name in ("w", "b"))


def _of_nnx(optimizer: Callable[..., Any]) -> Loop:
    def loop(tx: Any, params: Any, grads: list[Arrays]) -> Any:
        model = _Model(params)
        held = optimizer(model, tx, wrt=nnx.Param)

        @nnx.jit
        def step(model: Any, held: Any, grads: Any) -> None:
            held.update(model, grads)

        for each in grads:
            step(model, held, nnx.State({k: nnx.Param(jnp.asarray(v)) for k, v in each.items()}))
        return {"w": model.w[...], "b": model.b[...]}

    return loop


def _of_linen(cls: Any) -> Loop:
    def loop(tx: Any, params: Any, grads: list[Arrays]) -> Any:
        state = cls.create(apply_fn=None, params=jax.tree.map(jnp.asarray, params), tx=tx)
        step = jax.jit(lambda state, grads: state.apply_gradients(grads=grads))
        for each in grads:
            state = step(state, each)
        return state.params

    return loop


WRAPPERS: dict[str, Wrapper] = {
    "alone": lambda tx: tx,
    "`chain(clip_by_global_norm, ·)`": lambda tx: optax.chain(optax.clip_by_global_norm(1e9), tx),
    "`chain(·, scale(1.0))`": lambda tx: optax.chain(tx, optax.scale(1.0)),
    "`chain(·, masked(scale(1.0)))`": lambda tx: optax.chain(
        tx, optax.masked(optax.scale(1.0), lambda params: jax.tree.map(lambda _: True, params))
    ),
    "`apply_if_finite(·)`": lambda tx: optax.apply_if_finite(tx, 3),
    "`MultiSteps(·, 1)`": lambda tx: optax.MultiSteps(tx, 1).gradient_transformation(),
    "`jp.accumulate_grads(·, 1)`": lambda tx: jp.accumulate_grads(tx, 1),
}
LOOPS: dict[str, Loop] = {
    "`jp.step`": _stepped,
    "`tx.update`, `optax.apply_updates`": _updated,
    "`jaxopt_port.flax.Optimizer`": _of_nnx(own.Optimizer),
    "`nnx.Optimizer`": _of_nnx(nnx.Optimizer),
    "`jaxopt_port.flax.TrainState`": _of_linen(own.TrainState),
    "Flax's `TrainState`": _of_linen(train_state.TrainState),
}


def drawn(steps: int = STEPS) -> tuple[Arrays, list[Arrays]]:
    """Return parameters, of which half cross zero now and then, and gradients."""
    rng = np.random.default_rng(0)

    def arrays() -> Arrays:
        return {
            "w": rng.standard_normal((100, SIZE // 200)).astype(np.float32),
            "b": (0.05 * rng.standard_normal(SIZE // 2)).astype(np.float32),
        }

    return arrays(), [arrays() for _ in range(steps)]


def torchs(params: Arrays, grads: list[Arrays]) -> Arrays:
    """Return where torch's SGD ends."""
    return torchs_parameters(torch.optim.SGD, params, SGD, grads)


def lost(ours: Any, theirs: Any) -> int:
    """Return how many elements differ in a bit."""
    pairs = [(np.asarray(ours[k]), np.asarray(theirs[k])) for k in theirs]
    return int(sum(np.sum(x.view(np.int32) != y.view(np.int32)) for x, y in pairs))


def measured(loop: str, wrapper: str, steps: int = STEPS) -> tuple[int, int]:
    """Return what a loop loses: of SGD beside torch, of AdamW beside `jp.step` alone."""
    params, grads = drawn(steps)
    run, wrap = LOOPS[loop], WRAPPERS[wrapper]
    return (
        lost(run(wrap(jp.SGD(**SGD)), params, grads), torchs(params, grads)),
        lost(
            run(wrap(jp.AdamW(**ADAMW)), params, grads), _stepped(jp.AdamW(**ADAMW), params, grads)
        ),
    )


def table() -> str:
    """Return the table of all loops, as Markdown; wrappers that lose the same share a line."""
    lines = ["| loop | around the optimizer | SGD | AdamW |", "|---|---|--:|--:|"]
    for loop in LOOPS:
        alike: dict[tuple[int, int], list[str]] = {}
        for wrapper in WRAPPERS:
            alike.setdefault(measured(loop, wrapper), []).append(wrapper)
        for (sgd, adamw), wrappers in alike.items():
            shown = "all of these" if len(alike) == 1 else ", ".join(wrappers)
            lines.append(f"| {loop} | {shown} | {sgd or 'none'} | {adamw or 'none'} |")
    return "\n".join([*lines, "", "All of these: " + ", ".join(WRAPPERS) + "."])
