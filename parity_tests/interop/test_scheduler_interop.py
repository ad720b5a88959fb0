"""Schedulers that cross between torch and here in mid-run, both ways."""

from __future__ import annotations

import copy
from typing import Any

import jax
import numpy as np
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import lr_scheduler as lrs
from jaxopt_port.interop import scheduler_from_torch, scheduler_to_torch
from parity_tests.oracles.port_scheduler import OPTIONS, PortSide, run
from parity_tests.oracles.port_scheduler import stepped_state as state_of
from parity_tests.oracles.scheduled_groups import stepped_optimizer, stepped_state
from parity_tests.oracles.scheduler import OF_TORCH as CASES
from parity_tests.oracles.scheduler import TorchSide

BREAK, AFTER = 37, 25


def numbers_of(groups: Any) -> list[dict[str, Any]]:
    return [{n: g[n] for n in ("lr", "momentum", "betas") if n in g} for g in groups]


def entries_of(side: TorchSide) -> list[dict[str, Any]]:
    return [{k: v for k, v in g.items() if k != "params"} for g in side.optimizer.param_groups]


def to_port(theirs: TorchSide) -> PortSide:
    """Over an optimizer's state that has the numbers."""
    ours = PortSide.__new__(PortSide)
    ours.case, ours.from_ = theirs.case, theirs.from_
    ours.state = state_of(theirs.case.optimizer, tuple(theirs.case.lrs))
    for i, numbers in enumerate(numbers_of(theirs.optimizer.param_groups)):
        ours.state = jp.set_hyperparams(ours.state, group=i, **numbers)
    ours.scheduler, ours.sched_state = scheduler_from_torch(theirs.scheduler, ours.state)
    return ours


def to_torch(ours: PortSide) -> TorchSide:
    """Over an optimizer that has the numbers and nothing else."""
    case = ours.case
    theirs = TorchSide.__new__(TorchSide)
    theirs.case, theirs.from_ = case, ours.from_
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))]} for _ in case.lrs]
    theirs.optimizer = getattr(torch.optim, case.optimizer)(groups, **OPTIONS[case.optimizer])
    options = numbers_of(jp.get_hyperparams(ours.state))
    for group, numbers in zip(theirs.optimizer.param_groups, options, strict=True):
        group.update(numbers)
    theirs.scheduler = scheduler_to_torch(ours.scheduler, ours.sched_state, theirs.optimizer)
    assert numbers_of(theirs.optimizer.param_groups) == options
    theirs.optimizer.step()
    return theirs


@pytest.mark.parametrize("name", CASES)
def test_runs_go_on_at_the_other_side(name):
    theirs, ours = TorchSide(CASES[name]), PortSide(CASES[name])
    run(theirs, BREAK)
    run(ours, BREAK)
    theirs.from_ = ours.from_ = BREAK
    saved = copy.deepcopy(theirs.scheduler.state_dict())

    resumed_here, resumed_there = to_port(theirs), to_torch(ours)
    and_back = to_torch(resumed_here)
    assert resumed_here.scheduler.state_dict(resumed_here.sched_state) == saved
    for side in (resumed_there, and_back):
        assert side.scheduler.state_dict() == saved
        assert entries_of(side) == entries_of(theirs)
    want = run(theirs, AFTER)
    for side in (resumed_here, resumed_there, and_back):
        np.testing.assert_array_equal(run(side, AFTER), want)


def test_a_frozen_group_is_not_counted():
    state = stepped_state()  # of two groups and a frozen one
    scheduler = lrs.OneCycleLR([0.1, 0.2], 10)
    state, sched_state = scheduler.step(*scheduler.init(state))
    optimizer = stepped_optimizer()
    theirs = scheduler_to_torch(scheduler, sched_state, optimizer)
    assert theirs.get_last_lr() == scheduler.get_last_lr(sched_state)
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.01]
    back, back_state = scheduler_from_torch(theirs, state)
    assert back == scheduler
    jax.tree.map(np.testing.assert_array_equal, back_state, sched_state)


def test_state_dicts_go_on_in_torch_once_the_groups_have_the_schedulers_entries():
    scheduler = lrs.OneCycleLR(0.1, 10)
    tx, params = jp.SGD(lr=0.3, momentum=0.9), {"w": np.ones(1, np.float32)}
    state, sched_state = scheduler.init(tx.init(params))
    for _ in range(4):
        _, state = jp.step(tx, params, state, params)
        state, sched_state = scheduler.step(state, sched_state)
    saved = jp.state_dict(tx, state, params)
    for group, own in zip(saved["param_groups"], scheduler.param_groups(sched_state), strict=True):
        group.update(own)
        group.pop("param_names")
    saved["state"] = {}  # NumPy's arrays, which torch does not take, and no matter here

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=9.0, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 10)
    optimizer.load_state_dict(saved)
    theirs.load_state_dict(scheduler.state_dict(sched_state))
    for _ in range(6):
        state, sched_state = scheduler.step(state, sched_state)
        theirs.step()
        assert numbers_of(optimizer.param_groups) == numbers_of(jp.get_hyperparams(state))


# What torch keeps of these is a quotient or a step, rounded.
DRAWN = np.random.default_rng(5)
CYCLES = [tuple(map(int, DRAWN.integers(1, 10_000, 2))) for _ in range(60)]
PARTS = [(float(DRAWN.random()), int(DRAWN.integers(8, 100_000))) for _ in range(60)]


def test_rounded_arguments_are_read_back():
    optimizer = stepped_optimizer()
    for up, down in [*CYCLES, (1, 1), (2.5, 0.75)]:
        theirs = torch.optim.lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, up, down)
        ours, _ = scheduler_from_torch(theirs)
        assert (ours.step_size_up, ours.step_size_down) == (up, down)
    for i, (pct_start, total_steps) in enumerate([*PARTS, (0.3, 100), (0.0, 9), (1.0, 9)]):
        theirs = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 0.1, total_steps, pct_start=pct_start, three_phase=i % 2 == 0
        )
        ours, sched_state = scheduler_from_torch(theirs)
        assert ours.state_dict(sched_state) == theirs.state_dict()
        assert (ours.max_lr, ours.div_factor, ours.final_div_factor) == (0.1, 25.0, 1e4)
        assert ours.pct_start == pytest.approx(pct_start, abs=1e-12)


def test_learning_rates_that_are_tensors():
    optimizer = stepped_optimizer()
    lrs_ = [torch.tensor(0.5), torch.tensor(0.25)]
    for group, lr in zip(optimizer.param_groups, lrs_, strict=True):
        group["lr"] = lr
    theirs = torch.optim.lr_scheduler.ConstantLR(optimizer, 0.5)
    optimizer.step()
    theirs.step()
    ours, sched_state = scheduler_from_torch(theirs)
    assert ours.get_last_lr(sched_state) == [0.25, 0.125]
    scheduler_to_torch(ours, sched_state, optimizer)
    assert all(group["lr"] is lr for group, lr in zip(optimizer.param_groups, lrs_, strict=True))
    assert lrs_ == [0.25, 0.125]


# ── warnings and errors ────────────────────────────────────────────────────────────────────────


def test_torch_warns_of_the_order_where_it_would():
    def resumed() -> tuple[Any, Any]:
        weight = torch.nn.Parameter(torch.ones(1))
        optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        scheduler = lrs.StepLR(3)
        state = jp.SGD(lr=0.1, momentum=0.9).init({"w": np.ones(1, np.float32)})
        return weight, scheduler_to_torch(scheduler, scheduler.init(state)[1], optimizer)

    _, fresh = resumed()
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        fresh.step()
    weight, stepped = resumed()
    weight.grad = torch.ones(1)
    stepped.optimizer.step()
    stepped.step()
    weight, begun = resumed()  # where the break is between the two steps
    begun.optimizer.state[weight]["momentum_buffer"] = torch.ones(1)
    scheduler_to_torch(lrs.StepLR(3), begun_state(), begun.optimizer).step()


def begun_state() -> Any:
    return lrs.StepLR(3).init(jp.SGD(lr=0.1, momentum=0.9).init({"w": np.ones(1, np.float32)}))[1]


class Own(torch.optim.lr_scheduler.StepLR):
    """A user's own, whose step may do anything."""


def altered(**attributes: Any) -> Any:
    made = torch.optim.lr_scheduler.CyclicLR(stepped_optimizer(), 0.01, 0.1)
    vars(made).update(attributes)
    return made


FROM_TORCH = {
    "a user's class": (lambda: Own(stepped_optimizer(), 3), TypeError, "Own is not one of torch's"),
    "one inside another": (
        lambda: torch.optim.lr_scheduler.ChainedScheduler([Own(stepped_optimizer(), 3)]),
        TypeError,
        "Own is not one of torch's",
    ),
    "a state dict": (
        lambda: torch.optim.lr_scheduler.StepLR(stepped_optimizer(), 3).state_dict(),
        TypeError,
        "does not say which scheduler",
    ),
    "an optimizer": (stepped_optimizer, TypeError, "expected one of torch's schedulers; got SGD"),
    "sizes that no steps have": (
        lambda: altered(step_ratio=float("nan")),
        ValueError,
        "step_size_up and step_size_down of this CyclicLR cannot be read back",
    ),
}


@pytest.mark.parametrize("case", FROM_TORCH)
def test_what_cannot_be_read_back(case):
    make, error, message = FROM_TORCH[case]
    with pytest.raises(error, match=message):
        scheduler_from_torch(make())


def test_other_groups_than_the_states():
    theirs = torch.optim.lr_scheduler.StepLR(stepped_optimizer(), 3)
    scheduler_from_torch(theirs, stepped_state())
    with pytest.raises(ValueError, match="one of 2 groups, but 3 groups of the state are trained"):
        scheduler_from_torch(theirs, state_of("SGD", (0.3, 0.05, 0.007)))


def one_group() -> Any:
    return torch.optim.Adadelta([torch.nn.Parameter(torch.ones(1))])


TO_TORCH = {
    "another number of groups": (lrs.StepLR(3), one_group, ValueError, "optimizer has 1; what is"),
    "no momentum": (
        lrs.SequentialLR([lrs.StepLR(3), lrs.OneCycleLR(0.1, 10)], [2]),
        lambda: torch.optim.Adadelta(stepped_optimizer().param_groups),
        ValueError,
        "must support momentum or beta1",
    ),
    "no optimizer": (lrs.StepLR(3), lambda: torch.nn.Linear(1, 1), TypeError, "got Linear"),
}


@pytest.mark.parametrize("case", TO_TORCH)
def test_nothing_is_changed_where_torch_can_have_no_such_scheduler(case):
    scheduler, make, error, message = TO_TORCH[case]
    _, sched_state = scheduler.init(stepped_state())
    optimizer = make()
    before = copy.deepcopy(getattr(optimizer, "param_groups", None)), set(vars(optimizer))
    with pytest.raises(error, match=message):
        scheduler_to_torch(scheduler, sched_state, optimizer)
    assert (getattr(optimizer, "param_groups", None), set(vars(optimizer))) == before


def test_a_state_of_another_scheduler():
    _, sched_state = lrs.StepLR(3).init(stepped_state())
    with pytest.raises(ValueError, match="that of StepLR, not of ExponentialLR"):
        scheduler_to_torch(lrs.ExponentialLR(0.9), sched_state, stepped_optimizer())


def test_a_class_that_torch_has_not():
    class Mine(lrs.StepLR):
        pass

    scheduler = lrs.ChainedScheduler([Mine(3)])
    _, sched_state = scheduler.init(stepped_state())
    with pytest.raises(TypeError, match=r"torch has no scheduler of the class .*Mine"):
        scheduler_to_torch(scheduler, sched_state, stepped_optimizer())
