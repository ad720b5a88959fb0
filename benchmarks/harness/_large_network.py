"""A process that trains, or compares, a large network, and prints its time and peak memory."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch

import jaxopt_port as jp
from jaxopt_port import verify

_LAYERS = 4
_STEPS = 12


def _apply(params: Any, batch: Any) -> Any:
    x = batch[0]
    for i in range(_LAYERS):
        x = jnp.tanh(x @ params[str(i)]["kernel"])
    return x


def main(kind: str, width: int) -> None:
    """Run, and print seconds, bytes and the number of parameters."""
    from ._verification import _jax_training, _torch_training

    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for i in range(_LAYERS):
                self.add_module(str(i), torch.nn.Linear(width, width, bias=False))

        def forward(self, x: Any) -> Any:
            for layer in self.children():
                x = torch.tanh(layer(x))
            return x

    def loss(output: Any, batch: Any) -> Any:
        return (output**2).mean()

    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    params = {str(i): {"kernel": jnp.zeros((width, width))} for i in range(_LAYERS)}
    side = verify.JaxSide(apply=_apply, params=params, tx=jp.AdamW(lr=1e-4), loss=loss)
    rng = np.random.default_rng(0)
    data = [
        (rng.normal(size=(8, width)).astype(np.float32), np.zeros(8, np.int64))
        for _ in range(_STEPS)
    ]
    start = time.perf_counter()
    if kind == "compare":
        theirs = verify.TorchSide(module=net, optimizer=optimizer, loss=loss)
        names = {"layouts": {"*.weight": (1, 0)}}
        report = verify.compare(theirs, side, data, **names)
        if not report.ok:
            raise RuntimeError(f"the comparison should have found nothing: {report}")
    else:
        _torch_training(net, optimizer, loss, data)()
        _jax_training(side, data)()
    seconds = time.perf_counter() - start
    peak = int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
    print(seconds, peak, _LAYERS * width**2)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
