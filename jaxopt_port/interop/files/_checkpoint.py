"""What a checkpoint file holds, whatever its format."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..._printable import printable
from ...checkpoint import StateDict, check_structure
from ...trees import raise_if
from .._warnings import CheckpointWarning as CheckpointWarning
from ..mapping import ParamMap
from ._json_values import arrays_in

_COUNTS = ("step", "n_iter", "func_evals")


_NOT_GIVEN: Any = object()


@dataclass(init=False, repr=False)
class Checkpoint:
    """What a training run needs to go on: the counterpart of the dict that is given to torch.save.

    Args:
        params: arrays by name, parameters and buffers: torch's names (``"features.0.weight"``) or
            JAX's paths (``"features/0/kernel"``), as ``layout`` says; {} where there are none.
        optimizer: the only optimizer's state dict in torch's layout with NumPy arrays, as
            `jp.state_dict` returns it or as torch's ``optimizer.state_dict()``; None for none.
        scheduler: the only scheduler's state dict.
        optimizer_name: the optimizer's class, ``"AdamW"``; torch's files do not say it.
        layout: whose names and layouts the arrays have.
        param_map: which JAX leaf is which torch tensor, where it is known.
        extra: what else there is, by name: numbers, texts, lists, dicts and arrays;
            ``"n_averaged"`` of torch's AveragedModel, of several by the average's name.
        optimizers: where there are several, their state dicts by name.
        schedulers: likewise.
        scaler: the state dict of a ``torch.amp.GradScaler``.
        averages: averaged parameters (EMA, SWA) by what the file calls them; names as in
            ``params``.
        step: how many steps the run has taken, as the file says; by default the optimizer's count.
        origin: what wrote it, where it was recognised: ``"a folder of Hugging Face's Trainer"``.

    Example:
        >>> Checkpoint({"weight": np.zeros((2, 3), np.float32)}, extra={"epoch": 3}).nbytes
        24
    """

    params: dict[str, NDArray[Any]]
    optimizer_name: str | None
    layout: Literal["torch", "jax"]
    param_map: ParamMap | None
    extra: dict[str, Any]
    optimizers: dict[str, StateDict]
    schedulers: dict[str, dict[str, Any]]
    scaler: dict[str, Any] | None
    averages: dict[str, dict[str, NDArray[Any]]]
    step: int | None
    origin: str | None

    def __init__(
        self,
        params: dict[str, NDArray[Any]],
        optimizer: StateDict | None = _NOT_GIVEN,
        scheduler: dict[str, Any] | None = _NOT_GIVEN,
        optimizer_name: str | None = None,
        layout: Literal["torch", "jax"] = "torch",
        param_map: ParamMap | None = None,
        extra: dict[str, Any] | None = None,
        optimizers: dict[str, StateDict] | None = None,
        schedulers: dict[str, dict[str, Any]] | None = None,
        scaler: dict[str, Any] | None = None,
        averages: dict[str, dict[str, NDArray[Any]]] | None = None,
        step: int | None = None,
        origin: str | None = None,
    ) -> None:
        self.params = params
        self.optimizer_name, self.layout, self.param_map = optimizer_name, layout, param_map
        self.extra = {} if extra is None else extra
        self.optimizers = dict(optimizers or {})
        self.schedulers = dict(schedulers or {})
        if optimizer is not _NOT_GIVEN:
            self.optimizer = optimizer
        if scheduler is not _NOT_GIVEN:
            self.scheduler = scheduler
        self.scaler, self.origin = scaler, origin
        self.averages = dict(averages or {})
        self.step = self._counted() if step is None else step

    @property
    def optimizer(self) -> StateDict | None:
        """The only optimizer's state dict; None where there is none.

        Raises:
            ValueError: there are several; the message names them.
        """
        return _only(self.optimizers, "optimizer")

    @optimizer.setter
    def optimizer(self, value: StateDict | None) -> None:
        self.optimizers = {} if value is None else {"optimizer": value}

    @property
    def scheduler(self) -> dict[str, Any] | None:
        """The only scheduler's state dict; None where there is none.

        Raises:
            ValueError: there are several; the message names them.
        """
        return _only(self.schedulers, "scheduler")

    @scheduler.setter
    def scheduler(self, value: dict[str, Any] | None) -> None:
        self.schedulers = {} if value is None else {"scheduler": value}

    @property
    def extras(self) -> dict[str, Any]:
        """The same as ``extra``."""
        return self.extra

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        held = (self.params, self.optimizers, self.schedulers, self.averages, self.extra)
        return sum(array.nbytes for part in held for array in arrays_in(part))

    def __repr__(self) -> str:
        """Say what there is, and of arrays how many: they may be gigabytes."""
        held: dict[str, Any] = {
            "origin": self.origin,
            "layout": self.layout,
            "params": f"{len(self.params)} arrays, {self.nbytes / 1e6:,.1f} MB in all",
            "optimizers": ", ".join(map(_of_groups, self.optimizers.items())),
            "optimizer_name": self.optimizer_name,
            "schedulers": ", ".join(self.schedulers),
            "scaler": None if self.scaler is None else "held",
            "averages": ", ".join(self.averages),
            "step": self.step,
            "extra": ", ".join(map(str, self.extra)),
        }
        lines = [f"    {name}: {value}" for name, value in held.items() if value not in (None, "")]
        return "\n".join(["Checkpoint (", *map(printable, lines), ")"])

    def _counted(self) -> int | None:
        """Return the most steps that an optimizer's state says it has taken."""
        counts = [
            float(np.asarray(held["step"]).item())
            for optimizer in self.optimizers.values()
            if isinstance(optimizer, Mapping) and isinstance(optimizer.get("state"), Mapping)
            for held in optimizer["state"].values()
            if isinstance(held, Mapping) and _is_number(held.get("step"))
        ]
        finite = [count for count in counts if math.isfinite(count)]
        return int(max(finite)) if finite else None


def _of_groups(named: tuple[str, Any]) -> str:
    name, state_dict = named
    groups = state_dict.get("param_groups", ()) if isinstance(state_dict, Mapping) else ()
    return f"{name} of {len(groups)} {'group' if len(groups) == 1 else 'groups'}"


def _is_number(value: Any) -> bool:
    return np.size(value) == 1 and np.asarray(value).dtype.kind in "iuf"


def _only(held: Mapping[str, dict[str, Any]], what: str) -> dict[str, Any] | None:
    if len(held) > 1:
        names = ", ".join(map(repr, held))
        raise ValueError(
            f"there are {len(held)} {what}s: {names}; take one of checkpoint.{what}s, or name it "
            f"when the file is read: keys={{{what!r}: …}}"
        )
    return next(iter(held.values()), None)


def check_checkpoint(checkpoint: Checkpoint) -> None:
    """Raise ValueError or TypeError for what no file should hold; nothing is changed."""
    if checkpoint.layout not in ("torch", "jax"):
        raise ValueError(f'the layout is {checkpoint.layout!r}; it is "torch" or "jax"')
    for part in ("params", "extra", "optimizers", "schedulers", "averages"):
        held = getattr(checkpoint, part)
        if not isinstance(held, Mapping):
            raise TypeError(f"{part} must be a dict; it is {type(held).__name__}")
    for part in ("schedulers", "averages"):
        for name, held in getattr(checkpoint, part).items():
            if not isinstance(held, Mapping):
                raise TypeError(f"{name!r} of {part} must be a dict; it is {type(held).__name__}")
    odd = [
        f"{n!r} ({type(x).__name__})" for n, x in checkpoint.params.items() if not _is_named(n, x)
    ]
    if odd:
        raise TypeError(f"params must be NumPy arrays by name; there are {', '.join(odd)}")
    for optimizer in checkpoint.optimizers.values():
        check_state_dict(optimizer)


def _is_named(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, np.ndarray) and value.dtype != object


def check_state_dict(state_dict: Any) -> None:
    """Raise ValueError for what is not the state dict of an optimizer; all faults are listed.

    Args:
        state_dict: with NumPy arrays; in torch's layout or in JAX's.
    """
    check_structure(state_dict)
    raise_if(list(_faults(state_dict)), "not the state dict of an optimizer")


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
        return
    count = float(np.asarray(value).item())
    if not math.isfinite(count) or count < 0 or count % 1:
        yield f"{what} is {count}; it must be a whole number, not below 0"


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    return repr(value)[:60]
