"""What an optimizer was built from: selectors, options and factories, by group."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .._compat import known_number
from ..trees import (
    REST,
    SPLIT,
    Selector,
    check_params,
    check_selector,
    describe,
    in_no_group,
    is_boolean_tree,
    resolve,
    statistics_paths,
)
from ._groups import Group, Table, warn_of_kernels
from ._options import (
    Arguments,
    arguments_of,
    as_number,
    check_alike,
    check_together,
    first_value,
    is_whole_tree,
    make_program,
)
from ._rule import Layouts, LeafLayout, Static
from ._state import is_traced

Groups: TypeAlias = "Selector | Iterable[Mapping[str, Any]]"
Factory: TypeAlias = Callable[..., optax.GradientTransformation]

_RESERVED = ("params", "name", "frozen", "optimizer")


def as_groups(params: Groups) -> list[Mapping[str, Any]]:
    """Return a list of groups from what torch would take: groups, or parameters alone.

    Raises:
        TypeError: one dict without its list, or a list that mixes groups and selectors.
        ValueError: an empty list.
    """
    if isinstance(params, Mapping) and "params" in params and not is_boolean_tree(params):
        raise TypeError(
            "parameter groups are a list of dicts; got one dict: put it into a list. (Parameters "
            "themselves are given to tx.init(params), not here.)"
        )
    if isinstance(params, Iterator):
        params = list(params)
    if not isinstance(params, list | tuple):
        return [{"params": params}]
    if not params:
        raise ValueError("optimizer got an empty parameter list; leave it out to train all leaves")
    odd = [group for group in params if not isinstance(group, Mapping)]
    if len(odd) == len(params):
        return [{"params": params}]
    if odd:
        raise TypeError(f"each parameter group must be a dict; got {odd[0]!r} among dicts")
    return list(params)


@dataclass(frozen=True)
class Member:
    """A group with what it was built from: a selector, numbers (and schedules), the rest.

    One that has ``joined`` in mid-run may have taken what an earlier one had frozen.
    """

    group: Group
    selector: Selector
    numbers: Mapping[str, Any]
    static: Mapping[str, Any]
    factory: Factory
    joined: bool = False

    def shown(self) -> str:
        """Return the group as torch shows its own."""
        own = {**self.numbers, **self.static, **dict(self.group.kept)}
        options = {"frozen": True} if self.group.frozen else own
        order = [name for name in self.group.options if name in options]
        lines = [f"    {name}: {options[name]}" for name in dict.fromkeys([*order, *options])]
        return "\n".join([f"Parameter {self.group.label}", *lines])


@dataclass(frozen=True)
class Resumed:
    """What a group that comes from torch in mid-run brings along, beside its options.

    Attributes:
        extras: entries of torch's group that have no meaning here.
        holds_all: whether to hold all state that any numbers need: they may have changed.
        own: keys of the user's own for certain, though options of other optimizers are called so.
    """

    extras: Static = ()
    holds_all: bool = False
    own: frozenset[str] = frozenset()


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

    @functools.cached_property
    def groups(self) -> tuple[Group, ...]:
        return tuple([member.group for member in self.members])

    def table(self, params: Any) -> Table:
        """Return who is in which group; raises for selectors that do not fit ``params``."""
        by_path = check_params(params)
        paths = tuple(by_path)
        table = Table.new(self.groups, paths, self._owners(by_path, params), self.layouts)
        owners = dict(zip(paths, table.assignment, strict=True))
        for path in statistics_paths(params):
            if not self.groups[owners[path]].frozen:
                raise TypeError(
                    f'"{path}" is a running statistic, no parameter: weight decay would shrink it, '
                    f"and nothing else change it. {SPLIT}"
                )
        warn_of_kernels(table, by_path, self.layout_of)
        return table

    def _owners(self, by_path: Mapping[str, Any], params: Any) -> tuple[int, ...]:
        """Return the group of each leaf. One that has joined takes it from those before it."""
        labels = [group.label for group in self.groups]
        selectors = [member.selector for member in self.members if not member.joined]
        begun = len(selectors)
        if begun == len(self.members):
            return resolve(selectors, labels, params, by_path)
        has_rest = any(selector is REST for selector in selectors)
        first = resolve([*selectors, *([] if has_rest else [REST])], labels, params, by_path)
        owners = [-1 if owner == begun and not has_rest else owner for owner in first]
        for index, member in enumerate(self.members[begun:], begun):
            is_rest = member.selector is REST
            chosen = resolve(
                [member.selector, *([] if is_rest else [REST])], labels[index:], params, by_path
            )
            for leaf, (pick, owner) in enumerate(zip(chosen, owners, strict=True)):
                if pick == 0 and not (is_rest and owner >= 0 and not self.groups[owner].frozen):
                    owners[leaf] = index
        if -1 in owners:
            pairs = zip(by_path, owners, strict=True)
            raise ValueError(in_no_group([path for path, owner in pairs if owner < 0]))
        return tuple(owners)

    def check_state(self, state: Any) -> None:
        """Raise ValueError for a state of other groups."""
        table = getattr(state, "table", None)
        if not isinstance(table, Table):
            raise ValueError(
                f"the state is a {type(state).__name__}, and not what this optimizer's "
                "tx.init(params) makes; the order is jp.step(tx, grads, state, params) and "
                "tx.update(grads, state, params)"
            )
        if not table.made_for(self.groups):
            if self.groups[0].bare:
                raise ValueError(
                    f"this state is not that of {self.groups[0].label} with these options, but was "
                    f"made by another optimizer: it holds {_said(state)}. Make it by "
                    "tx.init(params)"
                )
            raise ValueError(
                "this state was made by another optimizer: its groups are not this one's. Make it "
                "by tx.init(params), or take over both results of jp.add_param_group"
            )

    def held_to(self, state: Any, numbers: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Return the numbers of a lower-case transformation, as the state that is held allows them.

        Where one is traced that may need more state than there is, all are NaN unless it is what
        an optimizer is built with that needs none: nothing is wrong in silence.

        Raises:
            ValueError: a concrete number that needs more state than there is.
        """
        group, member = state.table.groups[0], self.members[0]
        rule, static = group.rule, dict(group.static)
        if group.holds is None:
            return numbers

        def needs_more(values: Mapping[str, Any]) -> bool:
            needed = rule.holds(**values, **static)
            return needed is None or not needed <= group.holds

        values = {k: known_number(v) for k, v in member.numbers.items()}
        for name in rule.state_options & values.keys() if needs_more(values) else ():
            value = values[name]
            if isinstance(value, tuple) or not math.isnan(value):  # NaN is traced
                raise ValueError(
                    f"the state was made without what {name}={value} needs; build the "
                    "optimizer with such a value, and set another after tx.init(params)"
                )
            without = [v for v in (0.0, math.inf) if not needs_more({**values, name: v})]
            fits = [numbers[name] == v for v in without]
            numbers = {k: jnp.where(sum(fits) > 0, v, jnp.nan) for k, v in numbers.items()}
        return numbers

    @functools.cached_property
    def layout_of(self) -> dict[str, LeafLayout]:
        """By path, how the rules see a leaf that they do not see as it is."""
        return dict(self.layouts)

    def extended(
        self,
        groups: Iterable[Mapping[str, Any]],
        resumed: Mapping[int, Resumed] | None = None,
        *,
        joined: bool = False,
    ) -> Definition:
        """Return the definition with more groups at its end.

        Args:
            groups: the groups.
            resumed: by index, what groups from torch bring along.
            joined: whether they come in mid-run.

        Raises:
            TypeError: an unknown option, a value that is no number, or no selector.
            ValueError: no ``params``, a number out of range, a name given twice, options on a
                frozen group.
        """
        members = list(self.members)
        for group in groups:
            index = len(members)
            brought = (resumed or {}).get(index, Resumed())
            member = self._member(index, group, members, brought)
            members.append(replace(member, joined=joined))
        together = []
        for member in members:
            rule = member.group.rule
            if rule is not None and rule.own_options is not None:
                together.append((rule, member.group.label, {**member.numbers, **member.static}))
        if together:
            check_together(together)
        whole = [member.factory for member in members if member.group.check is not None]
        if whole and len([member for member in members if not member.group.frozen]) > 1:
            raise ValueError(
                f"{whole[0].__name__.upper()} doesn't support per-parameter options (parameter "
                "groups); it takes one group, and frozen ones beside it"
            )
        return replace(self, members=tuple(members))

    def grouped(self, params: Groups) -> Definition:
        """Return the definition with the groups that a constructor is given, all checked."""
        groups = as_groups(params)
        made = self.extended(groups)
        as_they_are = [group for group in groups if group.keys() <= {"params", "name"}]
        if not as_they_are:
            made.check_defaults()
        return made

    def check_defaults(self) -> None:
        """Raise for bad defaults, as torch does, though each group has another value."""
        whole = is_whole_tree(self.factory)
        if whole or self.arguments.rule is not None:
            numbers, static = checked_options(self.arguments, self.defaults, " (the default)")
            if whole:
                start = {k: first_value(v) if callable(v) else v for k, v in numbers.items()}
                self.factory(**start, **static)

    def _member(
        self, index: int, group: Mapping[str, Any], earlier: Sequence[Member], brought: Resumed
    ) -> Member:
        if not isinstance(group, Mapping):
            raise TypeError(
                f"param_group must be a dict, but got {type(group)} (group {index}); "
                'as in {"params": "head/**", "lr": 1e-3}'
            )
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
        frozen = group.get("frozen", False)
        if not isinstance(frozen, bool | np.bool_):
            raise TypeError(f"frozen{where} must be True or False; got {frozen!r}")
        if frozen:
            self.arguments.check_names(own, where)
            if own or "optimizer" in group:
                odd = next(iter(own), "optimizer")
                raise ValueError(f"{label} is frozen: its option {odd!r} has no use")
            return Member(Group(label, name, frozen=True), selector, {}, {}, self.factory)

        factory, arguments, defaults = self.factory, self.arguments, self.defaults
        if "optimizer" in group:
            factory = as_factory(group["optimizer"], where)
        if factory is not self.factory:
            arguments = arguments_of(factory)
            defaults = arguments.defaults
            self._check_said(own, arguments, label)
        extra = arguments.are_own(own, where, brought.own)
        keys, kept = _own_keys({k: own.pop(k) for k in extra}, where) if extra else ({}, {})
        numbers, static = checked_options(arguments, {**defaults, **own}, where)
        scheduled = frozenset(k for k, v in numbers.items() if callable(v))
        options = tuple(arguments.names)
        common: dict[str, Any] = {
            "label": label,
            "name": name,
            "numbers": tuple([(k, arguments.arities.get(k)) for k in (*numbers, *keys)]),
            "own": frozenset(keys),
            "options": (*options, *keys, *kept),
            "scheduled": scheduled,
            "kept": tuple(kept.items()),
            "extras": brought.extras,
        }
        if arguments.rule is None:
            if missing := [k for k in arguments.required if k not in {**defaults, **own}]:
                raise ValueError(
                    f"parameter group didn't specify a value of required optimization parameter "
                    f"{missing[0]} ({label}); its optimizer has no default: give it to the group"
                )
            shown = {k: v for k, v in static.items() if isinstance(v, bool | int | str | None)}
            check = factory if is_whole_tree(factory) else None
            info = Group(**common, static=tuple(sorted(shown.items())), check=check)
            if check is not None:
                start = {k: first_value(v) if callable(v) else v for k, v in numbers.items()}
                check(**start, **static)
        else:
            program = make_program(arguments.rule, numbers, static)
            holds = None if brought.holds_all else program.holds
            info = Group(**common, rule=program.rule, static=program.static, holds=holds)
        return Member(info, selector, {**numbers, **keys}, static, factory)

    def _check_said(self, own: Mapping[str, Any], arguments: Arguments, label: str) -> None:
        """Raise for a number that the constructor has and a group of another optimizer has not."""
        usual = self.arguments.defaults
        given = {
            name: value
            for name, value in self.defaults.items()
            if name in arguments.defaults and name not in own and not _is(value, usual.get(name))
            # Another kind of number, of the same name, is for its own rule alone.
            if isinstance(value, tuple) == isinstance(arguments.defaults[name], tuple)
        }
        if given:
            shown, defaults = (
                ", ".join(f"{name}={values[name]!r}" for name in given)
                for values in (given, arguments.defaults)
            )
            raise ValueError(
                f"{label} has another optimizer, and does not say whether {shown}, which the "
                f"constructor was given, is for it too; write that into the group, or that "
                f"optimizer's own default: {defaults}"
            )


def _is(value: Any, default: Any) -> bool:
    """Whether a value is a default that nobody gave; no array and no function is."""
    plain = isinstance(value, int | float | str | tuple | None)
    return value is default or (plain and bool(value == default))


def as_factory(optimizer: Any, where: str = "") -> Factory:
    """Return the lower-case factory of an optimizer's class, and any other factory as it is.

    Raises:
        TypeError: no factory; a transformation is made already, and its options would be lost.
    """
    if isinstance(optimizer, type):
        optimizer = getattr(optimizer, "factory", optimizer)
    # A class of torch's has these, too, and its options are not a rule's.
    of_torch = isinstance(optimizer, type) and hasattr(optimizer, "zero_grad")
    if callable(optimizer) and not of_torch:
        factory: Factory = optimizer
        return factory
    got = f"torch's {optimizer.__name__}" if of_torch else repr(optimizer)
    if hasattr(optimizer, "init") and hasattr(optimizer, "update"):
        got = (
            f"{type(optimizer).__name__}(…), which is made already: its options would be lost. "
            "Give the class or function itself, and the options beside it, as lr=0.1"
        )
    raise TypeError(f"the optimizer{where} must be a factory, as jp.adamw is; got {got}")


def _said(state: Any) -> str:
    """Say what a state is that is another optimizer's."""
    if not state.table.bare:
        return "the numbers of groups"
    return ", ".join([*state.scalars, *state.leaves]) or "nothing"


def _own_keys(keys: Mapping[str, Any], where: str) -> tuple[dict[str, float], dict[str, Hashable]]:
    """Return keys of the user's own: numbers, which can be set between steps, and the rest."""
    numbers: dict[str, float] = {}
    kept: dict[str, Hashable] = {}
    for name, value in keys.items():
        exact = not isinstance(value, int | np.integer) or abs(int(value)) <= 2**53
        exact = exact and name not in ("group", "state")  # set_hyperparams' own arguments
        if isinstance(value, float | int | np.number) and not isinstance(value, bool) and exact:
            numbers[name] = float(as_number(name, value, where))  # type: ignore[arg-type]
        elif isinstance(value, Hashable):
            kept[name] = value
        else:
            raise TypeError(
                f"{name}{where} is {value!r}; a key of one's own is kept in the state, and must be "
                "a number, a string, or another value that can be hashed"
            )
    return numbers, kept


def checked_options(
    arguments: Arguments, options: Mapping[str, Any], where: str, *, bare: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return checked numbers (floats and schedules) and static options.

    Of a lower-case transformation (``bare``), arrays stay what they are: `optax.inject_hyperparams`
    makes them. Traced ones were checked when they were concrete.
    """
    numbers, static = arguments.split(options)
    check_alike(numbers, where)
    arguments.check_flags(static, where)
    defaults = arguments.defaults if arguments.rule is not None else {}
    start = {}
    for name, value in numbers.items():
        if bare and is_traced(value):
            continue
        first = first_value(value) if callable(value) else value
        start[name] = as_number(name, first, where, defaults.get(name))
        if not (callable(value) or (bare and isinstance(value, jax.Array))):
            numbers[name] = start[name]
    if arguments.rule is not None and len(start) == len(numbers):
        for message, remedy in arguments.rule.arguments(**start, **static):
            raise ValueError(f"{message}{where}; {remedy}.")
    return numbers, static
