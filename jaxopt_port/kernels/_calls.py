"""Leaves whose update is one loop: a rule's kernels in the place of its program in XLA."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._compat import Forms, alternative, on_explicit_mesh
from ..numerics import entries
from ._library import Kernel, prepared
from ._source import Source, UnsupportedError, written
from ._switch import worthwhile

# XLA's time to compile a call grows with the square of its operands.
_LEAVES_PER_CALL = 32


class Leaf(NamedTuple):
    """What a step is given for one leaf.

    Attributes:
        clock: its place in vectors over clocks.
        grad: its gradient.
        param: the parameter.
        state: its arrays by name.
    """

    clock: int
    grad: Any
    param: jax.Array
    state: dict[str, Any]

    @property
    def arrays(self) -> list[Any]:
        return [self.grad, self.param, *self.state.values()]


# (grad, param, state, numbers) -> (new_param, delta, new_state)
LeafUpdate = Callable[..., tuple[jax.Array, jax.Array, dict[str, Any]]]


@functools.lru_cache(maxsize=1024)
def _kernel(
    update_leaf: LeafUpdate,
    names: tuple[str, ...],
    arrays: tuple[Any, ...],
    numbers: tuple[Any, ...],
) -> tuple[Source, Kernel] | None:
    """Return the kernel for leaves of one shape, begun aside; None where there can be none."""

    def update(given: Sequence[Any], numbers: Any) -> list[Any]:
        grad, param, *state = given
        new, _, after = update_leaf(grad, param, dict(zip(names, state, strict=True)), numbers)
        if after.keys() != set(names):
            raise UnsupportedError("a state of other names")
        return [new, *(after[name] for name in names)]

    try:
        source = written(update, arrays, dict(numbers))
    except UnsupportedError:
        return None
    return source, prepared(source)


def _shape(x: Any) -> jax.ShapeDtypeStruct | None:
    """Return the shape that a kernel sees: of a complex array, that of its parts side by side."""
    if not isinstance(x, jax.Array):
        return None
    if not jnp.iscomplexobj(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.ShapeDtypeStruct((*x.shape, 2), jnp.finfo(x.dtype).dtype)


def one_pass(
    update_leaf: LeafUpdate,
    leaves: Mapping[int, Leaf],
    numbers: Mapping[Any, Mapping[str, jax.Array]],
) -> dict[int, tuple[jax.Array, dict[str, Any]]]:
    """Take the step of those leaves that have a kernel.

    Args:
        update_leaf: the update of one leaf.
        leaves: the leaves, by their places.
        numbers: by dtype, the numbers as they meet arrays of it, an entry per clock.

    Returns:
        By place, the new parameter and the new state.
    """
    if not worthwhile([leaf.param.size for leaf in leaves.values()]):
        return {}
    calls: dict[tuple[Kernel, Any], tuple[Source, list[int]]] = {}
    for i, leaf in leaves.items():
        shapes = tuple(map(_shape, leaf.arrays))
        if None in shapes or on_explicit_mesh(leaf.param):
            continue
        own = tuple(
            (name, jax.ShapeDtypeStruct(v.shape[1:], v.dtype))
            for name, v in numbers[leaf.param.dtype].items()
        )
        found = _kernel(update_leaf, tuple(leaf.state), shapes, own)
        if found is not None:
            source, kernel = found
            calls.setdefault((kernel, leaf.param.dtype), (source, []))[1].append(i)
    made: dict[int, tuple[jax.Array, dict[str, Any]]] = {}
    for (kernel, dtype), (source, places) in calls.items():
        for begin in range(0, len(places), _LEAVES_PER_CALL):
            batch = places[begin : begin + _LEAVES_PER_CALL]
            of_call = [leaves[i] for i in batch]
            results = _called(update_leaf, source, kernel, of_call, numbers[dtype])
            made |= dict(zip(batch, results, strict=True))
    return made


def _called(
    update_leaf: LeafUpdate,
    source: Source,
    kernel: Kernel,
    leaves: Sequence[Leaf],
    vectors: Mapping[str, jax.Array],
) -> list[tuple[jax.Array, dict[str, Any]]]:
    groups = np.array([leaf.clock for leaf in leaves], np.int32)
    names = [list(leaf.state) for leaf in leaves]
    flat, structure = jax.tree.flatten((dict(vectors), [leaf.arrays for leaf in leaves]))
    results = [x.aval.strip_weak_type() for leaf in leaves for x in leaf.arrays[1:]]

    def plain(*flat: Any) -> list[Any]:
        vectors, arrays = jax.tree.unflatten(structure, flat)
        made: list[Any] = []
        with jax.enable_x64(True):
            own = {g: entries(vectors, g) for g in set(groups.tolist())}
            for g, held, (grad, param, *state) in zip(groups.tolist(), names, arrays, strict=True):
                before = dict(zip(held, state, strict=True))
                new, _, after = update_leaf(grad, param, before, own[g])
                made += [new, *(after[name] for name in held)]
        return made

    def quick(*flat: Any) -> list[Any]:
        target = kernel.target()  # asked for as late as can be: when the program is lowered
        if target is None:
            return plain(*flat)
        vectors, arrays = jax.tree.unflatten(structure, flat)
        with jax.enable_x64(True):
            columns = jax.vmap(source.numbers)(vectors) or [jnp.zeros(1, jnp.float64)]
            numbers = jnp.stack(columns, axis=1)
            aliases = {
                1 + leaf * source.inputs + 1 + j: leaf * source.outputs + j
                for leaf in range(len(arrays))
                for j in range(source.outputs)
            }
            shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in results]
            call = jax.ffi.ffi_call(target, shapes, input_output_aliases=aliases)
            return list(call(numbers, *(x for of_leaf in arrays for x in of_leaf), groups=groups))

    made = iter(alternative(Forms(plain, one_cpu=quick), flat, results))
    return [(next(made), {name: next(made) for name in held}) for held in names]
