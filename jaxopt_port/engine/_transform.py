"""Lifts a rule for one leaf to an Optax transformation of a tree."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from .. import kernels
from .._compat import as_laid_out, check_whole, laid_out_as, on_explicit_mesh
from ..numerics import entry, uncontracted
from ..numerics.torch_ops import acting_alpha, add, widened
from ._clocks import split_clocks, ticked
from ._one_pass import Leaf
from ._one_pass import updated as one_pass
from ._program import Program, as_complex, as_real
from ._rule import Rows, Sum
from ._step import recorder


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["scalars", "leaves"], meta_fields=["clocks"]
)
@dataclass(frozen=True)
class RuleState:
    """The state of a rule over a tree of parameters.

    Attributes:
        scalars: by torch's name (``step``), a vector over clocks.
        leaves: by torch's name (``exp_avg``), a tree shaped as the parameters, with a `NotHeld`
            where a leaf has nothing of that name.
        clocks: the clock of each leaf: which leaves have taken their steps together.
    """

    scalars: dict[str, jax.Array]
    leaves: dict[str, Any]
    clocks: tuple[int, ...]


class NotHeld(NamedTuple):
    """Stands where a leaf has nothing of one name; like None, it has no leaves."""


def is_not_held(x: Any) -> bool:
    return isinstance(x, NotHeld)


def _add_rows(array: jax.Array, indices: tuple[jax.Array, ...], rows: jax.Array) -> jax.Array:
    return array.at[indices].add(rows, mode="drop", indices_are_sorted=True, unique_indices=True)


def _applied(result: jax.Array | Sum | Rows, param: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the new parameter and the Optax update of a rule's result."""
    if isinstance(result, Rows):
        add_rows = functools.partial(
            _add_rows, indices=result.indices, rows=result.delta.astype(param.dtype)
        )
        return add_rows(param), add_rows(jnp.zeros_like(param))
    if isinstance(result, Sum):
        base, addend, alpha = result
        new = add(base, addend, alpha=alpha)
        if base is not param:
            return new, new - param
        return new, (widened(addend) * acting_alpha(alpha, param.dtype)).astype(param.dtype)
    return result, result - param


@functools.lru_cache(maxsize=256)
def _leaf_update(program: Program) -> Callable[..., Any]:
    """Compile a rule for one leaf; within another trace it is inlined.

    Leaves of one shape share its trace, so that tracing costs little per leaf.
    """

    def update(
        grad: Any, param: jax.Array, state: dict[str, Any], numbers: dict[str, Any]
    ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        # They may be products in the caller's program.
        real = uncontracted(as_real(param))
        grad = as_real(grad)
        grad = uncontracted(grad) if isinstance(grad, jax.Array) else grad
        result, after = program.rule.update(
            grad, real, as_real(state), **numbers, **dict(program.static)
        )
        new, delta = _applied(result, real)
        viewed: tuple[jax.Array, jax.Array, dict[str, Any]]
        viewed = as_complex((new, delta, after), param)
        return viewed

    def laid_out(
        grad: Any, param: jax.Array, state: dict[str, Any], numbers: dict[str, Any]
    ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        if not on_explicit_mesh(param):
            return update(grad, param, state, numbers)

        def held(*args: Any) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
            new, delta, after = update(*args)
            return new, delta, {name: after[name] for name in state}

        # Where the state is split further than the parameter, so is the calculation.
        like = next((x for x in state.values() if x.shape == param.shape), param)
        new, delta, after = as_laid_out(held, (like, like, state))(grad, param, state, numbers)
        return laid_out_as(param, new), laid_out_as(param, delta), after

    return jax.jit(laid_out, inline=True)


@functools.lru_cache(maxsize=256)
def _state_names(
    program: Program, shapes: tuple[tuple[str, tuple[int, ...]], ...]
) -> tuple[frozenset[str], frozenset[str]]:
    """Return what a program's state consists of, given its numbers' shapes: shared, of leaves."""
    with jax.enable_x64(True):
        numbers = {name: jax.ShapeDtypeStruct(shape, jnp.float64) for name, shape in shapes}
        shared = jax.eval_shape(program.start, numbers)
        return frozenset(shared), frozenset(program.names(numbers))


def another_optimizers(state: Any, program: Program) -> ValueError:
    """Return the error for a state that is not this program's."""
    name = program.rule.name
    if not isinstance(state, RuleState):
        found = f"a {type(state).__name__}"
    else:
        found = ", ".join([*state.scalars, *state.leaves]) or "nothing"
    return ValueError(
        f"this state is not that of {name} with these options, but was made by another optimizer: "
        f"it holds {found}. Make it by tx.init(params)"
    )


def stepped(
    program: Program,
    leaves: Sequence[Leaf],
    numbers: Mapping[str, jax.Array],
    shared: Mapping[str, jax.Array],
) -> tuple[list[tuple[jax.Array, dict[str, Any]]], dict[str, jax.Array]]:
    """Take a step of leaves that have one program, within ``jax.enable_x64(True)``.

    Args:
        program: the rule and its static arguments.
        leaves: what each is given.
        numbers: float64, an entry for each clock in the first axis.
        shared: what the leaves of a clock share, likewise.

    Returns:
        The Optax update and the new state of each leaf, and what is shared after the step.
    """
    recording, update_leaf = recorder.get(), _leaf_update(program)
    after_shared, scalars = jax.vmap(program.advance)(dict(shared), dict(numbers))

    @functools.cache
    def vectors_for(dtype: Any) -> dict[str, jax.Array]:
        return {**numbers, **_rounded(scalars, dtype)}

    @functools.cache
    def numbers_for(clock: int, dtype: Any) -> dict[str, jax.Array]:
        return _entries(vectors_for(dtype), clock)

    by_kernel = {}
    if recording is not None and kernels.enabled():
        by_kernel = one_pass(update_leaf, leaves, vectors_for, _entries)
    made = []
    for i, leaf in enumerate(leaves):
        if i in by_kernel:
            new_param, after = by_kernel[i]
            new_update = new_param - leaf.param  # where none follows, it is not computed
        else:
            new_param, new_update, after = update_leaf(
                leaf.grad, leaf.param, leaf.state, numbers_for(leaf.clock, leaf.param.dtype)
            )
        if recording is not None:
            recording.record(new_update, new_param, leaf.param)
        made.append((new_update, after))
    return made, after_shared


def rested(param: jax.Array) -> jax.Array:
    """Return the update that leaves a parameter as it is, to the bit: -0 is added to it."""
    update: jax.Array = jnp.full_like(param, -0.0)
    recording = recorder.get()
    if recording is not None:
        recording.record(update, param, param)
    return update


def held_by(state: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return what each leaf holds, by name, and the structure of each name's tree."""
    flat = {name: jax.tree.flatten(tree, is_leaf=is_not_held) for name, tree in state.items()}
    count = len(next(iter(flat.values()))[0]) if flat else 0
    of_leaves = [
        {name: v[i] for name, (v, _) in flat.items() if not is_not_held(v[i])} for i in range(count)
    ]
    return of_leaves, {name: structure for name, (_, structure) in flat.items()}


def as_trees(
    of_leaves: Sequence[Mapping[str, Any]], structures: Mapping[str, Any]
) -> dict[str, Any]:
    """Undo `held_by`."""
    return {
        name: jax.tree.unflatten(structure, [held.get(name, NotHeld()) for held in of_leaves])
        for name, structure in structures.items()
    }


def rule_transform(
    program: Program, numbers: Mapping[str, Any]
) -> optax.GradientTransformationExtraArgs:
    """Return the transformation of a program over all leaves, which is given a list of gradients.

    Args:
        program: the rule and its static arguments.
        numbers: its numbers.
    """

    def own() -> dict[str, jax.Array]:
        return {name: jnp.asarray(value, jnp.float64) for name, value in numbers.items()}

    def init(params: Any) -> RuleState:
        leaves, treedef = jax.tree.flatten(params)
        with jax.enable_x64(True):
            states = [program.init_leaf(leaf, own()) for leaf in leaves]
            names = dict.fromkeys([*program.names(own()), *(n for s in states for n in s)])
            shared = {k: v[None] for k, v in program.start(own()).items()}
        trees = as_trees(states, dict.fromkeys(names, treedef))
        return RuleState(shared, trees, (0,) * len(leaves))

    def check_state(state: Any, leaves: Sequence[Any]) -> None:
        if isinstance(state, RuleState):
            shapes = tuple((name, jnp.shape(value)) for name, value in numbers.items())
            shared, of_leaves = _state_names(program, shapes)
            if shared == set(state.scalars):
                more = state.leaves.keys() - of_leaves
                if of_leaves <= state.leaves.keys() and (not more or more <= own_names(leaves)):
                    return
        raise another_optimizers(state, program)

    def own_names(leaves: Sequence[Any]) -> set[str]:
        with jax.enable_x64(True):
            return {n for x in leaves for n in jax.eval_shape(program.init_leaf, x, own())}

    def update(
        grads: Sequence[Any], state: RuleState, params: Any = None, **_: Any
    ) -> tuple[Any, RuleState]:
        leaves, treedef = jax.tree.flatten(params)
        check_state(state, leaves)
        check_wholes(program, leaves)
        held, structures = held_by(state.leaves)
        held = held or [{} for _ in leaves]
        stepping = [grad is not None for grad in grads]
        n = max(state.clocks, default=0) + 1
        clocks, origin, goes_on = split_clocks(state.clocks, n, stepping)
        updates = [None if on else rested(leaf) for on, leaf in zip(stepping, leaves, strict=True)]
        with jax.enable_x64(True):
            vectors = {k: jnp.broadcast_to(v, (n, *v.shape)) for k, v in own().items()}
            given = [
                Leaf(state.clocks[i], grads[i], leaves[i], held[i])
                for i, on in enumerate(stepping)
                if on
            ]
            made, after = stepped(program, given, vectors, state.scalars)
            scalars = ticked(state.scalars, after, origin, goes_on)
        for i, (new_update, new_state) in zip(
            (i for i, on in enumerate(stepping) if on), made, strict=True
        ):
            updates[i], held[i] = new_update, new_state
        new = RuleState(scalars, as_trees(held, structures), clocks)
        return jax.tree.unflatten(treedef, updates), new

    return optax.GradientTransformationExtraArgs(init, update)


def check_wholes(program: Program, leaves: Sequence[Any]) -> None:
    """Raise for a leaf of which a device has a part, where the rule needs the whole."""
    if program.rule.sparse or not program.rule.elementwise:
        for leaf in leaves:
            check_whole(leaf, program.rule.name, "a parameter")


def _rounded(scalars: dict[str, jax.Array], dtype: jnp.dtype) -> dict[str, jax.Array]:
    """Return the groups' scalars as they meet arrays of ``dtype``, rounded once for all leaves."""
    wide = jnp.float64 if dtype in (jnp.float64, jnp.complex128) else jnp.float32
    return {
        name: value.astype(wide) if value.dtype == jnp.float64 else value
        for name, value in scalars.items()
    }


def _entries(vectors: dict[str, jax.Array], clock: int) -> dict[str, jax.Array]:
    return {name: entry(vector, clock) for name, vector in vectors.items()}
