"""What torch's own tests of its schedulers hold beside rates, and where each of them is held."""

import dataclasses
import functools
import importlib
import pickle
import re

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import lr_scheduler as lrs
from parity_tests.oracles.mutable_scheduler import MutableOptimizer, MutableScheduler
from parity_tests.oracles.scheduler_facts import FACTS
from parity_tests.oracles.torchs_scheduler_tests import LEFT_OUT, ROWS, TESTS

# ── the table ──────────────────────────────────────────────────────────────────────────────────


def test_each_of_torchs_tests_has_one_place():
    names = [*ROWS, *TESTS, *LEFT_OUT]
    assert len(names) == len(set(names)) == 143
    assert {row for rows in ROWS.values() for row in rows} == set(FACTS)


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


# ── state dicts ────────────────────────────────────────────────────────────────────────────────


class Tenfold:
    def __init__(self, factor=0.1):
        self.factor = factor

    def __call__(self, epoch):
        return self.factor * epoch


ALL = {
    "lambda": lambda s: s.LambdaLR(lambda e: 0.9 ** (e // 10)),
    "lambda object": lambda s: s.LambdaLR(Tenfold()),
    "multiplicative": lambda s: s.MultiplicativeLR(lambda e: 0.95),
    "step": lambda s: s.StepLR(30),
    "multistep": lambda s: s.MultiStepLR([30, 80]),
    "constant": lambda s: s.ConstantLR(),
    "linear": lambda s: s.LinearLR(),
    "exponential": lambda s: s.ExponentialLR(0.999),
    "polynomial": lambda s: s.PolynomialLR(),
    "cosine": lambda s: s.CosineAnnealingLR(10),
    "restarts": lambda s: s.CosineAnnealingWarmRestarts(20),
    "cyclic": lambda s: s.CyclicLR(0.01, 0.1),
    "cyclic own": lambda s: s.CyclicLR(0.01, 0.1, scale_fn=Tenfold()),
    "onecycle": lambda s: s.OneCycleLR(0.01, 10),
    "swa": lambda s: s.SWALR(0.01),
    "plateau": lambda s: s.ReduceLROnPlateau(),
    "chained": lambda s: s.ChainedScheduler([s.ConstantLR(), s.ConstantLR()]),
    "sequential": lambda s: s.SequentialLR([s.ConstantLR(), s.ConstantLR()], [2]),
}


@pytest.mark.parametrize("name", ALL)
def test_a_state_dict_is_pickled_and_loaded(name):
    optimizer = MutableOptimizer(jp.SGD, [{}, {"lr": 0.5}], lr=0.05)
    scheduler = MutableScheduler(optimizer, ALL[name](lrs))
    optimizer.step()
    told = [1.0] if name == "plateau" else []
    for _ in range(4):
        scheduler.step(*told)
    saved = pickle.loads(pickle.dumps(scheduler.state_dict()))
    other = MutableScheduler(MutableOptimizer(jp.SGD, [{}, {"lr": 0.5}], lr=0.05), ALL[name](lrs))
    other.load_state_dict(saved)
    assert other.state_dict() == saved
    assert other.get_last_lr() == scheduler.get_last_lr()
    other.optimizer = optimizer
    rates = []
    for each in (scheduler, other):
        state = optimizer.state
        each.step(*told)
        rates.append(each.get_last_lr())
        optimizer.state = state
    assert rates[0] == rates[1]


@functools.cache
def stepped_state():
    optimizer = MutableOptimizer(jp.SGD, [{}, {"lr": 0.5}], lr=0.05)
    optimizer.step()
    return optimizer.state


# A scheduler, and one of its class to which torch would give the first one's arguments.
SAVED = {
    "step": (lrs.StepLR(3, 0.1), lrs.StepLR(1, 0.005)),
    "multistep": (lrs.MultiStepLR([2, 5, 9], 0.1), lrs.MultiStepLR([1, 4, 6], 0.01)),
    "exponential": (lrs.ExponentialLR(0.1), lrs.ExponentialLR(0.01)),
    "cosine": (lrs.CosineAnnealingLR(10, 1e-10), lrs.CosineAnnealingLR(5, 5e-11)),
    "plateau": (
        lrs.ReduceLROnPlateau("min", 0.1, 2),
        lrs.ReduceLROnPlateau("max", 0.5, 10),
    ),
    "lambda object": (lrs.LambdaLR(Tenfold()), lrs.LambdaLR(Tenfold(-1))),
    "restarts": (lrs.CosineAnnealingWarmRestarts(10, 2), lrs.CosineAnnealingWarmRestarts(100)),
    "swa": (lrs.SWALR(0.5, 3), lrs.SWALR(5.0, 10, "linear")),
    "cyclic": (lrs.CyclicLR(1, 5, mode="triangular2"), lrs.CyclicLR(1, 5)),
}
SCORES = [1.0, 2.0, 3.0, 4.0, 3.0, 4.0, 5.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize("name", SAVED)
def test_a_state_dict_is_for_the_arguments_it_was_saved_with(name):
    scheduler, other = SAVED[name]
    state, own = scheduler.init(stepped_state())
    for score in SCORES:
        state, own = scheduler.step(state, own, *([score] if name == "plateau" else []))
    saved = scheduler.state_dict(own)
    loaded = scheduler.load_state_dict(saved)
    assert scheduler.state_dict(loaded) == saved
    assert scheduler.get_last_lr(loaded) == scheduler.get_last_lr(own)
    with pytest.raises(ValueError, match="with the arguments it was saved with"):
        other.load_state_dict(saved)


def test_a_one_cycles_dict_of_an_earlier_torch():
    """It holds the function by which it anneals, and not its name."""
    fact = FACTS["onecycle cosine"]
    scheduler = fact.make(lrs)
    state, own = scheduler.init(stepped_state())
    saved = scheduler.state_dict(own)
    assert saved.pop("_anneal_func_type") == "cos"
    own = scheduler.load_state_dict({**saved, "anneal_func": torch.cos})
    for i in range(1, 10):
        state, own = scheduler.step(state, own)
        for group in jp.get_hyperparams(state):
            np.testing.assert_allclose(group["lr"], fact.lr(0.0, i))
            np.testing.assert_allclose(group["momentum"], fact.momentum(0.0, i))


WITH_LAST_EPOCH = [n for n in ALL if n not in ("plateau", "chained", "sequential")]


@pytest.mark.parametrize("name", WITH_LAST_EPOCH)
def test_a_checkpoint_goes_on_at_its_rate(name):
    """``last_epoch=0`` after a step, with the groups' entries of the optimizer's state dict."""
    optimizer = MutableOptimizer(jp.AdamW, [{}], lr=1e-3)
    first = ALL[name](lrs)
    scheduler = MutableScheduler(optimizer, first)
    optimizer.step()
    scheduler.step()
    lr = optimizer.param_groups[0]["lr"]
    resumed = MutableScheduler(optimizer, dataclasses.replace(first, last_epoch=0))
    np.testing.assert_allclose(resumed.get_last_lr(), [lr], rtol=1e-12)


def test_a_plateaus_checkpoint_goes_on_at_its_rate():
    optimizer = MutableOptimizer(jp.AdamW, [{}], lr=1e-3)
    scheduler = MutableScheduler(optimizer, lrs.ReduceLROnPlateau(patience=0))
    for metric in (1.0, 2.0):
        scheduler.step(metric)
    assert MutableScheduler(optimizer, lrs.ReduceLROnPlateau()).get_last_lr() == [1e-4]


# ── what was given is the scheduler's own from then on ─────────────────────────────────────────


@pytest.mark.parametrize("name", WITH_LAST_EPOCH)
def test_initial_rates_stay(name):
    lr = np.array(0.1)
    optimizer = MutableOptimizer(jp.SGD, [{}], lr=lr)
    scheduler = MutableScheduler(optimizer, ALL[name](lrs))
    before = scheduler.scheduler.param_groups(scheduler.own)
    for _ in range(2):
        lr[...] *= 0.1
        optimizer.set_lr(0.01)
        optimizer.step()
        scheduler.step()
    assert scheduler.scheduler.param_groups(scheduler.own) == before


GIVEN = {
    "cyclic": lambda a: lrs.CyclicLR(a(0.1), a(0.2), base_momentum=a(0.8), max_momentum=a(0.9)),
    "onecycle": lambda a: lrs.OneCycleLR(a(0.1), 10, base_momentum=a(0.85), max_momentum=a(0.95)),
    "swa": lambda a: lrs.SWALR(a(0.05)),
    "plateau": lambda a: lrs.ReduceLROnPlateau(factor=a(0.5), patience=0, min_lr=[a(0.04)]),
    "multistep": lambda a: lrs.MultiStepLR(np.array([1, 2]), a(0.5)),
}


def run_of(name, kind, fill):
    given = []

    def array(value):
        given.append(kind(value))
        return given[-1]

    scheduler = GIVEN[name](array)
    optimizer = MutableOptimizer(jp.SGD, [{}], lr=array(0.1), momentum=0.9)
    stepped = MutableScheduler(optimizer, scheduler)
    optimizer.step()
    for _ in range(3):
        for each in given if fill else ():
            each[...] *= 0.5
        stepped.step(*([1.0] if name == "plateau" else []))
        yield optimizer.param_groups, pickle.dumps(stepped.state_dict()), hash(scheduler)


@pytest.mark.parametrize("name", GIVEN)
def test_what_was_given_may_be_filled(name):
    for kind in (np.array, torch.tensor):
        assert list(run_of(name, kind, True)) == list(run_of(name, kind, False))


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
    fact = FACTS["plateau with cooldown"]
    for i, metric in enumerate(fact.told):
        if i == 8:
            optimizer.add_param_group({"lr": 0.05})
            # torch's min_lrs.append(…)
            scheduler.scheduler = dataclasses.replace(plateau, min_lr=after)
        scheduler.step(metric)
        for group in optimizer.param_groups[:2]:
            np.testing.assert_allclose(group["lr"], fact.lr(0.5, i + 1))
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
