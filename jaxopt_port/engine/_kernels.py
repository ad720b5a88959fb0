"""Flax's kernels under rules that are not the same in every layout."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..trees import leaf_paths
from ._selectors import users_level
from ._table import Table


class LayoutWarning(UserWarning):
    """An optimizer sees parameters in Flax's layout, in which its step is not torch's."""


def warn_of_kernels(table: Table, params: Any, layouts: Mapping[str, Any]) -> None:
    """Warn of leaves called "kernel", as Flax's are, on which the step of a rule is not torch's.

    Args:
        table: who is in which group.
        params: the parameters.
        layouts: the leaves that their rules see in torch's layout.
    """
    found: dict[str, list[str]] = {}
    for (path, leaf), owner in zip(leaf_paths(params), table.assignment, strict=True):
        group = table.groups[owner]
        kernel = path.rpartition("/")[2] == "kernel" and path not in layouts
        if kernel and group.rule is not None and not group.frozen:
            shape = tuple(np.shape(leaf))
            if group.rule.oriented(shape, **dict(group.static)):
                found.setdefault(group.rule.name, []).append(f'"{path}" {shape}')
    for name, leaves in found.items():
        more = f" and {len(leaves) - 4} more" if len(leaves) > 4 else ""
        warnings.warn(
            f"{name} is not the same in every layout, and sees these kernels as Flax has them, not "
            f"as torch has: {', '.join(leaves[:4])}{more}. For torch's numbers: tx = "
            "jaxopt_port.interop.in_torch_layout(tx, params), with module= or a param_map where "
            "torch's module is at hand",
            LayoutWarning,
            stacklevel=users_level(),
        )
