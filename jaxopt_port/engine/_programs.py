"""The transformations under a grouped optimizer's ``multi_transform``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._arguments import Number, Schedule, as_number, first_value, value_at
from ._numbers import decoded, encoded
from ._transform import Program, rule_transform

# Floats (or tuples of floats) and schedules, by name.
Numbers: TypeAlias = Mapping[str, Any]


def rule_program(
    program: Program, groups: Sequence[Numbers], assignment: Sequence[int]
) -> optax.GradientTransformationExtraArgs:
    """Groups that differ in numbers alone: one injection, a vector over groups for each number.

    Args:
        program: the rule and its static arguments.
        groups: the numbers of each group.
        assignment: the group of each leaf that the program is given.
    """

    def factory(**vectors: jax.Array) -> optax.GradientTransformationExtraArgs:
        numbers = {name: _as_float64(vector) for name, vector in vectors.items()}
        return rule_transform(program, numbers, assignment)

    vectors = {name: [_start(name, group[name]) for group in groups] for name in groups[0]}
    schedules: dict[tuple[str, int | None], Schedule] = {
        (name, i): value
        for i, group in enumerate(groups)
        for name, value in group.items()
        if callable(value)
    }
    return _scheduled(_injected(factory, vectors), schedules)


def foreign_program(
    factory: Callable[..., optax.GradientTransformation],
    numbers: Numbers,
    static: Mapping[str, Any],
    x64: bool,
) -> optax.GradientTransformationExtraArgs:
    """One group of a factory that is not a rule's: an injection of scalars.

    The numbers are handed to the factory weakly typed, as Python floats are, so that the 0.999 of a
    bfloat16 model does not become 1. They are float32 there, as under ``optax.inject_hyperparams``,
    unless the user has enabled x64: what the factory calculates with them alone (``1 - b2``, say)
    is rounded to float32, where a Python float would not be.

    Args:
        factory: the factory.
        numbers: its numbers in this group.
        static: its other arguments.
        x64: the user's own setting of ``jax_enable_x64``, under which the factory works.
    """
    # jax.extend brings Pallas along, which would double what this library adds to `import optax`.
    from jax.extend.core.primitives import convert_element_type_p

    dtype = np.dtype(np.float64 if x64 else np.float32)

    def weak(x: jax.Array) -> jax.Array:
        weakly: jax.Array = convert_element_type_p.bind(
            jnp.asarray(x), new_dtype=dtype, weak_type=True, sharding=None
        )
        return weakly

    def scalars_factory(**scalars: jax.Array) -> optax.GradientTransformationExtraArgs:
        given = {name: weak(_as_float64(value)) for name, value in scalars.items()}
        with jax.enable_x64(x64):
            tx = optax.with_extra_args_support(factory(**given, **static))

        def init(params: Any) -> Any:
            with jax.enable_x64(x64):
                state = tx.init(params)
            if _holds_injection(state):
                raise TypeError(
                    f"{getattr(factory, '__name__', factory)} injects its numbers itself, and a "
                    "change made outside would be lost; pass the factory without "
                    "optax.inject_hyperparams (and a lower-case one, not a grouped one)"
                )
            return state

        def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
            with jax.enable_x64(x64):
                return tx.update(updates, state, params, **extra)

        return optax.GradientTransformationExtraArgs(init, update)

    start = {name: _start(name, value) for name, value in numbers.items()}
    schedules: dict[tuple[str, int | None], Schedule] = {
        (name, None): value for name, value in numbers.items() if callable(value)
    }
    return _scheduled(_injected(scalars_factory, start), schedules)


def _start(name: str, value: Any) -> Number:
    number = first_value(value) if callable(value) else value
    return as_number(name, number, "", like=number)


def _holds_injection(state: Any) -> bool:
    def is_injection(x: Any) -> bool:
        return isinstance(x, optax.InjectStatefulHyperparamsState)

    return any(map(is_injection, jax.tree.leaves(state, is_leaf=is_injection)))


def _injected(
    factory: Callable[..., optax.GradientTransformation], numbers: Mapping[str, Any]
) -> optax.GradientTransformationExtraArgs:
    # inject_hyperparams reads the signature, and finds no number behind **kwargs.
    factory.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in numbers]
    )
    arrays = {name: jnp.asarray(encoded(value)) for name, value in numbers.items()}
    return optax.inject_hyperparams(factory)(**arrays)


def _as_float64(parts: jax.Array) -> jax.Array:
    return jnp.asarray(decoded(parts))


def _scheduled(
    tx: optax.GradientTransformationExtraArgs,
    schedules: Mapping[tuple[str, int | None], Schedule],
) -> optax.GradientTransformationExtraArgs:
    """Write the schedules' values into the injected numbers before each update."""

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        numbers = dict(state.hyperparams)
        for (name, position), schedule in schedules.items():
            value = encoded(jnp.asarray(value_at(schedule, state.count), jnp.float64))
            old = numbers[name]
            numbers[name] = value if position is None else old.at[position].set(value)
        return tx.update(updates, state._replace(hyperparams=numbers), params, **extra_args)

    return optax.GradientTransformationExtraArgs(tx.init, update) if schedules else tx
