"""Several optimizers of one module as one, and several schedulers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ._batches import plain_number


def listed(given: Any) -> list[Any]:
    """Return one or several optimizers or schedulers as a list; none for None."""
    if given is None:
        return []
    if isinstance(given, Together):
        return given.optimizers
    return list(given) if isinstance(given, (tuple, list)) else [given]


def together(given: Any) -> Any:
    """Return an optimizer as it is, several as one."""
    optimizers = listed(given)
    return optimizers[0] if len(optimizers) == 1 else Together(optimizers)


def change(side: Any, step: int, optimizer64: Any) -> None:
    """Change the optimizer of a side, and its copy in float64, as the loop does before a step."""
    for one in (side.optimizer, optimizer64):
        given = one.optimizers if isinstance(one, Together) else one
        groups = [(held, len(held.param_groups)) for held in listed(one)]
        made = side.changes[step](given)
        if isinstance(made, torch.optim.Optimizer) and made is not given:
            raise TypeError(
                f"changes[{step}] of torch's side returned another {type(made).__name__}; it "
                "changes the one that it is given: optimizer.load_state_dict(new.state_dict())"
            )
        for held, count in groups:
            now = len(held.param_groups)
            if now != count:
                del held.param_groups[count:]
                raise ValueError(
                    f"changes[{step}] of torch's side makes {now} groups of {count}; give the "
                    "optimizer all groups from the start, with lr=0, or parameters whose "
                    "requires_grad is False, until then"
                )


class Together:
    """Optimizers that step after one another, each with parameters of its own.

    Attributes:
        optimizers: in order.
        param_groups: of all.
        state: of all, by parameter, to be looked at.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.optimizers = list(optimizers)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for one in self.optimizers for group in one.param_groups]

    @property
    def state(self) -> dict[torch.Tensor, dict[str, Any]]:
        return {p: state for one in self.optimizers for p, state in one.state.items()}

    def step(self, *closure: Any) -> None:
        for one in self.optimizers:
            one.step(*closure)


def options_of(optimizer: Any, names: Mapping[int, str]) -> list[dict[str, Any]]:
    """Return the options of all groups, parameters by name; of several optimizers, also which."""
    several = len(listed(optimizer)) > 1
    return [
        {
            k: [names[id(p)] for p in v] if k == "params" else plain_number(v)
            for k, v in group.items()
        }
        | ({"optimizer": type(one).__name__} if several else {})
        for one in listed(optimizer)
        for group in one.param_groups
    ]
