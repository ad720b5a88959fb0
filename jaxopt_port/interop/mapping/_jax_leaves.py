"""What a JAX tree holds that has a counterpart in torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...trees import leaf_paths


class Leaf(NamedTuple):
    """A leaf of the tree, and the path by which torch's names find it."""

    path: str
    short: str  # without Linen's collection and without nnx.Sequential's "layers"
    shape: tuple[int, ...]


@dataclass(frozen=True)
class JaxTree:
    """A tree's leaves, what is no weight left out, and the layers that it is of.

    Args:
        tree: what gave the leaves: of an ``nnx.Module``, its state.
        leaves: in the order of ``jax.tree.leaves``.
        layers: NNX's or Equinox's by short path; empty for a mere tree.
        has_statistics: whether it holds more than parameters.
    """

    tree: Any
    leaves: tuple[Leaf, ...]
    layers: Mapping[str, Any]
    has_statistics: bool


def jax_tree(like: Any, torch_names: Sequence[str], flax_parts: Mapping[str, Any]) -> JaxTree:
    """Read a tree, or an ``nnx.Module``, to be matched with tensors of these names.

    ``flax_parts``: the layers of the tree's Flax module by path, where they are known.
    """
    layers = flax_parts or nnx_layers(like) or equinox_layers(like)
    tree = state_of(like)
    sequential = _sequential(layers)
    collections = _collections(tree, torch_names)
    pairs = leaf_paths(tree)
    others = no_weights(tree, pairs)
    leaves = []
    for path, leaf in pairs:
        if path not in others:
            collection, _, rest = path.partition("/")
            short = rest if rest and collection in collections else path
            short = _short(short, sequential).replace(".", "/")
            leaves.append(Leaf(path, short, tuple(np.shape(leaf))))
    statistics = any(leaf.short.rpartition("/")[2] in ("mean", "var") for leaf in leaves)
    return JaxTree(tree, tuple(leaves), with_short_paths(layers), statistics)


def state_of(like: Any) -> Any:
    """Return an NNX module's state; a tree is one already."""
    return sys.modules["flax.nnx"].state(like) if is_nnx_module(like) else like


def _is_module_of(library: str, x: object) -> bool:
    """Whether it is a module of a library, which has been imported then."""
    imported = sys.modules.get(library)
    return imported is not None and isinstance(x, imported.Module)


def is_nnx_module(x: object) -> bool:
    return _is_module_of("flax.nnx", x)


def is_linen_module(x: object) -> bool:
    return _is_module_of("flax.linen", x)


def is_equinox_module(x: object) -> bool:
    return _is_module_of("equinox", x)


def nnx_layers(model: Any) -> dict[str, Any]:
    """Return an NNX module's layers by path, itself under ""; none for what is no NNX module."""
    if not is_nnx_module(model):
        return {}
    nnx = sys.modules["flax.nnx"]
    return {"/".join(map(str, path)): layer for path, layer in nnx.iter_modules(model)}


def equinox_layers(tree: Any) -> dict[str, Any]:
    """Return the modules of Equinox in a tree by path, itself under ""."""
    if "equinox" not in sys.modules:
        return {}
    layers = {"": tree} if is_equinox_module(tree) else {}

    def is_layer(x: object) -> bool:
        return x is not tree and is_equinox_module(x)

    for path, layer in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_layer):
        if is_equinox_module(layer):
            own = jax.tree_util.keystr(path, simple=True, separator="/")
            found = equinox_layers(layer).items()
            layers |= {f"{own}/{inner}".rstrip("/"): part for inner, part in found}
    return layers


def no_weights(tree: Any, pairs: Sequence[tuple[str, Any]]) -> set[str]:
    """Return the paths of what is no weight of a model: random keys, and the counters beside them.

    Where modules are Equinox's also functions and numbers that are no arrays (a rate of dropout).

    Args:
        tree: the model's.
        pairs: its leaves with their paths.
    """
    dtypes = [(path, getattr(leaf, "dtype", None)) for path, leaf in pairs]
    keys = {p for p, d in dtypes if d is not None and jnp.issubdtype(d, jax.dtypes.prng_key)}
    counters = {path.removesuffix("key") + "count" for path in keys if path.endswith("/key")}
    plain = {path for path, dtype in dtypes if dtype is None} if equinox_layers(tree) else set()
    return keys | counters | plain


def _collections(tree: Any, torch_names: Sequence[str]) -> set[str]:
    """Return the names that Linen's variables put before a path, where a tree has them."""
    if not isinstance(tree, Mapping) or not tree.keys() & {"params", "batch_stats"}:
        return set()
    first_parts = {name.partition(".")[0] for name in torch_names}
    return set() if first_parts & tree.keys() else set(tree)


def with_short_paths(layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return layers by path, without the "layers" under which an ``nnx.Sequential`` keeps them."""
    return {_short(path, _sequential(layers)): layer for path, layer in layers.items()}


def _sequential(layers: Mapping[str, Any]) -> set[str]:
    return {path for path, layer in layers.items() if type(layer).__name__ == "Sequential"}


def _short(path: str, sequential: Set[str]) -> str:
    parts = path.split("/")
    kept = [
        part
        for i, part in enumerate(parts)
        if not (part == "layers" and "/".join(parts[:i]) in sequential)
    ]
    return "/".join(kept)
