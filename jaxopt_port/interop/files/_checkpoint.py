"""What a checkpoint file holds, whatever its format."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...checkpoint import StateDict, check_structure
from ..mapping import ParamMap
from ._json_values import arrays_in

_COUNTS = ("step", "n_iter", "func_evals")


class CheckpointWarning(UserWarning):
    """Something in a file could not be kept; the message names it."""


@dataclass
class Checkpoint:
    """What a training run needs to go on: the counterpart of the dict that is given to torch.save.

    Args:
        params: arrays by name, parameters and buffers: torch's names (``"features.0.weight"``) or
            JAX's paths (``"features/0/kernel"``), as ``layout`` says; {} where there are none.
        optimizer: a state dict in torch's layout with NumPy arrays, as `jp.state_dict` returns it
            or as torch's ``optimizer.state_dict()``; None where there is none.
        scheduler: a scheduler's state dict.
        optimizer_name: the optimizer's class, ``"AdamW"``; torch's files do not say it.
        layout: whose names and layouts the arrays have.
        param_map: which JAX leaf is which torch tensor, where it is known.
        extra: what else there is, by name: numbers, texts, lists, dicts and arrays.

    Example:
        >>> Checkpoint({"weight": np.zeros((2, 3), np.float32)}, extra={"epoch": 3}).nbytes
        24
    """

    params: dict[str, NDArray[Any]]
    optimizer: StateDict | None = None
    scheduler: dict[str, Any] | None = None
    optimizer_name: str | None = None
    layout: Literal["torch", "jax"] = "torch"
    param_map: ParamMap | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        held = (self.params, self.optimizer, self.scheduler, self.extra)
        return sum(array.nbytes for part in held for array in arrays_in(part))


def check_checkpoint(checkpoint: Checkpoint) -> None:
    """Raise ValueError or TypeError for what no file should hold; nothing is changed."""
    if checkpoint.layout not in ("torch", "jax"):
        raise ValueError(f'the layout is {checkpoint.layout!r}; it is "torch" or "jax"')
    odd = [
        f"{n!r} ({type(x).__name__})" for n, x in checkpoint.params.items() if not _is_named(n, x)
    ]
    if odd:
        raise TypeError(f"params must be NumPy arrays by name; there are {', '.join(odd)}")
    if checkpoint.optimizer is not None:
        check_state_dict(checkpoint.optimizer)


def _is_named(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, np.ndarray) and value.dtype != object


def check_state_dict(state_dict: Any) -> None:
    """Raise ValueError for what is not the state dict of an optimizer; all faults are listed.

    Args:
        state_dict: with NumPy arrays; in torch's layout or in JAX's.
    """
    check_structure(state_dict)
    problems = list(_faults(state_dict))
    if problems:
        raise ValueError(
            "not the state dict of an optimizer:" + "".join(f"\n  {each}" for each in problems)
        )


def _faults(state_dict: Mapping[str, Any]) -> Iterator[str]:
    for index, held in state_dict["state"].items():
        for name, value in held.items():
            if not isinstance(name, str):
                yield f"the state of parameter {index} has an entry {name!r}, which is no name"
            elif name in _COUNTS:
                yield from _count_faults(f"{name} of parameter {index}", value)


def _count_faults(what: str, value: Any) -> Iterator[str]:
    if np.size(value) != 1 or np.asarray(value).dtype.kind not in "iuf" + "V":
        yield f"{what} is {_short(value)}; it must be one number"
    elif not math.isfinite(float(value)) or float(value) < 0 or float(value) % 1:
        yield f"{what} is {float(value)}; it must be a whole number, not below 0"


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    return repr(value)[:60]
