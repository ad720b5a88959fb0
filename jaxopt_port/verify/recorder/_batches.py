"""Batches and outputs: tensors in nested tuples, lists and dicts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: mapped(function, value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(mapped(function, value) for value in tree))
    if isinstance(tree, (tuple, list)):
        return type(tree)(mapped(function, value) for value in tree)
    return None if tree is None else function(tree)


def cast_batch(batch: Any, dtype: torch.dtype, device: torch.device, what: str) -> Any:
    def cast(value: Any) -> torch.Tensor:
        if isinstance(value, torch.Tensor):
            tensor = value.detach()
        elif hasattr(value, "__array__"):
            tensor = torch.as_tensor(value.__array__().copy())
        elif isinstance(value, (bool, int, float)):
            tensor = torch.tensor(value)
        else:
            raise TypeError(
                f"{what} has a {type(value).__name__}; it may have tensors, NumPy arrays and "
                "numbers in nested tuples, lists and dicts"
            )
        if tensor.is_floating_point():
            return tensor.to(device, dtype)
        whole = tensor.dtype != torch.bool and not tensor.is_complex()
        return tensor.to(device, torch.int64 if whole else tensor.dtype)

    return mapped(cast, batch)


def flattened(output: Any) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = [output[key] for key in sorted(output)]
    if isinstance(output, (tuple, list)):
        return [tensor for part in output for tensor in flattened(part)]
    if output is None:
        return []
    raise TypeError(
        f"the output has a {type(output).__name__}; it may have tensors in nested tuples, lists "
        "and dicts. `forward` can pick them: forward=lambda module, batch: module(…).logits"
    )


def same_tensors(x: torch.Tensor, y: torch.Tensor) -> bool:
    return x.shape == y.shape and bool(((x == y) | ((x != x) & (y != y))).all())


def plain_number(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.item() if value.numel() == 1 else value.detach().tolist()
    return type(value)(map(plain_number, value)) if isinstance(value, (tuple, list)) else value


def cycled(batches: Iterable[Any]) -> tuple[Iterable[Any], int]:
    """Return a loader's batches, pass after pass, and how many an epoch has; others, and 1.

    Args:
        batches: a `torch.utils.data.DataLoader`, or batches of any other kind.
    """
    if not isinstance(batches, torch.utils.data.DataLoader):
        return batches, 1
    length = 1
    with contextlib.suppress(TypeError):  # of an iterable dataset
        length = max(1, len(batches))
    return _passes(batches), length


def _passes(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield the batches of pass after pass, until one has none."""
    some = True
    while some:
        some = False
        for batch in batches:
            some = True
            yield batch


def count_of(batches: Any, steps: int | None, every: int) -> int:
    """Return how many steps are asked for: all batches by default."""
    if steps is None:
        if not hasattr(batches, "__len__"):
            raise TypeError("batches has no length; say how many steps with steps=")
        steps = len(batches)
        if steps == 0:
            raise ValueError("there are no batches")
    for name, value in (("steps", steps), ("every", every)):
        if isinstance(value, bool) or not hasattr(value, "__index__"):  # NumPy's integers have it
            raise TypeError(f"{name} is {value!r}; it must be an integer")
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be 1 or more")
    return int(steps)
