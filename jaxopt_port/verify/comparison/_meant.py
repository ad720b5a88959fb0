"""What a number was meant to be before float32 rounded it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...numerics import is_exact

# What each run replaces: all of a model; of an optimizer not what is narrower than float32, which
# no framework has by habit.
MODEL = ("float32", "bfloat16", "float16")
OPTIMIZER = ("float32",)

HALVES = frozenset({"bfloat16", "float16"})
_DIGITS = 6
_WHOLE = 4096
_LARGEST = np.finfo(np.float32).max
SMALL = 4096  # elements of a constant that may be a table of numbers


@dataclass
class Seen:
    """What a trace has shown of a function.

    Attributes:
        narrow: the dtypes narrower than float64 in which it calculates though it is given float64.
        inexact: constants in it that were rounded, and what was meant is not known.
        rounded: whether any constant in it was rounded.
        tables: whether any that has axes was, of a model.
        random: whether it draws random numbers.
        fixed: why it cannot be given float64 at all, or "".
    """

    narrow: set[str] = field(default_factory=set)
    inexact: bool = False
    rounded: bool = False
    tables: bool = False
    random: bool = False
    fixed: str = ""

    @property
    def halves(self) -> set[str]:
        """Those of `narrow` that are narrower than float32."""
        return self.narrow & HALVES


def meant(value: float) -> tuple[float, bool]:
    """Return the float64 that a number rounded to float32 must have been, and whether it is clear.

    Example:
        >>> import numpy as np
        >>> meant(float(np.float32(0.9))), meant(float(np.float32(1 / 3)))[0] == 1 / 3
        ((0.9, True), True)
    """
    if not math.isfinite(value) or value == 0:
        return value, True
    with np.errstate(over="ignore"):
        near = np.float32(value)
    if float(near) != value or abs(near) == _LARGEST:  # more bits than float32; a mask's bound
        return value, True
    short = float(f"{value:.{_DIGITS - 1}e}")
    if np.float32(short) == near:
        return short, True
    if value == round(value):
        return value, True
    if 0.5 < value < 1:  # 1 - 1e-7, say
        rest = float(f"{1 - value:.2e}")
        if np.float32(1 - rest) == near:
            return 1 - rest, True
    if is_exact(value):  # a sum of a few powers of 2
        return value, True
    size = math.copysign(1.0, value)
    for known in _constants(abs(value)):
        if np.float32(known) == np.float32(abs(value)):
            return size * known, True
    return float(str(near)), False


def _dtype(x: Any) -> Any:
    return getattr(x, "dtype", np.dtype(object))


def is_table(x: Any) -> bool:
    """Whether an array holds numbers that a narrow dtype has rounded."""
    if not np.ndim(x) or str(_dtype(x)) not in MODEL or isinstance(x, jax.core.Tracer):
        return False
    return not is_exact(x)


def is_rounded(x: Any) -> bool:
    """Whether a number looks as if float32 had rounded it, in whatever dtype it is now."""
    if np.ndim(x) or not (isinstance(x, float) or jnp.issubdtype(_dtype(x), jnp.floating)):
        return False
    value, clear = meant(float(x))
    return not clear or value != float(x)


def _constants(value: float) -> Iterator[float]:
    """Yield what is near: roots of whole numbers, multiples of pi, and one over these."""
    for x, turned in ((value, False), (1 / value, True)):
        kinds: tuple[tuple[float, Callable[[int], float]], ...] = (
            (x, float),
            (x * x, math.sqrt),
            (x * x * math.pi, lambda n: math.sqrt(n / math.pi)),
            (x * x / math.pi, lambda n: math.sqrt(n * math.pi)),
            (x / math.pi * 4, lambda n: n * math.pi / 4),
            (math.exp(min(x, 9.0)), lambda n: math.log(n)),
        )
        for near, made in kinds:
            exact = made(round(near)) if 0.5 < near <= _WHOLE else 0.0
            if exact:
                yield 1 / exact if turned else exact


def widened(x: Any, dtypes: Sequence[str] = OPTIMIZER, seen: Seen | None = None) -> Any:
    """Return an array in float64, short numbers as they were meant; other dtypes as they are."""
    if str(jnp.result_type(x)) not in dtypes:
        return x
    if not isinstance(x, jax.core.Tracer) and np.size(x) <= SMALL:
        exact = _as_meant(np.asarray(x, np.float64), seen)
        if exact is not None:
            return exact if isinstance(x, np.ndarray) else jnp.asarray(exact)
    return jnp.asarray(x, jnp.float64)


def _as_meant(x: Any, seen: Seen | None) -> Any:
    """Return a number, or a table of short ones, as meant; None where it is data."""
    found = [meant(float(v)) for v in np.ravel(x)]
    clear = all(ok for _, ok in found)
    if np.ndim(x) and not clear:
        return None
    if seen is not None:
        seen.inexact |= not clear
    return np.reshape(np.array([v for v, _ in found]), np.shape(x))
