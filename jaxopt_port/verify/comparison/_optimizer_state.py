"""What an optimizer state on the JAX side says in torch's words."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from numpy.typing import NDArray

import jaxopt_port as jp

from ...engine import IMPLEMENTATIONS, LeafLayout, grouped_states, leaf_paths, leaf_states
from ._meant import HALVES

# Optax's names of numbers, by torch's; a number in torch's `betas` by its place.
_NUMBERS: Mapping[str, tuple[str, ...]] = {
    "lr": ("learning_rate", "lr"),
    "betas[0]": ("b1",),
    "betas[1]": ("b2",),
    "momentum": ("momentum",),
    "weight_decay": ("weight_decay",),
    "alpha": ("decay",),
}
# Where Optax's state is torch's under another name, by the state's class and torch's optimizer.
_MOMENTS = {"mu": "exp_avg", "nu": "exp_avg_sq"}
_WITH_MOMENTS = ("Adam", "AdamW")
# Numbers of a step, which a parameter without axes has in its own shape.
_COUNTS = ("step", "eta", "mu", "mu_product")
# What torch calls another way, or holds for its own use only.
_NOT_COMPARED = ("step", *IMPLEMENTATIONS, "params")


def flat(options: Mapping[str, Any]) -> dict[str, float]:
    """Return a group's numbers by name, those of a tuple as ``betas[0]``."""
    numbers: dict[str, float] = {}
    for name, value in options.items():
        if name in _NOT_COMPARED or isinstance(value, (str, bool)) or value is None:
            continue
        if isinstance(value, (tuple, list)):
            if all(isinstance(x, (int, float)) for x in value):
                numbers |= {f"{name}[{i}]": float(x) for i, x in enumerate(value)}
        elif np.size(value) == 1:
            numbers[name] = float(np.asarray(value).reshape(()))
    return numbers


def fits(numbers: Mapping[str, float], group: Mapping[str, float]) -> bool:
    """Whether the numbers of a leaf could be a group's."""
    return all(math.isclose(numbers[k], group[k], rel_tol=1e-6) for k in numbers.keys() & group)


class Hyperparameters:
    """Reads the numbers in force from states of an optimizer.

    Args:
        state: a state, which tells what can be read.
        paths: of the parameters.

    Attributes:
        in_halves: whether it holds any in fewer bits than float32.
    """

    def __init__(self, state: Any, paths: Sequence[str]) -> None:
        self._paths = tuple(paths)
        self._groups_of: list[dict[str, int]] = []
        for table in (grouped.table for grouped in _grouped(state)):
            owners = zip(table.paths, table.assignment, strict=True)
            self._groups_of.append({p: g for p, g in owners if not table.groups[g].frozen})
        held = [x for node, _ in _injected(state) for x in node.hyperparams.values()]
        self.in_halves = any(str(getattr(x, "dtype", "")) in HALVES for x in held)

    def words(self, state: Any) -> dict[str, dict[str, str | None]]:
        """Return the options that are a word or None, by path; of this library's optimizers."""
        return {
            path: {k: v for k, v in groups[g].items() if v is None or isinstance(v, str)}
            for group_of, grouped in zip(self._groups_of, _grouped(state), strict=True)
            for groups in [jp.get_hyperparams(grouped)]
            for path, g in group_of.items()
        }

    def read(self, state: Any) -> dict[str, dict[str, float]]:
        """Return the numbers of each parameter, by path; empty where they cannot be read.

        Args:
            state: as the update left it: numbers on a schedule are those that it used.
        """
        if self._groups_of:
            read: dict[str, dict[str, float]] = {}
            for group_of, grouped in zip(self._groups_of, _grouped(state), strict=True):
                groups = [flat(group) for group in jp.get_hyperparams(grouped)]
                read |= {path: groups[g] for path, g in group_of.items()}
            return read
        found = list(_injected(state))
        if len(found) != 1:
            return {}
        [(node, masked)] = found
        held = node.hyperparams
        numbers = {
            torchs: float(np.asarray(held[name]))
            for torchs, names in _NUMBERS.items()
            for name in names
            if name in held and np.size(held[name]) == 1
        }
        return dict.fromkeys(self._within(node) if masked else self._paths, numbers)

    def _within(self, node: Any) -> set[str]:
        """Return the parameters that a part of a state holds something for."""
        parts = [path.split("/") for path, _ in leaf_paths(node.inner_state)]
        longest_first = (["/".join(part[i:]) for i in range(len(part))] for part in parts)
        known = [[end for end in ends if end in self._paths] for ends in longest_first]
        return {ends[0] for ends in known if ends}


@functools.cache
def _names_of_rules() -> dict[Any, str]:
    """Return the class of each of this library's rules."""
    contrib = jp.contrib  # imported at need: it adds a name to jp
    named = [*vars(jp).items(), *((f"contrib.{n}", kind) for n, kind in vars(contrib).items())]
    rules = [(name, getattr(getattr(kind, "factory", None), "rule", None)) for name, kind in named]
    return {rule: name for name, rule in rules if rule is not None}


def classes(state: Any) -> dict[str, str]:
    """Return the class of this library that steps each leaf, by path, where one does."""
    named: dict[str, str | None] = {}
    for table in (grouped.table for grouped in _grouped(state)):
        rules = [table.groups[g].rule for g in table.assignment]
        named |= {p: _names_of_rules().get(r) for p, r in zip(table.paths, rules, strict=True)}
    return {path: name for path, name in named.items() if name is not None}


def moments(
    state: Any, paths: Sequence[str], optimizer: str, layouts: Mapping[str, LeafLayout]
) -> dict[str, dict[str, Any]]:
    """Return what is held for each parameter, by path and torch's name; empty if not known.

    Args:
        state: the optimizer's.
        paths: of the parameters.
        optimizer: torch's class.
        layouts: by path, how rules see the leaves that they do not see as they are.
    """
    held: dict[str, dict[str, Any]]
    if states := _grouped(state):
        try:
            held = {path: own for one in states for path, own in leaf_states(one).items()}
        except ValueError:  # a group of the user's own rule, whose names are not torch's
            return {}
        for path in layouts.keys() & held.keys():
            held[path] = {n: _as_leaf(value, layouts[path]) for n, value in held[path].items()}
        return held
    if optimizer not in _WITH_MOMENTS:
        return {}
    held = {path: {} for path in paths}
    for node in _nodes(state, "ScaleByAdamState"):
        for field, name in _MOMENTS.items():
            for path, leaf in leaf_paths(getattr(node, field)):
                held.setdefault(path, {})[name] = leaf
    return held


def _as_leaf(value: Any, layout: LeafLayout) -> Any:
    """Return what a rule holds of the shape that it sees as the parameter has it."""
    if np.shape(value) != layout.shape:
        return value
    return np.flip(np.asarray(value).reshape(layout.view).transpose(layout.axes), layout.flip)


def comparable(
    yours: Mapping[str, Any], torchs: Mapping[str, Any], shape: tuple[int, ...]
) -> Iterator[tuple[str, NDArray[Any], Any]]:
    """Yield ``(name, yours, torch's)`` of arrays that both hold in the parameter's shape."""
    for name, theirs in torchs.items():
        if name not in _COUNTS and name in yours and np.shape(yours[name]) == shape:
            yield name, np.asarray(yours[name]), theirs


def _grouped(state: Any) -> list[Any]:
    """Return the grouped states that hold numbers: several in Optax's multi_transform."""
    return [one for one in grouped_states(state) if not one.table.bare]


def _injected(state: Any, masked: bool = False) -> Iterator[tuple[Any, bool]]:
    """Yield each node that holds numbers, and whether it is of some of the parameters only."""

    def is_injected(node: Any) -> bool:
        return hasattr(node, "hyperparams") and hasattr(node, "inner_state")

    def is_either(node: Any) -> bool:
        return is_injected(node) or isinstance(node, optax.MaskedState)

    for node in jax.tree.leaves(state, is_leaf=is_either):
        if is_injected(node):
            yield node, masked
        elif isinstance(node, optax.MaskedState):
            yield from _injected(node.inner_state, True)


def _nodes(state: Any, name: str) -> Iterator[Any]:
    def is_it(node: Any) -> bool:
        return type(node).__name__ == name

    return (node for node in jax.tree.leaves(state, is_leaf=is_it) if is_it(node))
