"""torch's own table of optimizer configurations."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.testing._internal.common_optimizers import optim_db


class Configuration(NamedTuple):
    """One optimizer with the options of one entry of ``optim_db``.

    Attributes:
        optimizer: torch's name of the class.
        options: torch's keyword arguments.
        implementations: torch's implementations on the CPU beside the default one.
    """

    optimizer: str
    options: dict[str, Any]
    implementations: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(f"{name}={_text(value)}" for name, value in self.options.items())

    @property
    def torch(self) -> type[torch.optim.Optimizer]:
        return getattr(torch.optim, self.optimizer)

    @property
    def numbers(self) -> dict[str, Any]:
        """The options with Python numbers for tensors."""
        return {
            name: value.item() if isinstance(value, torch.Tensor) else value
            for name, value in self.options.items()
        }


def _text(value: Any) -> str:
    return f"tensor({value.item():g})" if isinstance(value, torch.Tensor) else repr(value)


def defaults(optimizer: str) -> dict[str, Any]:
    """Return torch's default options."""
    return getattr(torch.optim, optimizer)([torch.zeros(1, 1)]).defaults


def configurations() -> list[Configuration]:
    """Return all of torch's, by optimizer in alphabetical order."""
    found = []
    for info in sorted(optim_db, key=lambda info: info.optim_cls.__name__.lower()):
        others = [name for name in ("foreach",) if name in info.supported_impls]
        others += ["fused"] if "cpu" in info.supports_fused_on else []
        found += [
            Configuration(info.optim_cls.__name__, dict(each.kwargs), tuple(others))
            for each in info.optim_inputs_func(device="cpu")
        ]
    return found
