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
# What has a meaning in the groups of this library, which torch's optimizers are not given.
_MEANT_HERE = ("frozen", "optimizer", "resting", UNTRAINED, ORDER)


def with_own_keys(torch_dict: Mapping[str, Any], arguments: Arguments) -> dict[str, Any]:
    """Return torch's state dict, flags as booleans, without keys that no state here can keep.

    Raises:
        ValueError: a key of the user's own has a meaning in the groups of this library.
    """
    flags = {name for name, value in arguments.defaults.items() if isinstance(value, bool)}
    groups, lost = [], []
    for i, group in enumerate(torch_dict["param_groups"]):
        meant = [key for key in _MEANT_HERE if key in group and key not in arguments.names]
        ours = (("update_count", int, 0), ("name", str, ""))
        meant += [key for key, kind, usual in ours if not isinstance(group.get(key, usual), kind)]
        if meant:
            raise ValueError(
                f"group {i} of torch's optimizer has {meant[0]!r} as a key of its own, which means "
                f'something else in the groups here: rename it, as group["my_{meant[0]}"] = '
                f'group.pop("{meant[0]}")'
            )
        whole = {k: bool(v) if k in flags and _is_flag(v) else v for k, v in group.items()}
        passed = (*arguments.names, *_KEPT, *_FIXED)
        out = [k for k, v in whole.items() if k not in passed and not _can_be_kept(v)]
        groups.append({k: v for k, v in whole.items() if k not in out})
        lost += [f"{key} of group {i}" for key in out]
    if lost:
        warnings.warn(
            f"{listed(lost)} left out: numbers, texts, lists of them and what else can be hashed"
            " are kept of the keys of one's own; set it anew where it is needed",
            CheckpointWarning,
            stacklevel=users_level(),
        )
    return {**torch_dict, "param_groups": groups}


def _is_flag(value: Any) -> bool:
    return value is None or isinstance(value, int | np.bool_)


def _can_be_kept(value: Any) -> bool:
    try:
        hash(_as_key(value))
    except TypeError:
        return False
    return True


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
        # What the optimizer itself has no default of is none of its options.
        known = frozenset(own).difference(usual) if usual else frozenset()
        try:
            arguments.are_own(own, f" (group {i})", known)
        except TypeError as error:
            raise TypeError(
                f"{error}. Where it is a key of your own in torch's groups, rename it, as"
                ' group["my_key"] = group.pop("key")'
            ) from None
        given = extras.get(ORDER, torch_group["param_names"])
        names = tuple(param_map.aliases.get(name, name) for name in given)
        in_order = tuple(sorted(names, key=lambda name: rank.get(name, len(rank))))
        if ORDER in extras or names != in_order:
            extras[ORDER] = names
        held = {name for p in group["params"] for name in laid_out["state"].get(p, {})}
        more = holds_more(arguments, options, held)
        resumed[i] = Resumed(tuple(extras.items()), more, known)
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
