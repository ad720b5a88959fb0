"""torch's answers; imported in a worker of its own."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import nn

from ..speed import _torch_side as speed
from ..speed._contender import Contender, LeftOutError
from ..speed._data import OPTIONS, STEPS_BEFORE_CHECK
from ..speed._networks import TRANSFORMER
from ..speed._shapes import elements, shapes_of
from ._data import (
    FACTOR,
    MIDDLE,
    POOL,
    SCALE,
    SHIFT,
    Item,
    checked,
    gradients,
    objective,
    shapes_for,
)
from ._data import start as first
from ._primitives import W_FAR, W_NEAR, A, S, V, inputs

# What says which of torch's implementations is meant: of this library there is one.
_ITS_OWN = ("capturable", "foreach", "fused", "differentiable")
_DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def start(threads: int) -> dict[str, Any]:
    """Return versions and facts of the device."""
    facts = speed.start(threads)
    if torch.cuda.is_available():
        free, whole = torch.cuda.mem_get_info()
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "cuda": torch.version.cuda or torch.version.hip,
            "memory": whole,
            "memory_free": free,
            "capability": list(torch.cuda.get_device_capability()),
            "multiprocessors": properties.multi_processor_count,
        }
    return facts


def configurations() -> list[Item]:
    """Return torch's own table for this device."""
    # Not at the top: what the table stands in forbids to set torch's flags from then on.
    from .._torch_table import configurations as table

    items = []
    for configuration in table(_DEVICE.type):
        options = {k: _number(v) for k, v in configuration.options.items()}
        torchs = {k: v for k, v in options.items() if k in _ITS_OWN}
        given = {k for k, v in configuration.options.items() if _number(v) is not v}
        if tensors := tuple(sorted(k for k in given if k not in _ITS_OWN)):
            torchs["tensors"] = tensors
        ours = {k: v for k, v in options.items() if k not in _ITS_OWN}
        items.append(Item(configuration.optimizer, ours, torchs))
    return list({str(item): item for item in items}.values())


def _number(value: Any) -> Any:
    """Return a number for a tensor, also within a tuple."""
    if isinstance(value, torch.Tensor):
        return value.item()
    if isinstance(value, tuple) and any(isinstance(x, torch.Tensor) for x in value):
        return tuple(map(_number, value))
    return value


def _as_tensor(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_as_tensor, value))
    return torch.tensor(value, device=_DEVICE)


def _tensor(array: Any, device: torch.device = _DEVICE) -> torch.Tensor:
    array = np.ascontiguousarray(array)
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16).to(device)
    return torch.from_numpy(array.copy()).to(device)


def _array(tensor: torch.Tensor) -> Any:
    """Return a copy, which later steps leave as it is."""
    tensor = tensor.detach().cpu().clone()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def primitives() -> dict[str, Any]:
    """Return what each primitive gives."""
    with torch.no_grad():
        x, y, z = map(_tensor, inputs())
        made = {
            "x.add(y, alpha=0.1)": x.add(y, alpha=A),
            "x.mul(0.1).add(y)": x.mul(A).add(y),
            "x.lerp(y, 0.3)": x.lerp(y, W_NEAR),
            "x.lerp(y, 0.7)": x.lerp(y, W_FAR),
            "x.addcmul(y, z, value=v)": x.addcmul(y, z, value=V),
            "x.addcdiv(y, z, value=v)": x.addcdiv(y, z, value=V),
            "x.addcmul(y, z)": x.addcmul(y, z),
            "x.div(0.29)": x.div(S),
            "_foreach_div([x], [0.29])": torch._foreach_div([x], [S])[0],
            "x.div(z)": x.div(z),
            "z.sqrt()": z.sqrt(),
            "z.sqrt().div(0.29)": z.sqrt().div(S),
            "z.rsqrt()": z.rsqrt(),
            "z.reciprocal()": z.reciprocal(),
            "x.norm()": x.norm(),
        }
        x, y, z = map(_tensor, inputs(low=True))
        made |= {
            "bfloat16 x.add(y, alpha=0.1)": x.add(y, alpha=A),
            "bfloat16 x.mul(0.1)": x.mul(A),
        }
    return {name: _array(tensor) for name, tensor in made.items()}


def matrix_products() -> dict[str, float]:
    """Return the relative error of a product of float32 matrices, as torch comes."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((256, 256)).astype(np.float32) for _ in range(2))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    made = _array(_tensor(a) @ _tensor(b)).astype(np.float64)
    return {"torch, default": float(np.linalg.norm(made - exact) / np.linalg.norm(exact))}


def _optimizer(
    item: Item, params: Sequence[torch.Tensor], form: Mapping[str, bool]
) -> torch.optim.Optimizer:
    options = item.options | item.torchs
    for option in options.pop("tensors", ()):
        options[option] = _as_tensor(options[option])
    return speed.made_of(item.optimizer, params, options, form)


def parity(item: Item, dtype: str, form: str, steps: tuple[int, ...]) -> dict[int, Any]:
    """Return (parameters, state by torch's name) after some numbers of steps."""
    tensors = {k: _tensor(v).requires_grad_() for k, v in first(item.optimizer, dtype).items()}
    optimizer = _optimizer(item, list(tensors.values()), speed.FORMS[form])

    def closure() -> Any:
        optimizer.zero_grad()
        loss = objective(tensors)
        loss.backward()
        return loss

    made = {}
    for step in range(max(steps)):
        if item.optimizer != "LBFGS":
            for name, grad in _gradients(item.optimizer, step % POOL, dtype).items():
                tensors[name].grad = grad.clone()
        try:
            optimizer.step(closure if item.optimizer == "LBFGS" else None)
        except (RuntimeError, NotImplementedError) as error:
            raise LeftOutError(str(error).splitlines()[0]) from None
        if step + 1 in steps:
            made[step + 1] = (
                {name: _array(tensor) for name, tensor in tensors.items()},
                _state(optimizer, tensors),
            )
    return made


@functools.lru_cache(maxsize=4 * POOL)
def _gradients(optimizer: str, step: int, dtype: str) -> dict[str, torch.Tensor]:
    made = {}
    for name, grad in gradients(optimizer, step, dtype).items():
        if isinstance(grad, tuple):
            pair = (_tensor(grad[0])[None], _tensor(grad[1]))
            shape = shapes_for(optimizer)[name]
            made[name] = torch.sparse_coo_tensor(*pair, shape, check_invariants=True)
        else:
            made[name] = _tensor(grad)
    return made


def _state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    held: dict[str, Any] = {}
    for path, tensor in tensors.items():
        for name, value in optimizer.state[tensor].items():
            if isinstance(value, torch.Tensor) and value.ndim:
                held.setdefault(name, {})[path] = _array(value)
    return held


def _filled(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    index = torch.arange(math.prod(shape), device=_DEVICE, dtype=torch.int64) + seed
    upper = ((index * FACTOR) & 0xFFFFFFFF) >> SHIFT
    return ((upper.float() - MIDDLE) * SCALE).reshape(shape)


def make(suite: str, name: str, settings: dict[str, Any]) -> Contender:
    """Make a contender of the suites ``step`` and ``train``, or one that copies."""
    return _step(name, **settings) if suite == "step" else speed.make(suite, name, settings)


def _step(name: str, model: str, optimizer: str) -> Contender:
    shapes = shapes_of(model, optimizer)
    params = [nn.Parameter(_filled(shape, 2 * i)) for i, shape in enumerate(shapes)]
    for i, param in enumerate(params):
        param.grad = _filled(tuple(param.shape), 2 * i + 1)
    made = speed.made_of(optimizer, params, OPTIONS[optimizer], speed.FORMS[name])
    call = speed._compiled(made.step) if name == "torch.compile" else made.step
    for _ in range(STEPS_BEFORE_CHECK):
        call()
    samples = (p.detach() for p in params) if checked(elements(shapes)) else ()
    check = [_array(p.reshape(-1)[:64]) for p in samples]
    made_check = np.concatenate(check) if check else None
    return Contender([call], made_check, speed._wait, (params, made))


def resize(size: dict[str, int]) -> None:
    """Give the decoder that is trained another size."""
    TRANSFORMER.update(size)


def release() -> None:
    """Give back the memory that what was dropped had."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def memory(settings: dict[str, Any]) -> dict[str, float]:
    """Return bytes of parameters, of state, and what a step takes beyond both and gradients."""
    model, optimizer = settings["model"], settings["optimizer"]
    params = [nn.Parameter(_filled(shape, 0)) for shape in shapes_of(model, optimizer)]
    for param in params:
        param.grad = torch.ones_like(param)
    made = speed.made_of(optimizer, params, OPTIONS[optimizer], {})
    found = speed.held(made, params)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        made.step()
        torch.cuda.synchronize()
        found["more"] = float(torch.cuda.max_memory_allocated() - before)
    return found
