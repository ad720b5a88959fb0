"""torch's side in float64, whatever its code has fixed."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ._hooks import copy_hooks, copy_step_hooks, refuse_hooks
from ._together import listed, together

_NARROW = (torch.float32, torch.float16, torch.bfloat16)
_FEW_BITS = 14

_CASTS = (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16)

# Numbers that torch's optimizers keep in float32 whatever the parameters are.
_SCALARS = ("step", "eta", "mu", "mu_product")


def is_rounded(value: torch.Tensor) -> bool:
    """Whether a narrow dtype has rounded these numbers: ``numerics.is_exact``, with torch alone."""
    if value.dtype not in _NARROW:
        return False
    wide = value.detach().double()
    bits = torch.frexp(wide).mantissa * 2**_FEW_BITS
    return bool(((bits != bits.round()) & (wide != wide.round()) & wide.isfinite()).any())


def widened(value: torch.Tensor, copies: bool = False) -> torch.Tensor:
    return value.to(torch.float64, copy=copies) if value.is_floating_point() else value


CONSTANT = "a tensor that is no buffer"


class _Float64Mode(TorchFunctionMode):
    """Turns casts to narrower dtypes, and constants of such, into float64, and tells of it."""

    def __init__(self, rounded: set[str]) -> None:
        super().__init__()
        self._rounded = rounded

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.hardsigmoid:
            return _hardsigmoid(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        function = torch.Tensor.double if func in _CASTS else func
        in_place = name.endswith("_") and not name.endswith("__")
        if in_place or name.startswith(("__get__", "__set", "__i")):  # of that very tensor
            return function(*args, **(kwargs or {}))

        def wide(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                if value.dtype not in _NARROW or value.requires_grad:
                    return value
                if CONSTANT not in self._rounded and is_rounded(value):
                    self._rounded.add(CONSTANT)
                return value.double()
            if type(value) in (tuple, list):
                return type(value)(map(wide, value))
            narrow = isinstance(value, torch.dtype) and value in _NARROW
            return torch.float64 if narrow else value

        return function(*map(wide, args), **{k: wide(v) for k, v in (kwargs or {}).items()})


def _hardsigmoid(input: torch.Tensor, inplace: bool = False) -> torch.Tensor:  # noqa: A002
    """In float64, torch's own gradient of it has a sixth that was rounded to float32."""
    made = torch.clamp(input + 3, 0, 6) / 6
    return input.copy_(made) if inplace else made


class Through(TorchFunctionMode):
    """Makes each call of a torch function through another."""

    def __init__(self, calls: Callable[..., Any]) -> None:
        super().__init__()
        self._calls = calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        attention = torch.nn.functional.multi_head_attention_forward
        opened = self._attention if func is attention else func
        return self._calls(opened, args, kwargs or {})

    def _attention(self, *args: Any, **kwargs: Any) -> Any:
        """Call torch's attention so that its own calls come through here, too.

        It is written in Python, and hands itself over where it asks first whether a mode is on.
        """
        names = vars(torch.nn.functional)
        asks = names["has_torch_function"]

        def first(tensors: Any) -> bool:
            names["has_torch_function"] = asks
            return False

        names["has_torch_function"] = first
        try:
            with self:
                return torch.nn.functional.multi_head_attention_forward(*args, **kwargs)
        finally:
            names["has_torch_function"] = asks


@contextlib.contextmanager
def all_float64(rounded: set[str] | None = None) -> Iterator[None]:
    """Turn what torch makes into float64; ``rounded`` is told of constants that were rounded."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Float64Mode(set() if rounded is None else rounded):
            yield
    except (RuntimeError, TypeError, ValueError) as error:
        error.add_note(
            "This came up as the step was evaluated again in float64. forward and loss must use "
            "the module, the output and the batch that they are given."
        )
        raise
    finally:
        torch.set_default_dtype(before)


def in_float64(
    module: torch.nn.Module, optimizer: Any, averaged: Any = None
) -> tuple[torch.nn.Module, Any, Any]:
    """Return copies in float64 of a module, its optimizers and the average of it, with hooks.

    Raises:
        TypeError: an optimizer's `step` was replaced.
        ValueError: a hook uses what it is not given.
    """
    refuse_hooks(module, optimizer)
    memo: dict[int, Any] = {}
    module64, averaged64 = copy.deepcopy((module, averaged), memo)
    copies = []
    for one in listed(optimizer):
        copies.append(copy.deepcopy(one, memo))
        copy_step_hooks(one, copies[-1])
        # torch copies state and groups only. `step` is there where a scheduler put it.
        for name in vars(one).keys() - vars(copies[-1]).keys() - {"step"}:
            memo[id(one)] = copies[-1]
            setattr(copies[-1], name, copy.deepcopy(getattr(one, name), memo))
    optimizer64 = together(copies)
    module64.double()
    copy_hooks(module, module64)
    if averaged64 is not None:
        averaged64.double()
    for state in optimizer64.state.values():
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and not (key in _SCALARS and value.ndim == 0):
                state[key] = widened(value)
    return module64, optimizer64, averaged64


def follow(optimizer64: Any, optimizer: Any) -> None:
    """Give an optimizer in float64 the options of the run's own."""
    for group64, group in zip(optimizer64.param_groups, optimizer.param_groups, strict=True):
        for key, value in group.items():
            if key != "params":
                tensor = isinstance(value, torch.Tensor)
                group64[key] = widened(value, copies=True) if tensor else copy.deepcopy(value)
