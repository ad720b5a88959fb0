"""Which leaf of the JAX side is which tensor of torch's, for values of any kind."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from ...engine import leaf_paths
from ...interop import Entry, ParamMap, array_of
from ._jax_side import JaxSide, told_of

Array = NDArray[Any]


def numpy_of(value: Any) -> Array:
    """Return a torch tensor's, a NumPy array's or a number's values; no copy where that can be."""
    return array_of(value) if hasattr(value, "detach") else np.asarray(value)


class Names:
    """A map from torch's names to the leaves of `JaxSide.params` and ``model_state``.

    Attributes:
        params: the entry of each leaf of ``params``, in order.
        state: the entry of each leaf of ``model_state`` that torch has too, by position.

    Raises:
        ValueError: a trained leaf is not in the map.
    """

    def __init__(self, made: ParamMap, side: JaxSide) -> None:
        by_path = {entry.path: entry for entry in made.entries}
        pairs = leaf_paths(side.params)
        lacking = [p for p, _ in pairs if p not in by_path and f"params/{p}" not in by_path]
        if lacking:
            raise ValueError(
                f"the parameter map has no entry for {', '.join(lacking)}; it has "
                f"{', '.join(by_path) or 'none'}: make it of this side's parameters"
            )
        self.map = made
        self.paths = tuple(path for path, _ in pairs)
        self.params = tuple(by_path.get(p) or by_path[f"params/{p}"] for p in self.paths)
        self._params_structure = jax.tree.structure(side.params)
        self._model_state = side.model_state
        others = leaf_paths(side.model_state)
        self.state = {i: by_path[p] for i, (p, _) in enumerate(others) if p in by_path}
        self.state_paths = {i: others[i][0] for i in self.state}

    def torch_name(self, path: str) -> str:
        """Return torch's name of a leaf of the parameters."""
        return self.params[self.paths.index(path)].torch_name

    def by_path(self, tensors: Mapping[str, Any]) -> dict[str, Array]:
        """Return what torch has of each parameter, in JAX's layout; views where that can be."""
        return {
            path: entry.to_jax(numpy_of(tensors[entry.torch_name]))
            for path, entry in zip(self.paths, self.params, strict=True)
            if entry.torch_name in tensors
        }

    def state_by_path(self, tensors: Mapping[str, Any]) -> dict[str, Array]:
        """Likewise of what is in ``model_state``."""
        return {
            self.state_paths[i]: entry.to_jax(numpy_of(tensors[entry.torch_name]))
            for i, entry in self.state.items()
            if entry.torch_name in tensors
        }

    def params_tree(
        self, tensors: Mapping[str, Any], lacking: Any = None, zeros: Collection[str] = ()
    ) -> Any:
        """Return a tree like the parameters, of NumPy arrays of their own.

        Args:
            tensors: by torch's name.
            lacking: a tree that has what is not among them; zeros without it.
            zeros: paths of leaves that are zeros in any case.
        """
        pairs = zip(self.paths, self.params, strict=True)
        leaves = [_leaf(entry, {} if path in zeros else tensors) for path, entry in pairs]
        if lacking is not None:
            own = map(np.asarray, jax.tree.leaves(lacking))
            leaves = [
                leaf if entry.torch_name in tensors else given
                for leaf, given, entry in zip(leaves, own, self.params, strict=True)
            ]
        return jax.tree.unflatten(self._params_structure, leaves)

    def model_state(self, tensors: Mapping[str, Any]) -> Any:
        """Return ``model_state`` with torch's values where torch has them."""
        leaves, structure = jax.tree.flatten(self._model_state)
        for i, entry in self.state.items():
            if entry.torch_name in tensors:
                leaves[i] = _leaf(entry, tensors)
        return jax.tree.unflatten(structure, leaves)

    def tree_of(self, leaves: Mapping[str, Array]) -> Any:
        """Return a tree like the parameters, of leaves by path."""
        return jax.tree.unflatten(self._params_structure, [leaves[p] for p in self.paths])

    def leaves_of(self, tree: Any) -> dict[str, Array]:
        """Return the leaves of a tree like the parameters, by path."""
        return dict(zip(self.paths, map(np.asarray, jax.tree.leaves(tree)), strict=True))

    def state_leaves_of(self, tree: Any) -> dict[str, Array]:
        """Return the leaves of a tree like ``model_state`` that torch has too, by path."""
        leaves = jax.tree.leaves(tree)
        return {self.state_paths[i]: np.asarray(leaves[i]) for i in self.state}


def _leaf(entry: Entry, tensors: Mapping[str, Any]) -> Array:
    if entry.torch_name not in tensors:
        return np.zeros(entry.shape, entry.dtype)
    # JAX may read it later than torch, or the next step, overwrites it.
    return np.array(entry.to_jax(numpy_of(tensors[entry.torch_name])), order="C")


def concrete(arrays: Iterable[Any]) -> list[Array]:
    """Return NumPy arrays of torch's or JAX's."""
    return [numpy_of(array) for array in arrays]


def mapped_as(side: JaxSide, batch: Any) -> dict[str, Any]:
    """Return what tells `interop.param_map` the leaves of a side, and the layers of its module."""
    like = side.params if side.model_state is None else {"params": side.params, **side.model_state}
    known = {"like": like if side.like is None else side.like, "flax_module": side.flax_module}
    if side.flax_module is None or side.inputs:
        return {**known, "inputs": side.inputs}
    data = jax.tree.map(numpy_of, batch)
    data = data if side.batch is None else side.batch(data)
    state = () if side.model_state is None else (side.model_state,)

    def called() -> Any:
        with told_of(data):
            return jax.eval_shape(side.apply, side.params, *state, data)

    return {**known, "inputs": called}
