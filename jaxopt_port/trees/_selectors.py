from __future__ import annotations

import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any, TypeAlias

import jax
import numpy as np

from ._paths import is_nnx_variable, nearest, nodes_of


class _Rest:
    """The parameters that no other group selects."""

    def __repr__(self) -> str:
        return "jp.REST"

    def __reduce__(self) -> str:
        return "REST"


REST = _Rest()

# A path prefix or glob, a regex, a predicate, a boolean pytree, a filter of Flax NNX, a list of
# these, or REST.
Selector: TypeAlias = (
    "str | re.Pattern[str] | Callable[[str, Any], bool] | _Rest | Sequence[Selector] | Any"
)


def is_boolean_tree(selector: Any) -> bool:
    leaves = jax.tree.leaves(selector)
    # A plain function is a leaf of itself; a callable module with boolean leaves is a tree.
    return bool(leaves) and all(isinstance(leaf, bool | np.bool_) for leaf in leaves)


def describe(selector: Selector) -> str:
    """Return a selector as an error message shows it."""
    if isinstance(selector, str):
        return f'"{selector}"'
    if isinstance(selector, re.Pattern):
        return f're.compile("{selector.pattern}")'
    if isinstance(selector, _Rest):
        return repr(selector)
    if isinstance(selector, list | tuple):
        return "[" + ", ".join(describe(s) for s in selector) + "]"
    if is_boolean_tree(selector):
        return "a boolean pytree"
    return getattr(selector, "__qualname__", repr(selector))


def _glob(pattern: str) -> re.Pattern[str]:
    """Compile whole path components: ``*`` and ``?`` within one, ``**`` for any number of them."""
    out = []
    for component in pattern.strip("/").split("/"):
        if component == "**":
            out.append(r"(?:[^/]+/)*")
        else:
            escaped = re.escape(component).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
            out.append(escaped + "/")
    # The slash that closes each component stands in the path too: see _matches.
    return re.compile("".join(out))


def _matches(selector: Selector, leaves: Mapping[str, Any], params: Any) -> list[bool]:
    if isinstance(selector, str):
        pattern = _glob(selector)
        return [pattern.match(path + "/") is not None for path in leaves]
    if isinstance(selector, re.Pattern):
        return [selector.search(path) is not None for path in leaves]
    if is_boolean_tree(selector):
        return _matches_tree(selector, params)
    if _is_nnx_filter(selector):
        return _filtered(selector, params)
    if callable(selector):
        return [_answer(selector, path, leaf) for path, leaf in leaves.items()]
    raise AssertionError(f"check_selector let {selector!r} pass")


def _answer(selector: Any, path: str, leaf: Any) -> bool:
    """Return what a predicate says of a parameter; a label of Optax's is neither yes nor no."""
    said = selector(path, leaf)
    if isinstance(said, str) or getattr(said, "ndim", 0) > 0:
        remedy = (
            "A function of labels makes a predicate for each group: "
            f"lambda path, leaf: label(path, leaf) == {said!r}"
            if isinstance(said, str)
            else "A group has a parameter as a whole"
        )
        raise TypeError(
            f'the predicate {describe(selector)} must return True or False; of "{path}" it '
            f"returned {said!r}. {remedy}"
        )
    return bool(said)


def _is_nnx_filter(selector: Any) -> bool:
    """Whether this is a class of Variables, or made by one of ``flax.nnx``'s filters."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is None:
        return False
    if isinstance(selector, type):
        return issubclass(selector, nnx.Variable)
    return bool(type(selector).__module__ == nnx.filterlib.__name__)


def _filtered(selector: Any, params: Any) -> list[bool]:
    nodes = nodes_of(params)
    if not all(is_nnx_variable(node) for _, node in nodes):
        raise TypeError(
            f"{describe(selector)} is a filter of Flax NNX, which is asked of Variables, and these "
            "parameters are arrays: give tx.init an nnx.State (nnx.state(model, nnx.Param)), or "
            "select by paths"
        )
    chosen = sys.modules["flax.nnx"].filterlib.to_predicate(selector)
    return [bool(chosen(path, node)) for path, node in nodes for _ in jax.tree.leaves(node)]


def check_selector(selector: Selector, where: str) -> None:
    """Raise for what is no selector.

    Raises:
        TypeError: anything else than a selector, the parameters themselves above all.
        ValueError: jp.REST within a list.
    """
    if isinstance(selector, Iterator | Set):
        raise TypeError(
            f"the selectors of a group{where} must stand in a list, whose order is known: got "
            f"{type(selector).__name__}; list(…) or sorted(…) makes one"
        )
    if isinstance(selector, str | re.Pattern | _Rest) or is_boolean_tree(selector):
        return
    if isinstance(selector, list | tuple):
        for part in selector:
            if isinstance(part, _Rest):
                raise ValueError(f"jp.REST cannot stand in a list{where}; give it a group")
            check_selector(part, where)
        return
    if _is_nnx_filter(selector):
        return
    holds_arrays = any(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(selector))
    if callable(selector) and not holds_arrays:
        try:
            inspect.signature(selector).bind("path", None)
        except ValueError:  # a function of C's, which does not say
            pass
        except TypeError as error:
            raise TypeError(
                f"a predicate{where} is called with the path and the leaf, (path, leaf) -> bool: "
                f"{error}"
            ) from None
        return
    raise TypeError(
        f"params argument given to the optimizer should be a path, a glob, a compiled regex, a "
        "predicate (path, leaf) -> bool, a boolean pytree, a filter of Flax NNX, a list of these, "
        "or jp.REST"
        f"{where}; got "
        + (
            "parameters themselves, which are given to tx.init(params): leave the argument out to "
            "train all of them, or select some by their paths"
            if holds_arrays
            else repr(selector)
        )
        + (f"; a number is given by its name: lr={selector}" if isinstance(selector, float) else "")
    )


def _matches_tree(selector: Any, params: Any) -> list[bool]:
    try:
        full = jax.tree.map(
            lambda chosen, part: jax.tree.map(lambda _: chosen, part), selector, params
        )
    except ValueError as error:
        raise ValueError(
            "a boolean pytree that selects parameters must have the structure of the parameters, "
            f"or be a prefix of it: {error}"
        ) from None
    return jax.tree.leaves(full)


_LIBRARIES = frozenset({"jaxopt_port", "optax", "jax", "flax", "equinox", "contextlib"})


def users_level() -> int:
    """Return the ``stacklevel`` at which the caller's warning points at the user's own line."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in _LIBRARIES:
        frame, level = frame.f_back, level + 1
    return level


class _Selection:
    """What the selectors of all groups have chosen so far, leaf by leaf."""

    def __init__(self, labels: Sequence[str], params: Any, by_path: Mapping[str, Any]) -> None:
        self.labels = labels
        self.params = params
        self.leaves = by_path
        self.paths = list(by_path)
        self.owner: list[int | None] = [None] * len(self.leaves)

    def take(self, group: int, selector: Selector) -> None:
        found = False
        parts = self._parts(selector)
        for part in parts:
            chosen = _matches(part, self.leaves, self.params)
            found |= any(chosen)
            if not any(chosen) and len(parts) > 1:
                warnings.warn(
                    f"the selector {describe(part)} of {self.labels[group]} matched no parameter"
                    f"{self._hint(part)}",
                    stacklevel=users_level(),
                )
            for leaf, is_chosen in enumerate(chosen):
                if is_chosen:
                    self._own(leaf, group)
        if not parts and self.leaves:
            raise ValueError(
                f"the list of parameters of {self.labels[group]} is empty; leave the group out, or "
                "name its parameters"
            )
        if not found and self.leaves and not getattr(selector, "may_be_empty", False):
            raise ValueError(f"{self.labels[group]} matched no parameter{self._hint(selector)}")

    def _parts(self, selector: Selector) -> Sequence[Selector]:
        if not isinstance(selector, list | tuple):
            return [selector]
        # [True, False] is a tree over parameters that are a list, not two trees.
        is_tree = is_boolean_tree(selector) and isinstance(self.params, list | tuple)
        return [selector] if is_tree else [p for part in selector for p in self._parts(part)]

    def _own(self, leaf: int, group: int) -> None:
        first = self.owner[leaf]
        if first is not None and first != group:
            raise ValueError(
                "some parameters appear in more than one parameter group: "
                f'"{self.paths[leaf]}" is in {self.labels[first]} and in {self.labels[group]}'
            )
        self.owner[leaf] = group

    def _hint(self, selector: Selector) -> str:
        if isinstance(selector, list | tuple):
            return "".join(self._hint(part) for part in selector)
        if not isinstance(selector, str):
            hint = ""
            if callable(selector) and any(is_nnx_variable(x) for _, x in nodes_of(self.params)):
                hint = (
                    " (a predicate is given arrays; a class of Variables, such as nnx.LoRAParam, "
                    "selects by itself)"
                )
            return f"; the paths are {_listed(self.paths)}{hint}"
        if "." in selector and any(_matches(selector.replace(".", "/"), self.leaves, None)):
            return f'; paths are joined by "/", not ".": "{selector.replace(".", "/")}"'
        prefixes = {
            "/".join(path.split("/")[:n])
            for path in self.paths
            for n in range(1, path.count("/") + 2)
        }
        return nearest(selector, sorted(prefixes)) or "; the paths are " + _listed(self.paths)


def in_no_group(paths: Sequence[str]) -> str:
    """Say that some parameters are in no group, and what to do."""
    more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
    return (
        f'"{paths[0]}"{more} is in no parameter group; add {{"params": jp.REST}} to train the '
        'rest, or {"params": jp.REST, "frozen": True} to leave it untouched'
    )


def _listed(paths: Sequence[str], limit: int = 8) -> str:
    shown = ", ".join(f'"{path}"' for path in paths[:limit])
    return shown + (f", … ({len(paths)} in all)" if len(paths) > limit else "")


def resolve(
    selectors: Sequence[Selector], labels: Sequence[str], params: Any, by_path: Mapping[str, Any]
) -> tuple[int, ...]:
    """Return the group of each leaf of ``params``, which are known ``by_path`` too, in order.

    Raises:
        ValueError: a leaf in two groups or in none, a group that matches nothing, jp.REST twice.
    """
    selection = _Selection(labels, params, by_path)
    rest = [i for i, selector in enumerate(selectors) if isinstance(selector, _Rest)]
    if len(rest) > 1:
        raise ValueError(
            f"jp.REST stands for what no other group selects, so only one group may have it; "
            f"{labels[rest[0]]} and {labels[rest[1]]} both do"
        )
    for group, selector in enumerate(selectors):
        if group not in rest:
            selection.take(group, selector)
    if not rest and None in selection.owner:
        pairs = zip(by_path, selection.owner, strict=True)
        raise ValueError(in_no_group([path for path, owner in pairs if owner is None]))
    return tuple([rest[0] if owner is None else owner for owner in selection.owner])
