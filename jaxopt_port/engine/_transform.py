"""Lifts a rule for one leaf to an Optax transformation of a tree."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..rules import Rule, Sum
from ..rules.torch_ops import rounded, widened
from ._numbers import entry
from ._step import recorder

Static: TypeAlias = tuple[tuple[str, Any], ...]


class RuleState(NamedTuple):
    """The state of a rule over a tree of parameters.

    Attributes:
        scalars: numbers shared by the leaves of a group, one entry per group.
        leaves: by torch's name, a tree shaped as the parameters.
    """

    scalars: dict[str, jax.Array]
    leaves: dict[str, Any]


class Program(NamedTuple):
    """A rule with all that is static about it.

    Attributes:
        rule: the update rule.
        static: its static arguments.
        holds: the names of the state it needs, or None for all of it.
    """

    rule: Rule[Any]
    static: Static
    holds: frozenset[str] | None

    def init_leaf(self, param: jax.Array) -> dict[str, Any]:
        state = self.rule.init(param)
        return state if self.holds is None else {k: v for k, v in state.items() if k in self.holds}


@functools.lru_cache(maxsize=256)
def _leaf_update(program: Program) -> Callable[..., Any]:
    """Compile a rule for one leaf; within another trace it is inlined.

    Leaves of one shape share its trace, so that tracing costs little per leaf.
    """

    def update(
        grad: jax.Array, param: jax.Array, state: dict[str, Any], numbers: dict[str, Any]
    ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        result, state = program.rule.update(grad, param, state, **numbers, **dict(program.static))
        if not isinstance(result, Sum):
            return result, result - param, state
        new = rounded(widened(result.base) + result.delta, param.dtype)
        delta = result.delta.astype(param.dtype)
        return new, delta if result.base is param else new - param, state

    return jax.jit(update, inline=True)


def rule_transform(
    program: Program, numbers: Mapping[str, Any], assignment: Sequence[int] | None = None
) -> optax.GradientTransformationExtraArgs:
    """Return the transformation of a program.

    Args:
        program: the rule and its static arguments.
        numbers: its numbers, each with an entry per group in the first axis.
        assignment: the group of each leaf, in the order of ``jax.tree.leaves``; None where one
            group has them all.
    """
    size = np.shape(next(iter(numbers.values())))[0]

    def init(params: Any) -> RuleState:
        leaves, treedef = jax.tree.flatten(params)
        with jax.enable_x64(True):
            template = program.init_leaf(jnp.zeros((), jnp.float32))
            states = [program.init_leaf(leaf) for leaf in leaves]
        scalars, held = {}, {}
        for name, value in template.items():
            if isinstance(value, jax.Array):
                held[name] = jax.tree.unflatten(treedef, [state[name] for state in states])
            else:
                # Without x64, so that no int64 or float64 array gets into the state.
                scalars[name] = jnp.full(size, value)
        return RuleState(scalars, held)

    def update(
        updates: Any, state: RuleState, params: Any = None, **_: Any
    ) -> tuple[Any, RuleState]:
        recording, update_leaf = recorder.get(), _leaf_update(program)
        grads, treedef = jax.tree.flatten(updates)
        leaves = jax.tree.leaves(params)
        groups = [0] * len(leaves) if assignment is None else assignment
        held = {name: jax.tree.leaves(tree) for name, tree in state.leaves.items()}
        with jax.enable_x64(True):
            vectors = {name: jnp.asarray(value, jnp.float64) for name, value in numbers.items()}
            own = {
                g: jax.tree.map(lambda v, g=g: entry(v, g), (vectors, state.scalars))
                for g in set(groups)
            }
            new_updates, new_held = [], {name: list[Any]() for name in held}
            for i, (g, grad, param) in enumerate(zip(groups, grads, leaves, strict=True)):
                of_group, shared = own[g]
                leaf_state = {name: of_leaf[i] for name, of_leaf in held.items()}
                new_param, new_update, leaf_state = update_leaf(
                    grad, param, leaf_state | shared, of_group
                )
                if recording is not None:
                    recording.record(new_update, new_param)
                new_updates.append(new_update)
                for name, of_leaf in new_held.items():
                    of_leaf.append(leaf_state[name])
            scalars = _next_scalars(program, vectors, state.scalars)
        return jax.tree.unflatten(treedef, new_updates), RuleState(
            scalars,
            {
                name: jax.tree.unflatten(jax.tree.structure(tree), new_held[name])
                for name, tree in state.leaves.items()
            },
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _next_scalars(
    program: Program, vectors: dict[str, jax.Array], scalars: dict[str, jax.Array]
) -> dict[str, jax.Array]:
    """Return the shared state of all groups after a step, which no leaf has a part in."""
    leaf = jnp.zeros((), jnp.float32)
    template = program.init_leaf(leaf)

    def of_group(numbers: dict[str, jax.Array], shared: dict[str, jax.Array]) -> Any:
        state = _leaf_update(program)(leaf, leaf, template | shared, numbers)[2]
        return {name: state[name] for name in shared}

    after: dict[str, jax.Array] = jax.vmap(of_group)(vectors, scalars) if scalars else {}
    return after
