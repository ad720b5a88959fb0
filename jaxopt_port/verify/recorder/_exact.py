"""torch's module in float64, at steps of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ._batches import flattened, mapped
from ._float64 import Through, all_float64, widened
from ._forward import losses_of, output_of
from ._held import floating, grads_of
from ._side import TorchSide
from ._steps import Checked


class Exact:
    """A copy in float64, into which a step's values are put for a pass, and taken out again."""

    def __init__(self, side: TorchSide, module: torch.nn.Module, device: Any) -> None:
        self._side, self._module, self._device = side, module, device
        self._params = dict(module.named_parameters())
        self._wide: tuple[Any, dict[str, torch.Tensor]] = (None, {})
        self.rounded: set[str] = set()

    def forward(
        self, checked: Checked, batch: Any, calls: Callable[..., Any], flat: bool = True
    ) -> Any:
        """Return the output from the parameters of a step that was checked.

        Args:
            checked: of that step.
            batch: of its evaluation, or a part of it.
            calls: ``calls(function, args, kwargs)`` makes each call of a torch function.
            flat: whether it is returned as a list of CPU tensors.
        """
        if self._wide[0] is not checked:  # many passes are made of one step
            wide = {n: widened(p).to(self._device) for n, p in checked.params.items()}
            self._wide = checked, wide
        named = (*self._params.items(), *self._module.named_buffers())
        held = {name: value.data for name, value in named}
        buffers = {**held, **checked.buffers}
        try:
            for name, value in named:
                if name in self._wide[1]:
                    value.data = self._wide[1][name]
                else:
                    value.data = widened(buffers[name].to(self._device), copies=True)
            given = mapped(lambda x: widened(x.to(self._device)), batch)
            with torch.no_grad(), all_float64(), Through(calls):
                made = output_of(self._side, self._module, given)
            return [x.detach().cpu() for x in flattened(made)] if flat else made
        finally:
            for name, value in named:
                value.data = held[name]

    def loss_gradients(self, checked: Checked, batch: Any) -> list[Any]:
        """Return the gradients of the loss in the floating outputs of a checked step."""
        wide = mapped(lambda x: widened(x.to(self._device)), batch)
        made = self.forward(
            checked, batch, lambda f, args, options: f(*args, **options), flat=False
        )
        leaves = [x.requires_grad_() for x in flattened(made) if x.is_floating_point()]
        with all_float64():
            loss = self._side.loss(made, wide)
            grads = torch.autograd.grad(loss, leaves, allow_unused=True)
        zeros = (torch.zeros_like(x) for x in leaves)
        return [(z if g is None else g).detach().cpu() for g, z in zip(grads, zeros, strict=True)]

    def evaluate(
        self,
        batch: Any,
        buffers: Mapping[str, torch.Tensor],
        params: Mapping[str, torch.Tensor],
        grads: Mapping[str, Any],
        has_gradients: bool,
    ) -> tuple[list[Any], float, dict[str, Any], dict[str, Any]]:
        """Return output, loss, gradients and buffers of the run's own parameters.

        Args:
            batch: of the step.
            buffers: as they were before the forward pass.
            params: the run's own.
            grads: likewise.
            has_gradients: whether gradients are wanted.

        Raises:
            ValueError: the same step in float64 has gradients of other parameters.
        """
        trajectory = {name: p.data for name, p in self._params.items()}
        try:
            for name, p in self._params.items():
                p.data = widened(params[name].detach())
            with torch.no_grad():
                for name, buffer in self._module.named_buffers():
                    buffer.copy_(buffers[name])
            wide = mapped(widened, batch)
            with all_float64(self.rounded):
                output, loss = losses_of(self._side, self._module, wide)
                if has_gradients:
                    torch.autograd.backward(loss)
            grads64 = grads_of(self._params)
            # Before the parameters are put back: an output may be one of them.
            flat = [x.detach().cpu() for x in flattened(output)]
        finally:
            for name, p in self._params.items():
                p.data, p.grad = trajectory[name], None
        if has_gradients and grads64.keys() != grads.keys():
            odd = ", ".join(sorted(grads64.keys() ^ grads.keys()))
            raise ValueError(
                f"the same step evaluated in float64 gives no gradient of, or only then one of: "
                f"{odd}. forward must use the module that it is given, which then is a copy"
            )
        return flat, float(loss.detach()), grads64, floating(self._module.named_buffers())
