"""torch's primitives, one by one: what each side calculates, beside what it may have calculated.

A side's results are named by the reference that they are nearest to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from jaxopt_port.numerics import ulps

SIZE = 100_032  # whole vectors: in what is left over, torch's CPU kernels round otherwise
A, W_NEAR, W_FAR, V, S = 0.1, 0.3, 0.7, -0.003, 0.29
F32, BF16 = np.float32, ml_dtypes.bfloat16
Array = Any


def inputs(low: bool = False) -> tuple[Array, Array, Array]:
    """Return x and y of any sign, and z > 0; in bfloat16 if ``low``."""
    rng = np.random.default_rng(20240229)
    x, y, z = (rng.standard_normal(SIZE).astype(F32) for _ in range(3))
    z = np.abs(z) + F32(1e-3)
    return tuple(v.astype(BF16) for v in (x, y, z)) if low else (x, y, z)  # type: ignore[return-value]


def fma(a: Array, y: Array, x: Array) -> Array:
    """One rounding: exact products of float32, and a sum of 64 bits."""
    a = np.asarray(a, np.longdouble)
    return (a * y.astype(np.longdouble) + x.astype(np.longdouble)).astype(F32)


def _low(value: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    """A bfloat16 primitive: calculated in float32, rounded once."""
    return lambda x, y, z: value(x.astype(F32), y.astype(F32)).astype(BF16)


class Primitive(NamedTuple):
    """One of torch's.

    Attributes:
        references: by name, what x, y, z may give; the first is torch's on the CPU, but for roots.
        low: whether it is given bfloat16.
    """

    references: dict[str, Callable[..., Array]]
    low: bool = False


_a, _s, _v = F32(A), F32(S), F32(V)
PRIMITIVES: dict[str, Primitive] = {
    "x.add(y, alpha=0.1)": Primitive(
        {"one rounding": lambda x, y, z: fma(_a, y, x), "two": lambda x, y, z: x + _a * y}
    ),
    "x.mul(0.1).add(y)": Primitive(
        {"two roundings": lambda x, y, z: _a * x + y, "one": lambda x, y, z: fma(_a, x, y)}
    ),
    "x.lerp(y, 0.3)": Primitive(
        {
            "one rounding": lambda x, y, z: fma(F32(W_NEAR), y - x, x),
            "two": lambda x, y, z: x + F32(W_NEAR) * (y - x),
        }
    ),
    "x.lerp(y, 0.7)": Primitive(
        {
            "one rounding, from y": lambda x, y, z: fma(F32(W_FAR) - F32(1), y - x, y),
            "two, from y": lambda x, y, z: y - (y - x) * (F32(1) - F32(W_FAR)),
            "one, from x": lambda x, y, z: fma(F32(W_FAR), y - x, x),
        }
    ),
    "x.addcmul(y, z, value=v)": Primitive(
        {
            "(v·y) rounded, then one": lambda x, y, z: fma(_v * y, z, x),
            "(y·z) rounded, then one": lambda x, y, z: fma(_v, y * z, x),
            "(v·y)·z rounded twice": lambda x, y, z: x + _v * y * z,
            "v·(y·z) rounded twice": lambda x, y, z: x + _v * (y * z),
        }
    ),
    "x.addcmul(y, z)": Primitive(
        {
            "one rounding": lambda x, y, z: fma(y, z, x),
            "two": lambda x, y, z: x + y * z,
        }
    ),
    "x.addcdiv(y, z, value=v)": Primitive(
        {
            "x + (v·y)/z": lambda x, y, z: x + (_v * y) / z,
            "x + v·(y/z)": lambda x, y, z: x + _v * (y / z),
            "v·(y/z) + x, one rounding": lambda x, y, z: fma(_v, y / z, x),
        }
    ),
    "x.div(0.29)": Primitive(
        {
            "true division": lambda x, y, z: x / _s,
            "by the reciprocal": lambda x, y, z: x * (F32(1) / _s),
            "by the reciprocal in float64": lambda x, y, z: x * F32(1 / S),
        }
    ),
    "_foreach_div([x], [0.29])": Primitive(
        {
            "true division": lambda x, y, z: x / _s,
            "by the reciprocal": lambda x, y, z: x * (F32(1) / _s),
        }
    ),
    "x.div(z)": Primitive(
        {
            "true division": lambda x, y, z: x / z,
            "by the reciprocal": lambda x, y, z: x * (F32(1) / z),
        }
    ),
    "z.sqrt()": Primitive({"correctly rounded": lambda x, y, z: np.sqrt(z)}),
    "z.sqrt().div(0.29)": Primitive(
        {
            "true division": lambda x, y, z: np.sqrt(z) / _s,
            "by the reciprocal": lambda x, y, z: np.sqrt(z) * (F32(1) / _s),
        }
    ),
    "z.rsqrt()": Primitive(
        {
            "correctly rounded": lambda x, y, z: (1 / np.sqrt(z.astype(np.float64))).astype(F32),
            "1 / root": lambda x, y, z: F32(1) / np.sqrt(z),
        }
    ),
    "z.reciprocal()": Primitive({"correctly rounded": lambda x, y, z: F32(1) / z}),
    "x.norm()": Primitive(
        {
            "correctly rounded": lambda x, y, z: np.sqrt(
                np.sum(x.astype(np.longdouble) ** 2)
            ).astype(F32)
        }
    ),
    "bfloat16 x.add(y, alpha=0.1)": Primitive(
        {
            "alpha in float32": _low(lambda x, y: fma(_a, y, x)),
            "alpha in bfloat16": _low(lambda x, y: fma(BF16(A).astype(F32), y, x)),
            "alpha in float32, two roundings": _low(lambda x, y: x + _a * y),
        },
        low=True,
    ),
    "bfloat16 x.mul(0.1)": Primitive(
        {
            "factor in float32": _low(lambda x, y: _a * x),
            "factor in bfloat16": _low(lambda x, y: BF16(A).astype(F32) * x),
        },
        low=True,
    ),
}


class Found(NamedTuple):
    """What a side calculates.

    Attributes:
        primitive: its name.
        side: the side's name.
        nearest: the reference from which the fewest elements differ.
        differ: the share of elements whose bits do.
        ulps: the largest distance from it.
    """

    primitive: str
    side: str
    nearest: str
    differ: float
    ulps: int


def found(side: str, made: Mapping[str, Array]) -> list[Found]:
    """Return what a side's results are, each beside its references."""
    given = {low: inputs(low) for low in (False, True)}
    rows = []
    for name, result in made.items():
        of = PRIMITIVES[name]
        expected = {k: np.atleast_1d(f(*given[of.low])) for k, f in of.references.items()}
        result = np.atleast_1d(result)
        differ = {k: float(np.mean(result != e)) for k, e in expected.items()}
        nearest = min(differ, key=lambda k: differ[k])
        far = ulps(result, expected[nearest])
        rows.append(Found(name, side, nearest, differ[nearest], far))
    return rows


# What a step calculates of numbers in float64: Python's are torch's.
STEPS = (1, 2, 3, 10, 100, 1_000, 10_000, 100_000)
BETAS = (0.9, 0.99, 0.999)


def powers() -> np.ndarray[Any, Any]:
    """Return ``beta ** step`` as Python has it, which is as torch has it."""
    return np.array([[beta**step for step in STEPS] for beta in BETAS])
