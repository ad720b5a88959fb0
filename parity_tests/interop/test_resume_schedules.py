"""Runs with a scheduler that stop in the middle of its course and go on at the other side."""

import math

import pytest
import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

import jaxopt_port as jp
from jaxopt_port import interop
from parity_tests.oracles.bits import assert_same_bits
from parity_tests.oracles.two_networks import Pair, flat

STOP, END = 50, 100


def sequential(optimizer):
    parts = [LinearLR(optimizer, 0.1, total_iters=40), CosineAnnealingLR(optimizer, 60)]
    return SequentialLR(optimizer, parts, milestones=[45])


SCHEDULERS = {
    "StepLR": lambda optimizer: StepLR(optimizer, 7, gamma=0.9),
    "OneCycleLR": lambda optimizer: OneCycleLR(optimizer, max_lr=[0.02, 0.05], total_steps=END + 1),
    "ReduceLROnPlateau": lambda optimizer: ReduceLROnPlateau(optimizer, factor=0.7, patience=2),
    "SequentialLR": sequential,
}
OPTIMIZERS = {
    "SGD": (torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    "AdamW": (torch.optim.AdamW, {"lr": 0.01}),
}


def metric(step):
    """It falls, and then it does not."""
    return math.exp(-step / 20) + 0.1 * (step % 7)


def told(scheduler, step):
    return [metric(step)] if "Plateau" in type(scheduler).__name__ else []


def torch_steps(pair, scheduler, start, stop):
    for step in range(start, stop):
        pair.torch_steps(step, step + 1)
        scheduler.step(*told(scheduler, step))


def port_steps(pair, tx, state, params, scheduler, sched_state, start, stop):
    for step in range(start, stop):
        params, state = pair.port_steps(tx, state, params, step, step + 1)
        state, sched_state = scheduler.step(state, sched_state, *told(scheduler, step))
    return params, state, sched_state


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
def test_bits_of_a_run_that_does_not_stop(make, optimizer, correct_root):
    cls, options = OPTIMIZERS[optimizer]
    there = Pair(cls, options)
    scheduler = make(there.optimizer)
    torch_steps(there, scheduler, 0, STOP)
    params, tx, state = there.from_torch()
    port, sched_state = interop.scheduler_from_torch(scheduler, state)

    back = Pair(cls, options)
    back.to_torch(tx, state, params)
    back_scheduler = interop.scheduler_to_torch(port, sched_state, back.optimizer)

    torch_steps(there, scheduler, STOP, END)
    params, state, _ = port_steps(there, tx, state, params, port, sched_state, STOP, END)
    assert_same_bits(flat(params), flat(there.params()), "torch, then here")
    torch_steps(back, back_scheduler, STOP, END)
    assert_same_bits(flat(back.params()), flat(there.params()), "torch, here, then torch")
    lrs = [group["lr"] for group in there.optimizer.param_groups]
    assert [group["lr"] for group in jp.get_hyperparams(state)[:2]] == lrs
    assert [group["lr"] for group in back.optimizer.param_groups] == lrs
    assert len({*lrs, 0.01, 0.004}) > 2  # the schedulers have acted
