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


def laid_out_as(like: jax.Array, x: jax.Array) -> jax.Array:
    """Return ``x`` laid out as ``like``."""
    moved: jax.Array = jax.sharding.reshard(x, jax.typeof(like).sharding)
    return moved
