"""Torch's going on beside this side's: the same gradients into both, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch

import jaxopt_port as jp
from jaxopt_port import interop
from parity_tests.oracles.two_networks import like_of, nested


class Distance(NamedTuple):
    """What torch's going on and this side's are apart.

    Attributes:
        bits: whether all parameters and rates are equal in every bit.
        relative: the largest difference of a parameter, relative to its tensor's largest.
        rates: whether the rates are equal in every bit.
    """

    bits: bool
    relative: float
    rates: bool


def distance(
    found: Any,
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    schedulers: tuple[Any, Any] | None = None,
    optimizer_name: str | None = None,
    steps: int = 20,
    key: str | None = None,
    live: bool = False,
) -> Distance:
    """Take steps from what was loaded, and from torch's own objects, which stand there.

    Args:
        found: what `interop.load` returned.
        module: torch's; its values are not used, but for what the file does not have.
        optimizer: torch's, over the module; its state goes on.
        schedulers: torch's, and this side's of the same arguments; where the file has no state of
            one, it is torch's own.
        optimizer_name: the class, where the file does not say it.
        steps: to be taken.
        key: of the optimizer and the scheduler, where there are several.
        live: whether to take the parameters of the module, and the names of each group of the
            optimizer: the file has them not, or not all.
    """
    like = like_of(module)
    mapped = interop.param_map(module, like)
    params = interop.params_from_torch(module if live else found.params, like, mapped)
    held = found.optimizers[key] if key else found
    tx, state = interop.optimizer_from_torch(
        held, params, mapped, module=module, optimizer_name=optimizer_name,
        param_names=_names(module, optimizer) if live else None,
    )  # fmt: skip
    torchs, ours = schedulers or (None, None)
    if ours is not None:
        saved = found.schedulers.get(key) or found.scheduler or torchs.state_dict()
        groups = (found.optimizers[key] if key else found.optimizer)["param_groups"]
        sched = ours.load_state_dict(saved, groups)
    rng, rates = np.random.default_rng(0), True
    for _ in range(steps):
        grads = {}
        for name, p in module.named_parameters():
            grads[name] = rng.normal(size=tuple(p.shape)).astype(np.float32)
            p.grad = torch.from_numpy(grads[name]) if p.requires_grad else None
        optimizer.step()
        params, state = jp.step(tx, nested(mapped.from_torch(grads)), state, params)
        if ours is not None:
            torchs.step()
            state, sched = ours.step(state, sched)
        own = [g["lr"] for g in jp.get_hyperparams(state) if "lr" in g]
        rates &= own == [float(g["lr"]) for g in optimizer.param_groups]
    leaves = {path: np.asarray(x) for path, x in jp.engine.leaf_paths(params)}
    return _apart(mapped.to_torch(leaves), module.named_parameters(), rates)


def _names(module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[list[str]]:
    names = {id(p): name for name, p in module.named_parameters()}
    return [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]


def _apart(
    got: dict[str, Any], parameters: Iterable[tuple[str, torch.nn.Parameter]], rates: bool
) -> Distance:
    far, equal = 0.0, True
    for name, p in parameters:
        want = p.detach().numpy()
        equal &= got[name].tobytes() == want.tobytes()
        far = max(far, float(np.abs(got[name] - want).max() / np.abs(want).max()))
    return Distance(equal and rates, far, rates)


def trained(
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int = 5,
    after: Callable[[], Any] = lambda: None,
) -> None:
    """Take steps with random gradients in torch."""
    rng = np.random.default_rng(1)
    for _ in range(steps):
        for p in module.parameters():
            grad = rng.normal(size=tuple(p.shape)).astype(np.float32)
            p.grad = torch.from_numpy(grad) if p.requires_grad else None
        optimizer.step()
        after()
