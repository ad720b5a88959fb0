"""Flax's names for taking the values out of NNX's variables."""

from __future__ import annotations

from typing import Any


def as_pure(tree: Any) -> Any:
    """Return the values of a tree's NNX variables, which Flax has by two names."""
    from flax import nnx

    return (nnx.as_pure if hasattr(nnx, "as_pure") else nnx.pure)(tree)
