"""Checkpoints for tests of files, and what makes two of them the same."""

from __future__ import annotations

import collections
import os
from typing import Any

import ml_dtypes
import numpy as np
import torch

from jaxopt_port.interop import Checkpoint

DTYPES = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float64": np.float64,
    "complex64": np.complex64,
    "complex128": np.complex128,
    "int64": np.int64,
    "uint8": np.uint8,
    "bool": np.bool_,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
}
SHAPES = {"matrix": (2, 3), "scalar": (), "empty": (0, 4)}


class Code:
    """What runs a command where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal: types, order, dtypes, and arrays to the bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Checkpoint):
        return same(vars(a), vars(b))
    return repr(a) == repr(b)  # NaN is equal to itself here; repr of a float is exact


def every_dtype() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        f"{name}.{kind}": np.asarray(rng.integers(0, 2, shape) + 0.25).astype(dtype)
        for name, dtype in DTYPES.items()
        for kind, shape in SHAPES.items()
    }


def awkward() -> Checkpoint:
    """All that a checkpoint may hold and JSON may not."""
    params = every_dtype()
    params["nan"] = np.frombuffer(b"\x01\x00\xa0\x7f\x00\x00\x80\xff", np.float32)  # payload, -inf
    params["tied"] = params["float32.matrix"]
    params["transposed"] = np.arange(6.0).reshape(2, 3).T
    history = [np.ones(3, np.float32) * i for i in range(3)]
    return Checkpoint(
        params,
        optimizer={
            "state": {
                1: {"step": np.array(3, np.float32), "exp_avg": np.ones(2, ml_dtypes.bfloat16)},
                0: {"old_dirs": history, "t": 0.1, "n_iter": 4, "prev": None, "none": []},
            },
            "param_groups": [
                {"lr": 0.1 + 0.2, "betas": (0.9, 0.999), "params": [1, 0], "name": "a/b"},
                {"lr": float("inf"), "eps": float("nan"), "tiny": 5e-324, "params": []},
            ],
        },
        scheduler={
            "milestones": collections.Counter({30: 1, 80: 2}),
            "best": float("-inf"),
            "by_epoch": {1: (2, [3])},
            "_schedulers": [{"last_epoch": 3}],
        },
        optimizer_name="AdamW",
        extra={"epoch": 3, "rng": np.arange(5, dtype=np.uint8), "big": 2**70, "$tuple": [1]},
    )


def trained(optimizer: str = "Adam", seed: int = 0, steps: int = 1, **options: Any) -> Any:
    """A small torch module, with an optimizer that has taken steps, and a scheduler."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4))
        inputs = torch.randn(5, 3)
    made = getattr(torch.optim, optimizer)(module.named_parameters(), **options)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(made, [3, 4])

    def closure() -> torch.Tensor:
        made.zero_grad()
        loss = module(inputs).square().sum()
        loss.backward()
        return loss

    for _ in range(steps):
        made.step(closure)
        scheduler.step()
    return module, made, scheduler


def as_torch_saves(module: Any, optimizer: Any, scheduler: Any) -> dict[str, Any]:
    return {
        "model": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": scheduler.state_dict(),
        "epoch": 3,
        "rng": torch.arange(5, dtype=torch.uint8),
    }
