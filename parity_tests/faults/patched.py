"""Deliberate faults in SGD, each a way in which ports go wrong, made around the true rule.

``options`` are some in which it shows. ``recipe``, ``step`` and ``path`` say where
``jaxopt-port verify`` must find it first; the path is where it begins.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

import jaxopt_port as jp
from jaxopt_port.engine import Sum
from jaxopt_port.numerics.torch_ops import add

_true = jp.sgd.rule.update


class Fault(NamedTuple):
    name: str
    update: Callable[..., Any]
    options: dict[str, Any]
    recipe: str
    step: int
    path: str


def _dampening_of_the_wrong_sign(grad, param, state, *, dampening, **options):
    return _true(grad, param, state, dampening=-dampening, **options)


def _decay_after_momentum(grad, param, state, *, lr, weight_decay, **options):
    (base, addend, alpha, _), state = _true(
        grad, param, state, lr=lr, weight_decay=jnp.zeros_like(weight_decay), **options
    )
    return Sum(base, add(addend, param, alpha=weight_decay), alpha), state


def _learning_rate_in_bfloat16(grad, param, state, *, lr, **options):
    lr = lax.reduce_precision(lr, exponent_bits=8, mantissa_bits=7)
    return _true(grad, param, state, lr=lr, **options)


def _first_buffer_dampened(grad, param, state, *, dampening, begun=None, **options):
    if begun is not None:
        factor = jnp.where(begun, 1.0, 1 - dampening)
        grad = grad * factor.astype(grad.dtype)
    return _true(grad, param, state, dampening=dampening, begun=begun, **options)


def _nesterov_dropped(grad, param, state, *, nesterov, **options):
    return _true(grad, param, state, nesterov=False, **options)


def _momentum_forgotten(grad, param, state, **options):
    return _true(grad, param, {k: jnp.zeros_like(v) for k, v in state.items()}, **options)


MOMENTUM = {"momentum": 0.9}
DAMPENED, DECAYED = MOMENTUM | {"dampening": 0.5}, MOMENTUM | {"weight_decay": 0.1}
NESTEROV = MOMENTUM | {"nesterov": True}
FAULTS = [
    Fault("sign of dampening", _dampening_of_the_wrong_sign, DAMPENED, "every-option", 1, "features/"),
    Fault("decay after momentum", _decay_after_momentum, DECAYED, "every-option", 0, "classifier/"),
    Fault("lr in bfloat16", _learning_rate_in_bfloat16, {"lr": 0.1}, "per-subnetwork", 0, "classifier/"),
    Fault("first buffer dampened", _first_buffer_dampened, DAMPENED, "every-option", 0, "features/"),
    Fault("nesterov dropped", _nesterov_dropped, NESTEROV, "every-option", 0, "classifier/"),
    Fault("momentum forgotten", _momentum_forgotten, MOMENTUM, "dynamic-in-place", 1, "classifier/"),
]  # fmt: skip
