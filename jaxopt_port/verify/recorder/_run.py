"""Trains with torch, and beside it an optimizer in float64."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ._batches import cast_batch, flattened, mapped
from ._exact import Exact
from ._float64 import follow, in_float64, is_rounded, widened
from ._forward import (
    added64,
    backward,
    closures_of,
    losses_of,
    refuse_randomness,
)
from ._held import (
    all_finite,
    copied,
    copied_optimizer,
    floating,
    grads_of,
    parameters_of,
    random_state,
    restore_optimizer,
    set_random_state,
    state_of,
    untouched,
    values_of,
    window_of,
)
from ._hooks import has_hooks, hooked
from ._side import TorchSide, refuse
from ._steps import Checked, Evaluation, Update
from ._together import change, listed, options_of, together

# What a user's code may do that is called for the run, and again for its copy in float64.
_OTHERS = (
    "{} changed parameters or gradients of the run itself as it was called for the copy in "
    "float64; write it for {}"
)
_CLIP = "clip", "those that it is given: clip=lambda parameters: clip_grad_norm_(parameters, …)"
_STEP_HOOK = "a hook of the optimizer's step", "what is in the optimizer that it is given"
_HOOK = "a hook of a parameter", "the gradient or the parameter that it is given"


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
        accumulation_steps: the side's.
        has_gradients64: whether a check has gradients in float64, too.
        clips: whether gradients are clipped, or hooks of a step may do so.
        steps_hooked: whether hooks of a step may change parameters.
        hooked: names of the parameters whose gradients go through hooks.
        rounded: what else the module or the loss holds that float32 has rounded: names of buffers.
        exact: the module in float64, at any step that was checked.

    Raises:
        TypeError: the optimizer needs a closure, and the side has none.
        ValueError: a parameter is NaN or infinite, the optimizer has parameters that are not the
            module's, or the scheduler is another optimizer's.
    """

    def __init__(self, side: TorchSide, check: Callable[[int], bool]) -> None:
        refuse(side)
        self._side, self._check = side, check
        self._params = dict(side.module.named_parameters())
        self._name_of = {id(p): name for name, p in self._params.items()}
        self.names, self.hooked = tuple(self._params), hooked(side.module)
        self._optimizer = together(side.optimizer)
        self._schedulers = listed(side.scheduler)
        kinds = dict.fromkeys(type(one).__name__ for one in listed(side.optimizer))
        self.optimizer_name = " and ".join(kinds)
        main = next(p for p in self._params.values() if p.is_floating_point())
        self._main, self._device = main.dtype, main.device
        self.dtype = str(main.dtype).removeprefix("torch.")
        self._step, self._loss, self._waiting, self._fresh = 0, 0.0, False, True
        self.accumulation_steps, self.has_gradients64 = side.accumulation_steps, True
        self._window64: dict[str, torch.Tensor] = {}
        self._closures: tuple[list[Any], list[Any]] = ([], [])
        self.clips = side.clip is not None or has_hooks(side.optimizer)
        self.steps_hooked = has_hooks(side.optimizer, after=True)
        self._plain = side.accumulation_steps == 1 and side.scaler is None
        self._given_grads = {n: p.grad for n, p in self._params.items() if p.grad is not None}
        self._clear_grads()
        copies = in_float64(side.module, side.optimizer, side.averaged)
        self._module64, self._optimizer64, averaged64 = copies
        self._averaged = (side.averaged, averaged64)
        self._params64 = dict(self._module64.named_parameters())
        self.exact = Exact(side, self._module64, self._device)
        self._put_grads(self._given_grads)

    @property
    def rounded(self) -> set[str]:
        buffers = self._side.module.named_buffers()
        return self.exact.rounded | {name for name, held in buffers if is_rounded(held)}

    def evaluate(self, batch: Any) -> Evaluation:
        """Return loss and gradients of a batch.

        Args:
            batch: NumPy arrays or tensors in nested tuples, lists and dicts.

        Raises:
            TypeError: the batch or the output has something else; the loss is no tensor.
            ValueError: the loss is no scalar or does not depend on the parameters, the forward
                pass differs from one call to the next, or a gradient is sparse.
        """
        side = self._side
        if self._waiting:
            raise RuntimeError("evaluate() was called twice; update() comes between two calls")
        if self._step in side.changes:
            change(side, self._step, self._optimizer64)
        given = cast_batch(batch, self._main, self._device, "the batch")
        if self._fresh:
            refuse_randomness(side, given)
        before = {n: b.detach().clone() for n, b in side.module.named_buffers()}
        checking = bool(self._check(self._step))
        held = {n: p.detach().clone().cpu() for n, p in self._params.items()} if checking else {}
        output, loss = losses_of(side, side.module, given)
        window = window_of(side, self._params, self._step)
        self._clear_grads()
        grads, fed = backward(side, self._params, window, loss)
        if not self._plain:
            self._window64 = added64(self._window64, fed or grads, side.accumulation_steps)
        checked = None
        if checking:
            drawn = random_state()
            with untouched(self._params.values(), _OTHERS.format(*_HOOK)):
                exact = self.exact.evaluate(
                    given, before, self._params, grads, self.has_gradients64
                )
            set_random_state(drawn)
            after = floating(side.module.named_buffers())
            flat = [x.detach().clone().cpu() for x in flattened(output)]
            buffers = {n: b.cpu() for n, b in before.items() if b.is_floating_point()}
            checked = Checked(held, buffers, flat, after, *exact)
        self._loss, self._waiting, self._fresh = float(loss.detach()), True, False
        self._closures = closures_of(side, given, self._module64)
        if side.closure:  # its first call makes this forward pass once more
            for name, buffer in side.module.named_buffers():
                buffer.copy_(before[name])
        shown = mapped(lambda x: x.cpu(), given)
        options = options_of(side.optimizer, self._name_of)
        return Evaluation(self._step, shown, self._loss, grads, options, checked, fed)

    def update(self) -> Update:
        """Clip, let the optimizer and the scheduler step, and return what they left."""
        if not self._waiting:
            raise RuntimeError("update() was called without a gradient; call evaluate() first")
        side, self._step, self._waiting = self._side, self._step + 1, False
        clipped, clipped64, given = (dict[str, Any]() for _ in range(3))
        stepped = self._step % side.accumulation_steps == 0
        if stepped:
            if side.scaler is not None:
                for optimizer in listed(side.optimizer):
                    side.scaler.unscale_(optimizer)
            given, self._window64 = self._window64, {}
            clipped64 = self._update64(given)
            if side.clip is not None:
                side.clip(list(self._params.values()))
                clipped = grads_of(self._params, copies=True)  # some steps write into gradients
            self._take_step()
            if has_hooks(side.optimizer):
                clipped = grads_of(self._params)
        # L-BFGS holds lists of vectors, of all parameters together.
        state = {} if side.closure else state_of(self._optimizer, self._params)
        state64 = {} if side.closure else state_of(self._optimizer64, self._params64)
        params, params64 = parameters_of(side.module), parameters_of(self._module64)
        averages, averages64 = map(parameters_of, self._averaged)
        return Update(
            clipped, clipped64, params, state, params64, state64, stepped, given, averages,
            averages64,
        )  # fmt: skip

    def _take_step(self) -> None:
        side, scaler = self._side, self._side.scaler
        for one in listed(side.optimizer):
            one.step(*self._closures[0]) if scaler is None else scaler.step(one)
        if scaler is not None:
            scaler.update()
        if side.averaged is not None:
            side.averaged.update_parameters(side.module)
            self._averaged[1].update_parameters(self._module64)
        if self._step // side.accumulation_steps % side.scheduler_every == 0:
            with warnings.catch_warnings():
                # Of torch's own making: SequentialLR calls its parts so.
                warnings.filterwarnings("ignore", message="The epoch parameter in")
                for scheduler in self._schedulers:
                    scheduler.step(*([self._loss] if side.metric else []))

    def snapshot(self) -> Any:
        """Return all that a step changes: values, both optimizers, scheduler, random numbers."""
        window = window_of(self._side, self._params, self._step)
        held: dict[str, Any] = {
            "step": (self._step, self._loss, self._fresh),
            "grads": self._given_grads if self._fresh else window,
            "window": self._window64,
            "random": random_state(),
            "schedulers": [copied(s, s.state_dict()) for s in self._schedulers],
            "scaler": None if self._side.scaler is None else self._side.scaler.state_dict(),
            "averaged": [a and copy.deepcopy(a.state_dict()) for a in self._averaged],
        }
        for key, module, optimizer in self._both():
            held[f"values{key}"] = {n: v.detach().clone() for n, v in values_of(module)}
            held[f"optimizer{key}"] = copied_optimizer(optimizer, dict(module.named_parameters()))
        return held

    def restore(self, snapshot: Any) -> None:
        """Go back to where `snapshot` was called; it can be used again."""
        self._step, self._loss, self._fresh = snapshot["step"]
        self._window64 = snapshot["window"]
        self._waiting = False
        with torch.no_grad():
            for key, module, optimizer in self._both():
                for name, value in values_of(module):
                    value.copy_(snapshot[f"values{key}"][name])
                parameters = dict(module.named_parameters())
                restore_optimizer(optimizer, parameters, *snapshot[f"optimizer{key}"])
        for scheduler, held in zip(self._schedulers, snapshot["schedulers"], strict=True):
            # Some take the dict that they are given apart.
            scheduler.load_state_dict(copied(scheduler, held))
        if self._side.scaler is not None and snapshot["scaler"]:
            self._side.scaler.load_state_dict(snapshot["scaler"])
        for averaged, held in zip(self._averaged, snapshot["averaged"], strict=True):
            if averaged is not None:
                averaged.load_state_dict(held)
        self._clear_grads()
        self._put_grads({n: g if self._fresh else g.clone() for n, g in snapshot["grads"].items()})
        set_random_state(snapshot["random"])

    def _both(self) -> list[tuple[str, torch.nn.Module, Any]]:
        main = ("", self._side.module, self._optimizer)
        return [main, ("64", self._module64, self._optimizer64)]

    def _clear_grads(self) -> None:
        for p in self._params.values():
            p.grad = None

    def _put_grads(self, grads: Mapping[str, torch.Tensor]) -> None:
        for name, grad in grads.items():
            self._params[name].grad = grad

    def _update64(self, given: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """Feed the optimizer in float64 with the run's gradients; return them as it clips them.

        Args:
            given: what it is fed, where gradients are added up or scaled.
        """
        skipped = self._side.scaler is not None and not all(map(all_finite, given.values()))
        follow(self._optimizer64, self._optimizer)
        for name, p in self._params.items():
            grad = given.get(name, p.grad)
            self._params64[name].grad = None if grad is None else widened(grad, copies=True)
        mine = list(self._params.values())
        if self._side.clip is not None:
            with untouched(mine, _OTHERS.format(*_CLIP)):
                self._side.clip(list(self._params64.values()))
        if not skipped:
            with untouched(mine, _OTHERS.format(*_STEP_HOOK)):
                self._optimizer64.step(*self._closures[1])
        clipped = grads_of(self._params64) if self.clips else {}
        for p in self._params64.values():
            p.grad = None
        return clipped
