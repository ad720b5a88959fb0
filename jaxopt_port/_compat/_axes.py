"""Mesh axes within ``jax.shard_map``, where a function sees the part of one device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
from jax import lax

# Mesh axes to reduce over; () for none; None where there is nothing that would have to be.
AxisName: TypeAlias = str | tuple[str, ...] | None


def varying_axes(x: Any) -> frozenset[str]:
    """Return the mesh axes along which an array differs between devices.

    None outside of ``shard_map``, and with ``check_vma=False``, which keeps no account of them.
    """
    kind: Any = jax.typeof(x)
    # Older releases of JAX have it as an attribute of its own.
    found: frozenset[str] = (
        kind.manual_axis_type.varying
        if hasattr(kind, "manual_axis_type")
        else getattr(kind, "vma", frozenset())
    )
    return found


def varying_alike(*xs: jax.Array) -> tuple[jax.Array, ...]:
    """Within ``shard_map``, let all differ between devices where one does, as ``lax.add`` does."""
    axes = [varying_axes(x) for x in xs]
    every = frozenset[str]().union(*axes)
    return tuple(
        lax.pcast(x, tuple(every - own), to="varying") if every - own else x
        for x, own in zip(xs, axes, strict=True)
    )


def split_over(
    leaves: Sequence[jax.Array], axis_name: AxisName, what: str
) -> list[tuple[str, ...]]:
    """Return the axes among ``axis_name`` that each leaf is split over.

    Args:
        leaves: arrays.
        axis_name: the axes.
        what: what is to be calculated of all parts together, for the message.

    Raises:
        ValueError: leaves that differ between devices, and no ``axis_name``; one that is none here.
    """
    varying = [varying_axes(leaf) for leaf in leaves]
    if axis_name is None:
        for axes in varying:
            if axes:
                raise ValueError(
                    f"within jax.shard_map the gradients differ along {_said(axes)}, and {what} of "
                    "one device's part is not that of the whole: give the mesh axes as axis_name, "
                    "or () if the part is what you mean"
                )
        return [()] * len(leaves)
    names = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)
    try:
        accounted = {name for name in names if varying_axes(lax.axis_index(name))}
    except NameError as error:
        raise ValueError(
            f"axis_name={axis_name!r}: there is no such axis here. It is for a program of one "
            "device's part, within jax.shard_map; under jax.jit, arrays are whole: leave it out"
        ) from error
    return [
        tuple(name for name in names if name in axes or name not in accounted) for axes in varying
    ]


def check_whole(x: Any, name: str, what: str) -> None:
    """Raise where one device has only its own part of an array.

    Raises:
        ValueError: it differs between devices.
    """
    axes = varying_axes(x)
    if axes:
        raise ValueError(
            f"{name} needs the whole of {what}, and within jax.shard_map it differs along "
            f"{_said(axes)}: take the step outside, under jax.jit, where sharded arrays are whole"
        )


def _said(axes: frozenset[str]) -> str:
    return "the mesh axis " + " and ".join(map(repr, sorted(axes)))
