"""What a grouped optimizer was built from, and the transformation that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._arguments import Arguments, as_number, check_values, first_value, value_at
from ._checks import (
    canonical,
    check_accepted,
    check_given,
    check_params,
    checked_gradients,
    to_array,
)
from ._factory import arguments_of, is_whole_tree, make_program, split
from ._layout import Layouts, from_rule, to_rule, to_rule_leaves
from ._numbers import Float64, decoded, encoded, own_value
from ._one_pass import Leaf
from ._paths import leaf_paths
from ._programs import (
    check_holds_no_numbers,
    foreign_transform,
    leaves_of_part,
    part_of,
    value_fn_of_part,
)
from ._selectors import Selector, check_selector, describe, resolve
from ._table import Group, GroupsState, Table
from ._tables import first_numbers, of_group, of_groups, parts_of
from ._transform import (
    Static,
    as_trees,
    check_wholes,
    held_by,
    rested,
    split_clocks,
    stepped,
    ticked,
)

Factory: TypeAlias = Callable[..., optax.GradientTransformation]

_RESERVED = ("params", "name", "frozen", "optimizer")


@dataclass(frozen=True)
class Member:
    """A group with what it was built from: a selector, numbers (and schedules), the rest."""

    group: Group
    selector: Selector
    numbers: Mapping[str, Any]
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
        paths = tuple(path for path, _ in leaf_paths(params))
        return Table.new(self.groups, paths, assignment)

    def init(self, params: Any, table: Table) -> GroupsState:
        params = to_rule(canonical(params), self.layouts)
        check_accepted(params, table.rules)
        leaves, treedef = jax.tree.flatten(params)
        x64 = bool(jax.enable_x64.value)
        numbers = first_numbers([member.numbers for member in self.members], table.groups)
        with jax.enable_x64(True):
            held: list[dict[str, Any]] = [{} for _ in leaves]
            names: dict[str, None] = {}
            starts: dict[int, dict[str, jax.Array]] = {}
            for clock, group in enumerate(table.of_clocks):
                program = table.groups[group].program
                assert program is not None
                own = {k: jnp.asarray(v) for k, v in of_group(numbers, table, group).items()}
                starts[clock] = program.start(own)
                names |= dict.fromkeys(program.names(own))
                for i in table.members(group):
                    held[i] = program.init_leaf(leaves[i], own)
                    names |= dict.fromkeys(held[i])
            scalars = {
                name: jnp.stack([starts[c].get(name, jnp.zeros((), kind)) for c in starts]).astype(
                    kind
                )
                for name, kind in _kinds(starts.values()).items()
            }
        encoded_numbers = {k: Float64(jnp.asarray(encoded(v))) for k, v in numbers.items()}
        others = {}
        for group in table.trained:
            if table.groups[group].rule is None:
                tx = self._foreign(group, of_group(numbers, table, group), x64)
                with jax.enable_x64(x64):
                    state = tx.init(part_of(params, leaves, table.members(group)))
                check_holds_no_numbers(state, self.members[group].factory)
                others[str(group)] = state
        trees = as_trees(held, dict.fromkeys(names, treedef))
        counts = jnp.zeros(len(table.groups), jnp.int32)
        return GroupsState(trees, scalars, encoded_numbers, counts, others, table)

    def _foreign(
        self, group: int, numbers: Mapping[str, Any], x64: bool
    ) -> optax.GradientTransformationExtraArgs:
        member = self.members[group]
        return foreign_transform(member.factory, numbers, member.static, x64)

    def update(
        self, updates: Any, state: GroupsState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, GroupsState]:
        check_given(params)
        table = self._checked_table(state, params)
        grads = checked_gradients(updates, params, table.rules)
        grads = [grad if grad is None else to_array(grad) for grad in grads]
        params = canonical(params)
        grads = to_rule_leaves(grads, table.paths, self.layouts)
        params = to_rule(params, self.layouts)
        leaves, treedef = jax.tree.flatten(params)
        stepping = [
            grad is not None and owner not in table.resting and not table.groups[owner].frozen
            for grad, owner in zip(grads, table.assignment, strict=True)
        ]
        x64 = bool(jax.enable_x64.value)
        with jax.enable_x64(True):
            state = self._scheduled(state)
            numbers = {name: jnp.asarray(decoded(parts)) for name, parts in parts_of(state).items()}
            new_updates, new = self._rules_stepped(state, numbers, grads, leaves, stepping)
        others = dict(state.others)
        for group in table.trained:
            if table.groups[group].rule is None and group not in table.resting:
                own = of_group(numbers, table, group)
                made, others[str(group)] = self._others_stepped(
                    group, own, state, grads, params, x64, extra_args
                )
                new_updates |= made
        final = [
            new_updates[i] if i in new_updates else rested(leaf) for i, leaf in enumerate(leaves)
        ]
        trained = np.array([not group.frozen for group in table.groups], np.int32)
        new = replace(new, others=others, counts=state.counts + trained)
        return from_rule(jax.tree.unflatten(treedef, final), self.layouts), new

    def _scheduled(self, state: GroupsState) -> GroupsState:
        """Return the state with the schedules' values among its numbers."""
        scheduled = [
            (i, name, value)
            for i, member in enumerate(self.members)
            for name, value in member.numbers.items()
            if callable(value)
        ]
        parts = parts_of(state) if scheduled else {}
        for i, name, schedule in scheduled:
            value = jnp.asarray(value_at(schedule, state.counts[i]), jnp.float64)
            at = (i, 0) if parts[name].ndim == 3 else i
            parts[name] = parts[name].at[at].set(encoded(value))
        new = {name: Float64(value) for name, value in parts.items()}
        return replace(state, numbers=new) if scheduled else state

    def _rules_stepped(
        self,
        state: GroupsState,
        numbers: Mapping[str, jax.Array],
        grads: Sequence[Any],
        leaves: Sequence[jax.Array],
        stepping: Sequence[bool],
    ) -> tuple[dict[int, jax.Array], GroupsState]:
        """Take the steps of this library's rules, those of one program together."""
        table = state.table
        held, structures = held_by(state.leaves)
        held = held or [{} for _ in leaves]
        updates: dict[int, jax.Array] = {}
        after = {name: jnp.asarray(own_value(vector)) for name, vector in state.scalars.items()}
        before = dict(after)
        programs = dict.fromkeys(table.groups[group].program for group in table.of_clocks)
        for program in programs:
            assert program is not None
            clocks = [
                c for c, g in enumerate(table.of_clocks) if table.groups[g].program == program
            ]
            members = [i for i, c in enumerate(table.clocks) if c in clocks and stepping[i]]
            check_wholes(program, [leaves[i] for i in members])
            groups, at = [table.of_clocks[c] for c in clocks], np.array(clocks, np.int32)
            vectors = of_groups(numbers, table, groups)
            kinds = _kinds([jax.eval_shape(program.start, {k: v[0] for k, v in vectors.items()})])
            given = [
                Leaf(clocks.index(table.clocks[i]), grads[i], leaves[i], held[i]) for i in members
            ]
            shared = {k: before[k][at].astype(kind) for k, kind in kinds.items()}
            made, advanced = stepped(program, given, vectors, shared)
            for name, vector in advanced.items():
                whole = len(clocks) == len(table.of_clocks)
                cast = vector.astype(before[name].dtype)
                after[name] = cast if whole else after[name].at[at].set(cast)
            for i, (update, new_state) in zip(members, made, strict=True):
                updates[i], held[i] = update, new_state
        clocks_after, origin, goes_on = split_clocks(table.clocks, len(table.of_clocks), stepping)
        scalars = ticked(before, after, origin, goes_on)
        if len(origin) > len(table.of_clocks):
            of_clocks = tuple(table.of_clocks[c] for c in origin)
            table = replace(table, clocks=clocks_after, of_clocks=of_clocks)
        new = replace(state, leaves=as_trees(held, structures), scalars=scalars, table=table)
        return updates, new

    def _others_stepped(
        self,
        group: int,
        numbers: Mapping[str, jax.Array],
        state: GroupsState,
        grads: Sequence[Any],
        params: Any,
        x64: bool,
        extra_args: Mapping[str, Any],
    ) -> tuple[dict[int, jax.Array], Any]:
        """Take the step of a group whose optimizer is a factory of Optax or of the user."""
        leaves, members = jax.tree.leaves(params), state.table.members(group)
        missing = [state.table.paths[i] for i in members if grads[i] is None]
        if missing:
            if len(missing) == len(members):
                return {}, state.others[str(group)]
            raise ValueError(
                f'the gradient of "{missing[0]}" is None, which the optimizer of '
                f"{state.table.groups[group].label} does not know; give it zeros, or put the "
                "parameter into a group of its own"
            )
        own_args = dict(extra_args)
        if "value_fn" in own_args:
            own_args["value_fn"] = value_fn_of_part(own_args["value_fn"], params)
        if "grad" in own_args:
            own_args["grad"] = (own_args["grad"],)
        tx = self._foreign(group, numbers, x64)
        seen = (part_of(params, grads, members), part_of(params, leaves, members))
        with jax.enable_x64(x64):
            updates, new = tx.update(seen[0], state.others[str(group)], seen[1], **own_args)
        return dict(zip(members, leaves_of_part(params, updates, members), strict=True)), new

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
            return Member(Group(label, name, frozen=True), selector, {}, {}, self.factory)

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
                numbers=tuple((k, None) for k in numbers),
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
        info = Group(
            label,
            name,
            rule=program.rule,
            numbers=tuple((k, _arity(v)) for k, v in numbers.items()),
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


def _kinds(starts: Iterable[Mapping[str, Any]]) -> dict[str, np.dtype[Any]]:
    """Return the types of what clocks hold, by name."""
    kinds: dict[str, np.dtype[Any]] = {}
    for start in starts:
        for name, value in start.items():
            kinds[name] = jnp.promote_types(kinds.get(name, value.dtype), value.dtype)
    return kinds


def _arity(value: Any) -> int | None:
    return len(value) if isinstance(value, tuple) else None


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
