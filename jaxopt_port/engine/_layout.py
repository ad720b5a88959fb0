"""Parameters seen in another layout, torch's, by a rule that is not the same in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ..trees import leaf_paths
from ._step import recorder


@dataclass(frozen=True)
class LeafLayout:
    """How a rule sees a leaf: the leaf is ``flip(array.reshape(view).transpose(axes))``.

    Attributes:
        shape: of the array that the rule sees.
        view: what it is reshaped to.
        axes: how that is transposed.
        flip: the axes of the leaf that run the other way.
    """

    shape: tuple[int, ...]
    view: tuple[int, ...]
    axes: tuple[int, ...]
    flip: tuple[int, ...] = ()

    def to_rule(self, leaf: jax.Array) -> jax.Array:
        axes = tuple(int(axis) for axis in np.argsort(self.axes))
        return jnp.flip(leaf, self.flip).transpose(axes).reshape(self.shape)

    def from_rule(self, array: jax.Array) -> jax.Array:
        return jnp.flip(array.reshape(self.view).transpose(self.axes), self.flip)


# By path; a leaf that has none is seen as it is.
Layouts: TypeAlias = tuple[tuple[str, LeafLayout], ...]


def to_rule(tree: Any, layouts: Layouts) -> Any:
    """Return a tree with its leaves as the rules see them."""
    return _mapped(tree, {path: layout.to_rule for path, layout in layouts})


def to_rule_leaves(leaves: Sequence[Any], paths: Sequence[str], layouts: Layouts) -> list[Any]:
    """The same of leaves by their paths; None stays None."""
    own = dict(layouts)
    return [
        own[path].to_rule(leaf) if path in own and leaf is not None else leaf
        for path, leaf in zip(paths, leaves, strict=True)
    ]


def from_rule(updates: Any, layouts: Layouts) -> Any:
    """Undo `to_rule` for updates, and for the new parameters that `jp.step` finds behind them."""
    recording = recorder.get()

    def moved(layout: LeafLayout) -> Any:
        def move(update: jax.Array) -> jax.Array:
            back = layout.from_rule(update)
            if recording is not None:
                recording.follow(update, back, layout.from_rule)
            return back

        return move

    return _mapped(updates, {path: moved(layout) for path, layout in layouts})


def _mapped(tree: Any, changes: Mapping[str, Any]) -> Any:
    if not changes:
        return tree
    leaves = [changes.get(path, lambda x: x)(leaf) for path, leaf in leaf_paths(tree)]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)
