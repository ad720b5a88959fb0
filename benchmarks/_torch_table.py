"""torch's own table of optimizer configurations."""

from __future__ import annotations

import sys
import types
import unittest
from typing import Any, NamedTuple

import torch

try:
    import expecttest  # noqa: F401
except ModuleNotFoundError:
    # torch's table stands beside its test cases, whose base class is all that they take from it.
    sys.modules["expecttest"] = types.ModuleType("expecttest")
    sys.modules["expecttest"].TestCase = unittest.TestCase  # type: ignore[attr-defined]

from torch.testing._internal.common_optimizers import optim_db


class Configuration(NamedTuple):
    """One optimizer with the options of one entry of ``optim_db``.

    Attributes:
        optimizer: torch's name of the class.
        options: torch's keyword arguments.
        implementations: torch's implementations on the device beside the for-loop.
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


def configurations(device: str = "cpu") -> list[Configuration]:
    """Return all of torch's for a device, by optimizer in alphabetical order."""
    found = []
    for info in sorted(optim_db, key=lambda info: info.optim_cls.__name__.lower()):
        others = [name for name in ("foreach",) if name in info.supported_impls]
        others += ["fused"] if device in info.supports_fused_on else []
        found += [
            Configuration(info.optim_cls.__name__, dict(each.kwargs), tuple(others))
            for each in info.optim_inputs_func(device=device)
        ]
    return found
