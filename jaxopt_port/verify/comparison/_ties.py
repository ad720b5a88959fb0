"""Parameters that only one side ties: one tensor for two layers there, two of them here."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from ...interop import ParamMap
from ..report import Cause
from ._results import Place

Make = Callable[..., ParamMap]


class Tie(NamedTuple):
    """What one side ties.

    Attributes:
        torch_names: of the tensors, or of the one tensor.
        paths: of the leaves, or of the one leaf.
    """

    torch_names: tuple[str, ...]
    paths: tuple[str, ...]

    @property
    def by_torch(self) -> bool:
        """Whether it is torch's side that ties."""
        return len(self.paths) > 1


def mapped(module: Any, make: Make) -> tuple[ParamMap, list[Tie]]:
    """Return the parameter map, and what one side alone ties.

    Args:
        module: torch's.
        make: ``make(module, strict=True)``: the map of a module.

    Raises:
        ValueError: as ``make``, where ties do not explain it.
    """
    try:
        return make(module, strict=True), []
    except ValueError:
        found = _tied_by_torch(module, make) or _tied_here(module, make)
        if found is None:
            raise
        return found


def _tied_by_torch(module: Any, make: Make) -> tuple[ParamMap, list[Tie]] | None:
    """Return the map of both leaves to torch's one tensor."""
    names: dict[int, list[str]] = {}
    for name, p in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(p), []).append(name)
    groups = [group for group in names.values() if len(group) > 1]
    if not groups:
        return None
    apart = copy.deepcopy(module)
    first = {other: group[0] for group in groups for other in group[1:]}
    for name in first:
        layer, _, leaf = name.rpartition(".")
        owner = apart.get_submodule(layer)
        setattr(owner, leaf, copy.deepcopy(getattr(owner, leaf)))
    try:
        made = make(apart, strict=True)
    except ValueError:
        return None
    entries = tuple(
        dataclasses.replace(e, torch_name=first.get(e.torch_name, e.torch_name))
        for e in made.entries
    )
    paths = {
        group[0]: tuple(e.path for e in entries if e.torch_name == group[0]) for group in groups
    }
    ties = [Tie(tuple(group), paths[group[0]]) for group in groups if len(paths[group[0]]) > 1]
    kept = tuple(name for name in made.torch_names if name not in first)
    return dataclasses.replace(made, entries=entries, torch_names=kept), ties


def _tied_here(module: Any, make: Make) -> tuple[ParamMap, list[Tie]] | None:
    """Return the map without the tensors in whose place another one's leaf may stand.

    One of the two is an embedding: of others, equal shapes are no sign, and a layer is missing.
    """
    try:
        made = make(module, strict=False)
    except ValueError:
        return None
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    held = {e.torch_name: e.path for e in made.entries}
    ties = []
    for name in (name for name in shapes if name not in held):
        like = [
            n
            for n in held
            if shapes.get(n) in (shapes[name], shapes[name][::-1])
            and (_embeds(module, n) or _embeds(module, name))
        ]
        if not like or len(shapes[name]) < 2:
            return None
        ties.append(Tie((like[0], name), (held[like[0]],)))
    return (made, ties) if ties else None


def _embeds(module: Any, name: str) -> bool:
    return type(module.get_submodule(name.rpartition(".")[0])).__name__ == "Embedding"


def finding(tie: Tie) -> tuple[Place, str, str, Cause]:
    """Return what a report says of it: the arguments of `Results.add`."""
    names, paths = " and ".join(tie.torch_names), " and ".join(tie.paths)
    if tie.by_torch:
        words = f"torch ties {names}; your side has {paths}, which are trained apart"
        remedy = "keep one leaf for both (nnx.Embed.attend, or x @ embedding.T)"
    else:
        words = (
            f"torch's {tie.torch_names[1]} is a tensor of its own, and your side has no leaf for "
            f"it: {paths} may stand in its place (tied)"
        )
        remedy = f"give your side a leaf for {tie.torch_names[1]}, or tie the two in torch"
    place = Place(0, "parameters", tie.paths[-1], tie.torch_names[-1])
    why = "Which tensors are one is no matter of numbers."
    return place, words, why, Cause("tied-parameters", words, remedy)
