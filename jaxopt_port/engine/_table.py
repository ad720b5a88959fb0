"""The static side of a grouped optimizer: who is in which group, and what each group is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
from optax import PartitionState

from ..rules import Rule
from ._transform import Static

FROZEN = "frozen"


@dataclass(frozen=True)
class Group:
    """One parameter group.

    Attributes:
        label: how messages name it: ``group 1, "classifier"``.
        name: the user's name for it, or None.
        program: the label of its transformation under ``optax.multi_transform``; ``"frozen"`` for
            a frozen group.
        position: its entry in that program's vectors; None where the numbers are scalars.
        rule: its update rule, or None for a factory of Optax or of the user.
        options: the names of its optimizer's options, in order.
        static: its static options.
        scheduled: the numbers that an Optax schedule sets.
        holds: the names of the state it holds, or None for all that there is.
        extras: entries of torch's group that have no meaning here, kept for the way back.
        check: raises for bad options as the group was built, where no rule does: the factory.
    """

    label: str
    name: str | None
    program: str
    position: int | None = None
    rule: Rule[Any] | None = field(default=None, repr=False)
    options: tuple[str, ...] = field(default=(), repr=False)
    static: Static = ()
    scheduled: frozenset[str] = frozenset()
    holds: frozenset[str] | None = None
    extras: Static = field(default=(), repr=False)
    check: Callable[..., Any] | None = field(default=None, repr=False)

    @property
    def frozen(self) -> bool:
        return self.program == FROZEN


@dataclass(frozen=True, eq=False)
class Table:
    """All groups of one optimizer and the leaves they have.

    A table is the static part of the state, which ``jit`` hashes and compares at every call: the
    hash is kept, and an identical table is equal at once. A table of no parameters is equal to any
    of the same groups, because ``optax.tree.map_params`` makes a state of none to compare with.

    Attributes:
        groups: in the user's order.
        paths: of the parameters' leaves, in the order of ``jax.tree.leaves``.
        assignment: the group of each leaf.
    """

    groups: tuple[Group, ...]
    paths: tuple[str, ...] = field(repr=False)
    assignment: tuple[int, ...] = field(repr=False)

    @property
    def rules(self) -> dict[str, Rule[Any] | None]:
        """The rule of each leaf that is trained."""
        owners = (
            (path, self.groups[i]) for path, i in zip(self.paths, self.assignment, strict=True)
        )
        return {path: group.rule for path, group in owners if not group.frozen}

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self.groups)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the kept hash, which is another in each process.
        return Table, (self.groups, self.paths, self.assignment)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Table)
            and (self._hash, self.groups) == (other._hash, other.groups)
            and (
                not self.paths
                or not other.paths
                or (self.paths, self.assignment) == (other.paths, other.assignment)
            )
        )


@functools.partial(jax.tree_util.register_dataclass, data_fields=["inner"], meta_fields=["table"])
@dataclass(frozen=True)
class GroupsState:
    """The state of a grouped optimizer.

    Attributes:
        inner: Optax's own state: ``multi_transform`` over the groups' programs, each under
            ``inject_hyperparams``.
        table: what is static about the groups.
    """

    inner: PartitionState
    table: Table = field(repr=False)

    def injected(self, group: int) -> Any:
        """Return the ``inject_hyperparams`` state that holds a group's numbers."""
        return self.inner.inner_states[self.table.groups[group].program].inner_state
