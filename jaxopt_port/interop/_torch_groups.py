"""A grouped optimizer built from the groups of torch's."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..checkpoint import ELSEWHERE, with_late_options
from ..engine import (
    IMPLEMENTATIONS,
    REST,
    UNTRAINED,
    Arguments,
    Definition,
    Optimizer,
    Resumed,
    arguments_of,
    leaf_paths,
)
from ..trees import listed, users_level
from ._optimizer_layout import ORDER, rule_layouts
from ._warnings import CheckpointWarning
from .mapping import ParamMap

# Entries of a group that are neither options nor keys of the user's own.
_FIXED = ("params", "param_names", "name", "update_count", "resting")
_KEPT = (*IMPLEMENTATIONS, *ELSEWHERE, UNTRAINED, ORDER)


def built(
    factory: Any,
    laid_out: Mapping[str, Any],
    torch_dict: Mapping[str, Any],
    params: Any,
    param_map: ParamMap,
    elementwise: bool,
    usual: Mapping[str, Any],
) -> Optimizer:
    """Return the optimizer of groups; ``usual`` are the defaults of torch's, as far as known."""
    arguments = arguments_of(factory)
    late: dict[str, None] = {}
    rank = {name: i for i, name in enumerate(param_map.torch_names)}
    groups, resumed = [], {}
    pairs = zip(laid_out["param_groups"], torch_dict["param_groups"], strict=True)
    for i, (group, torch_group) in enumerate(pairs):
        group, filled = with_late_options(group, arguments.names)
        late |= dict.fromkeys(filled)
        options = {k: v for k, v in group.items() if k in arguments.names}
        if isinstance(rate := options.get("lr"), float) and rate < 0:  # a scheduler has set it:
            options["lr"] = arguments.defaults["lr"]  # it comes with the state
        lacking = [name for name in arguments.names if name not in options]
        if lacking:
            raise ValueError(
                f"group {i} of torch's optimizer has no {', '.join(map(repr, lacking))}; it is "
                f"not that of {factory.__name__}"
            )
        extras = {k: v for k, v in group.items() if k not in (*arguments.names, *_FIXED)}
        own = {k: _as_key(extras.pop(k)) for k in list(extras) if k not in _KEPT}
        given = extras.get(ORDER, torch_group["param_names"])
        names = tuple(param_map.aliases.get(name, name) for name in given)
        in_order = tuple(sorted(names, key=lambda name: rank.get(name, len(rank))))
        if ORDER in extras or names != in_order:
            extras[ORDER] = names
        held = {name for p in group["params"] for name in laid_out["state"].get(p, {})}
        resumed[i] = Resumed(tuple(extras.items()), holds_more(arguments, options, held))
        named = {"name": group["name"]} if isinstance(group.get("name"), str) else {}
        groups.append({"params": Paths(group["param_names"]), **named, **options, **own})
    given = {path for group in laid_out["param_groups"] for path in group["param_names"]}
    paths = [path for path, _ in leaf_paths(params)]
    if not given <= set(paths):
        missing = sorted(given - set(paths))
        raise ValueError(
            f"torch's optimizer has parameters that the tree has not: {', '.join(missing)}"
        )
    if len(given) < len(paths):
        groups.append({"params": REST, "frozen": True})
    if late:
        warnings.warn(
            f"the optimizer's state is of an older torch, without {', '.join(late)}; torch's own "
            "defaults are filled in, as torch does when it loads it",
            CheckpointWarning,
            stacklevel=users_level(),
        )
    defaults = {k: usual.get(k, default) for k, default in arguments.defaults.items()}
    definition = Definition(factory, arguments, defaults)
    definition = definition.extended(groups, resumed)
    if not elementwise:
        layouts = rule_layouts(param_map, given)
        definition = Definition(
            factory, arguments, definition.defaults, definition.members, layouts
        )
    return Optimizer.of(definition)


def with_options_of(factory: Any, laid_out: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state dict with the options of a factory of the user's, and a word of the rest."""
    names = arguments_of(factory).names
    defaults = arguments_of(factory).defaults
    known = {*names, *_FIXED, *_KEPT}
    odd = {k: v for group in laid_out["param_groups"] for k, v in group.items() if k not in known}
    if odd:
        warnings.warn(
            f"{factory.__name__} has no {', '.join(odd)}, which torch's groups have ("
            + ", ".join(f"{name}={value!r}" for name, value in odd.items())
            + "): kept, and of no effect",
            CheckpointWarning,
            stacklevel=users_level(),
        )
    groups = [{**defaults, **group} for group in laid_out["param_groups"]]
    return {**laid_out, "param_groups": groups}


def _as_key(value: Any) -> Any:
    """Return a key of the user's own as a static value that can be hashed, where it is a list."""
    if isinstance(value, list | tuple):
        return tuple(map(_as_key, value))
    return value.item() if hasattr(value, "item") and np.size(value) == 1 else value


class Paths:
    """Selects leaves by their whole paths; none is a group without parameters."""

    may_be_empty = True

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = frozenset(paths)

    def __call__(self, path: str, leaf: Any) -> bool:
        return path in self.paths

    def __repr__(self) -> str:
        shown = listed([f'"{path}"' for path in sorted(self.paths)], 2)
        return f"[{shown}]"


def holds_more(arguments: Arguments, options: Mapping[str, Any], held: set[str]) -> bool:
    """Whether torch holds what these numbers would not need: they have been changed."""
    rule = arguments.rule
    needed = None if rule is None else rule.holds(**options)
    return needed is not None and bool(held - needed)


def with_frozen(laid_out: dict[str, Any], params: Any) -> dict[str, Any]:
    """Return the state dict with a group of the leaves that no group has."""
    groups = laid_out["param_groups"]
    given = [path for group in groups for path in group["param_names"]]
    rest = [path for path, _ in leaf_paths(params) if path not in set(given)]
    if not rest:
        return laid_out
    indices = list(range(len(given), len(given) + len(rest)))
    return {
        **laid_out,
        "param_groups": [*groups, {"frozen": True, "params": indices, "param_names": rest}],
    }
