"""Parameter groups: what is static about each, and which leaves it has."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..trees import listed, users_level
from ._rule import Layouts, Program, Rule, Static

# Among what is kept of torch's group: names of parameters that it was given and does not train.
UNTRAINED = "untrained"


@dataclass(frozen=True)
class Group:
    """One parameter group.

    Attributes:
        label: how messages name it: ``group 1, "classifier"``.
        name: the user's name for it, or None.
        frozen: whether it was built frozen, without numbers and state.
        rule: its update rule, or None for a factory of Optax or of the user.
        numbers: by name, how many numbers each is: None for one that is no tuple.
        own: those of them that are no options of its optimizer, but keys of the user's own.
        options: the names of its optimizer's options, in order.
        static: its static options.
        scheduled: the numbers that an Optax schedule sets.
        bare: whether its numbers are the transformation's, and not in the state: a lower-case one.
        holds: the names of the state it holds, or None for all that there is.
        kept: keys of the user's own that are no numbers.
        extras: entries of torch's group that have no meaning here, kept for the way back.
        check: raises for bad options as the group was built, where no rule does: the factory.
    """

    label: str
    name: str | None
    frozen: bool = False
    rule: Rule[Any] | None = field(default=None, repr=False)
    numbers: tuple[tuple[str, int | None], ...] = field(default=(), repr=False)
    own: frozenset[str] = frozenset()
    options: tuple[str, ...] = field(default=(), repr=False)
    static: Static = ()
    scheduled: frozenset[str] = frozenset()
    bare: bool = False
    holds: frozenset[str] | None = None
    kept: Static = field(default=(), repr=False)
    extras: Static = field(default=(), repr=False)
    check: Callable[..., Any] | None = field(default=None, repr=False)

    @functools.cached_property
    def given(self) -> tuple[tuple[str, int | None], ...]:
        """The numbers that its optimizer is given."""
        return tuple([pair for pair in self.numbers if pair[0] not in self.own])

    @functools.cached_property
    def shown(self) -> dict[str, Any]:
        """Its options as `get_hyperparams` shows them; None for each number."""
        named = {} if self.name is None else {"name": self.name}
        if self.frozen:
            return {**named, "frozen": True}
        full = {**dict.fromkeys(dict(self.numbers)), **dict(self.static), **dict(self.kept)}
        return {**named, **{k: full[k] for k in self.options if k in full}, **full}

    @functools.cached_property
    def program(self) -> Program | None:
        """What groups that differ in numbers alone have in common; None without a rule."""
        return None if self.rule is None else Program(self.rule, self.static, self.holds)


@dataclass(frozen=True, eq=False)
class Table:
    """All groups of one optimizer, the leaves they have, and which leaves count steps together.

    A table is the static part of the state, which ``jit`` hashes and compares at every call: the
    hash is kept, and an identical table is equal at once. A table of no parameters is equal to any
    of the same groups, because ``optax.tree.map_params`` makes a state of none to compare with.

    Attributes:
        groups: in the user's order.
        paths: of the parameters' leaves, in the order of ``jax.tree.leaves``.
        assignment: the group of each leaf.
        clocks: the clock of each leaf; -1 where the leaf has no rule. The leaves of a clock have
            taken their steps together; a gradient that is None parts them.
        of_clocks: the group of each clock.
        resting: groups that are frozen for now, with all that they hold.
        resting_leaves: likewise, places of leaves whose group goes on without them.
        layouts: of the leaves that the state does not hold as they are; the optimizer decides.
    """

    groups: tuple[Group, ...]
    paths: tuple[str, ...] = field(repr=False)
    assignment: tuple[int, ...] = field(repr=False)
    clocks: tuple[int, ...] = field(repr=False)
    of_clocks: tuple[int, ...] = field(repr=False)
    resting: frozenset[int] = frozenset()
    resting_leaves: frozenset[int] = frozenset()
    layouts: Layouts = field(default=(), repr=False)

    @classmethod
    def new(
        cls,
        groups: tuple[Group, ...],
        paths: tuple[str, ...],
        assignment: tuple[int, ...],
        layouts: Layouts = (),
    ) -> Table:
        """Return a table in which each group with a rule has one clock."""
        of_clocks = tuple([i for i, group in enumerate(groups) if group.rule is not None])
        clock = {group: k for k, group in enumerate(of_clocks)}
        clocks = tuple([clock.get(group, -1) for group in assignment])
        return cls(groups, paths, assignment, clocks, of_clocks, layouts=layouts)

    @functools.cached_property
    def bare(self) -> bool:
        """Whether the numbers are not in the state."""
        return bool(self.groups) and self.groups[0].bare

    @functools.cached_property
    def trained(self) -> list[int]:
        """The groups that were not built frozen."""
        return [i for i, group in enumerate(self.groups) if not group.frozen]

    @functools.cached_property
    def rules(self) -> dict[str, Rule[Any] | None]:
        """The rule of each leaf that is trained."""
        owners = zip(self.paths, self.assignment, strict=True)
        return {p: self.groups[i].rule for p, i in owners if not self.groups[i].frozen}

    @functools.cached_property
    def rests(self) -> list[bool]:
        """Whether each leaf takes no steps."""
        still = self.resting | {i for i, group in enumerate(self.groups) if group.frozen}
        owners = enumerate(self.assignment)
        return [group in still or i in self.resting_leaves for i, group in owners]

    @functools.cached_property
    def clocks_of_programs(self) -> dict[Program, list[int]]:
        """The clocks whose leaves are updated alike but for their numbers."""
        found: dict[Program, list[int]] = {}
        for clock, group in enumerate(self.of_clocks):
            program = self.groups[group].program
            if program is not None:
                found.setdefault(program, []).append(clock)
        return found

    @functools.cached_property
    def foreign(self) -> list[int]:
        """The groups whose optimizer is a factory of Optax or of the user."""
        return [i for i in self.trained if self.groups[i].rule is None]

    def paths_of(self, group: int) -> list[str]:
        """Return the paths of a group's parameters, in the order of ``jax.tree.leaves``."""
        return [self.paths[i] for i in self.members(group)]

    def members(self, group: int) -> list[int]:
        """Return the places of a group's leaves."""
        return [i for i, owner in enumerate(self.assignment) if owner == group]

    @functools.cached_property
    def widths(self) -> dict[str, int | None]:
        """By option, how many numbers the table of them has for each group; None for one."""
        widest: dict[str, int | None] = {}
        for group in self.groups:
            for name, arity in group.numbers if not group.bare else ():
                known = widest.get(name)
                widest[name] = arity if known is None else max(known, arity or 1)
        return widest

    def made_for(self, groups: tuple[Group, ...]) -> bool:
        """Whether these are an optimizer's groups; a lower-case one's may have other numbers."""
        if self.bare:
            own, theirs = self.groups[0], groups[0]
            return theirs.bare and (own.rule, own.static) == (theirs.rule, theirs.static)
        return self.groups == groups or (
            len(self.groups) == len(groups)
            # Some may have come to hold all state.
            and all(
                a in (b, replace(b, holds=None)) for a, b in zip(self.groups, groups, strict=True)
            )
        )

    def check_counts(self, scalars: Mapping[str, Any]) -> None:
        """Raise ValueError for a state whose arrays and static part are of different steps."""
        n = len(self.of_clocks)
        for name, vector in scalars.items():
            if np.shape(vector)[:1] != (n,):
                raise ValueError(
                    f"{name!r} of the state has shape {np.shape(vector)} where its static part "
                    f"knows of {n} counts. Gradients that are None part those who count steps "
                    "together, and this static part is of before: take it anew after such a step "
                    "(what nnx.split, or jax.tree.structure, returns), or take the first such step "
                    "outside of jit"
                )

    def check_paths(self, paths: tuple[str, ...]) -> None:
        """Raise ValueError for other parameters than those of the state."""
        if paths != self.paths:
            odd = sorted(set(paths) ^ set(self.paths))
            raise ValueError(
                "the parameters are not those that the state was made for"
                + (f': "{odd[0]}" is in only one of the two' if odd else "")
            )

    def ticked(self, stepping: Sequence[bool]) -> tuple[Table, list[int], list[bool]]:
        """Part those leaves that take a step from those that do not, where they have one clock.

        Returns:
            The new table; by clock, the old one that it goes on from, and whether it goes on.
        """
        clocks, origin = list(self.clocks), list(range(len(self.of_clocks)))
        goes_on = [True] * len(origin)
        resting: dict[int, list[int]] = {}
        for i, clock in enumerate(self.clocks):
            if clock >= 0 and not stepping[i]:
                resting.setdefault(clock, []).append(i)
        for clock, members in sorted(resting.items()):
            if len(members) == self.clocks.count(clock):
                goes_on[clock] = False
            else:
                for i in members:
                    clocks[i] = len(origin)
                origin.append(clock)
                goes_on.append(False)
        if len(origin) == len(self.of_clocks):
            return self, origin, goes_on
        of_clocks = tuple(self.of_clocks[c] for c in origin)
        return replace(self, clocks=tuple(clocks), of_clocks=of_clocks), origin, goes_on

    @functools.cached_property
    def _key(self) -> tuple[Any, ...]:
        return self.groups, self.of_clocks, self.resting, self.resting_leaves

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the kept hash, which is another in each process.
        fields = (self.groups, self.paths, self.assignment, self.clocks, self.of_clocks)
        return Table, (*fields, self.resting, self.resting_leaves, self.layouts)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Table)
            and (self._hash, self._key) == (other._hash, other._key)
            and (
                not self.paths
                or not other.paths
                or (self.paths, self.assignment, self.clocks)
                == (other.paths, other.assignment, other.clocks)
            )
        )


class LayoutWarning(UserWarning):
    """An optimizer sees parameters in Flax's layout, in which its step is not torch's."""


def warn_of_kernels(table: Table, params: Mapping[str, Any], layouts: Mapping[str, Any]) -> None:
    """Warn of leaves called "kernel", as Flax's are, on which the step of a rule is not torch's.

    Args:
        table: who is in which group.
        params: the parameters, by path.
        layouts: the leaves that their rules see in torch's layout.
    """
    found: dict[str, list[str]] = {}
    for (path, leaf), owner in zip(params.items(), table.assignment, strict=True):
        group = table.groups[owner]
        kernel = path.rpartition("/")[2] == "kernel" and path not in layouts
        if kernel and group.rule is not None and not group.frozen:
            shape = tuple(np.shape(leaf))
            if group.rule.oriented(shape, **dict(group.static)):
                found.setdefault(group.rule.name, []).append(f'"{path}" {shape}')
    for name, leaves in found.items():
        warnings.warn(
            f"{name} is not the same in every layout, and sees these kernels as Flax has them, not "
            f"as torch has: {listed(leaves, 4)}. For torch's numbers: tx = "
            "jaxopt_port.interop.in_torch_layout(tx, params), with module= or a param_map where "
            "torch's module is at hand",
            LayoutWarning,
            stacklevel=users_level(),
        )
