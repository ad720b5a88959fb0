"""Runs other optimizers on what is known of a leaf, as themselves, and gradients added up."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax

import jaxopt_port as jp

from ..compare._report import Cause
from ._numbers import nice, same
from ._simulation import Hypothesis, Simulation
from ._update_history import UpdateHistory, Wide

_MOST_STEPS = 8
_ENOUGH = 1e-4
_SIZE = 64
# Rules that go element by element, so that a sample of a leaf tells.
_OURS = (
    "Adam", "AdamW", "SGD", "RAdam", "NAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "Rprop",
    "ASGD",
)  # fmt: skip
_OPTAX = ("lion", "adabelief", "yogi", "sign_sgd", "adan")


def another_optimizer(history: UpdateHistory) -> Cause | None:
    """Return the cause of steps that another optimizer would make, at some learning rate."""
    moved = np.diff(np.concatenate([history.start[None], history.yours]), axis=0)
    if not np.all(np.isfinite(moved)) or not np.any(moved):
        return None
    for name, options in _candidates(history):
        made = _moved(name, tuple(options.items()), history)
        square = float(np.vdot(made, made))
        if not square or not np.all(np.isfinite(made)):
            continue
        ratio = float(np.vdot(moved, made)) / square
        if ratio <= 0 or np.max(np.abs(moved - ratio * made)) > _ENOUGH * np.max(np.abs(moved)):
            continue
        rate = ratio * float(history.options[0]["lr"])
        at = "" if same(ratio, 1.0, 1e-5) else f" with lr={nice(rate):.6g}"
        # All of this library's are torch's, and none of Optax's own.
        other = f", or torch.optim.{name}" if name in _OURS else f"; torch.optim has no {name}"
        return Cause(
            "another-optimizer",
            f"your side's optimizer is {name}{at}; torch's is {history.optimizer}",
            f"use jp.{history.optimizer}{other}",
            float(np.max(np.abs(moved - ratio * made)) / np.max(np.abs(moved))),
        )
    return None


def _candidates(history: UpdateHistory) -> Iterator[tuple[str, dict[str, Any]]]:
    options: dict[str, Any] = {
        k: v for k, v in history.options[0].items() if isinstance(v, (int, float, tuple, bool))
    }
    for name in _OURS:
        if name != history.optimizer:
            yield name, options
    betas = options.get("betas")
    decay = options.get("weight_decay") or 0.0
    for name in _OPTAX:
        for decays in ({"weight_decay": decay}, {}):
            for own in ({}, {"b1": betas[0], "b2": betas[1]} if betas else {}):
                yield name, {"learning_rate": options["lr"], **decays, **own}


def _made(factory: Callable[..., Any], options: dict[str, Any]) -> Any:
    """Build an optimizer with those of the options that it knows and takes."""
    known = inspect.signature(factory).parameters
    given = {
        k: v for k, v in options.items()
        if k in known and k not in ("params", "foreach", "fused", "capturable", "differentiable")
    }  # fmt: skip
    try:
        return factory(**given)
    except (TypeError, ValueError):
        rate = "lr" if "lr" in known else "learning_rate"
        return factory(**{rate: options.get("lr", options.get("learning_rate"))})


def _moved(name: str, options: tuple[tuple[str, Any], ...], history: UpdateHistory) -> Wide:
    """Return the steps that an optimizer makes of the gradients, its rate being torch's first."""
    n = history.start.size

    def padded(x: Wide) -> Any:  # to one size, so that a program serves all leaves
        return jax.numpy.asarray(np.pad(x, (0, max(0, _SIZE - n))))

    with jax.enable_x64(True):
        tx, step = _program(name, options)
        state = tx.init(padded(history.start))
        moved = []
        for i, grads in enumerate(history.grads):
            factor = history.clip[i]["factor"] if history.clip else 1.0
            sign = -1.0 if history.options[i].get("maximize") else 1.0
            # Decoupled decay goes by the parameters, and those are your side's.
            params = padded(history.yours[i - 1] if i else history.start)
            update, state = step(padded(sign * factor * grads), state, params)
            moved.append(np.asarray(update)[:n])
    return np.array(moved)


@functools.lru_cache(maxsize=64)
def _program(name: str, options: tuple[tuple[str, Any], ...]) -> tuple[Any, Any]:
    ours = name in _OURS
    factory = getattr(jp, name) if ours else getattr(optax, name, None)
    tx = _made(factory or getattr(optax.contrib, name), dict(options))
    return tx, jax.jit(tx.update)


def accumulations(
    history: UpdateHistory, simulation: Simulation
) -> Iterator[tuple[int, str, Wide]]:
    """Yield how many gradients are added up, in which words, and the parameters that gives."""
    moved = np.any(
        np.diff(np.concatenate([history.start[None], history.yours]), axis=0) != 0, axis=1
    )
    steps = int(np.argmax(moved)) + 1
    if steps < 2 or not moved.any() or steps > _MOST_STEPS:
        return
    for words, over in (("mean", 1.0 / steps), ("sum", 1.0)):
        yield steps, words, simulation.run(Hypothesis(), every=steps, over=over)
