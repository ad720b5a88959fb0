"""Whether the JAX side gives the same output of the same batch twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal

from ._context import Context
from ._jax_run import Evaluated, float64
from ._jax_side import output_of
from ._lifted import equations
from ._names import concrete

_ORDER = 1e-6  # of the largest


def not_repeated(context: Context, given: Any, narrow: Evaluated, wide: Evaluated) -> str:
    """Return in words why your forward pass does not repeat itself, or "".

    Args:
        context: both sides.
        given: parameters, model state and batch, in the run's dtype.
        narrow: what it gave of them.
        wide: the same in float64.
    """
    if not _same(context.model.evaluate(*given).output, narrow.output):
        return "two passes of one batch give two outputs (a callback to the host that draws noise?)"
    if context.exact.seen.random and not _near(context.exact.disturbed(*given), wide.output):
        return (
            "its output depends on random numbers: with other random bits it is another one. "
            "Dropout left on? torch's side has none"
        )
    programs = [_constants(context, given) for _ in range(2)]
    if len(programs[0]) != len(programs[1]) or not all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(*programs, strict=True)
    ):
        return (
            "traced twice, it is two programs: a constant in it is drawn anew by each trace "
            "(NumPy's random numbers, a key made from the clock)"
        )
    return ""


def _same(a: Any, b: Any) -> bool:
    # An accelerator may add in another order each time; noise is more than that.
    pairs = zip(*map(concrete, (a, b)), strict=True)
    return all(_relative(np.asarray(x, np.float64), np.asarray(y, np.float64)) for x, y in pairs)


def _relative(x: Any, y: Any) -> bool:
    finite = np.abs(y[np.isfinite(y)])
    return np.allclose(x, y, rtol=0.0, atol=_ORDER * finite.max(initial=0.0), equal_nan=True)


def _near(a: Any, b: Any) -> bool:
    pairs = zip(*map(concrete, (a, b)), strict=True)
    return all(np.allclose(x, y, rtol=1e-9, atol=1e-12, equal_nan=True) for x, y in pairs)


def _constants(context: Context, given: Any) -> list[Any]:
    """Return the constants of your forward pass, traced anew."""
    with float64(context.x64):
        # Another function each time, or the trace would be the one that is kept.
        closed = jax.make_jaxpr(lambda *a: output_of(context.side.apply, *a))(*given)
    return [*map(np.asarray, closed.consts), *_literals(closed.jaxpr)]


def _literals(jaxpr: Any) -> Iterator[Any]:
    for equation in equations(jaxpr):
        for atom in equation.invars:
            if isinstance(atom, Literal):
                yield np.asarray(atom.val)
