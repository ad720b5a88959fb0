"""Where an optimizer's state lies, given where its parameters lie.

JAX shards and moves arrays; what is missing there is the sharding of an optimizer's state, leaf by
leaf, before there is a state.
"""

from __future__ import annotations

import functools
import itertools
import math
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding
from jax.tree_util import keystr, tree_flatten_with_path

from ..engine import GroupsState, LeafLayout, check_transformation, grouped_states

Shape: TypeAlias = tuple[int, ...]
# By array axis, the mesh axes that it is split over.
Split: TypeAlias = tuple[tuple[str, ...], ...]
# The keys that lead to a leaf.
Path: TypeAlias = tuple[str, ...]


def state_shardings(
    tx: optax.GradientTransformation,
    params_shardings: Any,
    params: Any = None,
    *,
    over: str | Sequence[str] = (),
) -> Any:
    """Return the sharding of every leaf of ``tx.init(params)``, with no state made.

    What has a parameter's shape lies as the parameter; what has lost some of its axes, as
    Adafactor's rows and columns have, is split along those that are left; scalars are on all
    devices. The state is found by ``jax.eval_shape``: nothing is allocated. Use it for
    ``jax.jit(tx.init, out_shardings=...)``, so that no state is ever whole on one device, and to
    restore a checkpoint.

    Args:
        tx: a transformation; of Optax, too, ``optax.chain`` and ``optax.multi_transform`` among
            them.
        params_shardings: a tree of arrays or ``jax.ShapeDtypeStruct``, each with a sharding of its
            own; or a tree of ``NamedSharding``, or one for all, beside ``params``.
        params: the parameters' shapes and dtypes (arrays or ``jax.ShapeDtypeStruct``), where
            ``params_shardings`` are bare shardings.
        over: mesh axes that the state is split over beside its parameters', as in ZeRO-1, where
            every device of a data-parallel mesh has all parameters and a part of the state. Each
            leaf is split along its longest axis that divides; one that has none stays whole.

    Returns:
        A tree of the state's structure, of ``NamedSharding``, in the parameters' memory.

    Raises:
        TypeError: no sharding for a parameter, or one that is no ``NamedSharding``; no
            transformation, or no shapes.
        ValueError: shardings on several meshes, one that does not divide its parameter, or mesh
            axes in ``over`` that the mesh does not have.

    References:
        Rajbhandari et al., 2020, *ZeRO: Memory Optimizations Toward Training Trillion Parameter
        Models*; ``torch.distributed.fsdp``, ``torch.distributed.optim.ZeroRedundancyOptimizer``.

    Example:
        >>> import jax, jax.numpy as jnp, jaxopt_port as jp
        >>> from jax.sharding import NamedSharding, PartitionSpec as P
        >>> mesh = jax.make_mesh((jax.device_count(),), ("data",))
        >>> params = {"weight": jnp.ones((8, 4))}
        >>> params = jax.device_put(params, NamedSharding(mesh, P("data")))
        >>> tx = jp.AdamW(lr=1e-3)
        >>> shardings = jp.state_shardings(tx, params)
        >>> state = jax.jit(tx.init, out_shardings=shardings)(params)
        >>> {leaf.sharding.spec[0] for leaf in jax.tree.leaves(state) if leaf.shape == (8, 4)}
        {'data'}
    """
    check_transformation(tx)
    shapes, flat = _placed(params_shardings, params)
    state = jax.eval_shape(tx.init, shapes)
    leaves, treedef = tree_flatten_with_path(state)
    axes = (over,) if isinstance(over, str) else tuple(over)
    device = _one_device(flat.values())
    if device is not None and not axes:
        return jax.tree.unflatten(treedef, [device] * len(leaves))
    mesh = _mesh_of(flat)
    for axis in axes:
        if axis not in mesh.axis_names:
            known = ", ".join(map(repr, mesh.axis_names))
            raise ValueError(f"over={axis!r}: the mesh has no such axis; it has {known}")
    places = {
        path: _Place(shape.shape, _split(path, shape.shape, flat[path]), flat[path].memory_kind)
        for path, shape in _flat(shapes).items()
    }
    shared, layouts = _shared(state), _layouts(state)
    owners = _owners([_names(path) for path, _ in leaves], places)

    def sharding(path: Path, leaf: Any) -> NamedSharding:
        owner = owners.get(path)
        place = None if owner is None else places[owner]
        layout = layouts.get(id(leaf), {}).get("/".join(owner or ()))
        if place is not None and layout is not None:
            place = place.seen_by_a_rule(layout)
        split = None if place is None else place.of(leaf.shape)
        if split is None:
            split = _of_vector(leaf.shape, places, mesh)
        split = _split_further(leaf.shape, split, axes, mesh)
        spec = PartitionSpec(*(names or None for names in split))
        return NamedSharding(mesh, spec, memory_kind=place.memory_kind if place else None)

    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.tree.unflatten(
        treedef,
        [
            replicated if id(leaf) in shared else sharding(_names(path), leaf)
            for path, leaf in leaves
        ],
    )


@dataclass(frozen=True)
class _Place:
    """Where a parameter lies.

    Attributes:
        shape: its shape.
        split: how it is split.
        memory_kind: of its sharding.
    """

    shape: Shape
    split: Split
    memory_kind: str | None

    def of(self, shape: Shape) -> Split | None:
        """Return how a part of the state of this parameter is split; None if it cannot be told."""
        more = len(shape) - len(self.shape)
        if more >= 0 and shape[more:] == self.shape:  # as the parameter, or a stack of such
            return (*((),) * more, *self.split)
        if more == 0:  # a sum over some axes, which are kept with length 1
            pairs = list(zip(shape, self.shape, strict=True))
            if all(s in (1, p) for s, p in pairs):
                return tuple(
                    own if s == p else () for own, (s, p) in zip(self.split, pairs, strict=True)
                )
        found = {  # a sum over some axes, which are gone
            tuple(self.split[i] for i in kept)
            for kept in itertools.combinations(range(len(self.shape)), len(shape))
            if tuple(self.shape[i] for i in kept) == shape
        }
        return found.pop() if len(found) == 1 else None

    def seen_by_a_rule(self, layout: LeafLayout) -> _Place:
        """Return where the parameter lies, laid out as its rule sees it."""
        split: Split = ((),) * len(layout.shape)
        if layout.view == layout.shape:
            split = tuple(self.split[axis] for axis in np.argsort(layout.axes))
        return _Place(layout.shape, split, self.memory_kind)


def _is_sharding(x: Any) -> bool:
    return isinstance(x, Sharding)


def _names(path: Sequence[Any]) -> Path:
    return tuple(keystr((key,), simple=True) for key in path)


def _flat(tree: Any) -> dict[Path, Any]:
    leaves, _ = tree_flatten_with_path(tree, is_leaf=_is_sharding)
    return {_names(path): leaf for path, leaf in leaves}


def _said(path: Path) -> str:
    return f'"{"/".join(path)}"' if path else "the parameter"


def _placed(shardings: Any, params: Any) -> tuple[Any, dict[Path, Sharding]]:
    """Return the parameters' shapes, and their shardings by path."""
    if params is None:
        for path, leaf in _flat(shardings).items():
            if _is_sharding(leaf):
                raise TypeError(
                    f"{_said(path)} is a sharding without a shape; give the parameters, or their "
                    "shapes, too: state_shardings(tx, shardings, params)"
                )
        params, shardings = shardings, jax.tree.map(_own_sharding, shardings)
    for path, leaf in _flat(params).items():
        if not hasattr(leaf, "shape"):
            raise TypeError(
                f"{_said(path)} is {reprlib.repr(leaf)}, which has no shape; parameters, or their "
                "shapes, come last: state_shardings(tx, shardings, params)"
            )
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)

    def spread(sharding: Any, part: Any) -> Any:
        return jax.tree.map(lambda _: sharding, part)

    flat = _flat(jax.tree.map(spread, shardings, shapes, is_leaf=_is_sharding))
    if not flat:
        raise ValueError("there are no parameters")
    for path, sharding in flat.items():
        if not isinstance(sharding, NamedSharding | SingleDeviceSharding):
            has = "no sharding" if sharding == _NONE else f"{sharding!r} for its sharding"
            raise TypeError(
                f"{_said(path)} has {has}; a jax.sharding.NamedSharding(mesh, spec) is needed: "
                "jax.device_put(params, sharding), or state_shardings(tx, sharding, params)"
            )
    return shapes, flat


_NONE = "none"  # a bare None would be no leaf


def _own_sharding(x: Any) -> Any:
    sharding = getattr(x, "sharding", None)
    return _NONE if sharding is None else sharding


def _one_device(shardings: Any) -> Sharding | None:
    first, *others = shardings
    same = isinstance(first, SingleDeviceSharding) and all(s == first for s in others)
    return first if same else None


def _mesh_of(shardings: Mapping[Path, Sharding]) -> Any:
    meshes: dict[Any, Path] = {}
    for path, sharding in shardings.items():
        if not isinstance(sharding, NamedSharding):
            raise TypeError(
                f"{_said(path)} lies on one device and no mesh ({sharding}); put it on the mesh: "
                "jax.device_put(params, NamedSharding(mesh, spec))"
            )
        meshes.setdefault(sharding.mesh, path)
    if len(meshes) > 1:
        one, other, *_ = meshes.values()
        raise ValueError(f"{_said(one)} and {_said(other)} lie on different meshes")
    return next(iter(meshes))


def _split(path: Path, shape: Shape, sharding: Any) -> Split:
    try:
        sharding.shard_shape(shape)
    except ValueError as error:
        raise ValueError(f"the sharding of {_said(path)} does not fit its shape: {error}") from None
    names = [(n,) if isinstance(n, str) else tuple(n or ()) for n in sharding.spec]
    return (*names, *((),) * (len(shape) - len(names)))


def _layouts(state: Any) -> dict[int, dict[str, LeafLayout]]:
    """Return how rules see parameters, by the ids of what is held for them."""
    nodes = [(node, dict(node.table.layouts)) for node in grouped_states(state)]
    return {id(leaf): layouts for node, layouts in nodes for leaf in jax.tree.leaves(node)}


def _shared(state: Any) -> set[int]:
    """Return the ids of what groups share: vectors over groups, whatever they are named."""
    found: set[int] = set()
    for kind, name in (
        (GroupsState, "scalars"),
        (GroupsState, "numbers"),
        (GroupsState, "counts"),
        (optax.InjectStatefulHyperparamsState, "hyperparams"),
    ):
        for node in jax.tree.leaves(state, is_leaf=functools.partial(_is, kind)):
            if _is(kind, node):
                found |= {id(leaf) for leaf in jax.tree.leaves(getattr(node, name))}
    return found


def _is(kind: type, x: Any) -> bool:
    return isinstance(x, kind)


def _owners(paths: Sequence[Path], places: Mapping[Path, Any]) -> dict[Path, Path]:
    """Return the parameter whose path ends that of each part of the state.

    Where several do, since a layer is called as a part of the state is, the one that stands in the
    tree with most of the others.
    """
    ends = {p: [k for k in range(len(p) + 1) if p[k:] in places] for p in paths}
    trees = Counter(path[:k] for path, begins in ends.items() for k in begins)
    return {
        path: path[max(begins, key=lambda k: (trees[path[:k]], -k)) :]
        for path, begins in ends.items()
        if begins
    }


def _of_vector(shape: Shape, places: Mapping[Path, _Place], mesh: Any) -> Split:
    """Return the split of what belongs to no one parameter.

    Vectors of all parameters, as in L-BFGS, are split over those mesh axes of the parameters that
    divide them.
    """
    split: list[tuple[str, ...]] = [()] * len(shape)
    if shape and shape[-1] == sum(math.prod(place.shape) for place in places.values()):
        used = dict.fromkeys(a for p in places.values() for names in p.split for a in names)
        for axis in used:
            if shape[-1] % math.prod(mesh.shape[a] for a in (*split[-1], axis)) == 0:
                split[-1] = (*split[-1], axis)
    return tuple(split)


def _split_further(shape: Shape, split: Split, axes: Sequence[str], mesh: Any) -> Split:
    """Split over more mesh axes, each time the longest array axis that divides."""
    made = list(split)
    for axis in axes:
        if any(axis in names for names in made):
            continue
        lengths = [
            n // math.prod(mesh.shape[a] for a in names)
            for n, names in zip(shape, made, strict=True)
        ]
        dividing = [i for i, n in enumerate(lengths) if n and n % mesh.shape[axis] == 0]
        if dividing:
            longest = max(dividing, key=lambda i: lengths[i])
            made[longest] = (*made[longest], axis)
    return tuple(made)
