"""LeNet on digits, stopped on one side after three epochs and resumed on the other, through files.

Momentum, two groups and a scheduler. The resumed run is compared with an unbroken one of the side
that it was resumed on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import jaxopt_port as jp
from jaxopt_port import interop
from jaxopt_port.engine import leaf_paths
from jaxopt_port.numerics import relative_norm
from jaxopt_port.verify.cases import Net, batches, load_digits, make_net, network
from parity_tests.oracles.tolerances import bound

STOP, END = 3, 5  # epochs
BATCHES, BATCH_SIZE = 12, 16  # of an epoch: too few for a good net, enough for momentum


def arrays(tree: Any) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in leaf_paths(tree)}


class Torch(NamedTuple):
    net: Net
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler

    def state_dicts(self) -> dict[str, Any]:
        """As training scripts save them."""
        return {
            "model_state_dict": self.net.state_dict(),
            "optimizer_state_dict": self.optimizer.state_dict(),
            "scheduler_state_dict": self.scheduler.state_dict(),
        }


class Port(NamedTuple):
    tx: jp.Optimizer
    params: Any
    state: Any
    scheduler: Any
    sched_state: Any


class Task:
    """What is trained in one dtype, and what was left of it at the break and at the end."""

    def __init__(self, dtype: str, folder: Path) -> None:
        self.dtype, self.folder = dtype, folder
        steps = END * BATCHES
        self.data = list(batches(load_digits(), BATCH_SIZE, steps, seed=0))
        side = network("nnx", dtype)
        self.like = side.params
        self.map = interop.param_map(make_net(0, dtype), self.like)
        self.gradient = jax.jit(jax.grad(lambda p, batch: side.loss(side.apply(p, batch), batch)))

        there, here = self.torch_start(), self.port_start()
        self.torch_train(there, 0, STOP)
        torch.save(there.state_dicts(), folder / "torch.pt")
        self.carried_over = self.in_memory(there)
        self.torch_train(there, STOP, END)
        self.torch_end = self.params_of(there.net)

        self.port_break = self.port_train(here, 0, STOP)
        self.port_end = arrays(self.port_train(self.port_break, STOP, END).params)

    def torch_start(self) -> Torch:
        net = make_net(0, self.dtype)
        optimizer = torch.optim.SGD(
            [
                {"params": net.features.named_parameters("features"), "lr": 0.02},
                {"params": net.classifier.named_parameters("classifier")},
            ],
            lr=0.01,
            momentum=0.9,
        )
        return Torch(net, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5))

    def port_start(self) -> Port:
        tx = jp.SGD(
            [{"params": "features", "lr": 0.02}, {"params": "classifier"}], lr=0.01, momentum=0.9
        )
        params = self.params_from(make_net(0, self.dtype))
        scheduler = jp.lr_scheduler.StepLR(2, gamma=0.5)
        return Port(tx, params, *self.begun(scheduler, tx.init(params)))

    @staticmethod
    def begun(scheduler: Any, state: Any) -> tuple[Any, Any, Any]:
        state, sched_state = scheduler.init(state)
        return state, scheduler, sched_state

    def params_from(self, net: Any) -> Any:
        return interop.params_from_torch(net, self.like, self.map)

    def params_of(self, net: Net) -> dict[str, np.ndarray]:
        return {path: np.array(x) for path, x in arrays(self.params_from(net)).items()}

    def epoch(self, index: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for images, labels in self.data[index * BATCHES : (index + 1) * BATCHES]:
            yield images.astype(self.dtype), labels

    def torch_train(self, side: Torch, start: int, stop: int) -> None:
        for index in range(start, stop):
            for images, labels in self.epoch(index):
                side.optimizer.zero_grad()
                logits = side.net(torch.tensor(images))
                F.cross_entropy(logits, torch.tensor(labels).long()).backward()
                side.optimizer.step()
            side.scheduler.step()

    def port_train(self, side: Port, start: int, stop: int) -> Port:
        tx, params, state, scheduler, sched_state = side
        for index in range(start, stop):
            for images, labels in self.epoch(index):
                grads = self.gradient(params, (jnp.asarray(images), labels))
                params, state = jp.step(tx, grads, state, params)
            state, sched_state = scheduler.step(state, sched_state)
        return Port(tx, params, state, scheduler, sched_state)

    # ── from torch to here ─────────────────────────────────────────────────────────────────────

    def in_memory(self, side: Torch) -> Port:
        params = self.params_from(side.net)
        tx, state = interop.optimizer_from_torch(side.optimizer, params, self.map)
        return Port(tx, params, state, *interop.scheduler_from_torch(side.scheduler, state))

    def from_file(self, path: Path) -> Port:
        saved = interop.load(path)
        params = self.params_from(saved.params)
        tx, state = interop.optimizer_from_torch(
            saved.optimizer, params, self.map, optimizer_name="SGD"
        )
        scheduler = jp.lr_scheduler.StepLR(2, gamma=0.5)
        sched_state = scheduler.load_state_dict(saved.scheduler, saved.optimizer["param_groups"])
        return Port(tx, params, state, scheduler, sched_state)

    def resumed_here(self, through: str) -> Port:
        if through == "pt":
            return self.from_file(self.folder / "torch.pt")
        if through == "safetensors":
            interop.save(self.folder / "there.safetensors", interop.load(self.folder / "torch.pt"))
            return self.from_file(self.folder / "there.safetensors")
        return self.through_orbax(self.carried_over, "there")

    # ── from here to torch ─────────────────────────────────────────────────────────────────────

    def checkpoint(self, side: Port) -> interop.Checkpoint:
        here = interop.Checkpoint(
            arrays(side.params),
            jp.state_dict(side.tx, side.state, side.params),
            side.scheduler.state_dict(side.sched_state),
            optimizer_name="SGD",
            layout="jax",
        )
        return interop.with_layout(here, "torch", self.map)

    def resumed_there(self, through: str) -> Torch:
        fresh = self.torch_start()
        if through == "orbax":
            side = self.through_orbax(self.port_break, "here")
            interop.params_to_torch(side.params, fresh.net, self.map)
            optimizer = interop.optimizer_to_torch(
                side.tx, side.state, side.params, fresh.net, self.map
            )
            scheduler = interop.scheduler_to_torch(side.scheduler, side.sched_state, optimizer)
            return Torch(fresh.net, optimizer, scheduler)
        path = self.folder / f"here.{through}"
        interop.save(path, self.checkpoint(self.port_break))
        if through == "safetensors":
            interop.save(self.folder / "converted.pt", interop.load(path))
            path = self.folder / "converted.pt"
        saved = torch.load(path, weights_only=True)
        fresh.net.load_state_dict(saved["model_state_dict"])
        fresh.optimizer.load_state_dict(saved["optimizer_state_dict"])
        fresh.scheduler.load_state_dict(saved["scheduler_state_dict"])
        return fresh

    def through_orbax(self, side: Port, name: str) -> Port:
        interop.save_orbax(
            self.folder / name,
            params=side.params,
            state=side.state,
            scheduler_state=side.sched_state,
        )
        fresh, _, like = self.begun(side.scheduler, side.tx.init(side.params))
        found = interop.restore_orbax(
            self.folder / name, params=side.params, state=fresh, scheduler_state=like
        )
        return Port(side.tx, found.params, found.state, side.scheduler, found.scheduler_state)


@pytest.fixture(scope="module")
def task(request, tmp_path_factory):
    with jax.enable_x64(request.param == "float64"):
        yield Task(request.param, tmp_path_factory.mktemp(request.param))


def through(*ways: tuple[str, str]) -> Any:
    return pytest.mark.parametrize(("task", "way"), ways, indirect=["task"], scope="module")


# float64 shows every error; float32, a real run, is the dearest to compile.
WAYS = through(
    ("float64", "pt"), ("float64", "safetensors"), ("float64", "orbax"), ("float32", "pt")
)
DTYPES = pytest.mark.parametrize("task", ["float64", "float32"], indirect=True, scope="module")


def apart(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    return relative_norm([ours[path] for path in theirs], list(theirs.values()))


def limit(task: Task) -> float:
    return bound(f"a resumed LeNet in {task.dtype}")


@WAYS
def test_from_torch_to_here(task, way):
    resumed = task.port_train(task.resumed_here(way), STOP, END)
    assert apart(arrays(resumed.params), task.port_end) <= limit(task)


@WAYS
def test_from_here_to_torch(task, way):
    resumed = task.resumed_there(way)
    task.torch_train(resumed, STOP, END)
    assert apart(task.params_of(resumed.net), task.torch_end) <= limit(task)


@DTYPES
def test_unbroken_runs_are_as_far_apart(task):
    assert apart(task.port_end, task.torch_end) <= limit(task)


def forget_momentum(side: Port) -> Port:
    state = side.tx.init(side.params)
    for i, options in enumerate(jp.get_hyperparams(side.state)):
        state = jp.set_hyperparams(state, group=i, lr=options["lr"])
    return side._replace(state=state)


def forget_epochs(side: Port) -> Port:
    return side._replace(sched_state=side.scheduler.init(side.tx.init(side.params))[1])


@DTYPES
@pytest.mark.parametrize("forget", [forget_momentum, forget_epochs])
def test_what_is_forgotten_shows(task, forget):
    resumed = task.port_train(forget(task.port_break), STOP, END)
    assert apart(arrays(resumed.params), task.port_end) > 5 * limit(task)
