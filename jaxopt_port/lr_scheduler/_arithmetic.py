"""Float64 arithmetic that is written once and runs eagerly and in a traced program.

Eagerly a scalar is a Python number, and `math` is torch's own arithmetic; a number for each group
is a NumPy vector, of which only correctly rounded operations are used. In a traced program both are
`Traced`, whose every operation rounds by itself, so that a formula has the same bits in both.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ..engine import is_traced as is_traced
from ..numerics import uncontracted

# A Python number, a NumPy vector over groups, or a Traced one of either.
Value: TypeAlias = Any


class StepError(Exception):
    """An error that torch raises in some steps of a run.

    A traced program has all of a step's branches: one that is refused makes the number NaN, and
    only where none is left is the error raised.
    """


class EntryError(KeyError, StepError):
    """A group has no such entry."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key)
        self._reason = reason

    def __str__(self) -> str:
        return f"{super().__str__()}: {self._reason}"


class RateError(ValueError, StepError):
    """There is no number to be set."""


class GroupsError(RuntimeError, StepError):
    """There are more groups than bounds for them."""


class Traced:
    """A float64 (a count too), or a condition, in a program that is being traced.

    XLA contracts a product and a sum into one operation, divides by a constant, or by one scalar
    for all groups, by way of the reciprocal, and squares where an exponent is a constant 2. Each is
    a rounding that torch does not make. A result is `uncontracted`, and what would be a constant or
    one scalar is hidden behind a select.

    Attributes:
        value: the number, or one for each group.
        absent: of an entry of groups, which of them are known to have none.
    """

    __array_ufunc__ = None  # so that NumPy leaves `vector * traced` to this class
    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("absent", "value")

    def __init__(self, value: jax.Array, absent: Sequence[bool] = ()) -> None:
        self.value, self.absent = value, absent

    def __bool__(self) -> bool:
        raise TypeError(
            "a choice that depends on a traced value cannot be made by Python's if, and, or, min, "
            "max; use jnp.where"
        )

    def __add__(self, other: Value) -> Traced:
        return _rounded(operator.add, self, other)

    def __radd__(self, other: Value) -> Traced:
        return _rounded(operator.add, other, self)

    def __sub__(self, other: Value) -> Traced:
        return _rounded(operator.sub, self, other)

    def __rsub__(self, other: Value) -> Traced:
        return _rounded(operator.sub, other, self)

    def __mul__(self, other: Value) -> Traced:
        return _rounded(operator.mul, self, other)

    def __rmul__(self, other: Value) -> Traced:
        return _rounded(operator.mul, other, self)

    def __truediv__(self, other: Value) -> Traced:
        return _rounded(operator.truediv, self, self._opaque(other))

    def __rtruediv__(self, other: Value) -> Traced:
        return _rounded(operator.truediv, other, self)

    def __pow__(self, other: Value) -> Traced:
        return _rounded(jnp.power, self, self._opaque(other))

    def __rpow__(self, other: Value) -> Traced:
        return _rounded(jnp.power, other, self)

    def __floordiv__(self, other: Value) -> Traced:
        return _rounded(operator.floordiv, self, other)

    def __mod__(self, other: Value) -> Traced:
        return _rounded(operator.mod, self, other)

    def __lt__(self, other: Value) -> Traced:
        return Traced(self.value < raw(other))

    def __le__(self, other: Value) -> Traced:
        return Traced(self.value <= raw(other))

    def __gt__(self, other: Value) -> Traced:
        return Traced(self.value > raw(other))

    def __ge__(self, other: Value) -> Traced:
        return Traced(self.value >= raw(other))

    def __eq__(self, other: object) -> Traced:  # type: ignore[override]
        return Traced(self.value == raw(other))

    def __ne__(self, other: object) -> Traced:  # type: ignore[override]
        return Traced(self.value != raw(other))

    def __and__(self, other: Value) -> Traced:
        return Traced(self.value & raw(other))

    __rand__ = __and__

    def __or__(self, other: Value) -> Traced:
        return Traced(self.value | raw(other))

    __ror__ = __or__

    def _opaque(self, other: Value) -> Traced:
        """Return the other operand as neither a constant nor a broadcast scalar to XLA."""
        return Traced(jnp.where(self.value == self.value, _float64(other), jnp.nan))


def raw(x: Value) -> Any:
    return x.value if isinstance(x, Traced) else x


def absent_in(entry: Value) -> Any:
    """Return which groups are known to have no such entry."""
    if isinstance(entry, Traced):
        return np.array(entry.absent or [False] * len(entry.value))
    return np.isnan(entry)


def _float64(x: Value) -> Any:
    value = raw(x)
    # A constant stays NumPy's: made an array, a NaN would be an error under jax_debug_nans.
    held = isinstance(value, jax.Array)
    return jnp.asarray(value, jnp.float64) if held else np.asarray(value, np.float64)


def _rounded(operation: Callable[..., Any], *operands: Value) -> Traced:
    return Traced(uncontracted(operation(*map(_float64, operands))))


def lift(x: jax.Array) -> Traced:
    """Return a JAX number as a value to calculate with."""
    return Traced(x.astype(jnp.float64))


def _of(choice: Value) -> Value:
    return choice() if callable(choice) else choice


def where(condition: Value, then: Value, otherwise: Value) -> Value:
    """``then if condition else otherwise``; for choices that are functions, what they return.

    Eagerly only the chosen function is called.
    """
    if isinstance(condition, Traced):
        then, otherwise = either(lambda: _of(then), lambda: _of(otherwise), lambda _: math.nan)
        if then is otherwise:
            return then
        return Traced(jnp.where(condition.value, _float64(then), _float64(otherwise)))
    if isinstance(condition, np.ndarray):
        return np.where(condition, _of(then), _of(otherwise))
    return _of(then) if condition else _of(otherwise)


def either(
    then: Callable[[], Any], otherwise: Callable[[], Any], refused: Callable[[Any], Any]
) -> tuple[Any, Any]:
    """Return what both branches make; for one that is refused, what is made of the other's."""
    try:
        first = then()
    except StepError as error:
        try:
            second = otherwise()
        except StepError:
            raise error from None
        return refused(second), second
    try:
        return first, otherwise()
    except StepError:
        return first, refused(first)


def extended(values: Value, more: Value) -> Value:
    """Return a number for each group, and more for those that have joined since."""
    if isinstance(values, Traced) or isinstance(more, Traced):
        return Traced(jnp.concatenate([_float64(values), _float64(more)]))
    return np.concatenate([values, more])


def minimum(a: Value, b: Value) -> Value:
    """Python's ``min(a, b)``, for each group where one is a vector."""
    return where(b < a, b, a)


def maximum(a: Value, b: Value) -> Value:
    """Python's ``max(a, b)``, likewise."""
    return where(b > a, b, a)


def cos(x: Value) -> Value:
    return _rounded(jnp.cos, x) if isinstance(x, Traced) else math.cos(x)


def log(x: Value, base: int) -> Value:
    return _rounded(jnp.log, x) / math.log(base) if isinstance(x, Traced) else math.log(x, base)


def floor(x: Value) -> Value:
    return _rounded(jnp.floor, x) if isinstance(x, Traced) else math.floor(x)


def truncated(x: Value) -> Value:
    """Python's ``int(x)``."""
    return _rounded(jnp.trunc, x) if isinstance(x, Traced) else int(x)


def bisect_right(sorted_values: Sequence[Any], x: Value) -> Value:
    """Python's ``bisect.bisect_right``: by its own search, which decides for unsorted values."""

    def within(low: int, high: int) -> Value:
        if low == high:
            return low
        middle = (low + high) // 2
        return where(
            x < sorted_values[middle],
            lambda: within(low, middle),
            lambda: within(middle + 1, high),
        )

    return within(0, len(sorted_values))


def entry(values: Sequence[float], index: Value) -> Value:
    """``values[index]``."""
    if not isinstance(index, Traced):
        return values[index]
    return Traced(jnp.asarray(values, jnp.float64)[index.value.astype(jnp.int64)])


def looked_up(values: Mapping[Any, float], key: Value, default: float) -> Value:
    """``values.get(key, default)``."""
    if not isinstance(key, Traced):
        return values.get(key, default)
    found = key.value == _float64(list(values))
    numbers = _float64(list(values.values()))
    # The one that is found and zeros: their sum is exact.
    return where(Traced(jnp.any(found)), Traced(jnp.sum(jnp.where(found, numbers, 0.0))), default)
