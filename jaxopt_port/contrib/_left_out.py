"""Numbers that a package lets be None.

A number can be set between steps, so it is held as one: None is infinity, which none of them is
otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LEFT_OUT = math.inf


def without_none(
    options: Mapping[str, Any], *names: str, pairs: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return options with the numbers, and pairs of numbers, of these names as they are held."""
    held: dict[str, Any] = dict.fromkeys(names, LEFT_OUT)
    held |= dict.fromkeys(pairs, (LEFT_OUT, LEFT_OUT))
    return {**options, **{k: v for k, v in held.items() if options[k] is None}}
