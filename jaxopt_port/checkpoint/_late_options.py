"""Options that torch's optimizers have had only since some version.

torch fills them in with these values when it loads an older state dict
(``torch.optim.*.__setstate__``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

LATE: Mapping[str, Any] = {
    "maximize": False,
    "amsgrad": False,
    "nesterov": False,
    "centered": False,
    "decoupled_weight_decay": False,
}


def with_late_options(
    group: Mapping[str, Any], names: Iterable[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return a group with the options that its torch did not know, and their names.

    Args:
        group: of a state dict.
        names: the options of its optimizer.
    """
    filled = [name for name in names if name in LATE and name not in group]
    return {**group, **{name: LATE[name] for name in filled}}, filled
