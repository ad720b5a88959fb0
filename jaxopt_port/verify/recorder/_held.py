"""What a run holds: values, optimizers, schedulers, random numbers, to go back to."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from ._together import listed


def values_of(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def floating(tensors: Any) -> dict[str, Any]:
    return {n: t.detach().clone().cpu() for n, t in tensors if t.is_floating_point()}


def parameters_of(module: torch.nn.Module | None) -> dict[str, Any]:
    """Return the parameters of a module, or of an average of one; none of None."""
    if isinstance(module, torch.optim.swa_utils.AveragedModel):
        module = module.module
    named = () if module is None else module.named_parameters()
    return {n: p.detach().cpu() for n, p in named}


def all_finite(tensor: torch.Tensor) -> bool:
    """Whether no element is NaN or infinite."""
    return bool(torch.isfinite(tensor).all())


def grads_of(params: Mapping[str, torch.Tensor], copies: bool = False) -> dict[str, Any]:
    grads = {}
    for name, p in params.items():
        if p.grad is None:
            continue
        if p.grad.layout != torch.strided:
            raise ValueError(
                f"the gradient of {name} is sparse; make its layer with sparse=False to compare it"
            )
        grads[name] = p.grad.detach().clone().cpu() if copies else p.grad.detach().cpu()
    return grads


@contextlib.contextmanager
def untouched(params: Iterable[torch.Tensor], message: str) -> Iterator[None]:
    """Raise a ValueError if parameters or their gradients are changed meanwhile."""
    held = [x for p in params for x in (p, p.grad) if x is not None]
    before = [x._version for x in held]
    yield
    if before != [x._version for x in held]:
        raise ValueError(message)


def window_of(side: Any, params: Mapping[str, Any], step: int) -> dict[str, torch.Tensor]:
    """Return the gradients that were added up before a step that is not the first of its window."""
    if step % side.accumulation_steps == 0:
        return {}
    return {n: p.grad.clone() for n, p in params.items() if p.grad is not None}


def state_of(optimizer: Any, params: Mapping[str, torch.Tensor]) -> dict[str, dict[str, Any]]:
    states = optimizer.state
    return {
        name: {k: v.detach().cpu() if isinstance(v, torch.Tensor) else v for k, v in own.items()}
        for name, p in params.items()
        if (own := states.get(p)) is not None
    }


def copied_optimizer(
    optimizer: Any, params: Mapping[str, torch.Tensor]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    states = optimizer.state
    held = {n: copy.deepcopy(dict(states[p])) for n, p in params.items() if p in states}
    groups = [
        {k: copy.deepcopy(v) for k, v in group.items() if k != "params"}
        for group in optimizer.param_groups
    ]
    return held, groups


def restore_optimizer(
    optimizer: Any,
    params: Mapping[str, torch.Tensor],
    states: Mapping[str, Any],
    groups: list[dict[str, Any]],
) -> None:
    for one in listed(optimizer):
        own = {id(p) for group in one.param_groups for p in group["params"]}
        for name, p in params.items():
            if name in states and id(p) in own:
                one.state[p] = copy.deepcopy(states[name])
            else:
                one.state.pop(p, None)
    for group, held in zip(optimizer.param_groups, groups, strict=True):
        for key, value in held.items():
            if isinstance(value, torch.Tensor) and isinstance(group[key], torch.Tensor):
                group[key].copy_(value)  # a scheduler may hold this tensor
            else:
                group[key] = copy.deepcopy(value)


def copied(scheduler: Any, state: Any) -> Any:
    # Bound methods in it would otherwise take copies of these along.
    kept = {id(x): x for x in (scheduler, getattr(scheduler, "optimizer", scheduler))}
    return copy.deepcopy(state, kept)


def random_state() -> Any:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return random.getstate(), torch.get_rng_state(), cuda


def set_random_state(state: Any) -> None:
    python, cpu, cuda = state
    random.setstate(python)
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)
