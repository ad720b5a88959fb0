from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from ...trees import leaf_paths, listed, nearest
from .._tensors import array_of, dtype_name, import_torch, tensor_of, to_jax
from .._wrapper_prefixes import known_names
from ._jax_leaves import no_weights, state_of
from ._mapping import matched_without_prefix, refuse_if
from ._mapping import param_map as make_map
from ._param_map import ParamMap, check_is_map
from ._rules_by_hand import Layouts, Rename
from ._torch_tensors import tensors_given, tensors_of, values_of


def params_from_torch(
    module: Any,
    like: Any,
    param_map: ParamMap | None = None,
    *,
    rename: Rename = (),
    layouts: Layouts | None = None,
    strict: bool = True,
) -> Any:
    """Return a torch module's parameters and buffers as a JAX tree, in Flax's layouts.

    The counterpart of ``load_state_dict`` for a port: torch's ``features.0.weight`` becomes the
    leaf ``features/0/kernel``. `param_map` says how names and layouts are found.

    Args:
        module: a ``torch.nn.Module``, a state dict, or what `load` returns; its tensors may be on
            any device and of any strides. Nothing is aliased.
        like: a tree that gives structure and shapes: an ``nnx.Module``, NNX state, pure or with
            Variables, Linen variables or their ``params``, an Equinox module, nested dicts; the
            leaves may be ``ShapeDtypeStruct``.
        param_map: made before by `param_map`, of tensors and a tree of the same names and shapes.
        rename: where no map is given: see `param_map`.
        layouts: likewise.
        strict: False takes what matches; the other leaves keep the values of ``like``.

    Returns:
        A tree of the structure of ``like``, with torch's values and torch's dtypes. float64 stays
        float64, even where ``jax_enable_x64`` is off. For an ``nnx.Module`` its ``nnx.State``,
        which ``nnx.update(model, state)`` takes.

    Raises:
        TypeError: ``module`` is neither a module nor a mapping from names to tensors; rules beside
            a map.
        ValueError: parameters are missing, left over, or of another shape, or their layout is not
            certain; all are listed. None of the leaves is a tensor, ``strict`` or not.
        ImportError: torch is missing.

    Example:
        >>> import torch, jax.numpy as jnp
        >>> module = torch.nn.Sequential(torch.nn.Linear(3, 2))
        >>> like = {"0": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}}
        >>> params_from_torch(module, like)["0"]["kernel"].shape
        (3, 2)
    """
    module = tensors_given(module)
    check_is_map(param_map, rename, layouts)
    made = param_map or make_map(module, like, rename=rename, layouts=layouts, strict=strict)
    leaves = made.from_torch(_with_known_names(made, _arrays(made, module, strict)), strict=strict)
    tree = state_of(like)
    pairs = leaf_paths(tree)
    others = no_weights(tree, pairs)
    refuse_if(_unlike(pairs, others, leaves, strict), module)
    wanted = {path for path, _ in pairs} - others
    if wanted and not wanted & leaves.keys():
        raise ValueError(
            "none of torch's tensors is a leaf of the tree, so nothing would be taken over: give a "
            "rename rule, such as rename=[(r'^transformer\\.', '')]; torch has "
            f"{_first(values_of(module))}, the tree {_first(path for path, _ in pairs)}"
        )
    values = [to_jax(leaves[path]) if path in leaves else leaf for path, leaf in pairs]
    return jax.tree.unflatten(jax.tree.structure(tree), values)


def params_to_torch(
    params: Any,
    module: Any = None,
    param_map: ParamMap | None = None,
    *,
    rename: Rename = (),
    layouts: Layouts | None = None,
    strict: bool = True,
) -> Any:
    """Copy a JAX tree into a torch module, in place: undoes `params_from_torch`.

    Everything is checked before anything is copied.

    Args:
        params: tree as `params_from_torch` returns it, with torch's dtypes, or an ``nnx.Module``.
        module: gets the values, wherever its tensors are; an optimizer that holds them goes on.
            Buffers without a leaf (``num_batches_tracked``) stay. None: a state dict is made.
        param_map: made before by `param_map`; needed where there is no module.
        rename: where no map is given: see `param_map`.
        layouts: likewise.
        strict: False copies what matches and leaves the rest of the module as it is.

    Returns:
        The module; without one, a state dict of new tensors on the CPU, tied ones under each name.

    Raises:
        TypeError: ``module`` is no torch module, ``params`` are torch's, there is neither module
            nor map, or there are rules beside a map.
        ValueError: parameters are missing, left over, or of another shape or dtype, or their layout
            is not certain; all are listed.
        ImportError: torch is missing.

    Example:
        >>> import torch, jax.numpy as jnp
        >>> module = torch.nn.Linear(3, 2)
        >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}
        >>> params_to_torch(params, module)(torch.ones(3)).tolist()
        [3.0, 3.0]
    """
    torch = import_torch()
    check_is_map(param_map, rename, layouts)
    if module is None and param_map is None:
        raise TypeError("params_to_torch needs a torch module, or a param_map for a state dict.")
    if module is not None and not isinstance(module, torch.nn.Module):
        raise TypeError(
            f"params_to_torch writes into a torch.nn.Module, got {type(module).__name__}; leave it"
            " out, and give a param_map, to get a state dict."
        )
    if any(isinstance(leaf, torch.Tensor | torch.nn.Module) for leaf in jax.tree.leaves(params)):
        raise TypeError(
            "params_to_torch takes a JAX tree, and these are torch's tensors: "
            "module.load_state_dict(params) copies them"
        )
    found = None
    if param_map is None:
        found = matched_without_prefix(module, params, rename, layouts, strict, {})
        param_map = found.made
    made = param_map
    tree = state_of(params)
    pairs = leaf_paths(tree)
    others = no_weights(tree, pairs)
    leaves = {path: np.asarray(leaf) for path, leaf in pairs if path not in others}
    targets = {} if module is None else values_of(module)
    if module is not None:
        unwritable = _unwritable(made, leaves, targets)
        if found is not None:
            found.refuse_if_wrong(module, params, rename, layouts, {}, unwritable)
        refuse_if(unwritable, module)
    tensors = {k: tensor_of(v) for k, v in made.to_torch(leaves, strict=strict).items()}
    if module is None:
        tied = {alias: tensors[first] for alias, first in made.aliases.items() if first in tensors}
        return tensors | tied
    with torch.no_grad():
        for name, tensor in tensors.items():
            targets[name].copy_(tensor)
    return module


def _first(names: Iterable[str]) -> str:
    return listed([f'"{name}"' for name in names], 2)


def _arrays(made: ParamMap, module: Any, strict: bool) -> dict[str, NDArray[Any]]:
    """Return what the map asks for of a module or a state dict; unknown names are the map's."""
    entries = {entry.torch_name for entry in made.entries}
    # A module's buffers without a leaf are in the map's notes.
    known = {
        tensor.name for tensor in tensors_of(module) if not tensor.buffer or tensor.name in entries
    }
    return {
        name: array_of(value) if not isinstance(value, np.ndarray) else value
        for name, value in values_of(module).items()
        if name in known and (strict or name in entries or not entries & known)
    }


def _with_known_names(made: ParamMap, arrays: dict[str, Any]) -> dict[str, Any]:
    """Return arrays by the names that the map has, whatever a wrapper put there."""
    known = {entry.torch_name for entry in made.entries} | set(made.aliases)
    if known & arrays.keys():
        return arrays
    return {name: arrays[given] for given, name in known_names(arrays, known).items()}


def _unlike(
    pairs: Sequence[tuple[str, Any]],
    others: Set[str],
    leaves: Mapping[str, NDArray[Any]],
    strict: bool,
) -> list[str]:
    """Name what a tree, but for what is no weight, and the leaves of a map do not both have."""
    problems = []
    for path, leaf in pairs:
        if path in leaves:
            if leaves[path].shape != np.shape(leaf):
                problems.append(f"{path}: shape {np.shape(leaf)}, not {leaves[path].shape}")
        elif strict and path not in others:
            problems.append(f"{path}: the map has no such leaf{nearest(path, list(leaves))}")
        elif isinstance(leaf, jax.ShapeDtypeStruct) and path not in others:
            problems.append(f"{path}: torch has no value for it, and the tree only a shape")
    if strict:
        missing = leaves.keys() - {path for path, _ in pairs}
        problems += [f"{path}: missing from the JAX tree" for path in sorted(missing)]
    return problems


def _unwritable(
    made: ParamMap, leaves: Mapping[str, NDArray[Any]], targets: Mapping[str, Any]
) -> list[str]:
    """Name the leaves that cannot be copied into a module as they are."""
    problems = []
    for entry in made.entries:
        target, leaf = targets.get(entry.torch_name), leaves.get(entry.path)
        if target is None:
            problems.append(f"{entry.path}: the module has no {entry.torch_name}")
        elif target.is_meta:
            problems.append(f"{entry.path}: torch's {entry.torch_name} is on the device meta")
        elif tuple(target.shape) != entry.torch_shape:
            problems.append(
                f"{entry.path}: the map has shape {entry.torch_shape}, torch's {entry.torch_name}"
                f" {tuple(target.shape)}"
            )
        elif leaf is not None and leaf.dtype.name != dtype_name(target):
            problems.append(
                f"{entry.path}: {leaf.dtype.name} here, {dtype_name(target)} in torch's"
                f" {entry.torch_name}; convert one of them first"
            )
    return problems
