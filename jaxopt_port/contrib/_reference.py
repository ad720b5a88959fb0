"""What a class of a torch package is here, and how its state dicts are carried over and back.

What a package keeps otherwise than torch.optim does (a count in the group, a Python float, an
option that is an attribute of the optimizer) is data, so that `jaxopt_port.interop` carries its
checkpoints over and back.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..engine import IMPLEMENTATIONS, Optimizer, arguments_of
from . import _wide
from ._left_out import LEFT_OUT

# Numbers that a package lets be None; another's infinity is one (Prodigy's growth_rate).
_OPTIONAL = (
    *("lr", "momentum", "clip_exp", "max_grad_norm", "beta3", "max_lr_snapshot"),
    *("shampoo_beta", "t_alpha_beta3", "preconditioner_update_probability"),
)


def _as_they_are(optimizer: Any, param: Any, held: dict[str, Any]) -> dict[str, Any]:
    return held


@dataclass(frozen=True)
class Reference:
    """A class of a torch package, and the optimizer here that has its numbers.

    Attributes:
        package: what is installed: ``"timm"``.
        module: where the class is defined, or a package above it.
        name: the class's.
        optimizer: its twin.
        counts: what is counted in Python integers for each parameter.
        in_groups: what is kept once for a group there, and for each parameter here.
        wide: those numbers of the state that are float64 there.
        copied: options that each parameter holds as they were at its first step, which are what
            counts from then on.
        without: entries of a group that say nothing here.
        attributes: options that are no entries of a group: where the optimizer has them, and the
            argument of the class that they are given by.
        fixed: options here that only say that it is this package's.
        read: makes options of this side of a group's, where they are other ones.
        write: undoes it.
        read_state: the same for what a parameter holds.
        write_state: undoes that.
        tensors: ``tensors(optimizer, param, held)``: what a parameter holds there, of its tensors
            by the names of this side, where the package has a class of its own for them.
    """

    package: str
    module: str
    name: str
    optimizer: type[Optimizer]
    counts: tuple[str, ...] = ()
    in_groups: tuple[str, ...] = ()
    wide: tuple[str, ...] = ()
    copied: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    attributes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    read: Callable[[dict[str, Any]], dict[str, Any]] = dict
    write: Callable[[dict[str, Any]], dict[str, Any]] = dict
    read_state: Callable[[dict[str, Any]], dict[str, Any]] = dict
    write_state: Callable[[dict[str, Any]], dict[str, Any]] = dict
    tensors: Callable[[Any, Any, dict[str, Any]], dict[str, Any]] = _as_they_are

    def fits(self, cls: type) -> bool:
        """Whether a class is this one."""
        inside = f"{cls.__module__}.".startswith(f"{self.module}.")
        return inside and cls.__name__ == self.name

    def imported(self) -> Any:
        """Return the class.

        Raises:
            ImportError: the package is not installed, or its version has no such class.
        """
        try:
            module = importlib.import_module(self.module)
        except ImportError as error:
            raise ImportError(f"{self.package} is needed for its {self.name}: {error}") from error
        if not hasattr(module, self.name):
            raise ImportError(
                f"this {self.package} has no {self.name} in {self.module}: install another version"
            )
        return getattr(module, self.name)

    def from_torch(self, state_dict: Mapping[str, Any], optimizer: Any = None) -> dict[str, Any]:
        """Return a state dict of the package's with the options and names of this side.

        Args:
            state_dict: the package's; arrays may be torch's.
            optimizer: what it is the state of, where options are attributes of it.
        """
        if self.attributes and optimizer is None:
            raise ValueError(
                f"the state dict of {self.package}'s {self.name} does not say what "
                f"{', '.join(self.attributes)} is; pass the optimizer itself"
            )
        defaults = arguments_of(self.optimizer.factory).defaults
        given = {k: _attribute(optimizer, place) for k, (place, _) in self.attributes.items()}
        state = {k: self.read_state(_held(v)) for k, v in state_dict["state"].items()}
        groups = []
        for group in state_dict["param_groups"]:
            # What an older version did not have, a newer one takes as its default.
            group = self.read(dict(group))
            own = {**defaults, **self.fixed, **group, **given, **self._copies(state, group)}
            shared = {name: own.pop(name) for name in self.in_groups if name in own}
            for name in (*self.without, *IMPLEMENTATIONS):
                own.pop(name, None)
            for name, default in defaults.items():
                if own[name] is None and name in _OPTIONAL and isinstance(default, float):
                    own[name] = LEFT_OUT
            for index in group["params"]:
                if held := state.get(index):
                    held.update(shared)
                    for name in set(self.wide) & held.keys():
                        held.update(_wide.kept(name, float(held[name])))
            groups.append(own)
        return {"state": state, "param_groups": groups}

    def _copies(self, state: dict[int, Any], group: Mapping[str, Any]) -> dict[str, Any]:
        """Take the copies of options out of what the parameters of a group hold."""
        begun = [held for held in map(state.get, group["params"]) if held]
        copies = [{name: held.pop(name) for name in self.copied} for held in begun]
        if any(own != copies[0] for own in copies):
            raise ValueError(
                f"the parameters of a group of {self.package}'s {self.name} were begun with "
                f"different options, and are stepped by those: {copies}"
            )
        return copies[0] if copies else {}

    def to_torch(self, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        """Return a state dict with the package's options and names: undoes `from_torch`.

        The options that are attributes stay among the entries of the groups: see `arguments`.
        """
        state, groups = {k: dict(v) for k, v in state_dict["state"].items()}, []
        for group in state_dict["param_groups"]:
            shared: dict[str, Any] = {}
            for index in group["params"]:
                held = state.get(index, {})
                for name in set(self.wide) & held.keys():
                    held[name] = _wide.as_float(held, name)
                for name in set(self.counts) & held.keys():
                    held[name] = int(held[name])
                found = {name: held.pop(name) for name in self.in_groups if name in held}
                if found and shared and not _equal(found, shared):
                    raise ValueError(
                        f"{self.package} counts the steps of a group as a whole, and the "
                        f"parameters of this one have taken different numbers of them: {found} "
                        f"and {shared}"
                    )
                shared = shared or found
            own = {k: _given(k, v) for k, v in group.items() if k not in self.fixed}
            groups.append(self.write({**own, **shared}))
            for index in group["params"]:
                if begun := state.get(index):
                    copies = {name: groups[-1][name] for name in self.copied}
                    state[index] = self.write_state({**begun, **copies})
        return {"state": state, "param_groups": groups}

    def arguments(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Take what is given to the class itself out of the groups that `to_torch` makes."""
        taken = [
            {k: group.pop(k) for k in self.attributes if k in group}
            for group in state_dict["param_groups"]
        ]
        if any(own != taken[0] for own in taken):
            raise ValueError(
                f"{self.package}'s {self.name} has one value of {', '.join(self.attributes)} for "
                f"all groups; here are {taken}"
            )
        # A rate that is None is that of the groups.
        return {
            self.attributes[k][1]: v
            for k, v in taken[0].items()
            if v is not None or k != "max_lr_snapshot"
        }


def _held(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if value is not None}


def _given(name: str, value: Any) -> Any:
    return None if name in _OPTIONAL and value == LEFT_OUT else value


def _equal(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def _attribute(optimizer: Any, place: str) -> Any:
    name, _, key = place.partition(".")
    value = getattr(optimizer, name)
    value = value[key] if key else value
    return str(value).removeprefix("torch.") if type(value).__name__ == "dtype" else value
