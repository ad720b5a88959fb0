"""Numbers of 48 bits as pairs of float32, for programs that may have no float64.

A pair is the unevaluated sum of a float32 and of what is left, at most half a unit of it. The
algorithms are Dekker's (1971) and those of Hida, Li and Bailey (2001, *Algorithms for quad-double
precision floating point arithmetic*); none relies on a fused multiply-add, and none is harmed by
one. The range is float32's.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._rounding import uncontracted

_F32 = jnp.float32
_UPPER = np.int32(-(2**12))  # the upper 12 bits of a significand


class Pair(NamedTuple):
    """hi + lo, where hi is the sum rounded to float32."""

    hi: Any
    lo: Any


def constant(value: Any) -> Pair:
    """Return a NumPy float64 as a pair of NumPy float32."""
    value = np.asarray(value, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        hi = value.astype(np.float32)
        lo = np.where(np.isfinite(hi), value - hi.astype(np.float64), 0).astype(np.float32)
    return Pair(hi, lo)


def widened(x: Any) -> Pair:
    """Return a float32, an integer or a truth value as a pair."""
    with jax.enable_x64(True):  # for an int64
        x = jnp.asarray(x)
        hi = uncontracted(x.astype(_F32))  # it may be a product, or a quotient that XLA makes one
        if not jnp.issubdtype(x.dtype, jnp.integer):
            return Pair(hi, jnp.zeros_like(hi))
        return Pair(hi, (x - hi.astype(x.dtype)).astype(_F32))


def _two_sum(a: Any, b: Any) -> Pair:
    s = a + b
    rest = s - a
    return Pair(s, (a - (s - rest)) + (b - rest))


def _renormalised(hi: Any, lo: Any) -> Pair:
    """Return a pair from a number and a smaller one; infinities and NaNs stay as they are."""
    s, rest = _two_sum(hi, lo)
    return Pair(s, jnp.where(jnp.isfinite(s), rest, 0))


def _product(a: Any, b: Any) -> Pair:
    """Return a product and its error. The products of halves are exact, contracted or not."""
    a, b = jnp.broadcast_arrays(a, b)
    p = uncontracted(a * b)
    (a1, a2), (b1, b2) = _halves(a), _halves(b)
    error = a2 * b2 + (a2 * b1 + (a1 * b2 + (a1 * b1 - p)))
    return Pair(p, jnp.where(jnp.isfinite(p), error, 0))


def _halves(x: Any) -> tuple[Any, Any]:
    x = uncontracted(x)  # or the difference is taken from what it was before it was rounded
    upper = lax.bitcast_convert_type(lax.bitcast_convert_type(x, jnp.int32) & _UPPER, _F32)
    return upper, x - upper


@jax.jit
def add(a: Pair, b: Pair) -> Pair:
    """Return a + b."""
    s, t = _two_sum(a.hi, b.hi), _two_sum(a.lo, b.lo)
    made = _renormalised(s.hi, s.lo + t.hi)
    made = _renormalised(made.hi, made.lo + t.lo)
    return select(jnp.isfinite(s.hi), made, widened(s.hi))


def negative(a: Pair) -> Pair:
    """Return -a."""
    return Pair(-a.hi, -a.lo)


def subtract(a: Pair, b: Pair) -> Pair:
    """Return a - b."""
    difference: Pair = add(a, negative(b))
    return difference


@jax.jit
def multiply(a: Pair, b: Pair) -> Pair:
    """Return a * b."""
    p = _product(a.hi, b.hi)
    cross = uncontracted(a.hi * b.lo) + uncontracted(a.lo * b.hi)
    return _renormalised(p.hi, jnp.where(jnp.isfinite(p.hi), p.lo + cross, 0))


@jax.jit
def divide(a: Pair, b: Pair) -> Pair:
    """Return a / b, from three quotients of float32, each of what the last has left."""
    first = a.hi / b.hi
    made = widened(first)
    for _ in range(2):
        made = add(made, widened(subtract(a, multiply(made, b)).hi / b.hi))
    return select(jnp.isfinite(first) & jnp.isfinite(b.hi), made, widened(first))


@jax.jit
def square_root(a: Pair) -> Pair:
    """Return the root of a, by Newton's iteration from float32's."""
    root = jnp.sqrt(a.hi)
    made = widened(root)
    for _ in range(2):
        made = add(made, widened(subtract(a, multiply(made, made)).hi / (2 * root)))
    return select((root > 0) & jnp.isfinite(root), made, widened(root))


def floor(a: Pair) -> Pair:
    """Return the largest whole number that is not above a."""
    hi = jnp.floor(a.hi)
    return _renormalised(hi, jnp.where(hi == a.hi, jnp.floor(a.lo), 0))


@jax.jit
def remainder(a: Pair, b: Pair) -> Pair:
    """Return a - b * trunc(a / b): of a's sign, as C's ``fmod``."""
    size = absolute(b)
    left = absolute(a)
    # The quotient may be rounded up to a whole number, or down to below one.
    left = subtract(left, multiply(floor(divide(left, size)), size))
    left = select(less(left, widened(_zero(a))), add(left, size), left)
    left = select(less(left, size), left, subtract(left, size))
    return select(a.hi < 0, negative(left), left)


def _zero(a: Pair) -> Any:
    return jnp.zeros_like(a.hi)


def absolute(a: Pair) -> Pair:
    """Return the magnitude."""
    return select(a.hi < 0, negative(a), a)


def less(a: Pair, b: Pair) -> Any:
    """Whether a < b."""
    return (a.hi < b.hi) | ((a.hi == b.hi) & (a.lo < b.lo))


def equal(a: Pair, b: Pair) -> Any:
    """Whether a == b."""
    return (a.hi == b.hi) & (a.lo == b.lo)


def select(which: Any, true: Pair, false: Pair) -> Pair:
    """Return one pair where a condition holds, and the other elsewhere."""
    return Pair(jnp.where(which, true.hi, false.hi), jnp.where(which, true.lo, false.lo))


def largest(a: Pair, b: Pair) -> Pair:
    """Return the larger one; NaN where one is."""
    return select(less(b, a) | jnp.isnan(a.hi), a, b)


_ONE, _LN2 = constant(1), constant(math.log(2))
_HALVINGS, _TERMS = 3, 4


def apart(a: Pair) -> Pair:
    """Keep XLA from calculating a pair again for each of its uses, and those for each of theirs."""
    return Pair(*lax.optimization_barrier((a.hi, a.lo)))


def _power_of_two(n: Any) -> Any:
    """Return 2 to the n, for whole numbers of float32's range."""
    return lax.bitcast_convert_type((n.astype(jnp.int32) + 127) << 23, _F32)


@jax.jit
def exponential(a: Pair) -> Pair:
    """Return e to the a: a Taylor series of a number below 0.05, squared three times."""
    whole = jnp.round(jnp.clip(a.hi, -87, 88) / np.float32(math.log(2)))
    small = subtract(a, multiply(widened(whole), _LN2))
    small = apart(Pair(small.hi / 2**_HALVINGS, small.lo / 2**_HALVINGS))
    x = small.hi  # of the higher terms float32 has enough
    rest = x * (1 / 120 + x * (1 / 720 + x * (1 / 5040)))
    made = add(widened(rest), constant(1 / math.factorial(_TERMS)))
    for n in range(_TERMS - 1, 0, -1):
        made = apart(add(multiply(made, small), constant(1 / math.factorial(n))))
    made = multiply(made, small)  # less 1
    for _ in range(_HALVINGS):
        made = apart(add(Pair(2 * made.hi, 2 * made.lo), multiply(made, made)))
    made = add(made, _ONE)
    half = jnp.floor(whole / 2)  # in two steps, since 2 to the 128 is infinite
    for power_of_two in map(_power_of_two, (half, whole - half)):
        made = Pair(made.hi * power_of_two, made.lo * power_of_two)
    # Beyond float32's range it is what float32's is: 0, infinity or NaN.
    return select((a.hi > -87) & (a.hi < 88), made, widened(jnp.exp(a.hi)))


@jax.jit
def logarithm(a: Pair) -> Pair:
    """Return the natural logarithm, by one Newton's iteration of float32's, of the third order."""
    # One value for all of its uses: of a constant XLA may calculate it in two ways.
    first = lax.optimization_barrier(jnp.log(a.hi))
    left = subtract(multiply(a, exponential(widened(-first))), _ONE)
    z = left.hi
    made = add(widened(first), add(left, widened(z * z * (z * np.float32(1 / 3) - 0.5))))
    return select((a.hi > 0) & jnp.isfinite(first), made, widened(first))


@jax.jit
def power(a: Pair, b: Pair) -> Pair:
    """Return a to the b; of zero, of infinity and to the zero as float32 has it."""
    made = exponential(apart(multiply(b, logarithm(absolute(a)))))
    half = Pair(b.hi / 2, b.lo / 2)
    odd = ~equal(floor(half), half)
    made = select((a.hi < 0) & odd, negative(made), made)
    regular = (a.hi != 0) & jnp.isfinite(a.hi) & ((a.hi > 0) | equal(floor(b), b)) & (b.hi != 0)
    return select(regular, made, widened(jnp.power(a.hi, b.hi)))


_QUARTER = [constant(math.pi / 2), constant(6.123233995736766e-17)]  # and what float64 leaves of it


def _alternating(square: Pair, first: int) -> Pair:
    """Return 1/first! - square/(first + 2)! + …: of a cosine (0) or of a sine (1)."""
    factors = [(-1) ** n / math.factorial(first + 2 * n) for n in range(9)]
    made = constant(factors[-1])
    for factor in factors[-2::-1]:
        made = apart(add(multiply(made, square), constant(factor)))
    return made


@jax.jit
def cosine(a: Pair) -> Pair:
    """Return the cosine, for arguments of up to some thousand turns."""
    quarters = jnp.round(a.hi / np.float32(math.pi / 2))
    rest = a
    for part in _QUARTER:
        rest = subtract(rest, multiply(widened(quarters), part))
    square = multiply(rest, rest)
    of_cosine, of_sine = _alternating(square, 0), multiply(rest, _alternating(square, 1))
    turn = jnp.mod(quarters, 4)
    made = select((turn == 1) | (turn == 3), of_sine, of_cosine)
    return select((turn == 1) | (turn == 2), negative(made), made)
