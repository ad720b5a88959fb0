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
from ._step import ExactUpdates

Static: TypeAlias = tuple[tuple[str, Any], ...]


class RuleState(NamedTuple):
    """The state of a rule over a tree of parameters.

    Attributes:
        scalars: numbers shared by the leaves of a group, one entry per group (of shape ``()``
            where there is one group by construction).
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
    """Compile a rule for one leaf; within another trace it is inlined, and cached by shape."""

    def update(
        grad: jax.Array, param: jax.Array, state: dict[str, Any], numbers: dict[str, Any]
    ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        result, state = program.rule.update(
            grad, param, state, **numbers, **dict(program.static)
        )
        if not isinstance(result, Sum):
            return result, result - param, state
        new = rounded(widened(result.base) + result.delta, param.dtype)
        delta = result.delta.astype(param.dtype)
        return new, delta if result.base is param else new - param, state

    return jax.jit(update, inline=True)


def rule_transform(
    program: Program,
    groups: Sequence[Mapping[str, Any]],
    assignment: Sequence[int] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Return the transformation of a program.

    Args:
        program: the rule and its static arguments.
        groups: the numbers of each group, as scalars.
        assignment: the group of each leaf, in the order of ``jax.tree.leaves``; None where one
            group has them all.
    """

    def group_of(leaf: int) -> int:
        return 0 if assignment is None else assignment[leaf]

    def init(params: Any) -> RuleState:
        leaves, treedef = jax.tree.flatten(params)
        with jax.enable_x64(True):
            template = program.init_leaf(jnp.zeros(()))
            states = [program.init_leaf(leaf) for leaf in leaves]
            shared = [name for name, value in template.items() if not isinstance(value, jax.Array)]
            shape = () if assignment is None else (len(groups),)
            return RuleState(
                scalars={name: jnp.full(shape, np.asarray(template[name])) for name in shared},
                leaves={
                    name: treedef.unflatten([state[name] for state in states])
                    for name in template
                    if name not in shared
                },
            )

    def update(
        updates: Any,
        state: RuleState,
        params: Any = None,
        *,
        exact_updates: ExactUpdates | None = None,
        **_: Any,
    ) -> tuple[Any, RuleState]:
        grads, treedef = jax.tree.flatten(updates)
        per_leaf = {name: jax.tree.leaves(tree) for name, tree in state.leaves.items()}
        with jax.enable_x64(True):
            numbers = [
                {name: jnp.asarray(value, jnp.float64) for name, value in group.items()}
                for group in groups
            ]
            before = [
                {name: value if assignment is None else value[g] for name, value in
                 state.scalars.items()}
                for g in range(len(groups))
            ]
            after = list(before)
            new_updates, new_leaves = [], {name: list(leaves) for name, leaves in per_leaf.items()}
            for i, (grad, param) in enumerate(zip(grads, jax.tree.leaves(params), strict=True)):
                g = group_of(i)
                leaf_state = {name: leaves[i] for name, leaves in per_leaf.items()}
                new_param, new_update, leaf_state = _leaf_update(program)(
                    grad, param, leaf_state | before[g], numbers[g]
                )
                if exact_updates is not None:
                    exact_updates.record(new_update, new_param)
                new_updates.append(new_update)
                for name in new_leaves:
                    new_leaves[name][i] = leaf_state[name]
                # The same in every leaf of the group.
                after[g] = {name: leaf_state[name] for name in state.scalars}
            scalars = {
                name: (
                    after[0][name]
                    if assignment is None
                    else jnp.stack([group[name] for group in after])
                )
                for name in state.scalars
            }
        return treedef.unflatten(new_updates), RuleState(
            scalars,
            {
                name: jax.tree.unflatten(jax.tree.structure(tree), new_leaves[name])
                for name, tree in state.leaves.items()
            },
        )

    return optax.GradientTransformationExtraArgs(init, update)
