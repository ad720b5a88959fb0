"""Which scheduler has left a state dict, by what it holds: a hint for people."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

_OF_ALL = {
    "base_lrs", "last_epoch", "verbose",
    "_get_lr_called_within_step", "_initial_step", "_is_initial", "_last_lr", "_step_count",
}  # fmt: skip
# Of each class its arguments, and what else it alone keeps.
_KEPT: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ConstantLR": (("factor", "total_iters"), ()),
    "CosineAnnealingLR": (("T_max", "eta_min"), ()),
    "CosineAnnealingWarmRestarts": (("T_0", "T_mult", "eta_min"), ("T_i", "T_cur")),
    "ExponentialLR": (("gamma",), ()),
    "LinearLR": (("start_factor", "end_factor", "total_iters"), ()),
    "MultiStepLR": (("milestones", "gamma"), ()),
    "PolynomialLR": (("total_iters", "power"), ()),
    "StepLR": (("step_size", "gamma"), ()),
}
# What tells a class whose arguments are not all kept.
_TOLD_BY = {
    "lr_lambdas": "LambdaLR",
    "num_bad_epochs": "ReduceLROnPlateau",
    "_schedule_phases": "OneCycleLR",
    "step_ratio": "CyclicLR",
    "_milestones": "SequentialLR",
}


def likely_scheduler(state_dict: Mapping[str, Any]) -> str | None:
    """Return torch's scheduler and its arguments as code, by what a state dict of it holds.

    A hint for people: other schedulers may hold the same.

    Args:
        state_dict: as torch's ``scheduler.state_dict()``.

    Returns:
        The call, with "…" for arguments that torch does not keep; None where nothing tells.

    Example:
        >>> likely_scheduler({"step_size": 30, "gamma": 0.1, "last_epoch": 3, "_last_lr": [0.1]})
        'StepLR(step_size=30, gamma=0.1)'
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"expected a scheduler's state dict; got {type(state_dict).__name__}")
    keys = state_dict.keys() - _OF_ALL
    for name, (arguments, others) in _KEPT.items():
        if keys == {*arguments, *others}:
            values = {argument: _plain(state_dict[argument]) for argument in arguments}
            if None in values.values():
                return None
            return f"{name}({', '.join(f'{k}={v!r}' for k, v in values.items())})"
    return next((f"{name}(…)" for key, name in _TOLD_BY.items() if key in keys), None)


def _plain(value: Any) -> Any:
    """Return a number, or numbers in their order; None for what is neither."""
    if isinstance(value, Mapping):
        numbers = sorted(Counter(value).elements()) if all(map(_is_number, value)) else None
        return numbers
    value = value.item() if hasattr(value, "item") and getattr(value, "size", 0) == 1 else value
    return value if _is_number(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
