"""torch's forward pass and loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from ._batches import flattened, mapped, same_tensors
from ._float64 import all_float64, widened
from ._held import grads_of, random_state, set_random_state
from ._hooks import has_hooks
from ._side import TorchSide


def output_of(side: TorchSide, module: torch.nn.Module, batch: Any) -> Any:
    """Return what a module gives of a batch."""
    if side.forward is not None:
        return side.forward(module, batch)
    if not isinstance(batch, (tuple, list)) or not batch:
        raise TypeError(
            f"without `forward` the module is called with batch[0]; the batch is a "
            f"{type(batch).__name__}: give forward=lambda module, batch: …"
        )
    return module(batch[0])


def losses_of(side: TorchSide, module: torch.nn.Module, batch: Any) -> tuple[Any, torch.Tensor]:
    """Return output and loss of a batch.

    Raises:
        TypeError: the loss is no tensor.
        ValueError: it is no scalar, or does not depend on the parameters.
    """
    output = output_of(side, module, batch)
    flattened(output)
    loss = side.loss(output, batch)
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


def refuse_randomness(side: TorchSide, batch: Any) -> None:
    """Raise an error where two forward passes in a row differ."""
    drawn = random_state()
    buffers = {n: b.detach().clone() for n, b in side.module.named_buffers()}
    outputs = []
    with torch.no_grad():
        for _ in range(2):
            outputs.append(flattened(output_of(side, side.module, batch)))
            outputs[-1] = [x.clone() for x in outputs[-1]]
            for name, buffer in side.module.named_buffers():
                buffer.copy_(buffers[name])
    set_random_state(drawn)
    different = sum(not same_tensors(x, y) for x, y in zip(*outputs, strict=True))
    if different:
        raise ValueError(
            f"the forward pass is not deterministic: two passes of one batch differ in "
            f"{different} of {len(outputs[0])} output tensors. Dropout draws anew in each "
            "pass: call module.eval(), set p=0, or give both sides the same masks as part of "
            "the batch. On a GPU, torch.use_deterministic_algorithms(True) may be needed"
        )


def backward(
    side: TorchSide, params: Mapping[str, Any], window: Mapping[str, Any], loss: torch.Tensor
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Make gradients as torch's loop does; return those of the batch, and what is left scaled.

    Args:
        side: what is trained.
        params: by name, without gradients.
        window: gradients of the batches before, which are of the same step.
        loss: of the batch.
    """
    scaler, steps, fed = side.scaler, side.accumulation_steps, None
    plain = steps == 1 and scaler is None
    loss.backward(retain_graph=scaler is not None)
    in_place = side.clip is not None or has_hooks(side.optimizer)
    grads = grads_of(params, copies=in_place or not plain)
    if scaler is not None:
        for p in params.values():
            p.grad = None
        scaler.scale(loss / steps).backward()
        inverse = steps / scaler.get_scale()
        fed = {n: g * inverse for n, g in grads_of(params).items()}
    for name, p in params.items() if not plain else ():
        held = window.get(name)
        if p.grad is None:
            p.grad = held
        else:
            share = p.grad / steps if scaler is None else p.grad
            p.grad = share if held is None else held + share
    return grads, fed


def _closure_of(
    side: TorchSide,
    module: torch.nn.Module,
    batch: Any,
    within: Callable[[], AbstractContextManager[None]],
) -> Callable[[], torch.Tensor]:
    """Return what an optimizer evaluates the loss with, as torch's loop writes it."""

    def closure() -> torch.Tensor:
        for p in module.parameters():
            p.grad = None
        with within():
            _, loss = losses_of(side, module, batch)
            torch.autograd.backward(loss)
        return loss

    return closure


def closures_of(
    side: TorchSide, batch: Any, module64: torch.nn.Module
) -> tuple[list[Any], list[Any]]:
    """Return what a step is called with, and one in float64: a closure each, or nothing."""
    if not side.closure:
        return [], []
    wide = _closure_of(side, module64, mapped(widened, batch), all_float64)
    return [_closure_of(side, side.module, batch, nullcontext)], [wide]


def added64(
    window: Mapping[str, torch.Tensor], grads: Mapping[str, torch.Tensor], steps: int
) -> dict[str, torch.Tensor]:
    """Return the gradients of a window in float64, with those of one more batch, of so many."""
    shares = {n: g.double() / steps for n, g in grads.items()}
    return {n: window[n] + g if n in window else g for n, g in shares.items()} | {
        n: g for n, g in window.items() if n not in shares
    }
