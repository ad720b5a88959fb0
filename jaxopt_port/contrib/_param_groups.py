"""Parameter groups as timm and Hugging Face make them of a model, made of a tree of parameters.

Both go by torch's names and shapes. Of a tree alone, a name is the path with dots; a map of
`jaxopt_port.interop.param_map` has torch's own, also where an array is laid out otherwise here.
"""

from __future__ import annotations

import fnmatch
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import optax

from ..trees import leaf_paths, listed, users_level

Group: TypeAlias = dict[str, Any]
# timm's: by name of a layer's kind, a regex or several with what is appended to its groups.
Matcher: TypeAlias = Mapping[str, Any] | Callable[[str], Any]

# timm's ordinal of what belongs to the layer before it.
_PREVIOUS = 99999
_NO_DECAY = (r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)")


class _Named(NamedTuple):
    """A leaf, and torch's name and number of axes."""

    path: str
    name: str
    ndim: int


def named_leaves(params: Any, param_map: Any) -> list[_Named]:
    """Return the leaves in torch's order, where there is a map, and its names and axes."""
    if isinstance(params, optax.GradientTransformation):
        raise TypeError(f"params must be the parameters; got the optimizer {params!r}")
    leaves = dict(leaf_paths(params))
    if param_map is None:
        return [_Named(p, p.replace("/", "."), np.ndim(leaf)) for p, leaf in leaves.items()]
    entries = {entry.path: entry for entry in param_map.entries if not entry.buffer}
    unknown = [path for path in leaves if path not in entries]
    if unknown:
        raise ValueError(f"the map has no leaf {', '.join(map(repr, unknown))}")
    rank = {name: i for i, name in enumerate(param_map.torch_names)}
    named = [
        _Named(path, entries[path].torch_name, len(entries[path].torch_shape)) for path in leaves
    ]
    return sorted(named, key=lambda leaf: rank[leaf.name])


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _check_listed(**lists: Collection[str] | None) -> None:
    """Raise TypeError for one string where several are meant: it would be taken by its letters."""
    for name, given in lists.items():
        if isinstance(given, str):
            raise TypeError(f"{name} must be a list, also of one: [{given!r}]")


def _fallbacks(
    fallback_list: Collection[str], no_weight_decay_list: Collection[str], merged: bool
) -> set[str]:
    return {*fallback_list, *(no_weight_decay_list if merged else ())}


def param_groups_weight_decay(
    params: Any,
    weight_decay: float = 1e-5,
    weight_decay_exclude_1d: bool = True,
    no_weight_decay_list: Collection[str] = (),
    fallback_list: Collection[str] = (),
    fallback_no_weight_decay: bool = False,
    *,
    param_map: Any = None,
) -> list[Group]:
    """Return groups with weight decay and without: ``timm.optim.param_groups_weight_decay``.

    Args:
        params: the parameters.
        weight_decay: of the group that decays; 0 makes one group of all.
        weight_decay_exclude_1d: whether biases and what has one axis or none do not decay.
        no_weight_decay_list: patterns (``fnmatch``'s) of torch's names that do not decay either.
        fallback_list: patterns of what gets ``"use_fallback": True``, in groups of its own.
        fallback_no_weight_decay: whether ``no_weight_decay_list`` does, too.
        param_map: from `jaxopt_port.interop.param_map`, for torch's names, shapes and order.

    Returns:
        Groups, as any optimizer here takes them.

    Raises:
        ValueError: leaves that the map does not have.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> from jaxopt_port.contrib import param_groups_weight_decay
        >>> params = {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}
        >>> groups = param_groups_weight_decay(params, 0.05)
        >>> [(group["params"], group["weight_decay"]) for group in groups]
        [(['dense/bias'], 0.0), (['dense/kernel'], 0.05)]
        >>> state = jp.AdamW(groups, lr=1e-3).init(params)
    """
    _check_listed(no_weight_decay_list=no_weight_decay_list, fallback_list=fallback_list)
    fallbacks = _fallbacks(fallback_list, no_weight_decay_list, fallback_no_weight_decay)
    paths: dict[tuple[bool, bool], list[str]] = {}
    for path, name, ndim in named_leaves(params, param_map):
        excluded = weight_decay_exclude_1d and (ndim <= 1 or name.endswith(".bias"))
        decays = bool(weight_decay) and not (excluded or _matches(name, no_weight_decay_list))
        paths.setdefault((_matches(name, fallbacks), decays), []).append(path)
    return [
        {
            "params": paths[fallback, decays],
            "weight_decay": weight_decay if decays else 0.0,
            **({"use_fallback": True} if fallback else {}),
        }
        for fallback, decays in sorted(paths)
    ]


def _layers(names: Iterable[str], matcher: Matcher) -> dict[str, int]:
    """Return the layer of each name, from 0 on: timm's ``group_parameters(..., reverse=True)``."""
    compiled = []
    if isinstance(matcher, Mapping):
        for ordinal, spec in enumerate(matcher.values()):
            several = spec if isinstance(spec, tuple | list) else [(spec, None)]
            compiled += [(re.compile(r), (ordinal,), end) for r, end in several if r is not None]

    def ordinals(name: str) -> tuple[float, ...]:
        if callable(matcher):
            found = matcher(name)
            return tuple(found) if isinstance(found, Iterable) else (found,)
        for pattern, first, last in compiled:
            if match := pattern.match(name):
                parts = filter(None, (first, match.groups(), last))
                return tuple(map(float, chain.from_iterable(parts)))
        return (float("inf"),)

    of_name = {name: ordinals(name) for name in names}
    if isinstance(matcher, Mapping):
        found = {key[0] for key in of_name.values()}
        given = {i: repr(kind) for i, kind in enumerate(matcher) if matcher[kind] is not None}
        if unused := [kind for i, kind in given.items() if i not in found]:
            warnings.warn(
                f"group_matcher: no parameter is of {listed(unused)}, and what nothing matches is "
                f"of the last layer; the names are {listed(list(of_name))}",
                stacklevel=users_level(),
            )
    layer, layers = -1, {}
    for key in sorted(set(of_name.values())):
        if layer < 0 or key[-1] != _PREVIOUS:
            layer += 1
        layers[key] = layer
    return {name: layers[key] for name, key in of_name.items()}


def param_groups_layer_decay(
    params: Any,
    weight_decay: float = 0.05,
    no_weight_decay_list: Collection[str] = (),
    fallback_list: Collection[str] = (),
    fallback_no_weight_decay: bool = False,
    weight_decay_exclude_1d: bool = True,
    layer_decay: float = 0.75,
    min_scale: float = 0.0,
    no_opt_scale: float | None = None,
    *,
    group_matcher: Matcher,
    param_map: Any = None,
) -> list[Group]:
    r"""Return groups whose ``"lr_scale"`` falls from the last layer to the first.

    The counterpart of ``timm.optim.param_groups_layer_decay`` (BEiT's layer decay, LLRD). timm's
    schedulers multiply by ``"lr_scale"``, here as there; other loops have to.

    Args:
        params: the parameters.
        weight_decay: of what decays.
        no_weight_decay_list: patterns (``fnmatch``'s) of torch's names that do not decay.
        fallback_list: patterns of what gets ``"use_fallback": True``, in groups of its own.
        fallback_no_weight_decay: whether ``no_weight_decay_list`` does, too.
        weight_decay_exclude_1d: whether what has one axis or none does not decay.
        layer_decay: the scale of a layer, of that of the next.
        min_scale: the least scale.
        no_opt_scale: layers whose scale is below this are frozen.
        group_matcher: which layer a name is in: what a timm model's ``group_matcher()`` returns, a
            dict of regexes, or a function of the name that returns a number (the depth).
        param_map: from `jaxopt_port.interop.param_map`, for torch's names, shapes and order.

    Returns:
        Groups, as any optimizer here takes them; what is frozen is the last.

    Raises:
        ValueError: leaves that the map does not have, or no leaves.
        TypeError: a string in the place of a list of them.

    Warns:
        UserWarning: the regexes of a layer's kind match no name.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxopt_port.contrib import param_groups_layer_decay
        >>> params = {f"layers_{i}": {"kernel": jnp.ones((2, 2))} for i in range(3)}
        >>> groups = param_groups_layer_decay(
        ...     params, layer_decay=0.5, group_matcher={"layers": r"^layers_(\d+)"}
        ... )
        >>> [(group["params"], group["lr_scale"]) for group in groups]
        [(['layers_0/kernel'], 0.25), (['layers_1/kernel'], 0.5), (['layers_2/kernel'], 1.0)]
    """
    _check_listed(no_weight_decay_list=no_weight_decay_list, fallback_list=fallback_list)
    fallbacks = _fallbacks(fallback_list, no_weight_decay_list, fallback_no_weight_decay)
    named = named_leaves(params, param_map)
    if not named:
        raise ValueError("the tree has no parameters, of which layers could be made")
    layers = _layers([leaf.name for leaf in named], group_matcher)
    last = max(layers.values())
    groups: dict[tuple[int, bool, bool], Group] = {}
    frozen: list[str] = []
    for path, name, ndim in named:
        scale = max(min_scale, layer_decay ** (last - layers[name]))
        if no_opt_scale and scale < no_opt_scale:
            frozen.append(path)
            continue
        excluded = weight_decay_exclude_1d and ndim <= 1
        decays = not (excluded or _matches(name, no_weight_decay_list))
        fallback = _matches(name, fallbacks)
        group = groups.setdefault(
            (layers[name], decays, fallback),
            {"lr_scale": scale, "weight_decay": weight_decay if decays else 0.0, "params": []}
            | ({"use_fallback": True} if fallback else {}),
        )
        group["params"].append(path)
    return [*groups.values(), *([{"params": frozen, "frozen": True}] if frozen else [])]


def param_groups_decay_names(
    params: Any,
    weight_decay: float,
    *,
    layer_norms: Collection[str] | None = None,
    param_map: Any = None,
) -> list[Group]:
    """Return the two groups of Hugging Face's ``Trainer``: with weight decay, and without.

    What is called a bias or a norm, and what is in an ``nn.LayerNorm``, does not decay.

    Args:
        params: the parameters.
        weight_decay: of the first group.
        layer_norms: torch's names of the layers that are an ``nn.LayerNorm``; by default those
            whose leaf is called ``scale`` here.
        param_map: from `jaxopt_port.interop.param_map`, for torch's names and order.

    Returns:
        Two groups, as any optimizer here takes them, or one where there is nothing in the other.

    Raises:
        ValueError: leaves that the map does not have.
    """
    _check_listed(layer_norms=layer_norms)

    def decays(leaf: _Named) -> bool:
        if any(re.search(pattern, leaf.name.lower()) for pattern in _NO_DECAY):
            return False
        if layer_norms is None:
            return leaf.path.rsplit("/", 1)[-1] != "scale"
        return not any(leaf.name.startswith(f"{layer}.") for layer in layer_norms)

    named = named_leaves(params, param_map)
    groups = [
        {"params": [x.path for x in named if decays(x)], "weight_decay": weight_decay},
        {"params": [x.path for x in named if not decays(x)], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
