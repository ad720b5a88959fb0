"""torch's update rules in float64 NumPy, with the variations that ports have.

Each is written for a sample of a leaf's elements. Names are torch's (``_single_tensor_*``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._numbers import NARROW
from ._update_history import Wide

State = dict[str, Any]
Options = Mapping[str, Any]


@dataclass(frozen=True)
class Variation:
    """How an algorithm departs from torch's; the defaults are torch's.

    Attributes:
        decay: "torch" (as the class has it), "coupled", "decoupled" (or after momentum, the same),
            "none", "raw" (decoupled, not multiplied by the learning rate) or "grown" (that, added).
        first: the first momentum buffer: "torch" (the gradient) or "damped".
        dampening: "torch", "ema" (the momentum) or "corrected" (that, of an average from zero which
            is divided by the part that it has seen, as Adam's are).
        nesterov: turned over; of Adam and NAdam, the form that Optax has.
        lr_inside: whether the momentum buffer holds what was multiplied by the learning rate.
        correction: of the moments: "both", "none", "first" or "second".
        eps: "torch", "inside" the root, "root" (inside, of corrected moments) or "uncorrected".
        amsgrad: turned over.
        corrected_maximum: whether AMSGrad's maximum is that of corrected moments.
        centered: turned over.
        initial: what sums of squares start at.
        narrow: the dtype of few bits in which the momentum buffer is kept, or "".
    """

    decay: str = "torch"
    first: str = "torch"
    dampening: str = "torch"
    nesterov: bool = False
    lr_inside: bool = False
    correction: str = "both"
    eps: str = "torch"
    amsgrad: bool = False
    corrected_maximum: bool = False
    centered: bool = False
    initial: float | None = None
    narrow: str = ""


def _kept(buffer: Wide, momentum: float, dtype: str) -> Wide:
    """Return what is left of a momentum buffer, which may be kept in few bits."""
    if not dtype:
        return momentum * buffer
    share, held = (np.asarray(x).astype(NARROW[dtype]) for x in (momentum, buffer))
    return np.asarray(share * held).astype(np.float64)


def _sgd(p: Wide, g: Wide, o: Options, state: State, v: Variation) -> Wide:
    momentum, lr = o.get("momentum", 0.0), o["lr"]
    dampening = o.get("dampening", 0.0) if v.dampening == "torch" else momentum
    if v.lr_inside:
        g = lr * g
    update = g
    if momentum:
        if "buf" in state:
            state["buf"] = _kept(state["buf"], momentum, v.narrow) + (1 - dampening) * g
        else:
            state["buf"] = (1 - dampening) * g if v.first == "damped" else g
        held = state["buf"]
        if v.dampening == "corrected":
            state["step"] = state.get("step", 0) + 1
            held = held / (1 - momentum ** state["step"])
        nesterov = o.get("nesterov", False) != v.nesterov
        update = g + momentum * held if nesterov else held
    return np.asarray(p - (update if v.lr_inside else lr * update))


def _adam(p: Wide, g: Wide, o: Options, state: State, v: Variation) -> Wide:
    beta1, beta2 = o["betas"]
    t = state["step"] = state.get("step", 0) + 1
    start = 0.0 if v.initial is None else v.initial
    m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
    s = state["v"] = beta2 * state.get("v", start) + (1 - beta2) * g * g
    c1 = 1 - beta1**t if v.correction in ("both", "first") else 1.0
    c2 = 1 - beta2**t if v.correction in ("both", "second") else 1.0
    if bool(o.get("amsgrad")) != v.amsgrad:
        held = s / c2 if v.corrected_maximum else s
        largest = state["max"] = np.maximum(state.get("max", 0.0), held)
        s = largest * c2 if v.corrected_maximum else largest
    first = m / c1
    if v.nesterov:
        first = beta1 * m / (1 - beta1 ** (t + 1)) + (1 - beta1) * g / c1
    update = first / _root(s, c2, o, v.eps)
    return np.asarray(p - o["lr"] * update)


def _root(s: Wide, correction: float, o: Options, kind: str) -> Wide:
    eps, inside = o["eps"], o.get("eps_root", 0.0)  # Optax has an eps_root, torch has not
    if kind == "inside":
        return np.asarray(np.sqrt(s + eps) / np.sqrt(correction))
    if kind == "root":
        return np.asarray(np.sqrt(s / correction + eps))
    if kind == "uncorrected":
        return np.asarray((np.sqrt(s) + eps) / np.sqrt(correction))
    return np.asarray(np.sqrt(s / correction + inside) + eps)


def _rmsprop(p: Wide, g: Wide, o: Options, state: State, v: Variation) -> Wide:
    alpha, momentum = o["alpha"], o.get("momentum", 0.0)
    start = 0.0 if v.initial is None else v.initial
    s = state["v"] = alpha * state.get("v", start) + (1 - alpha) * g * g
    if bool(o.get("centered")) != v.centered:
        mean = state["mean"] = alpha * state.get("mean", 0.0) + (1 - alpha) * g
        s = s - mean * mean
    correction = 1.0
    if v.correction == "second":  # torch's RMSprop has none
        state["step"] = state.get("step", 0) + 1
        correction = 1 - alpha ** state["step"]
    update = g / _root(s, correction, o, v.eps)
    if v.lr_inside:
        update = o["lr"] * update
    if momentum:
        update = state["buf"] = momentum * state.get("buf", 0.0) + update
    return np.asarray(p - (update if v.lr_inside else o["lr"] * update))


def _adagrad(p: Wide, g: Wide, o: Options, state: State, v: Variation) -> Wide:
    t = state["step"] = state.get("step", 0) + 1
    start: float = o.get("initial_accumulator_value", 0.0) if v.initial is None else v.initial
    s: Wide = state.get("v", start) + g * g
    state["v"] = s
    root = _root(s, 1.0, o, v.eps)
    # Where nothing has been seen yet, Optax divides by nothing.
    update = np.divide(g, root, out=np.zeros_like(g), where=root != 0)
    return np.asarray(p - o["lr"] / (1 + (t - 1) * o.get("lr_decay", 0.0)) * update)


def _adamax(p: Wide, g: Wide, o: Options, state: State, v: Variation) -> Wide:
    beta1, beta2 = o["betas"]
    t = state["step"] = state.get("step", 0) + 1
    m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
    u = state["u"] = np.maximum(beta2 * state.get("u", 0.0), np.abs(g) + o["eps"])
    correction = 1 - beta1**t if v.correction in ("both", "first") else 1.0
    return np.asarray(p - o["lr"] / correction * m / u)


def _nadam(p: Wide, g: Wide, o: Options, state: State, v: Variation) -> Wide:
    beta1, beta2 = o["betas"]
    t = state["step"] = state.get("step", 0) + 1
    decay = o.get("momentum_decay", 4e-3)
    mu, following = (beta1 * (1 - 0.5 * 0.96 ** (i * decay)) for i in (t, t + 1))
    # torch keeps it in float32, in a float64 run too.
    product = state["product"] = float(np.float32(state.get("product", 1.0) * mu))
    m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
    s = state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * g * g
    c2 = 1 - beta2**t if v.correction in ("both", "second") else 1.0
    root = _root(s, c2, o, v.eps)
    if v.nesterov:
        first = beta1 * m / (1 - beta1 ** (t + 1)) + (1 - beta1) * g / (1 - beta1**t)
        return np.asarray(p - o["lr"] * first / root)
    update = (1 - mu) / (1 - product) * g + following / (1 - product * following) * m
    return np.asarray(p - o["lr"] * update / root)


def _adadelta(p: Wide, g: Wide, o: Options, state: State, v: Variation) -> Wide:
    rho, eps = o["rho"], o["eps"]
    s = state["v"] = rho * state.get("v", 0.0) + (1 - rho) * g * g
    moved = state.get("d", 0.0)
    update = np.sqrt(moved + eps) / np.sqrt(s + eps) * g
    state["d"] = rho * moved + (1 - rho) * update * update
    return np.asarray(p - o["lr"] * update)


Algorithm = Callable[[Wide, Wide, Options, State, Variation], Wide]


def _after_decay(rule: Algorithm, decoupled: bool = False) -> Algorithm:
    """Return a rule that is given parameter and gradient after the decay of the class."""

    def step(p: Wide, g: Wide, o: Options, state: State, v: Variation) -> Wide:
        kind, decay = v.decay, o.get("weight_decay", 0.0)
        if kind == "torch":
            kind = "decoupled" if decoupled or o.get("decoupled_weight_decay") else "coupled"
        if kind == "coupled":
            return rule(p, g + decay * p, o, state, v)
        taken = {"decoupled": o["lr"] * decay, "raw": decay, "grown": -decay, "none": 0.0}[kind]
        return rule(p * (1 - taken), g, o, state, v)

    return step


# By torch's class.
ALGORITHMS: Mapping[str, Algorithm] = {
    "SGD": _after_decay(_sgd),
    "Adam": _after_decay(_adam),
    "AdamW": _after_decay(_adam, decoupled=True),
    "RMSprop": _after_decay(_rmsprop),
    "Adagrad": _after_decay(_adagrad),
    "Adamax": _after_decay(_adamax),
    "NAdam": _after_decay(_nadam),
    "Adadelta": _after_decay(_adadelta),
}
