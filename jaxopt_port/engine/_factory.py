"""The lower-case spelling: a rule as a factory of plain Optax transformations."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._arguments import (
    Arguments,
    as_number,
    check_alike,
    check_values,
    first_value,
    reject_unknown,
    value_at,
)
from ._checks import canonical, check_accepted, check_params, checked_gradients, to_array
from ._program import Program
from ._rule import Rule
from ._transform import RuleState, another_optimizers, rule_transform

P = ParamSpec("P")
R = TypeVar("R")


class ScheduledState(NamedTuple):
    """The state of a lower-case transformation one of whose numbers is a schedule.

    Attributes:
        count: updates so far, int32.
        inner: the rule's state.
    """

    count: jax.Array  # type: ignore[assignment]  # over tuple.count, as in Optax's own states
    inner: RuleState


def named(call: Callable[P, R]) -> Callable[P, R]:
    """Say of an argument that a function does not have what would be right."""
    known = [name for name in inspect.signature(call).parameters if name not in ("cls", "self")]

    @functools.wraps(call)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known:
                reject_unknown(name, known, "")
        return call(*args, **kwargs)

    return checked


def of_rule(rule: Rule[Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a factory of the transformations of a rule, whose signature is the rule's arguments'."""

    def marked(factory: Callable[P, R]) -> Callable[P, R]:
        return _marked(named(factory), rule=rule)

    return marked


def whole_tree(factory: Callable[P, R]) -> Callable[P, R]:
    """Mark a factory that treats all parameters as one vector, with one set of numbers."""
    return _marked(named(factory), whole_tree=True)


def _marked(factory: Callable[P, R], **marks: Any) -> Callable[P, R]:
    # functools.wraps copies marks: a wrapper (optax.inject_hyperparams, say) is another factory.
    for name, value in {**marks, "itself": factory}.items():
        setattr(factory, name, value)
    return factory


def _mark(factory: Callable[..., Any], name: str) -> Any:
    return getattr(factory, name, None) if getattr(factory, "itself", None) is factory else None


def rule_of(factory: Callable[..., Any]) -> Rule[Any] | None:
    """Return the rule behind a lower-case factory of this library, or None."""
    rule: Rule[Any] | None = _mark(factory, "rule")
    return rule


def is_whole_tree(factory: Callable[..., Any]) -> bool:
    return bool(_mark(factory, "whole_tree"))


def arguments_of(factory: Callable[..., Any], static: Iterable[str] = ()) -> Arguments:
    """Return the arguments of a factory; ``static`` are the names that the user says are none."""
    signature = inspect.signature(factory)
    if is_whole_tree(factory):
        # One of this library's, whose numbers are those with a number for a default.
        defaults = {name: p.default for name, p in signature.parameters.items()}
        static = [name for name, default in defaults.items() if not isinstance(default, float)]
    return Arguments(signature, rule_of(factory), frozenset(static))


def split(
    arguments: Arguments, options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split options into numbers (and schedules) and static ones."""
    numbers = {k: v for k, v in options.items() if arguments.is_number(k, v)}
    return numbers, {k: v for k, v in options.items() if k not in numbers}


def make_program(rule: Rule[Any], numbers: Mapping[str, Any], static: Mapping[str, Any]) -> Program:
    # A number that may yet change needs whatever state any value of it would.
    known = {k: v if isinstance(v, int | float | tuple) else math.nan for k, v in numbers.items()}
    return Program(rule, tuple(sorted(static.items())), rule.holds(**known, **static))


def _checked(arguments: Arguments, options: dict[str, Any]) -> dict[str, Any]:
    """Check what is concrete and return the options with numbers as floats, arrays or schedules."""
    numbers, static = split(arguments, options)
    check_alike(numbers, "")
    arguments.check_flags(static, "")
    values: dict[str, Any] = {}
    defaults = arguments.defaults()
    for name, value in numbers.items():
        if callable(value):
            values[name] = as_number(name, first_value(value), "", defaults[name])
        elif not any(isinstance(v, jax.core.Tracer) for v in jax.tree.leaves(value)):
            values[name] = as_number(name, value, "", defaults[name])
            # An injected array stays one: the numbers that it may become are not known.
            if not isinstance(value, jax.Array):
                numbers[name] = values[name]
    # Traced numbers (inject_hyperparams makes them) were checked when they were concrete.
    if len(values) == len(numbers):
        check_values(arguments.rule, {**values, **static}, "")
    return {**numbers, **static}


def _as_float64(value: Any) -> jax.Array:
    # NumPy makes NaN of the None that stands for a number left out.
    concrete = isinstance(value, float | int | tuple)
    return jnp.asarray(np.asarray(value, np.float64) if concrete else value, jnp.float64)


def transformation(rule: Rule[P]) -> Callable[P, optax.GradientTransformationExtraArgs]:
    """Make an Optax factory of an update rule for one leaf: the way to write one's own optimizer.

    The factory takes the rule's arguments. A number
    may be a schedule (a callable of the update count); under ``optax.inject_hyperparams`` it may be
    traced. Numbers are float64 in the update whatever the parameters are, except where
    ``inject_hyperparams`` has rounded them. ``jp.param_groups`` gives the factory groups.

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

    @functools.wraps(rule.arguments)
    def factory(*args: P.args, **kwargs: P.kwargs) -> optax.GradientTransformationExtraArgs:
        arguments = Arguments(inspect.signature(rule.arguments), rule)
        return leafwise(rule, {**arguments.defaults(), **arguments.bind(args, kwargs)})

    factory.__name__ = rule.name
    return _marked(factory, rule=rule)


def leafwise(rule: Rule[Any], options: Mapping[str, Any]) -> optax.GradientTransformationExtraArgs:
    """Return the transformation of a rule: one group of all parameters, numbers as they are given.

    Args:
        rule: the rule.
        options: all of its arguments by name; what is none of them (as in ``locals()``) is ignored.
    """
    arguments = Arguments(inspect.signature(rule.arguments), rule)
    options = _checked(arguments, {name: options[name] for name in arguments.names})
    numbers, static = split(arguments, options)
    program = make_program(rule, numbers, static)
    schedules = {name: value for name, value in numbers.items() if callable(value)}

    def at(count: Any) -> optax.GradientTransformationExtraArgs:
        with jax.enable_x64(True):
            values = {name: value_at(schedule, count) for name, schedule in schedules.items()}
            own = {name: _as_float64(v) for name, v in {**numbers, **values}.items()}
        return rule_transform(program, own)

    def init(params: Any) -> RuleState | ScheduledState:
        check_params(params)
        check_accepted(params, rule)
        state: RuleState = at(jnp.zeros((), jnp.int32)).init(canonical(params))
        return ScheduledState(jnp.zeros((), jnp.int32), state) if schedules else state

    def update(
        updates: Any, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[Any, RuleState | ScheduledState]:
        grads = [
            grad if grad is None else to_array(grad)
            for grad in checked_gradients(updates, params, rule)
        ]
        params = canonical(params)
        if not schedules:
            updates, inner = at(None).update(grads, state, params, **extra_args)
            return updates, inner
        if not isinstance(state, ScheduledState):
            raise another_optimizers(state, program)
        updates, inner = at(state.count).update(grads, state.inner, params, **extra_args)
        return updates, ScheduledState(optax.safe_increment(state.count), inner)

    return optax.GradientTransformationExtraArgs(init, update)
