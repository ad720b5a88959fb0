"""What torch's own tests of its schedulers hold beside rates, and where each of them is held."""

import dataclasses
import importlib
import re

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import lr_scheduler as lrs
from jaxopt_port.verify.cases import TorchSchedulers
from parity_tests.oracles.mutable_scheduler import MutableOptimizer, MutableScheduler
from parity_tests.oracles.scheduler_cases import CASES
from parity_tests.oracles.torchs_scheduler_tests import LEFT_OUT, ROWS, TESTS

# ── the table ──────────────────────────────────────────────────────────────────────────────────


def test_each_of_torchs_tests_has_one_place():
    names = [*ROWS, *TESTS, *LEFT_OUT]
    assert len(names) == len(set(names)) == 143
    assert {row for rows in ROWS.values() for row in rows} <= set(CASES)


def test_each_place_is_a_test():
    places = {place for places in TESTS.values() for place in places}
    assert not [place for place in sorted(places) if not is_a_test(place)]


def is_a_test(place):
    module, name, case = re.fullmatch(r"([\w.]+)::(\w+)(?:\[(.+)\])?", place).groups()
    test = getattr(importlib.import_module(f"parity_tests.{module}"), name, None)
    return test is not None and (case is None or case in cases_of(test))


def cases_of(test):
    """The ids of a test with one table; of several arguments as pytest joins them."""
    (table,) = (mark.args[1] for mark in test.pytestmark if mark.name == "parametrize")
    rows = [getattr(row, "values", row) for row in table]
    rows = [row if isinstance(row, tuple) else (row,) for row in rows]
    return {"-".join(map(str, row)) for row in rows}


# ── one epoch again and again ──────────────────────────────────────────────────────────────────

CONSTANT = {
    "step": lrs.StepLR(2),
    "exponential": lrs.ExponentialLR(0.9),
    "constant": lrs.ConstantLR(),
    "linear": lrs.LinearLR(),
    "polynomial": lrs.PolynomialLR(power=0.9),
}


@pytest.mark.parametrize("name", CONSTANT)
@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_the_same_epoch_has_the_same_rate(name):
    optimizer = MutableOptimizer(jp.SGD, [{}, {"lr": 0.5}], lr=0.05)
    scheduler = MutableScheduler(optimizer, CONSTANT[name])
    optimizer.step()
    rates = []
    for _ in range(10):
        scheduler.step(2)
        rates.append(scheduler.get_last_lr())
    assert all(rate == rates[0] for rate in rates)


# ── several of one optimizer ───────────────────────────────────────────────────────────────────

# Schedulers that are stepped in turn; the metric of a plateau among them.
IN_TURN = {
    "step and milestones": (lambda s: [s.StepLR(3), s.MultiStepLR([2, 5, 9])],),
    "step and exponential": (lambda s: [s.StepLR(3), s.ExponentialLR(0.9)],),
    "milestones and exponential": (lambda s: [s.MultiStepLR([2, 5, 9]), s.ExponentialLR(0.9)],),
    "line and exponential": (lambda s: [s.LinearLR(0.4, 0.9, 4), s.ExponentialLR(0.9)],),
    "step and constant": (lambda s: [s.StepLR(3), s.ConstantLR(0.4, 4)],),
    "milestones and line": (lambda s: [s.MultiStepLR([2, 5, 9]), s.LinearLR(0.4, 1.0, 4)],),
    "cosine and step": (lambda s: [s.CosineAnnealingLR(10), s.StepLR(3)],),
    "cosine and milestones": (lambda s: [s.CosineAnnealingLR(10), s.MultiStepLR([2, 5, 9])],),
    "line and cosine": (lambda s: [s.LinearLR(0.4, 1.0, 4), s.CosineAnnealingLR(10)],),
    "cosine and exponential": (lambda s: [s.CosineAnnealingLR(10), s.ExponentialLR(0.1)],),
    "a plateau that improves, and step": (
        lambda s: [s.ReduceLROnPlateau("min", 0.1, 5, 0.01, "abs", 5), s.StepLR(3)],
        lambda i: 10 - i * 0.0167,
    ),
    "a plateau that stalls, and milestones": (
        lambda s: [s.ReduceLROnPlateau("min", 0.1, 5, 0.1, "abs"), s.MultiStepLR([3, 8, 12])],
        lambda i: 10 - i * 0.0165,
    ),
    "a plateau below its eps, and exponential": (
        lambda s: [
            s.ReduceLROnPlateau("max", 0.1, 5, threshold_mode="abs", cooldown=5),
            s.ExponentialLR(0.1),
        ],
        lambda i: -0.8 if i < 2 else -0.234,
    ),
    "a plateau that improves, and cosine": (
        lambda s: [s.ReduceLROnPlateau("max", 0.1, 3, 0.1), s.CosineAnnealingLR(10, 1e-10)],
        lambda i: 1.5 * 1.025**i,
    ),
    "a plateau that stalls, and line": (
        lambda s: [s.ReduceLROnPlateau("min", 0.1, 5, 0.1, "abs"), s.LinearLR(0.4, 1.0, 4)],
        lambda i: 10 - i * 0.0165,
    ),
}


def several(make, told):
    """Step each scheduler of torch's and ours by what ``told(its place, the step)`` yields."""
    theirs = torch.optim.SGD(
        [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in (0.5, 0.05)]
    )
    ours = MutableOptimizer(jp.SGD, [{}, {"lr": 0.05}], lr=0.5)
    of_theirs = make(TorchSchedulers(theirs))
    of_ours = [MutableScheduler(ours, each) for each in make(lrs)]
    for i in range(20):
        assert [g["lr"] for g in ours.param_groups] == [g["lr"] for g in theirs.param_groups]
        theirs.step()
        ours.step()
        for place, pair in enumerate(zip(of_theirs, of_ours, strict=True)):
            for arguments in told(place, i):
                for each in pair:
                    each.step(*arguments)


@pytest.mark.parametrize("name", IN_TURN)
def test_several_in_turn(name):
    make, *metrics = IN_TURN[name]
    several(make, lambda place, i: [[metric(i) for metric in metrics if place == 0]])


AVERAGING = {
    "at once": lambda s: [s.ConstantLR(1.0), s.SWALR(0.01, 1)],
    "cosine": lambda s: [s.MultiplicativeLR(lambda e: 0.9), s.SWALR(0.01, 5)],
    "linear": lambda s: [s.MultiplicativeLR(lambda e: 0.9), s.SWALR([0.01, 0.02], 4, "linear")],
}


@pytest.mark.parametrize("name", AVERAGING)
def test_averaging_after_five_steps(name):
    several(AVERAGING[name], lambda place, i: [[]] if place == (i >= 5) else [])


# ── what is left ───────────────────────────────────────────────────────────────────────────────


def test_a_cosine_goes_on_from_the_first_epoch():
    optimizer = MutableOptimizer(jp.SGD, [{}, {"lr": 0.5}], lr=0.05)
    scheduler = MutableScheduler(optimizer, lrs.CosineAnnealingLR(5, 0.1))
    optimizer.step()
    scheduler.step()
    again = MutableScheduler(optimizer, lrs.CosineAnnealingLR(5, 0.1, last_epoch=0))
    np.testing.assert_allclose(again.get_last_lr(), scheduler.get_last_lr())


def test_a_cosine_and_then_a_cycle():
    optimizer = MutableOptimizer(jp.SGD, [{}], lr=0.5)
    cosine = MutableScheduler(optimizer, lrs.CosineAnnealingLR(20, 0.1))
    cycle = MutableScheduler(optimizer, lrs.CyclicLR(0.1, 0.3, 1, 3))
    for i in range(40):
        optimizer.step()
        (cosine if i <= 20 else cycle).step()
    assert optimizer.param_groups[0]["lr"] <= 0.3


def test_a_period_that_was_overrun_is_begun_again():
    scheduler = lrs.CosineAnnealingWarmRestarts(4)
    state, own = scheduler.init(MutableOptimizer(jp.SGD, [{}], lr=0.5).state)
    for epoch in (7, 8, 9):
        saved = {**scheduler.state_dict(own), "T_cur": epoch}
        _, after = scheduler.step(state, scheduler.load_state_dict(saved))
        assert scheduler.state_dict(after)["T_cur"] == (epoch + 1) % 4


def test_momentum_that_is_not_there():
    rprop = jp.Rprop().init({"w": jnp.ones(1)})
    with pytest.raises(ValueError, match="must support momentum or beta1"):
        lrs.CyclicLR(1, 5).init(rprop)
    begun, _ = lrs.CyclicLR(1, 5).init(jp.Adam().init({"w": jnp.ones(1)}))
    assert jp.get_hyperparams(begun)[0]["betas"] == (0.9, 0.999)


FLOORS = {"a floor": (0, 0), "floors": ([1e-5, 1e-4], [1e-5, 1e-4, 1e-6])}


@pytest.mark.parametrize("name", FLOORS)
def test_groups_that_join_a_plateau(name):
    before, after = FLOORS[name]
    optimizer = MutableOptimizer(jp.SGD, [{}, {}], lr=0.5)
    plateau = lrs.ReduceLROnPlateau("min", 0.1, 5, 0.1, cooldown=5, min_lr=before)
    scheduler = MutableScheduler(optimizer, plateau)
    for i, metric in enumerate([1] * 7 + [0.6] + [0.5] * 12):
        if i == 8:
            optimizer.add_param_group({"lr": 0.05})
            # torch's min_lrs.append(…)
            scheduler.scheduler = dataclasses.replace(plateau, min_lr=after)
        scheduler.step(metric)
        for group in optimizer.param_groups[:2]:
            np.testing.assert_allclose(group["lr"], 0.5 * 0.1 ** ((i >= 6) + (i >= 17)))
    np.testing.assert_allclose(optimizer.param_groups[2]["lr"], 0.005)


def test_a_plateau_of_listed_floors_and_one_more_group():
    optimizer = MutableOptimizer(jp.SGD, [{}, {}], lr=0.5)
    listed = lrs.ReduceLROnPlateau(patience=0, threshold=1e-5, min_lr=[1e-5, 1e-4])
    scheduler = MutableScheduler(optimizer, listed)
    optimizer.add_param_group({"lr": 0.05})
    scheduler.step(1)
    with pytest.raises(RuntimeError, match="The number of param groups in the"):
        scheduler.step(1.3)


ORDERS = {
    "step": lrs.StepLR(3, 0.1),
    "line": lrs.LinearLR(0.5, 0.1, 5),
    "resumed": lrs.StepLR(3, 0.1, last_epoch=10),
    "line, then exponential": lrs.SequentialLR(
        [lrs.LinearLR(0.5, 0.1, 5), lrs.ExponentialLR(0.9)], [5]
    ),
}


def ordered(name):
    optimizer = MutableOptimizer(jp.SGD, [{}, {"lr": 0.5}], lr=0.05)
    if name == "resumed":
        optimizer.entries = [{"initial_lr": 0.01}] * 2
    return optimizer, MutableScheduler(optimizer, ORDERS[name])


@pytest.mark.parametrize("name", ["step", "line", "resumed"])
def test_a_scheduler_before_the_optimizer(name):
    _, scheduler = ordered(name)
    with pytest.warns(UserWarning, match="how-to-adjust-learning-rate"):
        scheduler.step()


@pytest.mark.parametrize("name", ORDERS)
def test_a_scheduler_after_the_optimizer(name):
    """Warnings are errors."""
    optimizer, scheduler = ordered(name)
    for _ in range(10):
        optimizer.step()
        scheduler.step()
