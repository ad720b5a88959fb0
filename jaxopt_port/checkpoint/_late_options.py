"""Options that torch's optimizers have had only since some version.

torch fills them in with these values when it loads an older state dict
(``torch.optim.*.__setstate__``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..engine import IMPLEMENTATIONS

LATE: Mapping[str, Any] = {
    "maximize": False,
    "amsgrad": False,
    "nesterov": False,
    "centered": False,
    "decoupled_weight_decay": False,
}


# Those that were there before these: a group that has one of them has its others, too.
_EARLY = ("amsgrad", "nesterov", "centered")
_NEWER = frozenset(("maximize", *IMPLEMENTATIONS))
# L-BFGS has it since torch 2.14: without it a state dict need not be of an older torch than others.
NEW = {"line_search_fn": "maximize"}


def with_late_options(
    group: Mapping[str, Any], names: Iterable[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return a group with the options that its torch did not know, and those to be told of.

    Args:
        group: of a state dict.
        names: the options of its optimizer.
    """
    known = _EARLY if _NEWER & group.keys() else ()
    filled = [name for name in names if name in LATE and name not in (*group, *known)]
    new = {option for sign, option in NEW.items() if sign in group}
    whole = {**group, **{name: LATE[name] for name in filled}}
    return whole, [name for name in filled if name not in new]
