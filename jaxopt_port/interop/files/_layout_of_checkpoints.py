"""Checkpoints carried to the names and layouts of the other side."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from ...checkpoint import StateDict
from ...engine import rule_of
from ...optim import OPTIMIZERS
from .._optimizer_layout import ORDER, to_jax_layout, to_torch_layout
from .._torch_state_dict import named
from ..mapping import ParamMap, check_is_map
from ._checkpoint import Checkpoint, check_checkpoint


def with_layout(
    checkpoint: Checkpoint, layout: Literal["torch", "jax"], param_map: ParamMap | None = None
) -> Checkpoint:
    """Return a checkpoint in the names and layouts of torch or of JAX.

    Torch's counterpart is a pair of ``state_dict()``. Adafactor's and Muon's arrays keep torch's
    layout on both sides, since they are not the same in every one (see `optimizer_from_torch`).

    Args:
        checkpoint: with ``optimizer_name`` where it has an optimizer's state.
        layout: ``"torch"`` or ``"jax"``.
        param_map: which leaf is which tensor; the checkpoint's own by default.

    Returns:
        A new checkpoint, with the map. Counters without a counterpart in Flax
        (``num_batches_tracked``) are left in ``extra`` on the way to JAX, and return from there.

    Raises:
        ValueError: names, shapes or an optimizer's name that are missing or do not fit; all are
            listed.

    Example:
        >>> import numpy as np
        >>> from jaxopt_port.interop import Entry
        >>> entry = Entry("kernel", "weight", (2, 3), "float32", axes=(1, 0))
        >>> tensors = Checkpoint({"weight": np.zeros((2, 3), np.float32)})
        >>> with_layout(tensors, "jax", ParamMap((entry,), ("weight",))).params["kernel"].shape
        (3, 2)
    """
    if not isinstance(checkpoint, Checkpoint):
        raise TypeError(f"expected a Checkpoint, got {type(checkpoint).__name__}")
    check_checkpoint(checkpoint)
    check_is_map(param_map)
    if layout not in ("torch", "jax"):
        raise ValueError(f'the layout is {layout!r}; it is "torch" or "jax"')
    mapped = checkpoint.param_map if param_map is None else param_map
    if layout == checkpoint.layout:
        return dataclasses.replace(checkpoint, param_map=mapped)
    if mapped is None:
        raise ValueError(
            f"the checkpoint is in {checkpoint.layout}'s layout and has no map of its own; pass "
            "param_map, from interop.param_map(module, tree)"
        )
    params, extra = checkpoint.params, dict(checkpoint.extra)
    averages = checkpoint.averages
    if layout == "jax":
        counters = {n: x for n, x in params.items() if n.endswith(_COUNTER)}
        tensors = {n: x for n, x in params.items() if n not in counters}
        extra |= {_KEPT: counters} if counters else {}
        leaves = mapped.from_torch(tensors) if params else {}
    else:
        by_name = mapped.to_torch(params) if params else {}
        in_order = [*(name for name in mapped.torch_names if name in by_name), *by_name]
        leaves = {name: by_name[name] for name in in_order}
        leaves |= {name: leaves[first] for name, first in mapped.aliases.items() if params}
        leaves |= extra.pop(_KEPT, {})
    optimizer = checkpoint.optimizer
    if optimizer is not None:
        optimizer = _carried(optimizer, checkpoint.optimizer_name, layout, mapped)
    return dataclasses.replace(
        checkpoint,
        params=leaves,
        optimizers={} if optimizer is None else {"optimizer": optimizer},
        averages={name: _moved(held, layout, mapped) for name, held in averages.items()},
        layout=layout,
        param_map=mapped,
        extra=extra,
    )


def _moved(averages: dict[str, Any], layout: str, mapped: ParamMap) -> dict[str, Any]:
    """Return averages of parameters, or of some of them, in the other layout."""
    if layout == "torch":
        return mapped.to_torch(averages, strict=False)
    return mapped.from_torch(averages, strict=False)


_COUNTER = "num_batches_tracked"
_KEPT = "buffers_without_a_leaf"


def _carried(optimizer: StateDict, name: str | None, layout: str, mapped: ParamMap) -> StateDict:
    elementwise = _is_elementwise(name)
    if layout == "jax":
        return to_jax_layout(with_names(optimizer, mapped), mapped, elementwise=elementwise)
    groups = [dict(group) for group in optimizer["param_groups"]]
    order = [name for group in groups for name in group.pop(ORDER, ())]
    own = {**optimizer, "param_groups": groups}
    return to_torch_layout(own, mapped, elementwise=elementwise, order=order)


def _is_elementwise(name: str | None) -> bool:
    if name is None or name not in OPTIMIZERS:
        raise ValueError(
            f"the optimizer's state can only be laid out anew where its class is known; it is "
            f"{name!r}. Set optimizer_name (--optimizer on the command line) to one of "
            + ", ".join(OPTIMIZERS)
        )
    rule = rule_of(OPTIMIZERS[name].factory)
    return rule is None or rule.elementwise


def with_names(optimizer: StateDict, mapped: ParamMap) -> StateDict:
    """Return torch's state dict with names, where it has none and one group of all parameters.

    That is what ``Adam(module.parameters())`` leaves: the order is the module's. The shapes of the
    state are compared with the names' afterwards, as they are of any other.
    """
    groups = optimizer["param_groups"]
    if any("param_names" in group for group in groups):
        return optimizer
    if len(groups) == 1 and len(groups[0]["params"]) == len(mapped.torch_names):
        return named(optimizer, mapped.torch_names)
    return optimizer
