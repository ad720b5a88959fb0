"""What a ``scan`` carries, from its equation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def carried_by(params: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many constants a ``scan`` has, and how many values it carries."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    constants, carried, _ = params["ft_in"].unpack()  # from JAX 0.11 on
    return len(constants), len(carried)
