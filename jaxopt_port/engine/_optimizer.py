"""Optimizers: the lower-case spelling, the one with groups, and another group in mid-run."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Self, TypeVar

import jax
import jax.numpy as jnp
import optax

from ..numerics import Float64, own_value
from ..trees import REST, check_params, is_nnx_variable, resolve
from ._definition import Definition, Groups, Member, as_factory, checked_options
from ._groups import Group, Table
from ._options import (
    arguments_of,
    arguments_of_rule,
    make_program,
    marked,
    named,
    rule_of,
)
from ._rule import Rule
from ._state import (
    GroupsState,
    as_trees,
    find_groups_state,
    held_by,
    parts_of,
    replace_groups_state,
)
from ._step import StepProgram
from ._update import initial_state, updated

P = ParamSpec("P")
State = TypeVar("State")


def transformation(rule: Rule[P]) -> Callable[P, optax.GradientTransformationExtraArgs]:
    """Make an Optax factory of an update rule for one leaf: the way to write one's own optimizer.

    The factory takes the rule's arguments. A number may be a schedule (a callable of the update
    count); under ``optax.inject_hyperparams`` it may be traced. Numbers are float64 in the update
    whatever the parameters are, except where ``inject_hyperparams`` has rounded them.
    ``jp.param_groups`` gives the factory groups.

    Args:
        rule: a ``jaxopt_port.engine.Rule``; ``examples/lion.py`` writes one.

    Returns:
        The factory, with the signature and docstring of the rule's ``arguments``.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.engine import Rule, Sum
        >>> def sign_descent(lr=0.1):
        ...     return iter(())  # no argument is wrong
        >>> def update(grad, param, state, *, lr):
        ...     return param - lr.astype(param.dtype) * jnp.sign(grad), state
        >>> factory = jp.transformation(Rule(sign_descent, lambda param, **_: {}, update))
        >>> params = {"slow": jnp.ones(()), "fast": jnp.ones(())}
        >>> tx = jp.param_groups(factory, [{"params": "slow"}, {"params": "fast", "lr": 0.5}])
        >>> params, state = jp.step(tx, params, tx.init(params), params)
        >>> [round(float(params[name]), 2) for name in ("slow", "fast")]
        [0.9, 0.5]
    """
    arguments = arguments_of_rule(rule)

    @functools.wraps(rule.signed)
    def factory(*args: P.args, **kwargs: P.kwargs) -> optax.GradientTransformationExtraArgs:
        return leafwise(factory, {**arguments.defaults, **arguments.bind(args, kwargs)})

    factory.__name__ = rule.name
    return marked(factory, rule=rule)


def leafwise(
    factory: Callable[..., Any], options: Mapping[str, Any]
) -> optax.GradientTransformationExtraArgs:
    """Return the transformation of a rule: one group of all parameters, numbers as they are given.

    Args:
        factory: the function that ``of_rule`` decorates.
        options: all of its arguments by name; what is none of them (as in ``locals()``) is ignored.
    """
    rule = rule_of(factory)
    if rule is None:
        raise TypeError(f"{factory!r} is the factory of no rule: decorate it with of_rule")
    arguments = arguments_of_rule(rule)
    own = {name: options[name] for name in arguments.names}
    numbers, static = checked_options(arguments, own, "", bare=True)
    program = make_program(rule, numbers, static)
    group = Group(
        rule.name, None, bare=True, rule=rule, numbers=tuple(arguments.arities.items()),
        scheduled=frozenset(k for k, v in numbers.items() if callable(v)),
        static=program.static, holds=program.holds,
    )  # fmt: skip
    member = Member(group, REST, numbers, static, leafwise)
    return optax.GradientTransformationExtraArgs(
        *_functions(Definition(leafwise, arguments, {}, (member,)))
    )


def _functions(definition: Definition) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return init and update, which can be pickled where the definition can."""
    return functools.partial(_init, definition), functools.partial(updated, definition)


def _init(definition: Definition, params: Any) -> GroupsState:
    return initial_state(definition, definition.table(params), params)


def _register(cls: type[Optimizer]) -> None:
    """Let JAX see an optimizer as static: two functions are not all that it is made of."""
    jax.tree_util.register_pytree_node(cls, lambda tx: ((), tx), lambda tx, _: tx)


class _Kind(type):
    """The class of optimizers' classes: where a loop takes one for an optimizer, it is told so."""

    if not TYPE_CHECKING:

        @property
        def init(cls):
            return functools.partial(_unmade, cls)

        update = init


def _unmade(cls: type, *_: Any, **__: Any) -> Any:
    name = cls.__name__
    raise TypeError(f"{name} is a class, and no optimizer yet: make one, by {name}(…)")


class Optimizer(optax.GradientTransformationExtraArgs, metaclass=_Kind):  # type: ignore[misc]
    """An optimizer with groups: an Optax transformation that remembers what it was built from.

    Attributes:
        factory: of a subclass, the lower-case spelling.
        definition: the groups and their options.
    """

    factory: ClassVar[Callable[..., optax.GradientTransformation]]
    definition: Definition

    if TYPE_CHECKING:
        # Optax's own type says of a state only that it is a tree.
        def init(self, params: Any) -> GroupsState: ...

    def __init_subclass__(cls) -> None:
        _register(cls)
        if "__new__" in vars(cls):
            cls.__new__ = named(cls.__new__)  # type: ignore[method-assign]

    @classmethod
    def with_options(cls, params: Groups, options: Mapping[str, Any]) -> Self:
        """Return the optimizer of ``factory`` with groups.

        Args:
            params: the groups, as `param_groups` takes them.
            options: those of all groups; what is no argument (as in ``locals()``) is ignored.
        """
        _check_not_injected()
        arguments = arguments_of(cls.factory)
        own = {name: options[name] for name in arguments.names}
        return cls.of(Definition(cls.factory, arguments, own).grouped(params))

    # All that `init` goes by: a jitted function of the user's may take an optimizer as static.
    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Optimizer)
            and (type(self), self.program) == (type(other), other.program)
            and self.definition == other.definition
        )

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.program)

    @functools.cached_property
    def program(self) -> StepProgram:
        """What compiled steps have of it."""
        definition = self.definition
        groups = definition.groups
        own = [g for g in groups if not g.frozen and (g.rule is None or g.scheduled)]
        return StepProgram(self, tuple(self) if own else (groups, definition.layouts))

    @classmethod
    def of(cls, definition: Definition) -> Self:
        """Return the optimizer of a definition."""
        tx: Self = tuple.__new__(cls, _functions(definition))
        tx.definition = definition
        return tx

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).of, (self.definition,)

    def __repr__(self) -> str:
        groups = "\n".join(member.shown() for member in self.definition.members)
        return f"{self._name} (\n{groups}\n)"

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name in _TORCHS:
                raise AttributeError(f"{self._name} has no {name}: {_TORCHS[name]}")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def _name(self) -> str:
        if type(self) is not Optimizer:
            return type(self).__name__
        factory = self.definition.factory
        classes = (each for each in Optimizer.__subclasses__() if each.factory is factory)
        named = next(classes, factory)  # torch's spelling, as the class prints itself
        return getattr(named, "__name__", repr(factory))


_register(Optimizer)

# What torch's optimizers do, and where it is here.
_TORCHS = {
    "step": "params, state = jp.step(tx, grads, state, params)",
    "zero_grad": "jax.grad returns gradients, and nothing is left of the last ones",
    "param_groups": "jp.get_hyperparams(state) has them, jp.set_hyperparams(state, …) changes them",
    "state_dict": "jp.state_dict(tx, state, params)",
    "load_state_dict": "state = jp.load_state_dict(tx, state_dict, params)",
    "add_param_group": "tx, state = jp.add_param_group(tx, state, params, group)",
    "state": "it is what tx.init(params) returns and each step gives back",
}


def _check_not_injected() -> None:
    """Raise TypeError where a factory under ``optax.inject_hyperparams`` is at work."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename == optax.inject_hyperparams.__code__.co_filename:
            raise TypeError(
                "a grouped optimizer holds its numbers itself, so changes made through "
                "optax.inject_hyperparams would be lost; inject the lower-case spelling, or use "
                "this one bare, with jp.set_hyperparams"
            )


def param_groups(
    factory: Callable[..., optax.GradientTransformation],
    params: Groups = REST,
    *,
    static_args: str | Iterable[str] = (),
    **defaults: Any,
) -> Optimizer:
    """Give any factory torch's parameter groups, with every number settable between steps.

    The counterpart of torch's ``params`` argument. Groups of a factory of this library that differ
    in numbers alone take their steps together; another factory is called for each group, with the
    numbers from the state.

    Args:
        factory: ``jp.sgd``, ``optax.adamw``, or a function of the user's that takes numbers and
            returns a transformation. Not one that is injected already.
        params: the groups: dicts with ``"params"`` (a selector), optionally ``"name"`` and
            ``"frozen"``, and options. A selector alone is one group; the default is all leaves.
        static_args: arguments of the factory that it must be given as Python numbers. Those whose
            default is an ``int``, a ``bool``, a ``str`` or None with such a value are known to be.
        **defaults: options for the groups that do not set them.

    Returns:
        A transformation. ``init`` raises for selectors that do not fit the parameters.

    Raises:
        TypeError: an unknown option, or a value that is no number.
        ValueError: a number out of range; messages name the group.

    Example:
        >>> import jax.numpy as jnp, optax, jaxopt_port as jp
        >>> tx = jp.param_groups(optax.adamw, [{"params": "**/bias", "weight_decay": 0.0},
        ...                                    {"params": jp.REST}], learning_rate=3e-4)
        >>> state = tx.init({"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}})
        >>> [group["weight_decay"] for group in jp.get_hyperparams(state)]
        [0.0, 0.0001]
    """
    _check_not_injected()
    if not callable(factory):
        as_factory(factory)  # says what is wrong
    signature = inspect.signature(factory)
    if "params" in signature.parameters:
        name = getattr(factory, "__name__", repr(factory))
        raise TypeError(
            f"{name} takes 'params' itself, so it has groups of its own; pass the lower-case "
            f"spelling, {name.lower()}"
        )
    arguments = arguments_of(
        factory, [static_args] if isinstance(static_args, str) else static_args
    )
    arguments.check_names(defaults, "")
    definition = Definition(factory, arguments, {**arguments.defaults, **defaults})
    return Optimizer.of(definition.grouped(params))


def add_param_group(
    tx: Optimizer, state: State, params: Any, group: Mapping[str, Any]
) -> tuple[Optimizer, State]:
    """Add a parameter group in mid-run: torch's ``optimizer.add_param_group``.

    The new group may take parameters that were frozen, and parameters that ``params`` did not have
    when the state was made; of these, it must take all that a frozen group of ``jp.REST`` does not.
    Those that are trained already keep their group, their numbers and their state.

    Args:
        tx: a grouped optimizer.
        state: its state, bare or within other Optax states.
        params: the parameters, with any new ones in their place.
        group: the new group; options that it does not set take the optimizer's defaults.

    Returns:
        The new transformation and its state; the arguments still work together as before.

    Raises:
        ValueError: a parameter of the group is trained already, or a new one is in no group.
        TypeError: an unknown option, or a transformation without groups.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params = {"stem": jnp.ones(2), "head": jnp.ones(2)}
        >>> tx = jp.SGD([{"params": "head"}, {"params": jp.REST, "frozen": True}], lr=0.1)
        >>> state = tx.init(params)
        >>> tx, state = jp.add_param_group(tx, state, params, {"params": "stem", "lr": 1e-4})
        >>> [options.get("lr") for options in jp.get_hyperparams(state)]
        [0.1, None, 0.0001]
    """
    if not isinstance(tx, Optimizer):
        raise TypeError(
            "add_param_group needs an optimizer with groups, as the CapWords spellings and "
            f"jp.param_groups make them; got {type(tx).__name__}: give it the optimizer within "
            "what wraps it (jp.accumulate_grads, optax.chain), with the whole state, and wrap what "
            "it returns again"
        )
    old = find_groups_state(state)
    tx.definition.check_state(old)
    definition = tx.definition.extended([group], joined=True)
    by_path = check_params(params)
    assignment = _assignment(definition, old.table, by_path, params)
    # The old ones may have come to hold more than they were built with.
    groups = (*old.table.groups, definition.groups[-1])
    table = Table.new(groups, tuple(by_path), assignment, definition.layouts)
    fresh = initial_state(definition, table, params)
    return Optimizer.of(definition), replace_groups_state(state, lambda _: _carry(old, fresh))


def _carry(old: GroupsState, fresh: GroupsState) -> GroupsState:
    """Return a fresh state, of one group more, with all that the old one holds."""
    wrapped = any(map(is_nnx_variable, jax.tree.leaves(old, is_leaf=is_nnx_variable)))
    bare = jax.tree.map(own_value, old, is_leaf=is_nnx_variable) if wrapped else old
    numbers = {}
    for name, parts in parts_of(fresh).items():
        known = parts_of(bare).get(name)
        if known is not None:
            at = (
                (slice(len(known)), 0)
                if parts.ndim > known.ndim
                else ((slice(len(known)), *(slice(n) for n in known.shape[1:-1])))
            )
            parts = parts.at[at].set(known)
        numbers[name] = Float64(parts)
    counts = jnp.asarray(bare.counts)
    # Schedules count the optimizer's updates, not the group's.
    counts = jnp.concatenate([counts, counts[:1] if len(counts) else fresh.counts])
    table, scalars = _carried_clocks(bare, fresh)
    leaves = _carried_leaves(bare, fresh)
    others = {**fresh.others, **bare.others}
    resting = table.resting | old.table.resting
    table = replace(table, resting=resting, resting_leaves=old.table.resting_leaves)
    state = GroupsState(leaves, scalars, numbers, counts, others, table)
    if wrapped:  # the state of an nnx.Optimizer, which wraps each leaf
        made: GroupsState = sys.modules["flax.nnx.training.optimizer"].to_opt_state(state)
        return made
    return state


def _carried_clocks(old: GroupsState, fresh: GroupsState) -> tuple[Table, dict[str, Any]]:
    """Return the old clocks with that of the new group behind them."""
    before = dict(zip(old.table.paths, old.table.clocks, strict=True))
    n, newest = len(old.table.of_clocks), len(fresh.table.groups) - 1
    of_clocks = old.table.of_clocks
    if newest in fresh.table.of_clocks:
        of_clocks = (*of_clocks, newest)
    pairs = zip(fresh.table.paths, fresh.table.assignment, strict=True)
    clocks = tuple(
        (n if newest in fresh.table.of_clocks else -1) if owner == newest else before.get(path, -1)
        for path, owner in pairs
    )
    scalars = {}
    for name, start in fresh.scalars.items():
        known = old.scalars.get(name)
        own = jnp.zeros(n, start.dtype) if known is None else jnp.asarray(known).astype(start.dtype)
        new = start[-1:] if len(of_clocks) > n else start[:0]
        scalars[name] = jnp.concatenate([own, new])
    return replace(fresh.table, clocks=clocks, of_clocks=of_clocks), scalars


def _carried_leaves(old: GroupsState, fresh: GroupsState) -> dict[str, Any]:
    place = {path: i for i, path in enumerate(old.table.paths)}
    was, _ = held_by(old.leaves, len(old.table.paths))
    now, structures = held_by(fresh.leaves, len(fresh.table.paths))
    for i, path in enumerate(fresh.table.paths):
        held = was[place[path]] if path in place else {}
        for name, array in held.items():
            if name in now[i] and now[i][name].shape != array.shape:
                raise ValueError(
                    f'{name} of "{path}" has shape {array.shape} in the state, '
                    f"{now[i][name].shape} by the parameters"
                )
            now[i][name] = array
    return as_trees(now, structures)


def _assignment(
    definition: Definition, old: Table, by_path: Mapping[str, Any], params: Any
) -> tuple[int, ...]:
    """Return who is in which group: the old ones where they were, the rest by selectors."""
    labels = [group.label for group in definition.groups]
    newest = len(labels) - 1
    selector = definition.members[newest].selector
    before = dict(zip(old.paths, old.assignment, strict=True))
    trained = {p: owner for p, owner in before.items() if not definition.groups[owner].frozen}
    # jp.REST stands for all that is not trained yet.
    selectors = [selector] if selector is REST else [selector, REST]
    chosen = resolve(selectors, labels[-1:] * 2, params, by_path)
    assignment = []
    for path, pick in zip(by_path, chosen, strict=True):
        if path in trained:
            if pick == 0 and selector is not REST:
                raise ValueError(
                    "some parameters appear in more than one parameter group: "
                    f'"{path}" is in {labels[trained[path]]} and in {labels[newest]}'
                )
            assignment.append(trained[path])
        elif pick == 0:
            assignment.append(newest)
        else:
            assignment.append(before[path] if path in before else _frozen_rest(definition, path))
    missing = before.keys() - by_path.keys()
    if missing:
        raise ValueError(f'the parameters have lost "{min(missing)}", which the state was made for')
    return tuple(assignment)


def _frozen_rest(definition: Definition, path: str) -> int:
    for index, member in enumerate(definition.members):
        # A trained group has taken steps, and a step count, that a new parameter has not.
        if member.selector is REST and member.group.frozen:
            return index
    raise ValueError(
        f'"{path}" is new, and only the new group, or a frozen group of jp.REST, can take new '
        "parameters: select it"
    )
