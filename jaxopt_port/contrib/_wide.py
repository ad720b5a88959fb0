"""Float64 numbers among what the parameters of a group share, which float32 cannot hold.

Each is kept as three float32 parts whose sum it is, under its own name and two more.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ..engine import Shared
from ..numerics import decoded, encoded


def names(name: str) -> tuple[str, str, str]:
    return name, f"{name}_mid", f"{name}_low"


def kept(name: str, value: Any) -> Shared:
    """Return a number as it is shared."""
    parts = encoded(value)
    return {part: parts[..., i] for i, part in enumerate(names(name))}


def read(shared: Shared, name: str) -> Any:
    """Return a number in float64: undoes `kept`."""
    parts = [jnp.asarray(shared[part], jnp.float64) for part in names(name)]
    return parts[0] + parts[1] + parts[2]


def as_float(held: dict[str, Any], name: str) -> float:
    """Take the parts out of a state dict's entry, and return the number."""
    return float(decoded([float(held.pop(part)) for part in names(name)]))
