from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, ParamSpec, TypeAlias

import jax

P = ParamSpec("P")

LeafState: TypeAlias = dict[str, Any]
Shared: TypeAlias = dict[str, Any]
Scalars: TypeAlias = dict[str, jax.Array]


class Problem(NamedTuple):
    """A bad argument or parameter: torch's own message, then what would be right."""

    message: str
    remedy: str


class Sum(NamedTuple):
    """A new parameter as ``base + alpha * addend``, rounded once: torch's ``base.add_(addend)``.

    Where ``base`` is the parameter itself, ``alpha * addend`` is the Optax update, exactly; an
    update computed as the difference of two rounded parameters is not.
    """

    base: jax.Array
    addend: jax.Array
    alpha: jax.Array | float = 1.0


class Rows(NamedTuple):
    """A new parameter of which only some entries are new: ``param[indices] + delta``.

    Attributes:
        indices: one array per indexed axis, sorted and unique; out of bounds for no entry.
        delta: what is added there.
    """

    indices: tuple[jax.Array, ...]
    delta: jax.Array


def _no_state(**_: Any) -> Shared:
    return {}


def _nothing_shared(shared: Shared, **_: Any) -> tuple[Shared, Scalars]:
    return shared, {}


def _holds_all(**_: Any) -> frozenset[str] | None:
    return None


def _accepts_all(param: jax.Array) -> Problem | None:
    return None


@dataclass(frozen=True)
class Rule(Generic[P]):
    """An update rule: what torch does with the tensors of one parameter.

    All functions but `arguments` are pure and are called by the engine, which deals with trees,
    groups and hyperparameters. Options come by keyword: numbers as float64 scalars (a tuple of
    them as a vector), static options as they are. Calculations with numbers alone are float64, as
    Python's are; ``numerics.torch_ops`` rounds them where they meet an array. Complex parameters
    come as real arrays with the real and imaginary part in a new last axis.

    Attributes:
        arguments: a generator function whose signature is the optimizer's, and which yields a
            :class:`Problem` for each bad argument. An argument whose default is a float (or a
            tuple of floats, None for one that may be left out) is a number, settable between
            steps; any other is static.
        init: ``init(param, **options)``: the arrays held for a leaf, by torch's name.
        update: ``update(grad, param, state, **options, **scalars) -> (new_param, state)`` for a
            leaf; ``new_param`` is an array, a :class:`Sum` or :class:`Rows`.
        start: ``start(**options)``: what is held once for all leaves of a group, such as the step
            count: scalars, int32, float32 or bool.
        advance: ``advance(shared, **options) -> (shared, scalars)``: what follows from it once per
            group and step: its next value, and float64 scalars, such as bias corrections, that
            ``update`` is given by name, rounded to the type that the leaf is computed in. They
            replace options of the same name.
        holds: ``holds(**options)``: the names of the state that these options need, or None for
            all of it. A number that is not known when the optimizer is built is NaN.
        accepts: ``accepts(param)``: the problem with a parameter of this shape and dtype, if any.
        sparse: whether gradients are row-sparse: a ``BCOO`` or a pair ``(indices, values)``; None
            for either.
        begins: what is shared and zero until torch's optimizer makes its state, in the first step;
            None where it does so before. A flag (a bool) is not kept by torch itself.
        elementwise: whether the update is the same in any layout of the parameter.
        title: the optimizer's name, where it is not that of ``arguments``.
    """

    arguments: Callable[P, Iterator[Problem]]
    init: Callable[..., LeafState]
    update: Callable[..., tuple[jax.Array | Sum | Rows, LeafState]]
    start: Callable[..., Shared] = _no_state
    advance: Callable[..., tuple[Shared, Scalars]] = _nothing_shared
    holds: Callable[..., frozenset[str] | None] = _holds_all
    accepts: Callable[[jax.Array], Problem | None] = _accepts_all
    sparse: bool | None = False
    begins: str | None = "step"
    elementwise: bool = True
    title: str = ""

    @property
    def name(self) -> str:
        """The optimizer's name, as messages show it."""
        return self.title or self.arguments.__name__
