"""Runs torch's side of a comparison, and records it where JAX is not installed.

It needs Python 3.11 and torch, and nothing else: copy this one file into such an environment. The
format of what `record` writes is described in ``docs/trace-format.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import ctypes
import dataclasses
import hashlib
import importlib.metadata
import inspect
import json
import math
import os
import platform
import random
import re
import runpy
import secrets
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch.overrides import TorchFunctionMode


@dataclass(kw_only=True)
class TorchSide:
    """What is trained with torch.

    Args:
        module: in the mode (``train()``, ``eval()``) in which it is to be compared.
        optimizer: of the module's parameters; one that steps without a closure.
        loss: ``loss(output, batch)``, a scalar tensor.
        forward: ``forward(module, batch)``, a tensor or a tuple, list or dict of tensors; None is
            ``module(batch[0])``.
        scheduler: of the optimizer, or None.
        scheduler_every: steps between two calls of ``scheduler.step()``: the batches of an epoch,
            where it is called once an epoch.
        metric: whether it is called with the loss, as `ReduceLROnPlateau` is.
        clip: called with the list of the module's parameters after ``backward``; changes their
            gradients.

    Example:
        >>> module = torch.nn.Linear(3, 1)
        >>> side = TorchSide(
        ...     module=module,
        ...     optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
        ...     loss=lambda output, batch: torch.nn.functional.mse_loss(output, batch[1]),
        ... )
    """

    module: torch.nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[Any, Any], torch.Tensor]
    forward: Callable[[torch.nn.Module, Any], Any] | None = None
    scheduler: Any = None
    scheduler_every: int = 1
    metric: bool = False
    clip: Callable[[list[torch.nn.Parameter]], Any] | None = None


@dataclass
class Checked:
    """What more is known of a step at which everything is checked.

    Attributes:
        params: before the step, by torch's name (the first of tied names).
        buffers: floating ones, before the forward pass.
        output: the tensors in the output, flattened; those of a dict by its sorted keys.
        buffers_after: floating ones, after the forward pass.
        output64: the same output evaluated in float64, from the same parameters and batch.
        loss64: its loss.
        grads64: its gradients.
        buffers_after64: its buffers after the forward pass.
    """

    params: dict[str, Any]
    buffers: dict[str, Any]
    output: list[Any]
    buffers_after: dict[str, Any]
    output64: list[Any]
    loss64: float
    grads64: dict[str, Any]
    buffers_after64: dict[str, Any]


@dataclass
class Evaluation:
    """What is known of a step before the optimizer makes it.

    Attributes:
        step: counted from 0.
        batch: in the module's dtype, integers as int64.
        loss: of the batch.
        grads: by torch's name, before clipping; parameters without one are left out.
        options: of each group, the entries in force; ``"params"`` is a list of names.
        checked: more, at a step that is checked.
    """

    step: int
    batch: Any
    loss: float
    grads: dict[str, Any]
    options: list[dict[str, Any]]
    checked: Checked | None


@dataclass
class Update:
    """What the optimizer's step left.

    Attributes:
        clipped: gradients after clipping; empty where there is none.
        clipped64: those that the optimizer in float64 was given, likewise.
        params: after the step.
        state: torch's ``optimizer.state`` by parameter name.
        params64: of an optimizer in float64, which was fed with the same gradients from the start.
        state64: its state.
    """

    clipped: dict[str, Any]
    clipped64: dict[str, Any]
    params: dict[str, Any]
    state: dict[str, dict[str, Any]]
    params64: dict[str, Any]
    state64: dict[str, dict[str, Any]]


class TorchRun:
    """Trains with torch, step by step, and beside it an optimizer in float64.

    It works on the objects of the side in place; `snapshot` and `restore` bring them back. What it
    returns are CPU tensors, which hold until the next call.

    Args:
        side: what is trained.
        check: whether a step, counted from 0, is one at which everything is evaluated.

    Attributes:
        names: of the parameters, in the order of ``named_parameters()``, tied ones once.
        optimizer_name: the class, ``"Adam"``.
        dtype: of the first floating parameter, ``"float32"``.

    Raises:
        TypeError: the optimizer needs a closure.
        ValueError: a parameter is NaN or infinite, the optimizer has parameters that are not the
            module's, or the scheduler is another optimizer's.
    """

    def __init__(self, side: TorchSide, check: Callable[[int], bool]) -> None:
        _refuse(side)
        self._side, self._check = side, check
        self._params = dict(side.module.named_parameters())
        self._name_of = {id(p): name for name, p in self._params.items()}
        self.names = tuple(self._params)
        self.optimizer_name = type(side.optimizer).__name__
        main = next(p for p in self._params.values() if p.is_floating_point())
        self._main, self._device = main.dtype, main.device
        self.dtype = str(main.dtype).removeprefix("torch.")
        self._step, self._loss, self._waiting, self._fresh = 0, 0.0, False, True
        self._given_grads = {n: p.grad for n, p in self._params.items() if p.grad is not None}
        self._clear_grads()
        self._module64, self._optimizer64 = _in_float64(side.module, side.optimizer)
        self._params64 = dict(self._module64.named_parameters())
        self._put_grads(self._given_grads)

    def evaluate(self, batch: Any) -> Evaluation:
        """Return loss and gradients of a batch.

        Args:
            batch: NumPy arrays or tensors in nested tuples, lists and dicts.

        Raises:
            TypeError: the batch or the output has something else; the loss is no tensor.
            ValueError: the loss is no scalar or does not depend on the parameters, the forward
                pass differs from one call to the next, or a gradient is sparse.
        """
        if self._waiting:
            raise RuntimeError("evaluate() was called twice; update() comes between two calls")
        given = _cast(batch, self._main, self._device, "the batch")
        if self._fresh:
            self._refuse_randomness(given)
        before = {n: b.detach().clone() for n, b in self._side.module.named_buffers()}
        checking = bool(self._check(self._step))
        held = {n: p.detach().clone().cpu() for n, p in self._params.items()} if checking else {}
        output, loss = self._losses(self._side.module, given)
        self._clear_grads()
        loss.backward()
        grads = _grads_of(self._params, copies=self._side.clip is not None)
        checked = None
        if checking:
            drawn = _random_state()
            exact = self._evaluate64(given, before, grads)
            _set_random_state(drawn)
            after = _floating(self._side.module.named_buffers())
            flat = [x.detach().cpu() for x in _flattened(output)]
            buffers = {n: b.cpu() for n, b in before.items() if b.is_floating_point()}
            checked = Checked(held, buffers, flat, after, *exact)
        self._loss, self._waiting, self._fresh = float(loss.detach()), True, False
        shown = _mapped(lambda x: x.cpu(), given)
        return Evaluation(self._step, shown, self._loss, grads, self._options(), checked)

    def update(self) -> Update:
        """Clip, let the optimizer and the scheduler step, and return what they left."""
        if not self._waiting:
            raise RuntimeError("update() was called without a gradient; call evaluate() first")
        clipped64 = self._update64()
        clipped: dict[str, Any] = {}
        if self._side.clip is not None:
            self._side.clip(list(self._params.values()))
            clipped = _grads_of(self._params)
        self._side.optimizer.step()
        self._step, self._waiting = self._step + 1, False
        if self._side.scheduler is not None and self._step % self._side.scheduler_every == 0:
            with warnings.catch_warnings():
                # Of torch's own making: SequentialLR calls its parts so.
                warnings.filterwarnings("ignore", message="The epoch parameter in")
                self._side.scheduler.step(*([self._loss] if self._side.metric else []))
        return Update(
            clipped,
            clipped64,
            {n: p.detach().cpu() for n, p in self._params.items()},
            _state_of(self._side.optimizer, self._params),
            {n: p.detach().cpu() for n, p in self._params64.items()},
            _state_of(self._optimizer64, self._params64),
        )

    def forward64(
        self, checked: Checked, batch: Any, calls: Callable[..., Any], flat: bool = True
    ) -> Any:
        """Return the output in float64 from the parameters of a step that was checked.

        Args:
            checked: of that step.
            batch: of its evaluation, or a part of it.
            calls: ``calls(function, args, kwargs)`` makes each call of a torch function.
            flat: whether it is returned as a list of CPU tensors.
        """
        named = (*self._params64.items(), *self._module64.named_buffers())
        held = {name: value.data for name, value in named}
        given = {**checked.params, **checked.buffers}
        try:
            for name, value in named:
                if name in given:
                    value.data = _widened(given[name].to(self._device), copies=True)
                else:
                    value.data = value.data.clone()
            with torch.no_grad(), all_float64(), _Through(calls):
                made = self._output(
                    self._module64, _mapped(lambda x: _widened(x.to(self._device)), batch)
                )
            return [x.detach().cpu() for x in _flattened(made)] if flat else made
        finally:
            for name, value in named:
                value.data = held[name]

    def loss_gradients64(self, checked: Checked, batch: Any) -> list[Any]:
        """Return the gradients in float64 of the loss in the outputs of a checked step."""
        wide = _mapped(lambda x: _widened(x.to(self._device)), batch)
        made = self.forward64(
            checked, batch, lambda f, args, options: f(*args, **options), flat=False
        )
        leaves = [x.requires_grad_() for x in _flattened(made)]
        with all_float64():
            loss = self._side.loss(made, wide)
            grads = torch.autograd.grad(loss, leaves, allow_unused=True)
        zeros = (torch.zeros_like(x) for x in leaves)
        return [(z if g is None else g).detach().cpu() for g, z in zip(grads, zeros, strict=True)]

    def snapshot(self) -> Any:
        """Return all that a step changes: values, both optimizers, scheduler, random numbers."""
        held: dict[str, Any] = {
            "step": (self._step, self._loss, self._fresh),
            "grads": self._given_grads if self._fresh else {},
            "random": _random_state(),
            "scheduler": _copied_scheduler(self._side.scheduler),
        }
        for key, module, optimizer in self._both():
            held[f"values{key}"] = {n: v.detach().clone() for n, v in _values(module)}
            held[f"optimizer{key}"] = _copied_optimizer(optimizer, dict(module.named_parameters()))
        return held

    def restore(self, snapshot: Any) -> None:
        """Go back to where `snapshot` was called; it can be used again."""
        self._step, self._loss, self._fresh = snapshot["step"]
        self._waiting = False
        with torch.no_grad():
            for key, module, optimizer in self._both():
                for name, value in _values(module):
                    value.copy_(snapshot[f"values{key}"][name])
                parameters = dict(module.named_parameters())
                _restore_optimizer(optimizer, parameters, *snapshot[f"optimizer{key}"])
        scheduler = self._side.scheduler
        if scheduler is not None:
            # Some take the dict that they are given apart.
            scheduler.load_state_dict(_copied(scheduler, snapshot["scheduler"]))
        self._clear_grads()
        self._put_grads(snapshot["grads"])
        _set_random_state(snapshot["random"])

    def _both(self) -> list[tuple[str, torch.nn.Module, torch.optim.Optimizer]]:
        main = ("", self._side.module, self._side.optimizer)
        return [main, ("64", self._module64, self._optimizer64)]

    def _clear_grads(self) -> None:
        for p in self._params.values():
            p.grad = None

    def _put_grads(self, grads: Mapping[str, torch.Tensor]) -> None:
        for name, grad in grads.items():
            self._params[name].grad = grad

    def _output(self, module: torch.nn.Module, batch: Any) -> Any:
        if self._side.forward is not None:
            return self._side.forward(module, batch)
        if not isinstance(batch, (tuple, list)) or not batch:
            raise TypeError(
                f"without `forward` the module is called with batch[0]; the batch is a "
                f"{type(batch).__name__}: give forward=lambda module, batch: …"
            )
        return module(batch[0])

    def _losses(self, module: torch.nn.Module, batch: Any) -> tuple[Any, torch.Tensor]:
        output = self._output(module, batch)
        _flattened(output)
        loss = self._side.loss(output, batch)
        if not isinstance(loss, torch.Tensor):
            raise TypeError(
                f"loss gave {type(loss).__name__}; it must be a tensor, without .item() or float()"
            )
        if loss.ndim:
            raise ValueError(
                f"loss gave a tensor of shape {tuple(loss.shape)}; it must be a scalar: take its "
                ".mean() or .sum()"
            )
        if not loss.requires_grad:
            raise ValueError(
                "the loss does not depend on the parameters (requires_grad is False): is it made "
                "under no_grad, from detached values, or are all parameters frozen?"
            )
        return output, loss

    def _refuse_randomness(self, batch: Any) -> None:
        """Raise an error where two forward passes in a row differ."""
        drawn = _random_state()
        buffers = {n: b.detach().clone() for n, b in self._side.module.named_buffers()}
        outputs = []
        with torch.no_grad():
            for _ in range(2):
                outputs.append(_flattened(self._output(self._side.module, batch)))
                outputs[-1] = [x.clone() for x in outputs[-1]]
                for name, buffer in self._side.module.named_buffers():
                    buffer.copy_(buffers[name])
        _set_random_state(drawn)
        different = sum(not _same(x, y) for x, y in zip(*outputs, strict=True))
        if different:
            raise ValueError(
                f"the forward pass is not deterministic: two passes of one batch differ in "
                f"{different} of {len(outputs[0])} output tensors. Dropout draws anew in each "
                "pass: call module.eval(), set p=0, or give both sides the same masks as part of "
                "the batch. On a GPU, torch.use_deterministic_algorithms(True) may be needed"
            )

    def _evaluate64(
        self, batch: Any, before: Mapping[str, torch.Tensor], grads: Mapping[str, Any]
    ) -> tuple[list[Any], float, dict[str, Any], dict[str, Any]]:
        """Evaluate in float64 from the run's own parameters."""
        trajectory = {name: p.data for name, p in self._params64.items()}
        try:
            for name, p in self._params64.items():
                p.data = _widened(self._params[name].detach())
            with torch.no_grad():
                for name, buffer in self._module64.named_buffers():
                    buffer.copy_(before[name])
            with all_float64():
                output, loss = self._losses(self._module64, _mapped(_widened, batch))
                torch.autograd.backward(loss)
            grads64 = _grads_of(self._params64)
        finally:
            for name, p in self._params64.items():
                p.data, p.grad = trajectory[name], None
        if grads64.keys() != grads.keys():
            odd = ", ".join(sorted(grads64.keys() ^ grads.keys()))
            raise ValueError(
                f"the same step evaluated in float64 gives no gradient of, or only then one of: "
                f"{odd}. forward must use the module that it is given, which then is a copy"
            )
        flat = [x.detach().cpu() for x in _flattened(output)]
        after = _floating(self._module64.named_buffers())
        return flat, float(loss.detach()), grads64, after

    def _update64(self) -> dict[str, Any]:
        """Feed the optimizer in float64 with the run's gradients; return them as it clips them."""
        for group64, group in zip(
            self._optimizer64.param_groups, self._side.optimizer.param_groups, strict=True
        ):
            for key, value in group.items():
                if key != "params":
                    tensor = isinstance(value, torch.Tensor)
                    group64[key] = _widened(value, copies=True) if tensor else copy.deepcopy(value)
        for name, p in self._params.items():
            self._params64[name].grad = None if p.grad is None else _widened(p.grad, copies=True)
        if self._side.clip is not None:
            versions = [p.grad._version for p in self._params.values() if p.grad is not None]
            self._side.clip(list(self._params64.values()))
            if versions != [p.grad._version for p in self._params.values() if p.grad is not None]:
                raise ValueError(
                    "clip changed other gradients than those of the parameters that it was given; "
                    "write it as clip=lambda parameters: clip_grad_norm_(parameters, …)"
                )
        self._optimizer64.step()
        clipped = {} if self._side.clip is None else _grads_of(self._params64)
        for p in self._params64.values():
            p.grad = None
        return clipped

    def _options(self) -> list[dict[str, Any]]:
        return [
            {
                k: [self._name_of[id(p)] for p in v] if k == "params" else _number(v)
                for k, v in group.items()
            }
            for group in self._side.optimizer.param_groups
        ]


# ── what a run refuses ─────────────────────────────────────────────────────────────────────────


def _refuse(side: TorchSide) -> None:
    optimizer, scheduler = side.optimizer, side.scheduler
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise TypeError(
            f"{type(optimizer).__name__} evaluates the loss itself, through a closure; only "
            "optimizers whose step() takes the gradients that are there can be compared"
        )
    own = {id(p) for p in side.module.parameters()}
    if not any(p.is_floating_point() for p in side.module.parameters()):
        raise ValueError(f"{type(side.module).__name__} has no parameters to train")
    for g, group in enumerate(optimizer.param_groups):
        foreign = [tuple(p.shape) for p in group["params"] if id(p) not in own]
        if foreign:
            raise ValueError(
                f"the optimizer has parameters that are not the module's: shapes {foreign} in "
                f"group {g}. Was the module moved or rebuilt after the optimizer was made?"
            )
    odd = [n for n, p in side.module.named_parameters() if not bool(torch.isfinite(p).all())]
    if odd:
        raise ValueError(f"NaN or infinity in the initial parameters: {', '.join(odd)}")
    if getattr(scheduler, "optimizer", optimizer) is not optimizer:
        raise ValueError("the scheduler is of another optimizer than the one that is given")
    plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
    if plateau and not side.metric:
        raise ValueError("ReduceLROnPlateau steps with the loss: give metric=True")
    if side.scheduler_every < 1:
        raise ValueError(f"scheduler_every is {side.scheduler_every}; it must be 1 or more")


# ── batches and outputs ────────────────────────────────────────────────────────────────────────


def _mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _mapped(function, value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_mapped(function, value) for value in tree))
    if isinstance(tree, (tuple, list)):
        return type(tree)(_mapped(function, value) for value in tree)
    return None if tree is None else function(tree)


def _cast(batch: Any, dtype: torch.dtype, device: torch.device, what: str) -> Any:
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

    return _mapped(cast, batch)


def _flattened(output: Any) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = [output[key] for key in sorted(output)]
    if isinstance(output, (tuple, list)):
        return [tensor for part in output for tensor in _flattened(part)]
    if output is None:
        return []
    raise TypeError(
        f"the output has a {type(output).__name__}; it may have tensors in nested tuples, lists "
        "and dicts. `forward` can pick them: forward=lambda module, batch: module(…).logits"
    )


def _same(x: torch.Tensor, y: torch.Tensor) -> bool:
    return x.shape == y.shape and bool(((x == y) | ((x != x) & (y != y))).all())


def _number(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().tolist()
    return type(value)(map(_number, value)) if isinstance(value, (tuple, list)) else value


# ── float64 ────────────────────────────────────────────────────────────────────────────────────

_NARROW = (torch.float32, torch.float16, torch.bfloat16)
_CASTS = (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16)
# Numbers that torch's optimizers keep in float32 whatever the parameters are.
_SCALARS = ("step", "eta", "mu", "mu_product")


def _widened(value: torch.Tensor, copies: bool = False) -> torch.Tensor:
    return value.to(torch.float64, copy=copies) if value.is_floating_point() else value


class _Float64Mode(TorchFunctionMode):
    """Turns casts to narrower dtypes, and constants of such, into float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        function = torch.Tensor.double if func in _CASTS else func
        in_place = name.endswith("_") and not name.endswith("__")
        if in_place or name.startswith(("__get__", "__set", "__i")):  # of that very tensor
            return function(*args, **(kwargs or {}))

        def wide(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                constant = value.dtype in _NARROW and not value.requires_grad
                return value.double() if constant else value
            if type(value) in (tuple, list):
                return type(value)(map(wide, value))
            narrow = isinstance(value, torch.dtype) and value in _NARROW
            return torch.float64 if narrow else value

        return function(*map(wide, args), **{k: wide(v) for k, v in (kwargs or {}).items()})


class _Through(TorchFunctionMode):
    """Makes each call of a torch function through another."""

    def __init__(self, calls: Callable[..., Any]) -> None:
        super().__init__()
        self._calls = calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._calls(func, args, kwargs or {})


@contextlib.contextmanager
def all_float64() -> Iterator[None]:
    """Turn what torch makes into float64: tensors, constants, casts."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Float64Mode():
            yield
    except (RuntimeError, TypeError, ValueError) as error:
        error.add_note(
            "This came up as the step was evaluated again in float64. forward and loss must use "
            "the module, the output and the batch that they are given."
        )
        raise
    finally:
        torch.set_default_dtype(before)


def _in_float64(
    module: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    memo: dict[int, Any] = {}
    module64, optimizer64 = copy.deepcopy(module, memo), copy.deepcopy(optimizer, memo)
    # torch copies an optimizer's state and groups only. `step` is there where a scheduler put it.
    for name in vars(optimizer).keys() - vars(optimizer64).keys() - {"step"}:
        memo[id(optimizer)] = optimizer64
        setattr(optimizer64, name, copy.deepcopy(getattr(optimizer, name), memo))
    module64.double()
    for state in optimizer64.state.values():
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and not (key in _SCALARS and value.ndim == 0):
                state[key] = _widened(value)
    return module64, optimizer64


# ── what a run holds ───────────────────────────────────────────────────────────────────────────


def _values(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _floating(tensors: Any) -> dict[str, Any]:
    return {n: t.detach().clone().cpu() for n, t in tensors if t.is_floating_point()}


def _grads_of(params: Mapping[str, torch.Tensor], copies: bool = False) -> dict[str, Any]:
    grads = {}
    for name, p in params.items():
        if p.grad is None:
            continue
        if p.grad.layout != torch.strided:
            raise ValueError(
                f"the gradient of {name} is sparse; make its layer with sparse=False to compare it"
            )
        grads[name] = p.grad.detach().clone().cpu() if copies else p.grad.detach().cpu()
    return grads


def _state_of(
    optimizer: torch.optim.Optimizer, params: Mapping[str, torch.Tensor]
) -> dict[str, dict[str, Any]]:
    return {
        name: {
            k: v.detach().cpu() if isinstance(v, torch.Tensor) else v
            for k, v in optimizer.state[p].items()
        }
        for name, p in params.items()
        if p in optimizer.state
    }


def _copied_optimizer(
    optimizer: torch.optim.Optimizer, params: Mapping[str, torch.Tensor]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    states = {
        n: copy.deepcopy(dict(optimizer.state[p]))
        for n, p in params.items()
        if p in optimizer.state
    }
    groups = [
        {k: copy.deepcopy(v) for k, v in group.items() if k != "params"}
        for group in optimizer.param_groups
    ]
    return states, groups


def _restore_optimizer(
    optimizer: torch.optim.Optimizer,
    params: Mapping[str, torch.Tensor],
    states: Mapping[str, Any],
    groups: list[dict[str, Any]],
) -> None:
    for name, p in params.items():
        if name in states:
            optimizer.state[p] = copy.deepcopy(states[name])
        else:
            optimizer.state.pop(p, None)
    for group, held in zip(optimizer.param_groups, groups, strict=True):
        for key, value in held.items():
            if isinstance(value, torch.Tensor) and isinstance(group[key], torch.Tensor):
                group[key].copy_(value)  # a scheduler may hold this tensor
            else:
                group[key] = copy.deepcopy(value)


def _copied_scheduler(scheduler: Any) -> Any:
    return None if scheduler is None else _copied(scheduler, scheduler.state_dict())


def _copied(scheduler: Any, state: Any) -> Any:
    # Bound methods in it would otherwise take copies of these along.
    kept = {id(scheduler): scheduler, id(scheduler.optimizer): scheduler.optimizer}
    return copy.deepcopy(state, kept)


def _random_state() -> Any:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return random.getstate(), torch.get_rng_state(), cuda


def _set_random_state(state: Any) -> None:
    python, cpu, cuda = state
    random.setstate(python)
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)


# ── traces ─────────────────────────────────────────────────────────────────────────────────────

FORMAT = "jaxopt_port trace"
VERSION = 1
_FIRST_CHECKS = 3
_LEAST_UPDATES = 3  # before leaves are left out
# Bytes that are not the tensors': of a tensor in the header of its file, of a step's file and the
# losses of a line, and of what was left out.
_HEADER, _LINE, _PLAN = 100, 120, 1000
_SAME = ("options", "batch")  # said once, as long as they stay the same
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SAFETENSORS = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.complex64: "C64",
}


def record(
    path: str | os.PathLike[str],
    side: TorchSide,
    batches: Iterable[Any],
    *,
    steps: int | None = None,
    every: int = 10,
    budget: int | str = "2 GB",
    store_batches: bool = True,
    seeds: Any = None,
    name: str = "",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Train with torch, and write a trace that ``jaxopt-port replay`` compares the JAX side with.

    Module, optimizer and scheduler are left as they were. Where all does not fit into the budget,
    less is kept, and the trace says what: first no optimizer state and no parameters of the run's
    own dtype at steps that are not checked, then fewer steps that are checked, then updates of the
    first steps only, then no updates of the largest parameters.

    Args:
        path: a folder, which is made.
        side: what is trained.
        batches: of each step: NumPy arrays or tensors in nested tuples, lists and dicts.
        steps: how many; all batches by default, which must then have a length.
        every: the first three steps, each ``every``-th and the last are recorded in full.
        budget: bytes, or as ``"500 MB"``.
        store_batches: False keeps SHA-256 hashes: a replay is then given the same batches.
        seeds: what the run was seeded with, for the reader.
        name: of the case, likewise.
        overwrite: replace a trace that is there, once the new one is whole.
        progress: called with the steps done and the number of steps.

    Raises:
        TypeError: ``batches`` has no length and ``steps`` is missing; see also `TorchRun`.
        ValueError: the batches end early, the budget is too small for the first step, or
            see `TorchRun`.
        FileExistsError: the folder is there and not empty.

    Example:
        >>> import tempfile
        >>> module = torch.nn.Linear(3, 1)
        >>> side = TorchSide(
        ...     module=module,
        ...     optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
        ...     loss=lambda output, batch: torch.nn.functional.mse_loss(output, batch[1]),
        ... )
        >>> batches = [(torch.ones(4, 3), torch.ones(4, 1))] * 5
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     record(Path(folder, "run.trace"), side, batches)
        ...     sorted(p.name for p in Path(folder, "run.trace").iterdir())
        ['scalars.jsonl', 'steps', 'trace.json']
    """
    target, limit = Path(path), _bytes_of(budget)
    count = _count(batches, steps)
    if every < 1:
        raise ValueError(f"every is {every}; it must be 1 or more")
    if target.exists() and not overwrite and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} is there already; overwrite=True replaces it")
    plan = _Plan(asked=every, every=every, steps=count, updates=count)
    run = TorchRun(side, lambda step: plan.checks(step))
    before = run.snapshot()
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "name": name or type(side.module).__name__,
        "optimizer": run.optimizer_name,
        "dtype": run.dtype,
        "steps": count,
        "environment": _environment(run),
        "seeds": {"given": seeds, "torch.initial_seed": torch.initial_seed()},
        "tensors": _described(side.module),
        "layers": _layers(side.module),
        "scheduler": None if side.scheduler is None else type(side.scheduler).__name__,
        "scheduler_every": side.scheduler_every,
        "metric": side.metric,
        "clip": side.clip is not None,
        "batches": "stored" if store_batches else "hashed",
    }
    try:
        with _folder(target) as folder, open(folder / "scalars.jsonl", "wb") as scalars:
            given, last = iter(batches), dict[str, Any]()
            for step in range(count):
                evaluation = run.evaluate(_next(given, step, count))
                update = run.update()
                found = _tensors_of(evaluation, update)
                line = _scalars(evaluation, update, store_batches)
                if step == 0:
                    sizes = _sizes(found, line, store_batches, side.scheduler is not None)
                    facts["groups"] = [group["params"] for group in evaluation.options]
                    plan = _fitting(plan, sizes, facts, limit, store_batches)
                    _write_json(folder, facts | plan.described(limit) | {"complete": False})
                kept = plan.kept(step, found, store_batches)
                size = _write_step(folder / "steps" / f"{step:08d}.safetensors", kept)
                if step >= plan.updates:
                    del line["state"], line["state64"]
                brief = {k: v for k, v in line.items() if k not in _SAME or last.get(k) != v}
                scalars.write(_json({**brief, "bytes": size}) + b"\n")
                scalars.flush()
                last = line
                if progress is not None:
                    progress(step + 1, count)
            _write_json(folder, facts | plan.described(limit) | {"complete": True})
    finally:
        run.restore(before)


def _bytes_of(budget: int | str) -> int:
    if isinstance(budget, str):
        parts = re.fullmatch(r"\s*([0-9.]+)\s*([KMGT]?B)\s*", budget, re.IGNORECASE)
        if parts is None or parts[1].count(".") > 1 or parts[1] == ".":
            raise ValueError(f"budget is {budget!r}; write bytes, or as '500 MB' or '2 GB'")
        budget = int(float(parts[1]) * _UNITS[parts[2].upper()])
    if budget < 1:
        raise ValueError(f"budget is {budget} bytes; it must be more than 0")
    return budget


def _count(batches: Any, steps: int | None) -> int:
    if steps is None:
        if not hasattr(batches, "__len__"):
            raise TypeError("batches has no length; say how many steps with steps=")
        steps = len(batches)
        if steps == 0:
            raise ValueError("there are no batches")
    if steps < 1:
        raise ValueError(f"steps is {steps}; it must be 1 or more")
    return steps


_END = object()


def _next(batches: Iterator[Any], step: int, steps: int) -> Any:
    batch = next(batches, _END)
    if batch is _END:
        raise ValueError(
            f"the batches end after {step} of {steps} steps; give more, or steps={step}"
            if step
            else "there are no batches"
        )
    return batch


# ── what fits ──────────────────────────────────────────────────────────────────────────────────

# The name of a tensor in a step's file begins with what it is.
_ALWAYS = ("batch",)
_GRADS = ("grad",)
_UPDATE = ("clipped", "clipped64", "param64")
_SPARED = ("param", "state", "state64")  # not kept, where bytes are short, if not checked
_CHECKED = ("checked", "checked64")


@dataclass
class _Plan:
    """What is kept of which step."""

    asked: int  # every so many steps is checked, if it fits
    every: int  # instead; 0: the first step only
    steps: int
    updates: int  # of the first so many steps
    thrifty: bool = False
    left_out: tuple[str, ...] = ()  # parameters without updates

    def checks(self, step: int) -> bool:
        if self.every == 0:
            return step == 0
        first = 1 if self.every > self.steps else _FIRST_CHECKS
        return step < first or step % self.every == 0 or step == self.steps - 1

    def keeps(self, step: int, kind: str, parameter: str = "") -> bool:
        if kind in _ALWAYS:
            return True
        if kind in _CHECKED:
            return self.checks(step)
        if kind in _GRADS:
            return step < self.updates or self.checks(step)
        spared = kind in _SPARED and self.thrifty and not self.checks(step)
        return step < self.updates and not spared and parameter not in self.left_out

    def kept(self, step: int, found: Mapping[str, Any], store_batches: bool) -> dict[str, Any]:
        return {
            name: tensor
            for name, tensor in found.items()
            if self.keeps(step, *_kind_of(name)) and (store_batches or _kind_of(name)[0] != "batch")
        }

    def described(self, limit: int) -> dict[str, Any]:
        notes = []
        if self.thrifty:
            notes.append("optimizer state and parameters in the run's own dtype only where checked")
        where = (
            "step 0"
            if self.every == 0
            else "the first and the last step"
            if self.every > self.steps
            else f"one step in {self.every}"
        )
        if self.every != self.asked:
            notes.append(f"forward, loss and gradient at {where} only")
        if self.updates < self.steps:
            first = f"updates of the first {self.updates} of {self.steps} steps only"
            notes.append(first if self.updates else "no updates")
        if self.left_out:
            notes.append(f"no updates of {', '.join(self.left_out)}")
        return {"budget": {"bytes": limit, **dataclasses.asdict(self), "notes": notes}}


def _kind_of(name: str) -> tuple[str, str]:
    kind, _, rest = name.partition("/")
    return kind, rest.partition("/")[0]


_Sizes = dict[tuple[str, str], int]  # bytes, by what a tensor is and the parameter's name


def _sizes(
    found: Mapping[str, Any], line: Mapping[str, Any], store_batches: bool, scheduled: bool
) -> _Sizes:
    size: _Sizes = {("batch", "scalars"): len(_json(line)) + _LINE}
    if not scheduled:  # the options are said once
        size["once", ""] = len(_json(line["options"]))
        size["batch", "scalars"] -= size["once", ""]
    for name, tensor in found.items():
        if store_batches or not name.startswith("batch/"):
            of = _kind_of(name)
            size[of] = size.get(of, 0) + tensor.nbytes + len(name.encode()) + _HEADER
    return size


def _fitting(
    plan: _Plan, size: _Sizes, facts: Mapping[str, Any], limit: int, store_batches: bool
) -> _Plan:
    """Return the first plan, of those that keep less and less, that fits."""
    fixed = len(_json(facts, indent=1)) + _PLAN

    def total(candidate: _Plan) -> int:
        checked = sum(map(candidate.checks, range(candidate.steps)))
        updated = min(candidate.updates, candidate.steps)
        both = sum(map(candidate.checks, range(updated)))
        times = {"once": 1, "batch": candidate.steps, "grad": checked + updated - both}
        times |= dict.fromkeys(_CHECKED, checked) | dict.fromkeys(_UPDATE, updated)
        times |= dict.fromkeys(_SPARED, both if candidate.thrifty else updated)
        return fixed + sum(
            bytes_ * times[kind]
            for (kind, of), bytes_ in size.items()
            if of not in candidate.left_out or kind not in _UPDATE + _SPARED
        )

    smaller = plan
    for smaller in _smaller(plan, size):
        if total(smaller) <= limit:
            return _most_updates(smaller, plan, total, limit)
    batches = ", and all batches (store_batches=False keeps hashes of those)"
    raise ValueError(
        f"the budget is {limit} bytes; the least is {total(smaller)}: the parameters, output and "
        f"gradients of the first step{batches if store_batches else ''}"
    )


def _smaller(plan: _Plan, size: _Sizes) -> Iterator[_Plan]:
    yield plan
    plan = dataclasses.replace(plan, thrifty=True)
    yield plan
    while plan.every <= plan.steps:
        plan = dataclasses.replace(plan, every=2 * plan.every)
        yield plan
    plan = dataclasses.replace(plan, every=0)
    yield plan
    plan = dataclasses.replace(plan, updates=min(_LEAST_UPDATES, plan.steps))
    yield plan
    names = sorted((of for kind, of in size if kind == "param"), key=lambda n: -size["param", n])
    for n in range(1, len(names)):
        yield dataclasses.replace(plan, left_out=tuple(names[:n]))
    yield dataclasses.replace(plan, updates=0)


def _most_updates(smaller: _Plan, plan: _Plan, total: Callable[[_Plan], int], limit: int) -> _Plan:
    """Keep as many updates as fit, where they are what was cut."""
    if smaller.updates == plan.updates or smaller.left_out or not smaller.updates:
        return smaller
    low, high = smaller.updates, plan.updates
    while low < high:
        middle = (low + high + 1) // 2
        fits = total(dataclasses.replace(smaller, updates=middle)) <= limit
        low, high = (middle, high) if fits else (low, middle - 1)
    return dataclasses.replace(smaller, updates=low)


# ── what a trace says ──────────────────────────────────────────────────────────────────────────


def _environment(run: TorchRun) -> dict[str, str]:
    try:
        library = importlib.metadata.version("jaxopt-port")
    except importlib.metadata.PackageNotFoundError:
        library = "not installed"
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "jaxopt_port": library,
        "device": str(run._device),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _described(module: torch.nn.Module) -> list[dict[str, Any]]:
    """Return names, shapes and dtypes of parameters and buffers, tied ones under each name."""
    first: dict[int, str] = {}
    parameters = dict(module.named_parameters(remove_duplicate=False))
    kept = module.state_dict(keep_vars=True)
    buffers = {n: b for n, b in module.named_buffers(remove_duplicate=False) if n in kept}
    return [
        {
            "name": name,
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "buffer": name not in parameters,
            "tied_to": tied if (tied := first.setdefault(id(tensor), name)) != name else None,
        }
        for name, tensor in {**parameters, **buffers}.items()
    ]


def _layers(module: torch.nn.Module) -> dict[str, dict[str, Any]]:
    """Return what each layer is of torch.nn's classes, the nearest first."""
    return {
        name: {
            "type": type(layer).__name__,
            "bases": [
                base.__name__
                for base in type(layer).__mro__
                if getattr(torch.nn, base.__name__, None) is base
            ],
            "num_heads": getattr(layer, "num_heads", None)
            if isinstance(layer, torch.nn.MultiheadAttention)
            else None,
            "momentum": getattr(layer, "momentum", None)
            if isinstance(getattr(layer, "momentum", None), float)
            else None,
        }
        for name, layer in module.named_modules(remove_duplicate=False)
    }


def _leaves(batch: Any) -> list[torch.Tensor]:
    leaves: list[torch.Tensor] = []
    _mapped(leaves.append, batch)
    return leaves


def _structure(batch: Any, hashes: Iterator[str] | None, places: Iterator[int]) -> Any:
    if isinstance(batch, Mapping):
        return {"dict": [[k, _structure(v, hashes, places)] for k, v in batch.items()]}
    if isinstance(batch, (tuple, list)):
        kind = "tuple" if isinstance(batch, tuple) else "list"
        return {kind: [_structure(v, hashes, places) for v in batch]}
    if batch is None:
        return None
    leaf = {"array": next(places), "dtype": str(batch.dtype).removeprefix("torch.")}
    leaf["shape"] = list(batch.shape)
    return leaf if hashes is None else {**leaf, "sha256": next(hashes)}


def _tensors_of(evaluation: Evaluation, update: Update) -> dict[str, torch.Tensor]:
    """Return all tensors of a step by the names that they have in its file."""
    found = {f"batch/{i}": x for i, x in enumerate(_leaves(evaluation.batch))}
    found |= {f"grad/{n}": x for n, x in evaluation.grads.items()}
    for kind, held in (
        ("clipped", update.clipped),
        ("clipped64", update.clipped64),
        ("param", update.params),
        ("param64", update.params64),
    ):
        found |= {f"{kind}/{n}": x for n, x in held.items()}
    for kind, states in (("state", update.state), ("state64", update.state64)):
        for name, state in states.items():
            for key, value in state.items():
                if isinstance(value, torch.Tensor):
                    found[f"{kind}/{name}/{key}"] = value
    if (checked := evaluation.checked) is not None:
        found |= {f"checked/output/{i}": x for i, x in enumerate(checked.output)}
        found |= {f"checked64/output/{i}": x for i, x in enumerate(checked.output64)}
        for kind, held in (
            ("checked/param", checked.params),
            ("checked/buffer", checked.buffers),
            ("checked/buffer_after", checked.buffers_after),
            ("checked64/grad", checked.grads64),
            ("checked64/buffer_after", checked.buffers_after64),
        ):
            found |= {f"{kind}/{n}": x for n, x in held.items()}
    return found


def _scalars(evaluation: Evaluation, update: Update, store_batches: bool) -> dict[str, Any]:
    checked = evaluation.checked
    leaves = _leaves(evaluation.batch)
    hashes = None if store_batches else iter([_sha256(x) for x in leaves])

    def numbers(states: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        return {
            name: rest
            for name, state in states.items()
            if (rest := {k: v for k, v in state.items() if not isinstance(v, torch.Tensor)})
        }

    groups = [{k: v for k, v in g.items() if k != "params"} for g in evaluation.options]
    plain: dict[str, Any] = _json_values(
        {
            "step": evaluation.step,
            "loss": evaluation.loss,
            "loss64": None if checked is None else checked.loss64,
            "checked": checked is not None,
            "options": groups,
            "batch": _structure(evaluation.batch, hashes, iter(range(len(leaves)))),
            "state": numbers(update.state),
            "state64": numbers(update.state64),
        }
    )
    return plain


def _json(value: Any, indent: int | None = None) -> bytes:
    return json.dumps(_json_values(value), allow_nan=False, indent=indent).encode()


def _json_values(value: Any) -> Any:
    """Return JSON values; infinities and NaNs as texts, what JSON has not as its repr."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(k): _json_values(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_json_values(v) for v in value]
    return value if value is None or isinstance(value, (str, int)) else repr(value)


# ── files ──────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _folder(target: Path) -> Iterator[Path]:
    """Give the folder to write into: the target, or one beside that takes the place of the old."""
    if not (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        (target / "steps").mkdir(parents=True)
        try:
            yield target
        except BaseException:
            if not (target / "trace.json").exists():  # it failed before the first step was whole
                shutil.rmtree(target)
            raise
        return
    mark = secrets.token_hex(4)
    beside, old = (target.with_name(f".{target.name}.{mark}.{end}") for end in ("tmp", "old"))
    (beside / "steps").mkdir(parents=True)
    try:
        yield beside
        os.replace(target, old)
        os.replace(beside, target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    if old.is_dir():
        shutil.rmtree(old)
    else:
        old.unlink()


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    beside = path.with_name(f".{path.name}.tmp")
    try:
        with open(beside, "wb") as file:
            yield file
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _write_json(folder: Path, facts: Mapping[str, Any]) -> None:
    with _replacing(folder / "trace.json") as file:
        file.write(_json(facts, indent=1))


def _memory(tensor: torch.Tensor) -> Any:
    """Return a tensor's bytes, in C order, without NumPy, which torch may lack."""
    flat = tensor.contiguous()
    view = (ctypes.c_char * flat.nbytes).from_address(flat.data_ptr()) if flat.nbytes else b""
    return flat, memoryview(view).cast("B")


def _sha256(tensor: torch.Tensor) -> str:
    held, view = _memory(tensor)
    digest = hashlib.sha256(view).hexdigest()
    del view, held
    return digest


def _write_step(path: Path, tensors: Mapping[str, torch.Tensor]) -> int:
    """Write a safetensors file: a length, a JSON header, the bytes; return its size."""
    names = sorted(tensors, key=lambda name: -tensors[name].element_size())
    header: dict[str, Any] = {}
    end = 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in _SAFETENSORS:
            raise TypeError(f"{name} is {tensor.dtype}, which a trace has no room for")
        start, end = end, end + tensor.nbytes
        shape, dtype = list(tensor.shape), _SAFETENSORS[tensor.dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with _replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            held, view = _memory(tensors[name])
            file.write(view)
            del view, held
    return 8 + len(text) + end


# ── the command ────────────────────────────────────────────────────────────────────────────────


def main(arguments: list[str] | None = None) -> None:
    """Record a case file: ``python record.py CASE.py TRACE``.

    The file has ``torch_side()``, which returns a `TorchSide` or a dict of its arguments,
    ``batches()``, and may set ``STEPS``.
    """
    parser = argparse.ArgumentParser(prog="record.py", description="Record torch's side of a case.")
    parser.add_argument("case", help="a Python file with torch_side() and batches()")
    parser.add_argument("trace", help="the folder to write")
    parser.add_argument("--budget", default="2 GB", help="as 500MB (default: %(default)s)")
    parser.add_argument("--every", type=int, default=10, help="record each N-th step in full")
    parser.add_argument("--hashes", action="store_true", help="of the batches, not the batches")
    parser.add_argument("--overwrite", action="store_true", help="replace the trace that is there")
    given = parser.parse_args(arguments)
    if not Path(given.case).is_file():
        parser.error(f"there is no file {given.case}")
    sys.path.insert(0, str(Path(given.case).resolve().parent))
    case = runpy.run_path(given.case)
    lacking = [f"{name}()" for name in ("torch_side", "batches") if name not in case]
    if lacking:
        parser.error(f"{given.case} has no function {' and '.join(lacking)}")
    side = case["torch_side"]()

    def progress(done: int, steps: int) -> None:
        print(f"\r{done} of {steps} steps", end="\n" if done == steps else "", file=sys.stderr)

    record(
        given.trace,
        TorchSide(**side) if isinstance(side, Mapping) else side,
        case["batches"](),
        steps=case.get("STEPS"),
        every=given.every,
        budget=given.budget,
        store_batches=not given.hashes,
        name=Path(given.case).stem,
        overwrite=given.overwrite,
        progress=progress,
    )


if __name__ == "__main__":
    main()
