"""State dicts of optimizers with the names and layouts of the other side; NumPy, no torch."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoint import StateDict, check_structure
from ..engine import UNTRAINED, LayoutWarning, LeafLayout, Optimizer, leaf_paths
from ..trees import raise_if
from . import _flat_vectors as flat_vectors
from ._order_by_shapes import shape_of
from .mapping import Entry, ParamMap, by_tensor
from .mapping import param_map as map_of

if TYPE_CHECKING:
    import torch


# Kept among a group's entries, as `UNTRAINED` is: torch's names, if not in the module's order.
ORDER = "param_order"


def to_jax_layout(
    state_dict: Mapping[str, Any], param_map: ParamMap, *, elementwise: bool = True
) -> StateDict:
    """Return torch's state dict with JAX paths and layouts, as `jp.load_state_dict` takes it.

    Args:
        state_dict: torch's, with NumPy leaves and ``param_names`` in each group.
        param_map: which leaf is which tensor.
        elementwise: whether the optimizer's arrays follow their parameter's layout. Those of
            Adafactor and Muon stay as torch has them; see `in_torch_layout`.

    Raises:
        ValueError: no state dict, no names, or names and shapes that the map does not have; all
            are listed.
    """
    check_structure(state_dict)
    entries = _by_name(param_map)
    problems: list[str] = []
    state: dict[int, dict[str, Any]] = {}
    groups, count = [], 0
    for i, group in enumerate(state_dict["param_groups"]):
        names = group.get("param_names")
        if names is None:
            if not group["params"]:
                groups.append({**group, "params": [], "param_names": []})
                continue
            raise ValueError(
                f"group {i} of the state dict has no 'param_names', and which parameter is which "
                "does not follow from their number, nor, where module= is given, from its order "
                "and their shapes, which allow several divisions or none; pass param_names, a list "
                "for each group in the order in which the optimizer was given the parameters: of "
                f"one group {_names_of_one_group(state_dict, param_map)}"
            )
        names = [param_map.aliases.get(name, name) for name in names]
        problems += [f"{n}: the map has no such parameter" for n in names if n not in entries]
        own = [entry for name in names for entry in entries.get(name, [])]
        paths = [entry.path for entry in own]
        index_of = dict(zip(names, group["params"], strict=True))
        for k, entry in enumerate(own):
            held = state_dict["state"].get(index_of[entry.torch_name], {})
            if held and not flat_vectors.is_in(held):
                state[count + k] = {
                    n: _leaf(v, n, entry, elementwise, problems) for n, v in held.items()
                }
        vectors = state_dict["state"].get(group["params"][0], {}) if names else {}
        if flat_vectors.is_in(vectors) and not problems:
            leaves = [entry for entry in param_map.entries if entry.path in paths]
            given = [param_map.aliases.get(name, name) for name in group.get(ORDER, names)]
            tensors = [entries[name][0] for name in given if name in entries]
            # In the order of the leaves, whose first has them.
            at = count + paths.index(leaves[0].path)
            state[at] = flat_vectors.to_jax(vectors, tensors, leaves)
        group = {**group, "params": list(range(count, count + len(paths))), "param_names": paths}
        if isinstance(group.get("resting"), list):
            rest = {param_map.aliases.get(name, name) for name in group["resting"]}
            group["resting"] = [entry.path for entry in own if entry.torch_name in rest]
        groups.append(group)
        count += len(paths)
    raise_if(problems, "the state dict does not fit the map")
    return {"state": state, "param_groups": groups}


def _names_of_one_group(state_dict: Mapping[str, Any], param_map: ParamMap) -> str:
    """Return the code that lists the names of an optimizer's parameters, as far as it is known."""
    given = [index for group in state_dict["param_groups"] for index in group["params"]]
    held = [shape_of(state_dict["state"].get(index, {})) for index in given]
    shapes = {e.torch_name: e.torch_shape for e in param_map.entries if not e.buffer}
    names = param_map.torch_names
    if len(given) == len(names):
        return "[name for name, _ in module.named_parameters()]"
    parts = {name.partition(".")[0] + "." for name in names if "." in name}
    chosen = {
        f'name.startswith("{part}")': [n for n in names if n.startswith(part)] for part in parts
    }
    chosen["p.ndim == 2"] = [name for name in names if len(shapes.get(name, ())) == 2]
    fitting = [
        condition
        for condition, some in chosen.items()
        if len(some) == len(given)
        and all(own in (None, shapes.get(name)) for own, name in zip(held, some, strict=True))
    ]
    condition = fitting[0] if len(fitting) == 1 else "…"
    return (
        f"[name for name, p in module.named_parameters() if {condition}]: the optimizer has"
        f" {len(given)} parameters, the module {len(names)}"
    )


def to_torch_layout(
    state_dict: Mapping[str, Any],
    param_map: ParamMap,
    *,
    elementwise: bool = True,
    order: Iterable[str] = (),
) -> StateDict:
    """Return a state dict with torch's names and layouts: undoes `to_jax_layout`.

    Frozen groups are left out: torch's optimizer is not given their parameters.

    Args:
        state_dict: as `jp.state_dict` returns it.
        param_map: which leaf is which tensor.
        elementwise: see `to_jax_layout`.
        order: torch's names, of groups that have not the module's order, in theirs.

    Raises:
        ValueError: no state dict, paths that the map does not have, or a tensor of torch whose
            parts are in different groups or hold different things; all are listed.
    """
    check_structure(state_dict)
    entries, problems = _by_name(param_map), list[str]()
    owner = {entry.path: entry.torch_name for entry in param_map.entries}
    rank = {name: i for i, name in enumerate(param_map.torch_names)}
    rank |= {name: i for i, name in enumerate(order)}
    state: dict[int, dict[str, Any]] = {}
    groups, count = [], 0
    for group in state_dict["param_groups"]:
        if group.get("frozen"):
            continue
        index_of = dict(zip(group["param_names"], group["params"], strict=True))
        problems += [f"{path}: the map has no such leaf" for path in index_of if path not in owner]
        untrained = set(group.get(UNTRAINED, ()))
        names = sorted(
            {owner[path] for path in index_of if path in owner} | untrained,
            key=lambda name: rank.get(name, len(rank)),
        )
        vectors: dict[str, Any] = {}
        for k, name in enumerate(names):
            if name in untrained:
                continue
            lacking = [e.path for e in entries[name] if e.path not in index_of]
            if lacking:
                problems.append(f"{name}: {lacking} are in another group than its other parts")
                continue
            parts = [state_dict["state"].get(index_of[e.path], {}) for e in entries[name]]
            if any(map(flat_vectors.is_in, parts)):
                (vectors,) = filter(flat_vectors.is_in, parts)
            elif any(parts):
                state[count + k] = _joined(name, entries[name], parts, elementwise, problems)
        if vectors:
            unknown = untrained - entries.keys()
            problems += [f"{name}: the map has no such parameter" for name in sorted(unknown)]
        if vectors and not problems:
            leaves = [entry for entry in param_map.entries if entry.path in index_of]
            tensors = [entries[name][0] for name in names]
            state[count] = flat_vectors.to_torch(vectors, tensors, leaves)
        kept = {k: v for k, v in group.items() if k not in (UNTRAINED, "resting")}
        indices = list(range(count, count + len(names)))
        groups.append({**kept, "params": indices, "param_names": names})
        count += len(names)
    raise_if(problems, "the state dict does not fit the map")
    return {"state": state, "param_groups": groups}


def rule_layouts(param_map: ParamMap, paths: Iterable[str]) -> tuple[tuple[str, LeafLayout], ...]:
    """Return how torch's optimizer sees the leaves that it sees in another layout.

    Raises:
        ValueError: leaves that are parts of one tensor of torch, which an optimizer that looks at
            whole arrays cannot treat one by one; all are listed.
    """
    wanted, layouts, problems = set(paths), [], list[str]()
    for entry in param_map.entries:
        if entry.path not in wanted:
            continue
        if entry.rows is not None:
            problems.append(f"{entry.path} is a part of torch's {entry.torch_name}")
        elif not _is_plain(entry):
            view = entry.view or entry.torch_shape
            axes = entry.axes or tuple(range(len(view)))
            layouts.append((entry.path, LeafLayout(entry.torch_shape, view, axes, entry.flip)))
    raise_if(problems, "this optimizer looks at whole arrays, and torch's are packed differently")
    return tuple(layouts)


def in_torch_layout(
    tx: Optimizer,
    params: Any,
    param_map: ParamMap | torch.nn.Module | None = None,
    *,
    module: torch.nn.Module | None = None,
) -> Optimizer:
    """Return an optimizer whose rules see their parameters as torch has them.

    Muon scales its step by the rows of an array, and Adafactor factors its last two axes: on Flax's
    kernels their steps are others than on torch's weights. Here ``tx.update`` lays them out and
    back; the parameters stay as they are. To be called before ``init``.

    Args:
        tx: an optimizer of this library with groups, such as ``jp.Muon(lr=0.02)``.
        params: the parameters, or their shapes.
        param_map: from `param_map`, or the torch module itself: which leaf is which tensor.
        module: the torch module, instead. Without either, leaves called "kernel" are taken for
            Flax's: (in, out), and (…, in, out) of convolutions.

    Returns:
        A new optimizer.

    Raises:
        ValueError: a kernel of three axes without a map, which may be a convolution's or an
            attention's; leaves that are parts of one tensor of torch.
        TypeError: an optimizer without groups.

    Example:
        >>> import jax.numpy as jnp, jaxopt_port as jp
        >>> params = {"dense": {"kernel": jnp.ones((2, 8))}}
        >>> tx = in_torch_layout(jp.Muon(lr=0.02), params)
        >>> tx.init(params).leaves["momentum_buffer"]["dense"]["kernel"].shape
        (8, 2)
    """
    if not isinstance(tx, Optimizer):
        raise TypeError(
            "in_torch_layout takes an optimizer with groups, as jp.Muon or jp.param_groups makes "
            f"it; got {type(tx).__name__}"
        )
    if isinstance(params, ParamMap) or hasattr(params, "named_parameters"):
        raise TypeError(
            "the second argument is the parameters: in_torch_layout(tx, params, param_map), or "
            f"with module=; got {type(params).__name__}"
        )
    given = module if param_map is None else param_map
    if given is None:
        layouts = tuple(_of_kernels(params))
    else:
        mapped = given if isinstance(given, ParamMap) else map_of(given, params)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LayoutWarning)
            table = tx.definition.table(params)
        whole = [path for path, rule in table.rules.items() if rule and not rule.elementwise]
        layouts = rule_layouts(mapped, whole)
    return type(tx).of(dataclasses.replace(tx.definition, layouts=layouts))


def _of_kernels(params: Any) -> Iterator[tuple[str, LeafLayout]]:
    for path, leaf in leaf_paths(params):
        shape = tuple(np.shape(leaf))
        if path.rpartition("/")[2] != "kernel" or len(shape) < 2:
            continue
        if len(shape) == 3:
            raise ValueError(
                f'"{path}" {shape} may be the kernel of a convolution or of an attention, which '
                "torch lays out differently: pass module=, torch's module, or a param_map"
            )
        n = len(shape)
        torchs = (shape[-1], shape[-2], *shape[:-2])
        yield path, LeafLayout(torchs, torchs, (*range(2, n), 1, 0))


def _by_name(param_map: ParamMap) -> dict[str, list[Entry]]:
    return by_tensor(entry for entry in param_map.entries if not entry.buffer)


def _is_plain(entry: Entry) -> bool:
    """Whether the leaf is torch's tensor as it is."""
    axes = entry.axes or tuple(range(len(entry.torch_shape)))
    as_it_is = (entry.torch_shape, tuple(range(len(entry.torch_shape))), ())
    return (entry.view or entry.torch_shape, axes, entry.flip) == as_it_is


def _leaf(value: Any, name: str, entry: Entry, elementwise: bool, problems: list[str]) -> Any:
    """Return what torch holds for a tensor as it is held for a leaf of it."""
    shape = np.shape(value)
    if not shape or not elementwise or value is None:
        return value
    if shape == (1,) != entry.torch_shape:
        return np.reshape(value, ())  # torch takes a step of one element, too
    if shape != entry.torch_shape:
        problems.append(
            f"{name} of {entry.torch_name} has shape {shape}; the parameter has {entry.torch_shape}"
        )
        return value
    return entry.to_jax(value)


def _joined(
    name: str,
    entries: list[Entry],
    parts: list[Mapping[str, Any]],
    elementwise: bool,
    problems: list[str],
) -> dict[str, Any]:
    """Return what the leaves of one tensor hold as torch holds it for the tensor."""
    if len({frozenset(part) for part in parts}) > 1:
        problems.append(f"{name}: its parts hold different things")
        return {}
    joined: dict[str, Any] = {}
    for held, first in parts[0].items():
        values = [part[held] for part in parts]
        if not np.shape(first) or not elementwise:
            if any(value != first for value in values[1:] if not np.shape(value)):
                problems.append(f"{name}: {held} differs between its parts")
            joined[held] = first
        elif any(np.shape(v) != e.shape for v, e in zip(values, entries, strict=True)):
            problems.append(f"{name}: {held} has not the shape of the parameter")
        else:
            of_part = {e.path: v for e, v in zip(entries, values, strict=True)}
            joined[held] = ParamMap(tuple(entries), (name,)).to_torch(of_part)[name]
    return joined
