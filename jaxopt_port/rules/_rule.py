from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, ParamSpec, TypeAlias

import jax

P = ParamSpec("P")

LeafState: TypeAlias = dict[str, Any]


class Problem(NamedTuple):
    """A bad argument: torch's own message, then what would be right."""

    message: str
    remedy: str


class Sum(NamedTuple):
    """A new parameter as ``base + delta``, not yet rounded.

    The engine adds the two in the fusion that makes ``delta``, so that a product in it is
    contracted into one fused multiply-add, as in torch's ``param.add_(grad, alpha=-lr)``. Where
    ``base`` is the parameter itself, ``delta`` is the Optax update, exactly; an update computed
    as the difference of two rounded parameters is not.
    """

    base: jax.Array
    delta: jax.Array


def _holds_all(**_: object) -> frozenset[str] | None:
    return None


@dataclass(frozen=True)
class Rule(Generic[P]):
    """An update rule for one leaf.

    Attributes:
        arguments: a generator function whose signature and docstring are the optimizer's, and
            which yields a :class:`Problem` for each bad argument. An argument whose default is
            a float is a number, settable between steps; any other is static.
        init: ``init(param) -> state``. A Python or NumPy scalar in the state is one number for
            all the leaves of a group (a step count, say), int32 or float32, whose next value may
            depend on the numbers and on itself but on no leaf; an array belongs to the leaf.
        update: ``update(grad, param, state, *, …) -> (new_param, state)``, with every argument by
            name, numbers as float64 scalars; ``new_param`` is an array or a :class:`Sum`.
        holds: the names of the state that these options need, or None for all of it. A number
            that is not known when the optimizer is built is passed as NaN.
    """

    arguments: Callable[P, Iterator[Problem]]
    init: Callable[[jax.Array], LeafState]
    update: Callable[..., tuple[jax.Array | Sum, LeafState]]
    holds: Callable[..., frozenset[str] | None] = _holds_all

    @property
    def name(self) -> str:
        return self.arguments.__name__
