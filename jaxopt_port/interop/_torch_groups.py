"""A grouped optimizer built from the groups of torch's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..checkpoint import IMPLEMENTATION, SCHEDULERS
from ..engine import REST, Arguments, Definition, Optimizer, Resumed, arguments_of, leaf_paths
from ._optimizer_layout import rule_layouts
from .mapping import ParamMap

# Kept among a group's entries where its parameters are not in the module's order.
ORDER = "param_order"


def built(
    factory: Any,
    laid_out: Mapping[str, Any],
    torch_dict: Mapping[str, Any],
    params: Any,
    param_map: ParamMap,
    elementwise: bool,
) -> Optimizer:
    arguments = arguments_of(factory)
    rank = {name: i for i, name in enumerate(param_map.torch_names)}
    groups, resumed = [], {}
    pairs = zip(laid_out["param_groups"], torch_dict["param_groups"], strict=True)
    for i, (group, torch_group) in enumerate(pairs):
        options = {k: v for k, v in group.items() if k in arguments.names}
        lacking = [name for name in arguments.names if name not in options]
        if lacking:
            raise ValueError(
                f"group {i} of torch's optimizer has no {', '.join(map(repr, lacking))}; it is "
                f"not that of {factory.__name__}, or of an older torch: load it there and save it"
            )
        known = (*arguments.names, "params", "param_names", "name", "update_count")
        extras = {k: v for k, v in group.items() if k not in known}
        own = {
            k: extras.pop(k)
            for k, v in list(extras.items())
            if k not in (*IMPLEMENTATION, *SCHEDULERS) and type(v) in (int, float)
        }
        names = [param_map.aliases.get(name, name) for name in torch_group["param_names"]]
        if names != sorted(names, key=lambda name: rank.get(name, len(rank))):
            extras[ORDER] = tuple(names)
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
    definition = Definition(factory, arguments, arguments.defaults())
    definition = definition.extended(groups, resumed)
    if not elementwise:
        layouts = rule_layouts(param_map, given)
        definition = Definition(
            factory, arguments, definition.defaults, definition.members, layouts
        )
    return Optimizer.of(definition)


class Paths:
    """Selects leaves by their whole paths."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = frozenset(paths)

    def __call__(self, path: str, leaf: Any) -> bool:
        return path in self.paths

    def __repr__(self) -> str:
        first = sorted(self.paths)[:2]
        more = len(self.paths) - len(first)
        shown = ", ".join(f'"{path}"' for path in first)
        return f"[{shown} and {more} more]" if more else f"[{shown}]"


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
