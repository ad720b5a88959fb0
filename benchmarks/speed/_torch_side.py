"""torch's contenders; imported in a worker of its own."""

from __future__ import annotations

import functools
import inspect
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ._contender import Contender, LeftOutError
from ._data import OPTIONS, STEPS_BEFORE_CHECK, arrays, sample
from ._networks import TRANSFORMER, lenet_batch, lenet_torch, transformer_torch, words

FORMS = {
    "torch for-loop": {"foreach": False},
    "torch foreach": {"foreach": True},
    "torch fused": {"fused": True},
    "torch.compile": {},
}


def start(threads: int) -> dict[str, Any]:
    """Set the threads; return the versions and the device."""
    torch.set_num_threads(threads)
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return {"torch": torch.__version__, "device": _device_name(), "platform": _device().type}


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _wait(_: Any) -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _compiled(function: Callable[[], Any]) -> Callable[[], Any]:
    if _device().type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise LeftOutError("no C++ compiler for torch.compile")
    # Each set of buffers has an optimizer of its own, and each of them is compiled.
    torch._dynamo.config.recompile_limit = 64
    return torch.compile(function)


def make(suite: str, name: str, settings: dict[str, Any]) -> Contender:
    """Make a contender."""
    made = {"step": _step, "loops": _step, "dispatch": _step, "train": _train, "limit": _limit}
    return made[suite](name, **settings)


def made_of(
    optimizer: str,
    params: Sequence[torch.Tensor],
    options: Mapping[str, Any],
    form: Mapping[str, bool],
) -> torch.optim.Optimizer:
    """Make an optimizer; what the form says goes before the options."""
    made = getattr(torch.optim, optimizer)
    if form == {"foreach": False} and "foreach" not in inspect.signature(made).parameters:
        form = {}  # the only one that it has
    try:
        return made(params, **{**options, **form})
    except (RuntimeError, TypeError, ValueError) as error:
        raise LeftOutError(str(error).splitlines()[0]) from None


def _step(name: str, model: str, optimizer: str, copies: int) -> Contender:
    calls, check, kept = [], None, []
    for copy in range(copies):
        params = [
            nn.Parameter(torch.from_numpy(x.copy()).to(_device()))
            for x in arrays(model, optimizer, 0)
        ]
        for param, grad in zip(params, arrays(model, optimizer, 1), strict=True):
            param.grad = torch.from_numpy(grad).to(_device())
        call = made_of(optimizer, params, OPTIONS[optimizer], FORMS[name]).step
        if name == "torch.compile":
            call = _compiled(call)
        for _step in range(STEPS_BEFORE_CHECK if copy == 0 else 1):
            call()
        if copy == 0:
            check = sample(p.detach().cpu().numpy() for p in params)
        calls.append(call)
        kept.append(params)
    return Contender(calls, check, wait=_wait, kept=kept)


def _limit(name: str, size: int) -> Contender:
    """Move ``size`` bytes: half read, half written."""
    count = size // 8
    x = torch.ones(count, device=_device())
    if name == "read-modify-write":
        return Contender([lambda: x.add_(1)], wait=_wait, kept=x)
    target = torch.empty_like(x)
    return Contender([lambda: target.copy_(x)], wait=_wait, kept=(x, target))


def _train(name: str, network: str, batch: int, low: bool = False) -> Contender:
    """Make a training step; if ``low``, in bfloat16, with parameters and updates in float32."""
    if network == "LeNet":
        module, criterion = lenet_torch(), nn.CrossEntropyLoss()
        images, labels = map(torch.from_numpy, lenet_batch(batch))
        data = (images.to(_device()), labels.to(_device()))
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            module.to(_device()).parameters(), **OPTIONS["SGD"]
        )
        loss_of = functools.partial(_image_loss, module, criterion)
    else:
        module = transformer_torch().to(_device())
        tokens = torch.from_numpy(words(batch)).to(_device())
        data = (tokens,)
        optimizer = torch.optim.AdamW(module.parameters(), **OPTIONS["AdamW"])
        loss_of = functools.partial(_word_loss, module)
    if low:
        loss_of = functools.partial(loss_of.func, _Lowered(module), *loss_of.args[1:])
    if name == "torch.compile":
        loss_of = _compiled(loss_of)

    def call() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(*data)
        loss.backward()
        optimizer.step()
        return loss

    losses = [float(call().detach()) for _ in range(STEPS_BEFORE_CHECK)]
    return Contender([call], np.array(losses), wait=_wait, kept=(module, optimizer))


class _Lowered:
    """A module whose parameters are rounded to bfloat16 each time that it is called."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __call__(self, *args: Any) -> Any:
        low = {name: p.bfloat16() for name, p in self._module.named_parameters()}
        return torch.func.functional_call(self._module, low, args)


def _image_loss(module: nn.Module, criterion: nn.Module, images: Any, labels: Any) -> Any:
    return criterion(module(images), labels)


def _word_loss(module: nn.Module, tokens: Any) -> Any:
    logits = module(tokens[:, :-1])
    return nn.functional.cross_entropy(
        logits.reshape(-1, TRANSFORMER["vocabulary"]), tokens[:, 1:].reshape(-1)
    )


def memory(settings: dict[str, Any]) -> dict[str, float]:
    """Return bytes of parameters and of state after a step, for the ``memory`` suite."""
    params = [nn.Parameter(torch.from_numpy(x.copy())) for x in arrays(**settings, seed=0)]
    for param, grad in zip(params, arrays(**settings, seed=1), strict=True):
        param.grad = torch.from_numpy(grad)
    optimizer = settings["optimizer"]
    return held(made_of(optimizer, params, OPTIONS[optimizer], {}), params)


def held(optimizer: torch.optim.Optimizer, params: Sequence[torch.Tensor]) -> dict[str, float]:
    """Return bytes of parameters and of state after a step."""
    optimizer.step()
    of_state = [x for state in optimizer.state.values() for x in state.values()]
    return {
        "parameters": float(sum(p.nbytes for p in params)),
        "state": float(sum(x.nbytes for x in of_state if isinstance(x, torch.Tensor))),
    }
