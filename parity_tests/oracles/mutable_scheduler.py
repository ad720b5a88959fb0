"""torch's mutable spelling over this library's pure one: an optimizer that schedulers change."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

import jaxopt_port as jp


class MutableOptimizer:
    """``torch.optim.SGD([{"params": …}, …], lr=…)``, of a parameter of one element each group."""

    def __init__(self, factory: Any, groups: Any, **defaults: Any) -> None:
        self.params = {str(i): jnp.ones(1) for i in range(len(groups))}
        groups = [{"params": str(i), **group} for i, group in enumerate(groups)]
        self.tx = factory(groups, **defaults)
        self.state = self.tx.init(self.params)
        self.entries: list[dict[str, float]] = [{} for _ in groups]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        pairs = zip(jp.get_hyperparams(self.state), self.entries, strict=True)
        return [{**options, **entries} for options, entries in pairs]

    def set_lr(self, *lrs: float) -> None:
        self.state = jp.set_hyperparams(self.state, lr=list(lrs))

    def step(self) -> None:
        self.params, self.state = jp.step(self.tx, self.params, self.state, self.params)

    def add_param_group(self, group: dict[str, Any]) -> None:
        name = str(len(self.params))
        self.params = {**self.params, name: jnp.ones(1)}
        group = {"params": name, **group}
        self.tx, self.state = jp.add_param_group(self.tx, self.state, self.params, group)
        self.entries.append({})


class MutableScheduler:
    """``scheduler = torch.optim.lr_scheduler.StepLR(optimizer, …)``."""

    def __init__(self, optimizer: MutableOptimizer, scheduler: jp.lr_scheduler.LRScheduler) -> None:
        self.optimizer, self.scheduler = optimizer, scheduler
        entries = optimizer.entries if any(optimizer.entries) else None
        optimizer.state, self.own = scheduler.init(optimizer.state, entries)
        optimizer.entries = scheduler.param_groups(self.own)

    def step(self, *told: float) -> None:
        made = self.scheduler.step(self.optimizer.state, self.own, *told)
        self.optimizer.state, self.own = made

    def get_last_lr(self) -> list[float]:
        return self.scheduler.get_last_lr(self.own)

    def state_dict(self) -> dict[str, Any]:
        return self.scheduler.state_dict(self.own)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.own = self.scheduler.load_state_dict(saved, self.optimizer.param_groups)
