"""The parameter groups as schedulers see them: torch's ``optimizer.param_groups``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..engine import (
    check_others,
    check_rate,
    find_groups_state,
    read_number,
    replace_groups_state,
    settable,
    updates_taken,
    write_number,
)
from ._arithmetic import EntryError, RateError, Traced, Value, absent_in, is_traced, raw, where

# What torch's schedulers add to ``optimizer.param_groups``; `LRScheduler.entries` to others.
ENTRIES = ("initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr")

_LR = ("lr", "learning_rate")  # torch's name, and that of Optax's factories
_BETA1 = ("betas", "b1")


def for_each(value: Any, size: int) -> list[Any]:
    """Return what is given once, or as a list for all groups, as a list."""
    return list(value) if isinstance(value, tuple) else [value] * size


@dataclass
class Groups:
    """One number for each trained group, under each of torch's names; to be written to.

    Attributes:
        lr: learning rates.
        momentum: momenta, or the first of each pair of betas; None where there are neither.
        use_beta1: whether they are betas.
        entries: what torch's schedulers keep in ``param_groups``. A NaN is a group without one;
            groups that have joined since have none.
        frozen: how many more groups there are, which are not counted.
        stepped: tells whether the optimizer has been stepped; None where that is not known.
    """

    lr: Value
    momentum: Value = None
    use_beta1: bool = False
    entries: dict[str, Value] = field(default_factory=dict)
    frozen: int = 0
    stepped: Callable[[], bool] | None = None

    def __len__(self) -> int:
        return len(raw(self.lr))

    def copied(self) -> Groups:
        return replace(self, entries=dict(self.entries))

    def listed(self, name: str, value: float | Sequence[float]) -> np.ndarray[Any, Any]:
        """Torch's ``_format_param``: a value for each group, given as one or as a list."""
        if isinstance(value, tuple | list):
            if len(value) != len(self):
                raise ValueError(
                    f"{name} must have the same length as optimizer.param_groups. {name} has "
                    f"{len(value)} values, param_groups has {len(self)}.{self.not_counted()}"
                )
            return np.array(value, np.float64)
        return np.full(len(self), value, np.float64)

    def begin_cycle(self, base: Any, highest: Any, new: bool) -> None:
        """Check the momenta that are cycled between; a new cycle begins with the highest."""
        self.check_momentum()
        lower = self.listed("base_momentum", base)
        upper = self.listed("max_momentum", highest)
        if new:
            self.momentum = upper
            self.entries["max_momentum"] = upper
            self.entries["base_momentum"] = lower

    def not_counted(self) -> str:
        """Say for messages about wrong lengths that frozen groups do not count."""
        return f" (Frozen groups are not counted; there are {self.frozen}.)" if self.frozen else ""

    def check_momentum(self) -> None:
        """Raise torch's error where there is neither momentum nor beta1 to cycle."""
        if self.momentum is None:
            raise ValueError(
                "optimizer must support momentum or beta1 with `cycle_momentum` option enabled"
            )

    def setdefault(self, name: str, values: Value) -> None:
        """Give the entry to the groups that have none."""
        held = self.entries.get(name)
        if held is None:
            self.entries[name] = values
        elif self.missing(name) is not None:
            absent: Any = absent_in(held)
            if isinstance(held, Traced) or isinstance(values, Traced):
                absent = Traced(jnp.asarray(absent))
            self.entries[name] = where(absent, values, held)

    def missing(self, name: str) -> int | None:
        """Return the first group without the entry, or None."""
        held = self.entries.get(name)
        if held is None:
            return 0
        absent, known = np.flatnonzero(absent_in(held)), len(raw(held))
        return int(absent[0]) if len(absent) else known if known < len(self) else None

    def entry(self, name: str) -> Value:
        """Return ``[group[name] for group in param_groups]``, or raise torch's KeyError."""
        index = self.missing(name)
        if index is not None:
            raise EntryError(
                name,
                f"the scheduler has given group {index} none; begin again with init for groups "
                f"that have joined since{self.not_counted()}",
            )
        return self.entries[name]

    def check_joined(self, known: int, words: str) -> None:
        """Raise torch's error where a scheduler has begun with another number of groups."""
        if known != len(self):
            raise RateError(
                f"{words}: the scheduler began with {known} groups, the optimizer has {len(self)} "
                f"now; begin again with init{self.not_counted()}"
            )


def entries_of(
    param_groups: Sequence[Mapping[str, Any]] | None, groups: Groups, loading: bool = False
) -> dict[str, Value]:
    """Return the schedulers' entries of torch's ``param_groups``.

    As a state dict is loaded, there may be groups that have joined since the scheduler began.
    """
    if param_groups is None:
        return {}
    # A group that rests for now is frozen and has its rate all the same.
    trained = [g for g in param_groups if not g.get("frozen", False) or g.keys() & {*_LR}]
    if len(trained) > len(groups) and not loading:
        raise ValueError(
            f"param_groups has {len(trained)} groups, the optimizer has {len(groups)}."
            + groups.not_counted()
        )
    # No scheduler has given any to those that have joined since.
    joined: list[Mapping[str, Any]] = [{}] * (len(groups) - len(trained))
    return {
        name: np.array([float(group.get(name, np.nan)) for group in (*trained, *joined)])
        for name in ENTRIES
        if any(name in group for group in trained)
    }


class Written:
    """The state of a grouped optimizer, read as `Groups` and written back."""

    def __init__(self, state: Any) -> None:
        self._state = state
        self._found = find_groups_state(state)
        groups = self._found.table.groups
        self.trained = [i for i, group in enumerate(groups) if not group.frozen]
        if not self.trained:
            raise ValueError("every group is frozen: there is no learning rate to schedule")
        self._names = set.intersection(*(set(dict(groups[i].numbers)) for i in self.trained))
        lr, beta1 = self._first(_LR), self._first(_BETA1)
        if lr is None:
            raise ValueError(
                "the optimizer has no number named lr or learning_rate in each of its groups"
            )
        self.lr_name = lr
        self.momentum_name = beta1 or self._first(("momentum",))
        self.lr = read_number(self._found, self.trained, lr)
        self._momenta: Any = None
        if self.momentum_name is not None:
            self._momenta = read_number(self._found, self.trained, self.momentum_name)
        self.traced = is_traced(self.lr, self._momenta)
        self._pairs = self.momentum_name == "betas"

    def _first(self, names: Sequence[str]) -> str | None:
        return next((name for name in names if name in self._names), None)

    def entries(self) -> dict[str, Value]:
        """Return the schedulers' entries that groups were built with, or brought from torch."""
        groups = [self._found.table.groups[i] for i in self.trained]
        made: dict[str, Value] = {}
        for name in ENTRIES:
            held: list[Any] = [dict(group.extras).get(name) for group in groups]
            for k, group in enumerate(groups):
                if name in group.own:
                    held[k] = read_number(self._found, [self.trained[k]], name)[0]
            known = [np.nan if x is None else x for x in held]
            if is_traced(held):
                made[name] = Traced(jnp.stack(known), [x is None for x in held])
            elif any(x is not None for x in held):
                made[name] = np.array(known, np.float64)
        return made

    def groups(self, entries: dict[str, Value], traced: bool) -> Groups:
        """Return what schedulers read and write; ``traced`` for all of it."""
        momentum = self._momenta[:, 0] if self._pairs else self._momenta
        lr, momentum = (
            Traced(jnp.asarray(x)) if traced and x is not None else x for x in (self.lr, momentum)
        )
        self._read = lr, momentum
        frozen = len(self._found.table.groups) - len(self.trained)
        return Groups(
            *self._read,
            self.momentum_name in _BETA1,
            dict(entries),
            frozen,
            lambda: updates_taken(self._found, self.trained[0]) != 0,
        )

    def state(self, groups: Groups, *, first: bool = False) -> Any:
        """Return the state with what was changed in the groups.

        Args:
            groups: as `groups` returned them, changed.
            first: check too that the optimizer can take what is going to be written.
        """
        found = self._found
        for group in self.trained if first else ():  # whether the rate is written now, or later
            check_rate(found, group, self.lr_name)
        for name, read, value in (
            (self.lr_name, self._read[0], groups.lr),
            (self.momentum_name, self._read[1], groups.momentum),
        ):
            if name is None or value is read:
                continue
            if first:
                found = settable(found, self.trained, name)
            values = raw(value)
            if self._pairs and name == self.momentum_name:
                values = self._pair(values)
            found = write_number(found, self.trained, name, values)
            if not is_traced(values, self.lr, self._momenta):
                check_others(found, {})
        return replace_groups_state(self._state, lambda _: found)

    def _pair(self, beta1: Any) -> Any:
        """Return the betas with another first one: torch's ``(beta1, *group["betas"][1:])``."""
        stack = jnp.concatenate if is_traced(beta1, self._momenta) else np.concatenate
        return stack([beta1[:, None], self._momenta[:, 1:]], axis=1)
