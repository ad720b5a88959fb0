"""The state of a grouped optimizer, and what is static about it: who is in which group."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from ..numerics import Float64
from ._program import Program, Static
from ._rule import Rule


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
    holds: frozenset[str] | None = None
    kept: Static = field(default=(), repr=False)
    extras: Static = field(default=(), repr=False)
    check: Callable[..., Any] | None = field(default=None, repr=False)

    @property
    def given(self) -> tuple[tuple[str, int | None], ...]:
        """The numbers that its optimizer is given."""
        return tuple(pair for pair in self.numbers if pair[0] not in self.own)

    @property
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
    """

    groups: tuple[Group, ...]
    paths: tuple[str, ...] = field(repr=False)
    assignment: tuple[int, ...] = field(repr=False)
    clocks: tuple[int, ...] = field(repr=False)
    of_clocks: tuple[int, ...] = field(repr=False)
    resting: frozenset[int] = frozenset()

    @classmethod
    def new(
        cls, groups: tuple[Group, ...], paths: tuple[str, ...], assignment: tuple[int, ...]
    ) -> Table:
        """Return a table in which each group with a rule has one clock."""
        of_clocks = tuple(i for i, group in enumerate(groups) if group.rule is not None)
        clock = {group: k for k, group in enumerate(of_clocks)}
        clocks = tuple(clock.get(group, -1) for group in assignment)
        return cls(groups, paths, assignment, clocks, of_clocks)

    @property
    def trained(self) -> list[int]:
        """The groups that were not built frozen."""
        return [i for i, group in enumerate(self.groups) if not group.frozen]

    @property
    def rules(self) -> dict[str, Rule[Any] | None]:
        """The rule of each leaf that is trained."""
        owners = (
            (path, self.groups[i]) for path, i in zip(self.paths, self.assignment, strict=True)
        )
        return {path: group.rule for path, group in owners if not group.frozen}

    def paths_of(self, group: int) -> list[str]:
        """Return the paths of a group's parameters, in the order of ``jax.tree.leaves``."""
        owners = zip(self.paths, self.assignment, strict=True)
        return [path for path, owner in owners if owner == group]

    def members(self, group: int) -> list[int]:
        """Return the places of a group's leaves."""
        return [i for i, owner in enumerate(self.assignment) if owner == group]

    @functools.cached_property
    def widths(self) -> dict[str, int | None]:
        """By option, how many numbers the table of them has for each group; None for one."""
        widest: dict[str, int | None] = {}
        for name, arity in (pair for group in self.groups for pair in group.numbers):
            known = widest.get(name)
            widest[name] = arity if known is None else max(known, arity or 1)
        return widest

    @functools.cached_property
    def _key(self) -> tuple[Any, ...]:
        return self.groups, self.of_clocks, self.resting

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the kept hash, which is another in each process.
        fields = (self.groups, self.paths, self.assignment, self.clocks, self.of_clocks)
        return Table, (*fields, self.resting)

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


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["leaves", "scalars", "numbers", "counts", "others"],
    meta_fields=["table"],
)
@dataclass(frozen=True)
class GroupsState:
    """The state of a grouped optimizer.

    Attributes:
        leaves: by torch's name (``exp_avg``), a tree shaped as the parameters, with a `NotHeld`
            where a parameter has nothing of that name.
        scalars: by torch's name (``step``), a vector over clocks: ``table.clocks`` says which
            parameter has which.
        numbers: by option (``lr``), a `Float64` over groups; NaN for a group that has none.
        counts: how many updates each group has seen, for Optax schedules.
        others: by the group's index, the state of a factory that is no rule of this library.
        table: what is static about the groups.
    """

    leaves: dict[str, Any]
    scalars: dict[str, jax.Array]
    numbers: dict[str, Float64]
    counts: jax.Array
    others: dict[str, Any]
    table: Table = field(repr=False)

    def with_others(self, group: int, state: Any) -> GroupsState:
        """Return the state with another state of a foreign factory."""
        return replace(self, others={**self.others, str(group): state})
