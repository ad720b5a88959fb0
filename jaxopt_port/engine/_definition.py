"""What a grouped optimizer was built from, and the transformation that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import optax

from ._arguments import Arguments, as_number, check_values, first_value
from ._checks import canonical, check_gradients, check_params
from ._factory import make_program, split
from ._paths import leaf_paths
from ._programs import Numbers, foreign_program, rule_program
from ._selectors import Selector, check_selector, describe, resolve
from ._table import FROZEN, Group, GroupsState, Table
from ._transform import Program

_RESERVED = ("params", "name", "frozen")


@dataclass(frozen=True)
class Member:
    """A group with what it was built from: a selector, numbers (and schedules), the rest."""

    group: Group
    selector: Selector
    numbers: Numbers
    static: Mapping[str, Any]


@dataclass(frozen=True)
class Definition:
    """What a grouped optimizer was built from.

    Attributes:
        factory: the lower-case factory.
        arguments: its arguments.
        defaults: options for the groups that do not set them.
        members: the groups.
    """

    factory: Callable[..., optax.GradientTransformation]
    arguments: Arguments
    defaults: Mapping[str, Any]
    members: tuple[Member, ...] = ()

    @property
    def groups(self) -> tuple[Group, ...]:
        return tuple(member.group for member in self.members)

    def table(self, params: Any) -> Table:
        """Return who is in which group; raises for selectors that do not fit ``params``."""
        check_params(params)
        labels = [group.label for group in self.groups]
        assignment = resolve([member.selector for member in self.members], labels, params)
        return self.assigned(params, assignment)

    def assigned(self, params: Any, assignment: tuple[int, ...]) -> Table:
        paths = tuple(path for path, _ in leaf_paths(params))
        options = tuple(self.arguments.names)
        return Table(self.arguments.rule, self.groups, options, paths, assignment)

    def init(self, params: Any, table: Table) -> GroupsState:
        boxed = (canonical(params),)
        tx = self._multi_transform(table)
        with jax.enable_x64(True):
            return GroupsState(tx.init(boxed), table)

    def update(
        self, updates: Any, state: GroupsState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, GroupsState]:
        check_gradients(updates, params)
        updates, params = canonical(updates), canonical(params)
        table = self._checked_table(state, params)
        tx = self._multi_transform(table)
        with jax.enable_x64(True):
            (updates,), inner = tx.update((updates,), state.inner, (params,), **extra_args)
        return updates, GroupsState(inner, table)

    def check_state(self, state: Any) -> None:
        """Raise ValueError for a state of other groups."""
        if not isinstance(state, GroupsState) or state.table.groups != self.groups:
            raise ValueError(
                "this state was made by another optimizer: its groups are not this one's. Make it "
                "by tx.init(params), or take over both results of jp.add_param_group"
            )

    def _checked_table(self, state: GroupsState, params: Any) -> Table:
        self.check_state(state)
        paths = tuple(path for path, _ in leaf_paths(params))
        if paths != state.table.paths:
            odd = sorted(set(paths) ^ set(state.table.paths))
            raise ValueError(
                "the parameters are not those that the state was made for"
                + (f': "{odd[0]}" is in only one of the two' if odd else "")
            )
        return state.table

    def _multi_transform(self, table: Table) -> optax.GradientTransformationExtraArgs:
        x64 = bool(jax.enable_x64.value)
        programs: dict[Hashable, optax.GradientTransformation] = {FROZEN: optax.set_to_zero()}
        for label in dict.fromkeys(group.program for group in self.groups if not group.frozen):
            indices = [i for i, group in enumerate(self.groups) if group.program == label]
            members = [self.members[i] for i in indices]
            if self.arguments.rule is None:
                (member,) = members
                programs[label] = foreign_program(self.factory, member.numbers, member.static, x64)
            else:
                group = members[0].group
                program = Program(self.arguments.rule, group.static, group.holds)
                own = [indices.index(g) for g in table.assignment if g in indices]
                programs[label] = rule_program(program, [m.numbers for m in members], own)
        each = [self.groups[group].program for group in table.assignment]

        def labels(boxed: Any) -> Any:
            # Boxed in a tuple: a callable module that holds the labels would be called for them.
            return jax.tree.unflatten(jax.tree.structure(boxed), each)

        return optax.multi_transform(programs, labels)

    def extended(self, groups: Iterable[Mapping[str, Any]]) -> Definition:
        """Return the definition with more groups at its end.

        Raises:
            TypeError: an unknown option, a value that is no number, or no selector.
            ValueError: no ``params``, a number out of range, a name given twice, options on a
                frozen group.
        """
        members = list(self.members)
        for group in groups:
            members.append(self._member(len(members), group, members))
        return replace(self, members=tuple(members))

    def _member(self, index: int, group: Mapping[str, Any], earlier: Sequence[Member]) -> Member:
        if "params" not in group:
            raise ValueError(f"group {index} has no 'params' entry to say which parameters it has")
        selector, name = group["params"], group.get("name")
        check_selector(selector, f" (group {index})")
        label = f"group {index}, " + (describe(selector) if name is None else f'"{name}"')
        where = f" ({label})"
        if not isinstance(name, str | None):
            raise TypeError(f"the name of group {index} must be a string; got {name!r}")
        if name is not None and name in [member.group.name for member in earlier]:
            raise ValueError(f'two parameter groups are named "{name}"')
        own = {k: v for k, v in group.items() if k not in _RESERVED}
        self.arguments.check_names(own, where)
        if group.get("frozen", False):
            if own:
                raise ValueError(f"{label} is frozen: its option {next(iter(own))!r} has no use")
            return Member(Group(label, name, FROZEN), selector, {}, {})

        numbers, static = self._options({**self.defaults, **own}, where)
        scheduled = frozenset(k for k, v in numbers.items() if callable(v))
        if self.arguments.rule is None:
            shown = {k: v for k, v in static.items() if isinstance(v, bool | int | str | None)}
            info = Group(
                label, name, str(index), None, tuple(sorted(shown.items())), scheduled=scheduled
            )
            return Member(info, selector, numbers, static)
        program = make_program(self.arguments.rule, numbers, static)
        # Groups of one program differ in numbers alone, and share its vectors.
        same = [
            m
            for m in earlier
            if (m.group.static, m.group.holds) == program[1:] and not m.group.frozen
        ]
        info = Group(
            label,
            name,
            program=same[0].group.program if same else str(index),
            position=len(same),
            static=program.static,
            scheduled=scheduled,
            holds=program.holds,
        )
        return Member(info, selector, numbers, static)

    def _options(
        self, options: Mapping[str, Any], where: str
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return checked numbers (floats and schedules) and static options."""
        numbers, static = split(self.arguments, options)
        self.arguments.check_flags(static, where)
        defaults = self.arguments.defaults() if self.arguments.rule is not None else {}
        start = {
            name: as_number(
                name, first_value(value) if callable(value) else value, where, defaults.get(name)
            )
            for name, value in numbers.items()
        }
        check_values(self.arguments.rule, {**start, **static}, where)
        return {k: v if callable(v) else start[k] for k, v in numbers.items()}, static
