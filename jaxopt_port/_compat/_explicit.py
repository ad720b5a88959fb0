"""Meshes with explicit axes, where JAX asks each operation how its result is laid out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def on_explicit_mesh(x: Any) -> bool:
    """Whether an array lies on a mesh of which an axis is ``jax.sharding.AxisType.Explicit``."""
    sharding = getattr(jax.typeof(x), "sharding", None)
    return bool(getattr(getattr(sharding, "mesh", None), "explicit_axes", ()))


def as_laid_out(fun: Callable[..., Any], like: Any) -> Callable[..., Any]:
    """Return a function within which the compiler lays out, its results laid out as ``like``."""
    shardings = jax.tree.map(lambda x: jax.typeof(x).sharding, like)
    laid_out: Callable[..., Any] = jax.sharding.auto_axes(fun, out_sharding=shardings)
    return laid_out


def as_users_axes(fun: Callable[..., Any], *like: Any) -> Callable[..., Any]:
    """Return a function for within `as_laid_out` that sees its arguments laid out as ``like``."""
    shardings = jax.tree.map(lambda x: jax.typeof(x).sharding, like)
    explicit: Callable[..., Any] = jax.sharding.explicit_axes(fun, in_sharding=shardings)
    return explicit


def laid_out_as(like: jax.Array, x: jax.Array) -> jax.Array:
    """Return ``x`` laid out as ``like``."""
    moved: jax.Array = jax.sharding.reshard(x, jax.typeof(like).sharding)
    return moved


def on_mesh_of(like: jax.Array, x: jax.Array) -> jax.Array:
    """Return ``x`` on the mesh of ``like`` where it lies on none.

    It is laid out as ``like`` where it has its shape, and else whole on each device.
    """
    if on_explicit_mesh(x):
        return x
    place: Any = getattr(like, "sharding", jax.typeof(like).sharding)
    if x.shape != like.shape:
        place = jax.sharding.NamedSharding(place.mesh, jax.sharding.PartitionSpec())
    move: Any = jax.sharding.reshard if isinstance(x, jax.core.Tracer) else jax.device_put
    moved: jax.Array = move(x, place)
    return moved
