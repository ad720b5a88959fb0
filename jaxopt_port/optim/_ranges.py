"""The ranges of numbers that most of torch's optimizers share, in torch's words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..engine import Problem
from ..numerics.torch_ops import Scalar


def check_number(name: str, value: Any) -> None:
    """Raise TypeError for what is not one number."""
    known = isinstance(value, int | float | np.generic | np.ndarray | jax.Array)
    if not known or isinstance(value, bool) or np.ndim(value):
        raise TypeError(f"{name} must be one number; got {value!r}")


def learning_rate(lr: Scalar) -> Iterator[Problem]:
    if not lr >= 0.0:
        yield Problem(f"Invalid learning rate: {lr}", "lr must be >= 0")


def epsilon(eps: Scalar) -> Iterator[Problem]:
    if not eps >= 0.0:
        yield Problem(f"Invalid epsilon value: {eps}", "eps must be >= 0")


def at_least_zero(name: str, value: Scalar) -> Iterator[Problem]:
    if not value >= 0.0:
        yield Problem(f"Invalid {name} value: {value}", f"{name} must be >= 0")


def above_zero(name: str, value: Scalar) -> Iterator[Problem]:
    if not value > 0.0:
        yield Problem(f"Invalid {name} value: {value}", f"{name} must be > 0")


def below_one(name: str, value: Scalar) -> Iterator[Problem]:
    if not 0.0 <= value < 1.0:
        yield Problem(f"Invalid {name} value: {value}", f"{name} must be in [0, 1)")


def whole(name: str, value: object, least: int = 0) -> Iterator[Problem]:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        yield Problem(
            f"Invalid {name} value: {value!r}", f"{name} must be a whole number from {least} on"
        )


def optional(
    within: Callable[[str, Scalar], Iterator[Problem]], name: str, value: Any
) -> Iterator[Problem]:
    """The problems of a static number that may be None."""
    if value is not None and not hasattr(value, "__float__"):
        yield Problem(f"Invalid {name} value: {value!r}", f"{name} must be a number or None")
    elif value is not None:
        yield from within(name, value)


def beta_pair(betas: Sequence[Scalar]) -> Iterator[Problem]:
    for i, beta in enumerate(betas):
        if not 0.0 <= beta < 1.0:
            yield Problem(f"Invalid beta parameter at index {i}: {beta}", "betas must be in [0, 1)")


def adam(
    lr: Scalar, betas: Sequence[Scalar], eps: Scalar, weight_decay: Scalar, **_: Any
) -> Iterator[Problem]:
    yield from learning_rate(lr)
    yield from epsilon(eps)
    yield from beta_pair(betas)
    yield from at_least_zero("weight_decay", weight_decay)


def nesterov(wanted: bool, momentum: Scalar, dampening: Scalar) -> Iterator[Problem]:
    if wanted and (momentum <= 0 or dampening != 0):
        yield Problem(
            "Nesterov momentum requires a momentum and zero dampening",
            f"got momentum={momentum}, dampening={dampening}",
        )


@dataclass(frozen=True)
class OnlyReal:
    """A rule's ``accepts`` which is no more than that: a value, so that rules can be pickled."""

    name: str

    def __call__(self, param: jax.Array) -> Problem | None:
        if not jnp.iscomplexobj(param):
            return None
        return Problem(
            f"{self.name} does not support complex parameters",
            "put the real and imaginary parts into two parameters, or choose another optimizer",
        )
