"""What a number of your side is, seen beside torch's."""

from __future__ import annotations

import math
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from ..report import Cause

SAME = 1e-6
NARROW = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
_REMEDIES: Mapping[str, str] = {
    "lr": "give the optimizer torch's learning rate",
    "betas[0]": "give b1, or betas[0], torch's value",
    "betas[1]": "give b2, or betas[1], torch's value",
}


def same(a: float, b: float, tolerance: float = SAME) -> bool:
    """Whether two numbers are the same, to a part in a million."""
    return a == b or abs(a - b) <= tolerance * max(abs(a), abs(b))


def nice(value: float) -> float:
    """Return the short number that a fitted one must have been meant to be, if there is one."""
    if not math.isfinite(value) or abs(value) < 1e-30:
        return 0.0 if math.isfinite(value) else value
    for digits in range(1, 7):
        short = float(f"{value:.{digits - 1}e}")
        if same(short, value):
            return short
    # 1 - value is what was meant: 0.9999.
    short = 1 - nice(1 - value) if 0.5 < value < 1 and 1 - value > 1e-9 else value
    return short if same(short, value) else value


def narrowed(value: float, other: float) -> str | None:
    """Return the dtype whose rounding of ``other`` is ``value``, if there is one.

    What rounds to 0 may as well be 0.
    """
    for name, dtype in NARROW.items():
        rounded = float(np.asarray(other).astype(dtype))
        if rounded and not same(rounded, other) and same(value, rounded):
            return name
    return None


def narrow_number(value: float) -> str | None:
    """Return the dtype of few bits that holds a number exactly, if one does."""
    for name, dtype in NARROW.items():
        if value and float(np.asarray(value).astype(dtype)) == value:
            return name
    return None


def low_precision(name: str, dtype: str, mine: float, torchs: float) -> Cause:
    """Return the cause of a number that is kept in too few bits."""
    return Cause(
        "low-precision",
        f"your side has {name} in {dtype}: {mine:.9g}, where torch has {torchs:.9g}",
        "keep hyperparameters in float32 or more: jp's optimizers do, and "
        "optax.inject_hyperparams with hyperparam_dtype=jnp.float32",
    )


def explain_state_dtype(name: str, mine: str, torchs: str) -> Cause:
    """Explain a part of an optimizer's state that is kept in fewer bits than torch's."""
    return Cause(
        "low-precision",
        f"your side keeps {name} in {mine}, torch in {torchs}",
        f"keep it in {torchs}: mu_dtype or accumulator_dtype of Optax's optimizers",
    )


def number(name: str, mine: float, torchs: float, left: float = 0.0) -> Cause:
    """Return the cause of a number with another value."""
    return Cause(
        "dampening" if name == "dampening" else "number",
        f"your side behaves as with {name}={nice(mine):.6g}; torch has {torchs:.6g}",
        _REMEDIES.get(name, f"give the optimizer torch's {name}"),
        left,
    )
