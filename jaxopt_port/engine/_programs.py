"""A factory of Optax or of the user as the optimizer of one group, with numbers from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..trees import leaves_up_to
from ._table import GroupsState


def foreign_transform(
    factory: Callable[..., optax.GradientTransformation],
    numbers: Mapping[str, Any],
    static: Mapping[str, Any],
    x64: bool,
) -> optax.GradientTransformationExtraArgs:
    """Return what a factory makes of numbers that may be traced.

    They are handed to it weakly typed, as Python floats are, so that the 0.999 of a bfloat16 model
    does not become 1. They are float32 there, as under ``optax.inject_hyperparams``, unless the
    user has enabled x64: what the factory calculates with them alone (``1 - b2``, say) is rounded
    to float32, where a Python float would not be.

    Args:
        factory: the factory.
        numbers: float64 scalars.
        static: its other arguments.
        x64: the user's own setting of ``jax_enable_x64``, under which the factory works.
    """
    # jax.extend brings Pallas along, which would double what this library adds to `import optax`.
    from jax.extend.core.primitives import convert_element_type_p

    dtype = np.dtype(np.float64 if x64 else np.float32)

    def weak(x: Any) -> jax.Array:
        weakly: jax.Array = convert_element_type_p.bind(
            jnp.asarray(x), new_dtype=dtype, weak_type=True, sharding=None
        )
        return weakly

    with jax.enable_x64(True):
        given = {name: weak(value) for name, value in numbers.items()}
    with jax.enable_x64(x64):
        return optax.with_extra_args_support(factory(**given, **static))


def check_holds_no_numbers(state: Any, factory: Callable[..., Any]) -> None:
    """Raise TypeError for the state of a factory that holds numbers itself."""

    def holds_numbers(x: Any) -> bool:
        return isinstance(x, optax.InjectStatefulHyperparamsState | GroupsState)

    if any(map(holds_numbers, jax.tree.leaves(state, is_leaf=holds_numbers))):
        raise TypeError(
            f"{getattr(factory, '__name__', factory)} injects its numbers itself, and a "
            "change made outside would be lost; pass the factory without "
            "optax.inject_hyperparams (and a lower-case one, not a grouped one)"
        )


def part_of(tree: Any, leaves: Sequence[Any], members: Sequence[int]) -> Any:
    """Return the leaves of one group as its optimizer sees them: a tree with gaps, in a tuple.

    Optax takes a callable module for a function of the parameters; a tuple is none.
    """
    own = set(members)
    seen = [leaf if i in own else optax.MaskedNode() for i, leaf in enumerate(leaves)]
    return (jax.tree.unflatten(jax.tree.structure(tree), seen),)


def leaves_of_part(params: Any, part: Any, members: Sequence[int]) -> list[Any]:
    """Undo `part_of`: the members' leaves."""
    (tree,) = part
    leaves = leaves_up_to(params, tree)
    return [leaves[i] for i in members]


def value_fn_of_part(value_fn: Callable[[Any], Any], params: Any) -> Callable[[Any], Any]:
    """Return the function that one group's optimizer sees: of its parameters, the rest as is."""

    def of_group(part: Any) -> Any:
        (own,) = part
        leaves = [
            param if isinstance(x, optax.MaskedNode) else x
            for x, param in zip(leaves_up_to(params, own), jax.tree.leaves(params), strict=True)
        ]
        return value_fn(jax.tree.unflatten(jax.tree.structure(params), leaves))

    return of_group
