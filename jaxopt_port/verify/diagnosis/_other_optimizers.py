"""Runs other optimizers on what is known of a leaf, as themselves."""

from __future__ import annotations

import functools
import inspect
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax

import jaxopt_port as jp

from ...engine import IMPLEMENTATIONS
from ..report import Cause
from ._algorithms import ALGORITHMS
from ._numbers import nice, same
from ._update_history import Steps, UpdateHistory, Wide

_ENOUGH = 1e-4
_NEARER = 0.1  # than torch's own steps
_SIZE = 64
_SCALARS = (int, float, tuple, bool)
_FEW = 2  # sets of numbers for rules that are dear
# Rules that go element by element, so that a sample of a leaf tells.
_OURS = (
    "Adam", "AdamW", "SGD", "RAdam", "NAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "Rprop",
    "ASGD",
)  # fmt: skip
_OPTAX = ("lion", "adabelief", "yogi", "sign_sgd", "adan")
_CONTRIB = (
    "Lion", "NAdamW", "LaProp", "Adopt", "MADGRAD", "AdaBelief", "RMSpropTF", "Adan", "SGDW",
    "AdamWScheduleFree", "RAdamScheduleFree", "SGDScheduleFree",
)  # fmt: skip
_PARALLEL = ("RAdam", "RAdamScheduleFree")  # in some steps, to Adam's
# Those that go by the norm, the rows or the singular values of a leaf.
_WHOLE = {
    "jp": ("Muon", "Adafactor"),
    "optax": ("lamb", "lars", "adafactor", "novograd", "muon", "fromage"),
}
# What ports do to a leaf's gradient before the optimizer, and torch's scripts seldom.
_CHANGED = {
    "centralize": ((), "subtracts its mean from the gradient of a kernel"),
    "adaptive_grad_clip": ((0.01,), "clips gradients by the norms of each unit's weights"),
}  # fmt: skip
_Options = dict[str, Any]


def another_optimizer(history: UpdateHistory, parallel: bool = False) -> Cause | None:
    """Return the cause of steps that another optimizer would make, at some learning rate.

    Args:
        history: of a leaf.
        parallel: whether each step is a multiple of torch's.
    """
    moved = history.moves(history.yours)
    if not np.all(np.isfinite(moved)) or not np.any(moved):
        return None
    n = history.start.size

    def padded(x: Wide) -> Wide:  # to one size, so that a program serves all leaves
        return np.pad(x, (0, max(0, _SIZE - n)))

    sample = Steps(padded(history.start), list(map(padded, history.grads)), [])
    sample.after.extend(map(padded, history.yours))
    for home, name, options in _elementwise(history):
        if parallel and name not in _PARALLEL:
            continue
        made = _moved(home, name, tuple(options.items()), sample, history)[:, :n]
        if found := _cause(name, made, moved, history):
            return found
    return _of_whole(history)


def of_another_class(yours: str, torchs: str) -> Cause | None:
    """Return the cause of other numbers where the optimizer is another one, as its class says.

    Those that are simulated are told apart by what they do: Adam may be what AdamW is elsewhere.
    Of several optimizers it is not said whose a leaf is.

    Args:
        yours: the class of this library, with its package, or "".
        torchs: torch's class, or the classes of several optimizers.
    """
    name = yours.removeprefix("contrib.")
    if name in ("", torchs) or " and " in torchs or (name in ALGORITHMS and torchs in ALGORITHMS):
        return None
    return _said(yours, "", torchs, 0.0)


def _said(name: str, at: str, torchs: str, left: float) -> Cause:
    of_torch = name in (*_OURS, *_WHOLE["jp"])
    other = f", or torch.optim.{name}" if of_torch else f"; torch.optim has no {name}"
    words = f"your side's optimizer is {name}{at}; torch's is {torchs}"
    here = hasattr(jp, torchs)
    twin = f"jp.{torchs}" if here else f"a twin of {torchs} (jaxopt_port.contrib has some)"
    return Cause("another-optimizer", words, f"use {twin}{other}", left)


def _of_whole(history: UpdateHistory) -> Cause | None:
    """Look among the rules that do not go element by element, where a leaf is held as a whole."""
    whole = history.whole
    if whole is None:
        return None
    moved = np.diff(np.stack([whole.start, *whole.after]), axis=0)
    for home, names in _WHOLE.items():
        for name in names:
            if (home, name) == ("jp", history.optimizer) or not _takes(home, name, whole.start):
                continue
            for options in _numbers(history, home)[:_FEW]:
                made = _moved(home, name, tuple(options.items()), whole, history)
                if found := _cause(name, made, moved, history):
                    return found
    return None


def changed_gradient(history: UpdateHistory) -> Cause | None:
    """Look among what Optax does to gradients, before torch's own optimizer."""
    whole = history.whole
    if whole is None or history.optimizer not in (*_OURS, *_WHOLE["jp"]):
        return None
    moved = np.diff(np.stack([whole.start, *whole.after]), axis=0)
    known = _known(history)
    for name, (arguments, words) in _CHANGED.items():
        with jax.enable_x64(True):
            tx = getattr(optax, name)(*arguments)
            states = itertools.chain([whole.start], whole.after)
            changed = [
                np.asarray(tx.update(jax.numpy.asarray(grad), tx.init(param), param)[0])
                for grad, param in zip(whole.grads, states, strict=False)
            ]
        steps = Steps(whole.start, changed, whole.after)
        made = _moved("jp", history.optimizer, tuple(known.items()), steps, history)
        gap, beside = float(np.max(np.abs(moved - made))), float(np.max(np.abs(moved)))
        if gap <= min(_ENOUGH, _NEARER * _beside_torch(history)) * beside:
            return Cause(
                "changed-gradient",
                f"your side {words} (optax.{name}); torch does not",
                f"take optax.{name} out of the chain, or let torch's side do the same",
                gap / beside,
            )
    return None


def _takes(home: str, name: str, leaf: Wide) -> bool:
    """Whether an optimizer takes a leaf: Muon takes matrices alone."""
    if home == "optax":
        return True
    factory: Any = getattr(jp if home == "jp" else jp.contrib, name).factory
    accepted: bool = factory.rule.accepts(jax.numpy.asarray(leaf)) is None
    return accepted


def _cause(name: str, made: Wide, moved: Wide, history: UpdateHistory) -> Cause | None:
    """Return the cause, if an optimizer's steps are a multiple of yours."""
    square = float(np.vdot(made, made))
    if not square or not np.all(np.isfinite(made)):
        return None
    ratio = float(np.vdot(moved, made)) / square
    left = float(np.max(np.abs(moved - ratio * made)) / np.max(np.abs(moved)))
    if ratio <= 0 or left > min(_ENOUGH, _NEARER * _beside_torch(history)):
        return None
    rate = ratio * float(_known(history)["lr"])
    at = "" if same(ratio, 1.0, 1e-5) else f" with lr={nice(rate):.6g}"
    return _said(name, at, history.optimizer, left)


def _beside_torch(history: UpdateHistory) -> float:
    """Return how far torch's own steps are from yours, as a part of the largest of yours."""
    mine, theirs = map(history.moves, (history.yours, history.torchs))
    return float(np.max(np.abs(mine - theirs)) / np.max(np.abs(mine)))


def _known(history: UpdateHistory) -> _Options:
    """Return torch's first numbers, and a rate of 1 where it begins with none."""
    known = {k: v for k, v in history.options[0].items() if isinstance(v, _SCALARS)}
    return {**known, "lr": known.get("lr") or 1.0}


def _elementwise(history: UpdateHistory) -> Iterator[tuple[str, str, _Options]]:
    known = _known(history)
    for name in _OURS:
        if name != history.optimizer:
            yield "jp", name, known
    for home, names in (("optax", _OPTAX), ("contrib", _CONTRIB)):
        for name in names:
            for options in _numbers(history, home):
                yield home, name, options


def _numbers(history: UpdateHistory, home: str) -> list[_Options]:
    """Return torch's numbers as another optimizer may have been given them: more, and fewer."""
    options: _Options = _known(history)
    rate = {"learning_rate" if home == "optax" else "lr": options["lr"]}
    betas, decay = options.get("betas"), {"weight_decay": options.get("weight_decay") or 0.0}
    own = {"momentum": options["momentum"]} if "momentum" in options else {}
    if betas:
        own = {"b1": betas[0], "b2": betas[1]} if home == "optax" else {"betas": betas}
    if home == "contrib":  # a program each is dear; where its state shows, its class is known
        return [{**rate, **decay}]
    sets = [{**rate, **decay}, rate, {**rate, **decay, **own}, {**rate, **own}]
    return [x for i, x in enumerate(sets) if x not in sets[:i]]


def _made(factory: Callable[..., Any], options: _Options) -> Any:
    """Build an optimizer with those of the options that it knows and takes."""
    known = inspect.signature(factory).parameters
    without = ("params", *IMPLEMENTATIONS)
    given = {k: v for k, v in options.items() if k in known and k not in without}
    try:
        return factory(**given)
    except (TypeError, ValueError):
        rate = "lr" if "lr" in known else "learning_rate"
        return factory(**{rate: options.get("lr", options.get("learning_rate"))})


def _moved(
    home: str, name: str, options: tuple[tuple[str, Any], ...], steps: Steps, history: UpdateHistory
) -> Wide:
    """Return the steps that an optimizer makes of the gradients, its rate being torch's first."""
    begun = float(_known(history)["lr"])
    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layouts: it runs on what it was given
        tx, update = _program(home, name, options)
        state = tx.init(jax.numpy.asarray(steps.start))
        moved = []
        for i, grads in enumerate(steps.grads):
            factor = history.clip[i]["factor"] if history.clip else 1.0
            sign = -1.0 if history.options[i].get("maximize") else 1.0
            # Decoupled decay goes by the parameters, and those are your side's.
            params = jax.numpy.asarray(steps.after[i - 1] if i else steps.start)
            made, state = update(jax.numpy.asarray(sign * factor * grads), state, params)
            rate = float(history.options[i].get("lr", begun))
            moved.append(np.asarray(made) * (rate / begun))
    return np.array(moved)


@functools.lru_cache(maxsize=256)
def _program(home: str, name: str, options: tuple[tuple[str, Any], ...]) -> tuple[Any, Any]:
    if home == "optax":
        factory = getattr(optax, name, None) or getattr(optax.contrib, name)
    else:
        factory = getattr(jp if home == "jp" else jp.contrib, name)
    tx = _made(factory, dict(options))
    return tx, jax.jit(tx.update)
