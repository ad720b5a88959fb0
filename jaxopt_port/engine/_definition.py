"""What a grouped optimizer was built from, and the transformation that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from ._arguments import Arguments, as_number, check_values, first_value
from ._checks import canonical, check_accepted, check_given, check_gradients, check_params
from ._factory import arguments_of, is_whole_tree, make_program, split
from ._layout import Layouts, from_rule, to_rule
from ._paths import leaf_paths, leaves_up_to
from ._programs import Numbers, foreign_program, rule_program
from ._selectors import Selector, check_selector, describe, resolve
from ._table import FROZEN, Group, GroupsState, Table
from ._transform import Program, Static

Factory: TypeAlias = Callable[..., optax.GradientTransformation]

_RESERVED = ("params", "name", "frozen", "optimizer")


def _still() -> optax.GradientTransformation:
    """Frozen parameters: updates of zero, also for gradients that are no arrays."""
    return optax.GradientTransformation(
        lambda params: optax.EmptyState(),
        lambda updates, state, params=None: (jax.tree.map(jnp.zeros_like, params), state),
    )


def _boxed(value_fn: Callable[[Any], Any], params: Any) -> Callable[[Any], Any]:
    """Return the function that one group's optimizer sees: of its parameters, the rest as is."""

    def of_group(boxed: Any) -> Any:
        (own,) = boxed
        leaves = [
            param if isinstance(x, optax.MaskedNode) else x
            for x, param in zip(leaves_up_to(params, own), jax.tree.leaves(params), strict=True)
        ]
        return value_fn(jax.tree.unflatten(jax.tree.structure(params), leaves))

    return of_group


@dataclass(frozen=True)
class Member:
    """A group with what it was built from: a selector, numbers (and schedules), the rest."""

    group: Group
    selector: Selector
    numbers: Numbers
    static: Mapping[str, Any]
    factory: Factory


@dataclass(frozen=True)
class Resumed:
    """What a group that comes from torch in mid-run brings along, beside its options.

    Attributes:
        extras: entries of torch's group that have no meaning here.
        holds_all: whether to hold all state that any numbers need: they may have changed.
    """

    extras: Static = ()
    holds_all: bool = False


@dataclass(frozen=True)
class Definition:
    """What a grouped optimizer was built from.

    Attributes:
        factory: the lower-case factory of the groups that do not name another.
        arguments: its arguments.
        defaults: options for those groups that do not set them.
        members: the groups.
        layouts: how their rules see the leaves that they do not see as they are.
    """

    factory: Factory
    arguments: Arguments
    defaults: Mapping[str, Any]
    members: tuple[Member, ...] = ()
    layouts: Layouts = ()

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
        return Table(self.groups, paths, assignment)

    def init(self, params: Any, table: Table) -> GroupsState:
        params = to_rule(canonical(params), self.layouts)
        check_accepted(params, table.rules)
        # Boxed in a tuple: a callable module that holds labels would be called for them.
        boxed = (params,)
        tx = self._multi_transform(table, boxed)
        with jax.enable_x64(True):
            return GroupsState(tx.init(boxed), table)

    def update(
        self, updates: Any, state: GroupsState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, GroupsState]:
        check_given(params)
        table = self._checked_table(state, params)
        check_gradients(updates, params, table.rules)
        updates = to_rule(canonical(updates), self.layouts)
        params = to_rule(canonical(params), self.layouts)
        if "value_fn" in extra_args:
            extra_args["value_fn"] = _boxed(extra_args["value_fn"], params)
        if "grad" in extra_args:
            extra_args["grad"] = (extra_args["grad"],)
        tx = self._multi_transform(table, (params,))
        with jax.enable_x64(True):
            (updates,), inner = tx.update((updates,), state.inner, (params,), **extra_args)
        return from_rule(updates, self.layouts), GroupsState(inner, table)

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

    def _multi_transform(self, table: Table, boxed: Any) -> optax.GradientTransformationExtraArgs:
        x64 = bool(jax.enable_x64.value)
        programs: dict[Hashable, optax.GradientTransformation] = {FROZEN: _still()}
        for label in dict.fromkeys(group.program for group in self.groups if not group.frozen):
            indices = [i for i, group in enumerate(self.groups) if group.program == label]
            members = [self.members[i] for i in indices]
            group = members[0].group
            if group.rule is None:
                (member,) = members
                programs[label] = foreign_program(
                    member.factory, member.numbers, member.static, x64
                )
            else:
                program = Program(group.rule, group.static, group.holds)
                own = [indices.index(g) for g in table.assignment if g in indices]
                programs[label] = rule_program(program, [m.numbers for m in members], own)
        each = [self.groups[group].program for group in table.assignment]
        labels = jax.tree.unflatten(jax.tree.structure(boxed), each)
        return optax.multi_transform(programs, labels)

    def extended(
        self, groups: Iterable[Mapping[str, Any]], resumed: Mapping[int, Resumed] | None = None
    ) -> Definition:
        """Return the definition with more groups at its end.

        Args:
            groups: the groups.
            resumed: by index, what groups from torch bring along.

        Raises:
            TypeError: an unknown option, a value that is no number, or no selector.
            ValueError: no ``params``, a number out of range, a name given twice, options on a
                frozen group.
        """
        members = list(self.members)
        for group in groups:
            index = len(members)
            brought = (resumed or {}).get(index, Resumed())
            members.append(self._member(index, group, members, brought))
        trained = [member for member in members if not member.group.frozen]
        whole = [member.factory for member in trained if is_whole_tree(member.factory)]
        if whole and len(trained) > 1:
            raise ValueError(
                f"{whole[0].__name__.upper()} doesn't support per-parameter options (parameter "
                "groups); it takes one group, and frozen ones beside it"
            )
        return replace(self, members=tuple(members))

    def _member(
        self, index: int, group: Mapping[str, Any], earlier: Sequence[Member], brought: Resumed
    ) -> Member:
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
        if group.get("frozen", False):
            self.arguments.check_names(own, where)
            if own or "optimizer" in group:
                odd = next(iter(own), "optimizer")
                raise ValueError(f"{label} is frozen: its option {odd!r} has no use")
            return Member(Group(label, name, FROZEN), selector, {}, {}, self.factory)

        factory, arguments, defaults = self._optimizer(group, where)
        arguments.check_names(own, where)
        numbers, static = _options(arguments, {**defaults, **own}, where)
        scheduled = frozenset(k for k, v in numbers.items() if callable(v))
        options = tuple(arguments.names)
        if arguments.rule is None:
            shown = {k: v for k, v in static.items() if isinstance(v, bool | int | str | None)}
            info = Group(
                label,
                name,
                program=str(index),
                options=options,
                static=tuple(sorted(shown.items())),
                scheduled=scheduled,
                extras=brought.extras,
                check=factory if is_whole_tree(factory) else None,
            )
            if info.check is not None:
                start = {k: first_value(v) if callable(v) else v for k, v in numbers.items()}
                info.check(**start, **static)
            return Member(info, selector, numbers, static, factory)
        program = make_program(arguments.rule, numbers, static)
        if brought.holds_all:
            program = program._replace(holds=None)
        # Groups of one program differ in numbers alone, and share its vectors.
        same = [
            m.group for m in earlier if (m.group.rule, m.group.static, m.group.holds) == program
        ]
        info = Group(
            label,
            name,
            program=same[0].program if same else str(index),
            position=len(same),
            rule=program.rule,
            options=options,
            static=program.static,
            scheduled=scheduled,
            holds=program.holds,
            extras=brought.extras,
        )
        return Member(info, selector, numbers, static, factory)

    def _optimizer(
        self, group: Mapping[str, Any], where: str
    ) -> tuple[Factory, Arguments, Mapping[str, Any]]:
        """Return the factory of a group, its arguments and its defaults."""
        factory = group.get("optimizer", self.factory)
        factory = getattr(factory, "factory", factory)  # of the CapWords spelling
        if factory is self.factory:
            return factory, self.arguments, self.defaults
        if not callable(factory):
            raise TypeError(
                f"the optimizer{where} must be a factory, as jp.adamw is; got {factory!r}"
            )
        arguments = arguments_of(factory)
        return factory, arguments, arguments.defaults()


def _options(
    arguments: Arguments, options: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return checked numbers (floats and schedules) and static options."""
    numbers, static = split(arguments, options)
    arguments.check_flags(static, where)
    defaults = arguments.defaults() if arguments.rule is not None else {}
    start = {
        name: as_number(
            name, first_value(value) if callable(value) else value, where, defaults.get(name)
        )
        for name, value in numbers.items()
    }
    check_values(arguments.rule, {**start, **static}, where)
    return {k: v if callable(v) else start[k] for k, v in numbers.items()}, static
