"""What is known while a function is traced: of a number, and of the trace itself."""

from __future__ import annotations

import math
from typing import Any

import jax


def current_trace() -> Any:
    """Return what tells one trace from another: equal where values of the one may be used."""
    try:  # at need: it brings Pallas along
        from jax.extend.core import get_opaque_trace_state
    except ImportError:  # before JAX 0.10
        from jax.core import get_opaque_trace_state

    return get_opaque_trace_state(convention="nnx")


def known_number(x: Any) -> Any:
    """Return a number, or a tuple of them, as Python has it; NaN where it is not known.

    ``optax.inject_hyperparams`` makes arrays of an optimizer's first numbers. While its ``init`` is
    traced they are constants, whose tracers hold the value.
    """
    if isinstance(x, tuple) and not isinstance(x[0], int | float):  # all are arrays, or none is
        return tuple(map(known_number, x))
    if isinstance(x, int | float | tuple):
        return x
    if isinstance(x, jax.core.Tracer):
        x = getattr(getattr(x, "val", None), "val", None)
    elif callable(x):  # a schedule
        return math.nan
    try:
        return float(x)
    except (TypeError, ValueError):
        return math.nan
