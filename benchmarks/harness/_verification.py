"""What `verify.compare` costs beside the two plain runs that it compares, in time and in memory."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import optax
import torch
from flax import nnx

import jaxopt_port as jp
from jaxopt_port import verify
from jaxopt_port.models.lenet import LeNet
from jaxopt_port.verify.cases import Net, batches, load_digits, one_thread

from .._spread import Spread

_BATCH = 32


def _torch_loss(output: Any, batch: Any) -> Any:
    return torch.nn.functional.cross_entropy(output, batch[1].long())


def _jax_loss(output: Any, batch: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(output, batch[1]).mean()


def _torch_training(net: Any, optimizer: Any, loss: Any, data: list[Any]) -> Callable[[], None]:
    def train() -> None:
        for batch in data:
            images, labels = map(torch.from_numpy, batch)
            optimizer.zero_grad()
            loss(net(images), (images, labels)).backward()
            optimizer.step()

    return train


def _jax_training(side: verify.JaxSide, data: list[Any]) -> Callable[[], None]:
    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> Any:
        loss = lambda p: side.loss(side.apply(p, batch), batch)  # noqa: E731
        return jp.step(side.tx, jax.grad(loss)(params), state, params)

    params, state = side.params, side.tx.init(side.params)
    jax.block_until_ready(step(params, state, data[0]))

    def train() -> None:
        p, s = params, state
        for batch in data:
            p, s = step(p, s, batch)
        jax.block_until_ready(p)

    return train


def _net() -> tuple[Any, Any]:
    torch.manual_seed(0)
    net = Net()
    return net, torch.optim.AdamW(net.parameters(), lr=1e-3)


def measure(quick: bool = False) -> dict[str, Spread]:
    """Return the times of both plain LeNet runs and of their comparison, all compiled before."""
    steps = 100 if quick else 300
    data = [tuple(b) for b in batches(load_digits(), _BATCH, steps, 0)]
    model = LeNet(rngs=nnx.Rngs(0))
    mine = verify.nnx_side(model, tx=jp.AdamW(lr=1e-3), loss=_jax_loss)
    net, optimizer = _net()
    plain = (_torch_training(net, optimizer, _torch_loss, data), _jax_training(mine, data))
    net, optimizer = _net()
    theirs = verify.TorchSide(module=net, optimizer=optimizer, loss=_torch_loss)

    def both() -> None:
        for train in plain:
            train()

    def compared() -> None:
        report = verify.compare(theirs, mine, data)
        if not report.ok:
            raise RuntimeError(f"the comparison should have found nothing: {report}")

    contenders = {"both plain runs": both, "verify.compare": compared}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    with one_thread():
        compared()
        for _ in range(3 if quick else 7):
            for name, run in contenders.items():
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    return {name: Spread.of(seen) for name, seen in times.items()} | _memory(quick)


def _memory(quick: bool) -> dict[str, Spread]:
    """Return the times, and in the names the peaks, of processes with a large network."""
    width = 1000 if quick else 5000
    found = {}
    for name in ("plain", "compare"):
        command = [sys.executable, "-m", "benchmarks.harness._large_network", name, str(width)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds, peak, parameters = map(float, out.split())
        title = f"{name}, {parameters / 1e6:.0f} M parameters: {peak / parameters:.0f} bytes each"
        found[title] = Spread(seconds, seconds, seconds)
    return found
