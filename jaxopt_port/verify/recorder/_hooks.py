"""Hooks of torch's side: of optimizers' steps, and of parameters."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any

import torch

from ._together import listed

_BEFORE, _AFTER = "_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"
# How far what a hook calls is followed.
_DEPTH = 4


def has_hooks(optimizer: Any, after: bool = False) -> bool:
    """Whether anything is registered that sees gradients before a step, or parameters after."""
    return any(getattr(one, _AFTER if after else _BEFORE, None) for one in listed(optimizer))


def hooked(module: torch.nn.Module) -> list[str]:
    """Return the names of the parameters whose gradients go through hooks."""
    return [name for name, p in module.named_parameters() if any(_of_parameter(p))]


def _of_parameter(p: torch.Tensor) -> tuple[list[Any], list[Any]]:
    hooks = p._backward_hooks, p._post_accumulate_grad_hooks
    of_gradient, of_sum = (list((each or {}).values()) for each in hooks)
    return of_gradient, of_sum


def refuse_hooks(module: torch.nn.Module, optimizer: Any) -> None:
    """Raise an error for what a copy of module and optimizer cannot do as well.

    Raises:
        TypeError: an optimizer's `step` was replaced.
        ValueError: a hook uses the module, a parameter or an optimizer that it is not given.
    """
    optimizers = listed(optimizer)
    own = {id(x) for x in (*module.modules(), *module.parameters(), *optimizers)}
    for one in optimizers:
        replaced = vars(one).get("step")
        if replaced is not None and not hasattr(replaced, "_wrapped_by_lr_sched"):
            raise TypeError(
                f"the step of this {type(one).__name__} was replaced by {replaced!r}, which a copy "
                "in float64 cannot have; register what it does more with register_step_post_hook "
                "(or _pre_hook), for the parameters in the optimizer that such a hook is given"
            )
        for name in (_BEFORE, _AFTER):
            for hook in getattr(one, name, {}).values():
                if _reaches(hook, own):
                    _refuse(f"of {type(one).__name__}'s step", hook, "the optimizer")
    for name, p in module.named_parameters():
        for hook in (hook for hooks in _of_parameter(p) for hook in hooks):
            if _reaches(hook, own):
                _refuse(f"of the parameter {name}", hook, "the gradient or the parameter")


def _refuse(where: str, hook: Any, given: str) -> None:
    raise ValueError(
        f"the hook {getattr(hook, '__qualname__', hook)} {where} uses the module, a parameter or "
        "an optimizer by itself; it is called again for a copy in float64, which it would not "
        f"reach: write it for {given} that it is given, or take it out for the comparison"
    )


def copy_hooks(module: torch.nn.Module, copied: torch.nn.Module) -> None:
    """Register the hooks of parameters with those of a copy."""
    for p, other in zip(module.parameters(), copied.parameters(), strict=True):
        of_gradient, of_sum = _of_parameter(p) if p.requires_grad else ([], [])
        for hook in of_gradient:
            other.register_hook(hook)
        for hook in of_sum:
            other.register_post_accumulate_grad_hook(hook)


def copy_step_hooks(optimizer: Any, copied: Any) -> None:
    """Register the hooks of an optimizer's step with a copy."""
    for name in (_BEFORE, _AFTER):
        getattr(copied, name, {}).update(getattr(optimizer, name, {}))


def _reaches(function: Any, own: set[int]) -> bool:
    """Whether a function has hold of any of these objects, given by their ids."""
    todo, seen = [(function, 0)], set[int]()
    while todo:
        value, depth = todo.pop()
        if id(value) in own:
            return True
        if id(value) not in seen and depth < _DEPTH:
            seen.add(id(value))
            todo += [(part, depth + 1) for part in _parts(value)]
    return False


def _parts(value: Any) -> list[Any]:
    """Return what a function or a container holds: attributes, only those that it names."""
    if isinstance(value, list | tuple | set):
        return list(value)
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        code = getattr(inspect.unwrap(value.__func__), "__code__", None)  # below torch.no_grad()
        names = set(_names(code)) if code else set()
        return [value.__self__, value.__func__, *_attributes(value.__self__, names)]
    if not isinstance(value, types.FunctionType):
        call = inspect.getattr_static(type(value), "__call__", None)
        return _parts(types.MethodType(call, value)) if isinstance(call, types.FunctionType) else []
    names = set(_names(value.__code__))
    held = [value.__globals__[name] for name in names if name in value.__globals__]
    for cell in value.__closure__ or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # not filled yet
            continue
    held += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    return held + [part for x in held for part in _attributes(x, names)]


def _attributes(value: Any, names: set[str]) -> list[Any]:
    if isinstance(value, types.ModuleType | type):
        return []
    return [part for name, part in getattr(value, "__dict__", {}).items() if name in names]


def _names(code: types.CodeType) -> Iterator[str]:
    """Yield the names of globals and attributes in a function, and in those within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
