"""The state dict of torch's optimizer made ready for this side: NumPy, names."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from ..engine import UNTRAINED
from ..trees import users_level
from . import _flat_vectors as flat_vectors
from ._optimizer_layout import ORDER
from ._tensors import array_of, import_torch
from ._warnings import CheckpointWarning
from .mapping import unwrapped

TorchDict = dict[str, Any]


def names_in(module: Any, tensors: Sequence[Any]) -> list[str]:
    """Return the names of an optimizer's parameters; parameters are found by identity."""
    names = {id(p): name for name, p in unwrapped(module).named_parameters()}
    unknown = [i for i, p in enumerate(tensors) if id(p) not in names]
    if unknown:
        raise ValueError(
            f"parameters {unknown} of the optimizer are not the module's: they were replaced after "
            "the optimizer was made, or belong to another module; pass param_names"
        )
    return [names[id(p)] for p in tensors]


def check_memory(named: Iterable[tuple[str, Any]]) -> None:
    """Raise ValueError for parameters in one memory, which torch steps one after the other.

    So it is where a parameter is given twice, or weights were tied by ``.data``.
    """
    spans, plain = [], import_torch().Tensor
    for name, p in named:
        # Not of wrappers, such as DTensor, nor where there is no memory, as on "meta".
        if type(p.data) is plain and p.numel() and p.data_ptr():
            last = sum((n - 1) * stride for n, stride in zip(p.shape, p.stride(), strict=True))
            end = p.data_ptr() + (last + 1) * p.element_size()
            spans.append((p.data_ptr(), end, name, _places(p)))
    spans.sort(key=lambda span: span[:3])
    for i, (_, end, first, places) in enumerate(spans):
        for k in range(i + 1, len(spans)):
            begin, _, second, others = spans[k]
            if begin >= end:
                break
            if np.shares_memory(places, others):  # and they are no columns of one matrix
                raise ValueError(
                    f"{first} and {second} lie in one memory, and torch steps one after the other: "
                    "tie them as one parameter (decoder.weight = encoder.weight), which is one "
                    "leaf here, or clone one"
                )


def _places(tensor: Any) -> Any:
    """Return an array over a tensor's addresses, for NumPy to compare: they may be a device's."""
    size = tensor.element_size()
    interface = {
        "version": 3,
        "data": (tensor.data_ptr(), True),
        "typestr": f"|V{size}",
        "shape": tuple(tensor.shape),
        "strides": tuple(size * stride for stride in tensor.stride()),
    }
    return np.asarray(SimpleNamespace(__array_interface__=interface))


def check_names(given: Iterable[Any], module: Any, tensors: Sequence[Any]) -> None:
    """Raise ValueError for names of an optimizer's parameters that are others of its module's."""
    flat = [name for one in given for name in ([one] if isinstance(one, str) else one)]
    known = dict(unwrapped(module).named_parameters(remove_duplicate=False))
    if {id(p) for p in tensors} <= {id(p) for p in known.values()}:
        for name, p in zip(flat, tensors, strict=False):
            if name in known and known[name] is not p:
                own = next(n for n, q in known.items() if q is p)
                raise ValueError(
                    f"param_names has {name} where the optimizer has the module's {own}: leave "
                    "param_names out, since the module says which is which"
                )


def in_numpy(value: Any) -> Any:
    """Return a state dict with NumPy for tensors, and numbers for those in the groups."""
    torch = import_torch() if _has_tensors(value) else None

    def plain(x: Any) -> Any:
        if isinstance(x, Mapping):
            return {k: plain(v) for k, v in x.items()}
        if isinstance(x, list | tuple):
            return type(x)(plain(v) for v in x)
        return array_of(x) if torch is not None and isinstance(x, torch.Tensor) else x

    def number(x: Any) -> Any:
        if isinstance(x, list | tuple):
            return type(x)(map(number, x))
        return x.item() if isinstance(x, np.ndarray) and x.size == 1 else x

    state = {
        index: {name: v for name, v in plain(held).items() if v is not None}
        for index, held in value["state"].items()
    }
    groups = [{k: number(v) for k, v in plain(group).items()} for group in value["param_groups"]]
    for group in groups:
        if group.get("param_names", ()) is None:  # of an optimizer that has been given none
            del group["param_names"]
    return {"state": {k: v for k, v in state.items() if v}, "param_groups": groups}


def _has_tensors(value: Any) -> bool:
    leaves = jax.tree.leaves((list(value["state"].values()), list(value["param_groups"])))
    return any(type(leaf).__module__.startswith("torch") for leaf in leaves)


def named(
    torch_dict: dict[str, Any],
    names: Iterable[str] | Iterable[Iterable[str]] | None,
) -> dict[str, Any]:
    """Return a state dict whose groups have names.

    Args:
        torch_dict: torch's.
        names: of all parameters, group by group, or a list of them for each group.

    Raises:
        ValueError: another number of names.
    """
    if names is None:
        return torch_dict
    given, groups = list(names), []
    listed = [list(each) for each in given if not isinstance(each, str)]
    sizes = [len(group["params"]) for group in torch_dict["param_groups"]]
    if listed and ([len(each) for each in listed] != sizes or len(listed) != len(given)):
        raise ValueError(
            f"param_names has lists of {[len(each) for each in listed]} names; the optimizer has "
            f"groups of {sizes} parameters"
        )
    rest = [name for each in listed for name in each] or [str(name) for name in given]
    total = sum(sizes)
    if len(rest) != total:
        raise ValueError(f"param_names has {len(rest)} names; the optimizer has {total} parameters")
    own = [name for group in torch_dict["param_groups"] for name in group.get("param_names", ())]
    if sorted(own) == sorted(rest) and own != rest:
        raise ValueError(
            "param_names has the names of the state dict's own in another order: leave param_names "
            f"out; it has {', '.join(own)}"
        )
    for group in torch_dict["param_groups"]:
        size = len(group["params"])
        groups.append({**group, "param_names": rest[:size]})
        rest = rest[size:]
    return {**torch_dict, "param_groups": groups}


def renamed_state(torch_dict: TorchDict, names: Mapping[str, str | None]) -> TorchDict:
    """Return a state dict with other names for what parameters hold; None leaves one out."""
    state = {
        index: {
            str(names.get(name, name)): value
            for name, value in held.items()
            if names.get(name, name) is not None
        }
        for index, held in torch_dict["state"].items()
    }
    return {**torch_dict, "state": state}


def indices_of(torch_dict: TorchDict, names: Iterable[str]) -> set[int]:
    """Return the indices of parameters by torch's names."""
    indices, names = _indices(torch_dict), list(names)
    unknown = [name for name in names if name not in indices]
    if unknown:
        raise ValueError(f"{unknown[0]!r} in frozen is none of the optimizer's parameters")
    return {indices[name] for name in names}


def indices_untrained(torch_dict: TorchDict, module: Any) -> set[int]:
    """Return the indices of parameters that require no gradient in torch's module."""
    named = module.named_parameters(remove_duplicate=False)
    requires = {name: p.requires_grad for name, p in named}
    if not any(requires.values()):
        warnings.warn(
            "no parameter of the module requires a gradient, so that all are frozen here; give a "
            "module as it was trained",
            CheckpointWarning,
            stacklevel=users_level(),
        )
    indices = _indices(torch_dict)
    return {index for name, index in indices.items() if not requires.get(name, True)}


def _indices(torch_dict: TorchDict) -> dict[str, int]:
    return {
        name: index
        for group in torch_dict["param_groups"]
        for name, index in zip(group.get("param_names", ()), group["params"], strict=False)
    }


def without(torch_dict: TorchDict, frozen: set[int]) -> TorchDict:
    """Return a state dict without the parameters that are frozen, but for those with state.

    Those have taken steps, and rest with what they hold: the group, if it is all of them.
    """
    state, groups, left_out = dict(torch_dict["state"]), [], set()
    for group in torch_dict["param_groups"]:
        names = group.get("param_names", group["params"])
        pairs = list(zip(group["params"], names, strict=True))
        still = [pair for pair in pairs if pair[0] in frozen]
        begun = [pair for pair in still if _begun(state.get(pair[0], {}))]
        if begun and flat_vectors.is_in(state.get(pairs[0][0], {})):  # of all, with the first
            begun = pairs if len(still) == len(pairs) else []
            trained = next((index for index, _ in pairs if index not in frozen), pairs[0][0])
            state[trained] = state.pop(pairs[0][0])
        if begun and len(begun) == len(pairs):
            groups.append({**group, "resting": True})
            continue
        out = {index for index, _ in still} - {index for index, _ in begun}
        left_out |= out
        kept = [k for k, (index, _) in enumerate(pairs) if index not in out]
        lists = {n: [group[n][k] for k in kept] for n in ("params", "param_names") if n in group}
        left = tuple(name for index, name in still if index in out and isinstance(name, str))
        own = {UNTRAINED: left, ORDER: tuple(names)} if left else {}
        rest = {"resting": [name for _, name in begun]} if begun else {}
        groups.append({**group, **lists, **own, **rest})
    state = {i: held for i, held in state.items() if i not in left_out}
    return _renumbered({"state": state, "param_groups": groups})


def _renumbered(torch_dict: dict[str, Any]) -> dict[str, Any]:
    old = [index for group in torch_dict["param_groups"] for index in group["params"]]
    new = {index: i for i, index in enumerate(old)}
    return {
        "state": {new[index]: held for index, held in torch_dict["state"].items()},
        "param_groups": [
            {**group, "params": [new[index] for index in group["params"]]}
            for group in torch_dict["param_groups"]
        ],
    }


def _begun(held: Mapping[str, Any]) -> bool:
    """Whether a parameter has taken a step: Adagrad makes its state before the first."""
    return bool(held) and ("step" not in held or bool(np.any(np.asarray(held["step"]) != 0)))
