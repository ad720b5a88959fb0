from __future__ import annotations

import functools
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import torch

from ..checkpoint import ELSEWHERE, LATE, state_dict
from ..engine import (
    REST,
    Arguments,
    Definition,
    Factory,
    arguments_of,
    as_factory,
    is_whole_tree,
    step,
)
from ..optim import class_of
from ._shadow import Distance, Shadow
from ._tensors import tensor_of
from ._torch_running import Step, imported, number, with_numbers
from ._torch_state_dict import check_memory


class TorchOptimizer(torch.optim.Optimizer):
    """A ``torch.optim.Optimizer`` whose step this library computes.

    The first thing to swap in a port: the script stays torch's, with its model, parameter groups,
    ``torch.optim.lr_scheduler``, hooks, ``state_dict``, ``add_param_group``, closures and
    ``zero_grad``, and only the update is JAX's. Parameters and gradients are handed over by DLPack,
    without a copy where their memory is aligned to 64 bytes; the new parameters are copied back in
    place.

    Args:
        params: as for any optimizer of torch's: parameters, named parameters or groups.
        optimizer: which one: ``jp.AdamW``, its lower-case spelling, or a factory of the user's or
            of Optax. Not L-BFGS, which evaluates the loss itself.
        shadow: whether to run torch's own optimizer beside, on copies of the parameters and with
            the same gradients, and to keep the distance in `distances`. It follows parameters that
            are changed between steps, groups, and what `load_state_dict` brings; not what is
            written into `state`.
        **options: the optimizer's, as in torch.

    Attributes:
        distances: with ``shadow``, one `Distance` for each step.

    Raises:
        TypeError: an unknown option; an optimizer that torch has not, with ``shadow``.
        ValueError: an option out of range, beginning with torch's own message.

    Example:
        >>> import jaxopt_port as jp
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = TorchOptimizer(model.parameters(), jp.AdamW, lr=0.1, shadow=True)
        >>> scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10)
        >>> for _ in range(3):
        ...     optimizer.zero_grad()
        ...     model(torch.ones(2, 3)).sum().backward()
        ...     _ = optimizer.step()
        ...     scheduler.step()
        >>> max(distance.ulps for distance in optimizer.distances) <= 4
        True
    """

    distances: list[Distance]

    def __init__(
        self, params: Any, optimizer: Callable[..., Any], *, shadow: bool = False, **options: Any
    ) -> None:
        self._factory: Factory = as_factory(optimizer)
        if is_whole_tree(self._factory):
            raise TypeError("L-BFGS evaluates the loss in JAX; use torch.optim.LBFGS here")
        self._arguments: Arguments = arguments_of(self._factory)
        defaults = {**self._arguments.defaults, **self._arguments.bind((), options)}
        Definition(self._factory, self._arguments, defaults).check_defaults()
        self._running: Any = None
        self._current: Step | None = None
        self._stepped: dict[str, torch.Tensor] = {}  # whose state that holds
        self._shadow: Shadow | None = None
        self.distances = []
        super().__init__(params, defaults)
        if shadow:
            self._shadow = Shadow(self._torch_class())

    # ── torch's side ───────────────────────────────────────────────────────────────────────────

    @property
    def state(self) -> Any:
        """What is held for each parameter, by torch's names; read from JAX when it is asked for.

        A change of it counts in the next step, and it may be kept; a parameter's dict, or a tensor,
        that is kept over a step does not follow, as torch's own would.
        """
        return self._torch_state

    @state.setter
    def state(self, value: Any) -> None:
        self._current = None
        self._torch_state = _Live(self, value)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as any optimizer of torch's; options are checked before anything changes."""
        if not isinstance(param_group, dict):
            raise TypeError(
                f"param_group must be a dict, but got {type(param_group)}; "
                'write {"params": …} around the parameters'
            )
        own = {k: v for k, v in param_group.items() if k not in _NOT_OPTIONS}
        self._arguments.are_own(own, "")
        options = {k: own.get(k, self.defaults[k]) for k in self._arguments.names}
        scheduled = [k for k, v in options.items() if callable(v)]
        if scheduled:
            raise TypeError(f"{scheduled[0]} must be a number; schedule it by torch's schedulers")
        definition = Definition(self._factory, self._arguments, {})
        definition.extended([{"params": REST, **options}])
        _check_accepted(self._arguments.rule, param_group)
        self._export()
        super().add_param_group(param_group)
        given = [p for group in self.param_groups for p in group["params"]]
        try:
            check_memory((f"parameter {i}", p) for i, p in enumerate(given))
        except ValueError:
            self.param_groups.pop()
            raise

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step: of the parameters that have a gradient, as torch does.

        Args:
            closure: evaluates the loss again, and its gradients.

        Returns:
            What the closure returns.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._shadow is not None:
            self._shadow.begin(self.param_groups)
        with torch.no_grad(), jax.enable_x64(True):
            self._step()
        if self._shadow is not None:
            self.distances.append(self._shadow.step(self._names()))
        return loss

    def __getstate__(self) -> dict[str, Any]:
        self._export()
        return {
            **super().__getstate__(),
            "state": dict(self._torch_state),
            "_factory": self._factory,
            "_shadow": self._shadow,
            "distances": self.distances,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        copied = "_factory" in state  # load_state_dict sets only what is torch's
        if copied:
            self._factory = state.pop("_factory")
            self._arguments = arguments_of(self._factory)
            self._running = None
        # Options that the torch which saved the groups did not know, as torch's own fill them in.
        for i, group in enumerate(state["param_groups"]):
            for name in self._arguments.names:
                if name not in group and name not in LATE:
                    raise ValueError(
                        f"group {i} of the state dict has no {name!r}: it is not one of "
                        f"{self._factory.__name__}, of no version of torch"
                    )
                group.setdefault(name, LATE.get(name))
        self.state = state.pop("state")
        super().__setstate__(state)
        if self._shadow is not None and not copied:
            self._shadow.load(self.param_groups, self._torch_state)

    # ── JAX's side ─────────────────────────────────────────────────────────────────────────────

    def _tensors(self) -> dict[str, torch.Tensor]:
        """By path, the parameters that have a gradient."""
        each = enumerate(p for group in self.param_groups for p in group["params"])
        return {f"p{i}": p for i, p in each if p.grad is not None}

    def _step(self) -> None:
        tensors = self._tensors()
        if not tensors:
            return
        params = {path: _to_jax(p) for path, p in tensors.items()}
        grads = {path: _gradient(p) for path, p in tensors.items()}
        steps = [[id(p) for p in g["params"] if p.grad is not None] for g in self.param_groups]
        running = tuple(tensors), steps, [self._program(group) for group in self.param_groups]
        if self._current is None or running != self._running:
            self._export()
            self._current, self._running = (
                imported(
                    self._arguments,
                    self._factory,
                    self.param_groups,
                    self._torch_state,
                    tensors,
                    params,
                ),
                running,
            )
            self._stepped = tensors
        tx, state = self._current
        state = with_numbers(state, self.param_groups)
        params, state = step(tx, grads, state, params)
        for path, p in tensors.items():
            p.copy_(torch.utils.dlpack.from_dlpack(jax.block_until_ready(params[path])))
        self._current = tx, state

    def _program(self, group: Mapping[str, Any]) -> Any:
        """Return what of a group's options decides which program runs."""
        options = {k: number(group[k]) for k in self._arguments.names}
        rule = self._arguments.rule
        static = {k: v for k, v in options.items() if not self._arguments.is_number(k, v)}
        return static, None if rule is None else rule.holds(**options)

    def _export(self) -> None:
        """Write what JAX holds into torch's state, where it can be read and changed."""
        if self._current is None:
            return
        tx, state = self._current
        self._current = None
        tensors = self._stepped
        with jax.enable_x64(True):
            like = {path: np.empty(0) for path in state.table.paths}
            saved = state_dict(tx, state, like)
        for group in saved["param_groups"]:
            # What a foreign factory shares stands with the first; the first may be another one
            # where some have no gradient.
            foreign = self._arguments.rule is None and group["params"]
            shared = saved["state"].get(group["params"][0], {}) if foreign else {}
            for index, path in zip(group["params"], group["param_names"], strict=True):
                held = {**shared, **saved["state"].get(index, {})}
                if held:
                    self._torch_state[tensors[path]] = {
                        k: tensor_of(v).to(tensors[path].device) if np.ndim(v) else _scalar(v)
                        for k, v in held.items()
                    }

    def _names(self) -> list[str]:
        names = [
            name
            for group in self.param_groups
            for name in group.get("param_names", [None] * len(group["params"]))
        ]
        return [f"parameter {i}" if name is None else name for i, name in enumerate(names)]

    def _torch_class(self) -> type[torch.optim.Optimizer]:
        cls = class_of(self._factory)
        if cls is None:
            raise TypeError("shadow=True needs an optimizer that torch has too")
        found: type[torch.optim.Optimizer] = getattr(torch.optim, cls.__name__)
        return found


class _Live(defaultdict[Any, dict[str, Any]]):
    """torch's state, which is read from JAX when it is looked at, however long it was kept."""

    def __init__(self, optimizer: TorchOptimizer, held: Mapping[Any, dict[str, Any]]) -> None:
        super().__init__(dict, held)
        self._optimizer = weakref.ref(optimizer)


def _looked_at(name: str) -> Callable[..., Any]:
    plain: Any = getattr(defaultdict, name)

    @functools.wraps(plain)
    def method(self: _Live, *args: Any, **named: Any) -> Any:
        optimizer = self._optimizer()
        if optimizer is not None:
            optimizer._export()
        return plain(self, *args, **named)

    return method


for _name in (
    "__getitem__", "__setitem__", "__delitem__", "__contains__", "__iter__", "__len__", "__eq__",
    "__repr__", "get", "keys", "values", "items", "setdefault", "update", "pop", "popitem", "clear",
    "copy",
):  # fmt: skip
    setattr(_Live, _name, _looked_at(_name))


# What a group may have besides: whose it is, and what torch's schedulers keep there.
_NOT_OPTIONS = ("params", "name", "param_names", *ELSEWHERE)


def _scalar(value: Any) -> Any:
    return tensor_of(value) if isinstance(value, np.ndarray) else value


def _check_accepted(rule: Any, param_group: dict[str, Any]) -> None:
    """Raise ValueError for a parameter whose shape or dtype an optimizer does not support."""
    params = param_group.get("params")
    if rule is None or isinstance(params, set) or params is None:
        return
    listed = [params] if isinstance(params, torch.Tensor) else list(params)
    param_group["params"] = listed  # which may have been an iterator, and is read again
    for each in listed:
        param = each[1] if isinstance(each, tuple) else each
        if isinstance(param, torch.Tensor):
            dtype = np.complex64 if param.is_complex() else np.float32
            problem = rule.accepts(np.broadcast_to(np.zeros((), dtype), tuple(param.shape)))
            if problem is not None:
                raise ValueError(f"{problem.message}; {problem.remedy}")


def _to_jax(tensor: torch.Tensor) -> jax.Array:
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    array: jax.Array = jax.dlpack.from_dlpack(plain)
    return array


def _gradient(p: torch.Tensor) -> Any:
    grad = p.grad
    assert grad is not None
    if not grad.is_sparse:
        return _to_jax(grad)
    grad = grad.coalesce()
    return _to_jax(grad.indices().T.to(torch.int32)), _to_jax(grad.values())
