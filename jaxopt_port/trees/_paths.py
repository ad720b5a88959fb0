"""Paths of a tree's leaves, leaves up to a prefix, nearest names."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.tree_util import FlattenedIndexKey, GetAttrKey, keystr, tree_flatten_with_path


def is_nnx_variable(x: object) -> bool:
    """Whether a node of a tree is a Variable of Flax NNX."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(x, nnx.Variable)


_WITHIN = (GetAttrKey, FlattenedIndexKey)


# The classes of Flax's whose value counts as the leaf: Variables, and Linen's boxes.
_BOXES = (("flax.nnx", "Variable"), ("flax.core.meta", "AxisMetadata"))


def nodes_of(tree: Any) -> list[tuple[tuple[Any, ...], Any]]:
    """Return the leaves, Variables whole, each with its path as NNX has it: ("layers", 0, "w")."""
    nodes = tree_flatten_with_path(tree, is_leaf=is_nnx_variable)[0]
    return [(tuple(map(_key, path)), node) for path, node in nodes]


def _key(entry: Any) -> Any:
    names = ("key", "idx", "name")
    return next((getattr(entry, name) for name in names if hasattr(entry, name)), str(entry))


def statistics_paths(tree: Any) -> list[str]:
    """Return the paths of Flax's running statistics: NNX's, and those beside Linen's parameters."""
    if isinstance(tree, Mapping) and "params" in tree and "batch_stats" in tree:
        return [path for path, _ in leaf_paths(tree) if path.startswith("batch_stats/")]
    nnx = sys.modules.get("flax.nnx")
    if nnx is None:
        return []
    nodes = tree_flatten_with_path(tree, is_leaf=is_nnx_variable)[0]
    return [
        keystr(path, simple=True, separator="/")
        for path, node in nodes
        if isinstance(node, nnx.BatchStat) and jax.tree.leaves(node)
    ]


def leaf_paths(tree: Any) -> list[tuple[str, Any]]:
    """Return ``(path, leaf)`` for each leaf of a tree, in the order of ``jax.tree.leaves``.

    Paths are ``keystr(path, simple=True, separator="/")``. An NNX Variable and a box of Linen's
    (``nn.Partitioned``) count as the leaf, so that a tree with them and its pure form have the same
    paths; one that holds no array (its parameter is masked, say) is none, and of one that holds
    several each is a leaf.
    """
    # Flax is not imported for this: where it has not been, there are none.
    boxes = tuple([getattr(sys.modules[m], name) for m, name in _BOXES if m in sys.modules])
    nodes = tree_flatten_with_path(tree)[0]
    # What is within a box is an attribute or has a number: to ask each node is dear.
    if not boxes or not any(type(key) in _WITHIN for path, _ in nodes for key in path):
        return [(keystr(path, simple=True, separator="/"), leaf) for path, leaf in nodes]
    paths = []
    for path, node in tree_flatten_with_path(tree, is_leaf=lambda x: isinstance(x, boxes))[0]:
        within = tree_flatten_with_path(node)[0] if isinstance(node, boxes) else [((), node)]
        for inner, leaf in within:
            whole = path if len(within) == 1 else (*path, *inner)
            paths.append((keystr(whole, simple=True, separator="/"), leaf))
    return paths


def leaves_up_to(params: Any, tree: Any) -> list[Any]:
    """Return what a tree has at the place of each leaf of ``params``.

    Raises:
        ValueError: the structure of ``params`` is not the upper part of the tree's.
    """
    structure: Any = jax.tree.structure(params)
    return list(structure.flatten_up_to(tree))


def raise_if(problems: list[str], what: str) -> None:
    """Raise ValueError that lists all problems."""
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise ValueError(f"{what}:{lines}")


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return names in a row, of many the first alone: "a, b, c and 9 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def nearest(word: str, candidates: Sequence[str]) -> str:
    """Say which candidates are spelled most like ``word``: '; did you mean "a" or "b"?'."""
    by_lower = {c.lower(): c for c in candidates}
    close = difflib.get_close_matches(word.lower(), list(by_lower), n=3, cutoff=0.5)
    if not close:
        return ""
    return "; did you mean " + " or ".join(f'"{by_lower[c]}"' for c in close) + "?"


def ending_alike(path: str, others: Sequence[str]) -> list[str]:
    """Return the three whose layers end most like that of ``path``, and no others where some do."""
    layer = path.split("/")[:-1]
    of_bias = path.endswith("bias")
    ends = {
        each: (common_end(layer, re.split(r"[/.]", each)[:-1]), each.endswith("bias") == of_bias)
        for each in others
    }
    most = max(ends.values(), default=None)
    return [each for each in others if ends[each] == most][:3]


def common_end(a: Sequence[str], b: Sequence[str]) -> int:
    """Return how many parts at the end of two paths are the same."""
    shared = 0
    for x, y in zip(reversed(a), reversed(b), strict=False):
        if x != y:
            break
        shared += 1
    return shared
