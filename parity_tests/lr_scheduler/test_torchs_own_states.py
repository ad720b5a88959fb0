"""What torch's own tests hold of a scheduler that is saved, resumed, or made of a user's arrays."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import lr_scheduler as lrs
from parity_tests.oracles.mutable_scheduler import MutableOptimizer, MutableScheduler
from parity_tests.oracles.scheduled_groups import stepped_state

# ── state dicts ────────────────────────────────────────────────────────────────────────────────


class Tenfold:
    def __init__(self, factor=0.1):
        self.factor = factor

    def __call__(self, epoch):
        return self.factor * epoch


class Tabled:
    """A schedule that is read from an array, which torch saves as it saves all attributes."""

    def __init__(self, *factors):
        self.factors = np.array(factors)

    def __call__(self, epoch):
        return float(self.factors[min(int(epoch), len(self.factors) - 1)])


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
    "lambda table": (lrs.LambdaLR(Tabled(1.0, 0.5)), lrs.LambdaLR(Tabled(1.0, 0.4))),
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


def saved_of(scheduler):
    return scheduler.state_dict(scheduler.init(stepped_state())[1])


@pytest.mark.parametrize("name", ALL)
def test_a_state_dict_is_for_its_kind(name):
    """Also where all arguments of the other are among its own, as ExponentialLR's gamma."""
    saved = saved_of(ALL[name](lrs))
    if "gamma" in saved:
        saved["gamma"] = 0.999
    for other in ALL.values():
        scheduler = other(lrs)
        if saved.keys() != saved_of(scheduler).keys():
            with pytest.raises(ValueError, match="not that of a"):
                scheduler.load_state_dict(saved)


PARTS = lrs.LinearLR(), lrs.CosineAnnealingLR(9)
COMPOSITES = {
    "sequential": lambda parts: lrs.SequentialLR(parts, [3]),
    "chained": lrs.ChainedScheduler,
    "nested": lambda parts: lrs.ChainedScheduler([lrs.SequentialLR(parts, [3])]),
}


@pytest.mark.parametrize("name", COMPOSITES)
def test_parts_are_not_loaded_in_another_order(name):
    saved = saved_of(COMPOSITES[name](PARTS))
    with pytest.raises(ValueError, match="not that of a CosineAnnealingLR: it has no 'T_max'"):
        COMPOSITES[name](PARTS[::-1]).load_state_dict(saved)


NOT_WHOLE, NO_LIST = "must be a whole number", "must be a list of numbers; got"
DAMAGED = {
    "last_epoch": ("step", {None: NOT_WHOLE, 2.5: NOT_WHOLE, np.nan: NOT_WHOLE, 2**40: NOT_WHOLE}),
    "num_bad_epochs": ("plateau", {1.5: NOT_WHOLE, "1": NOT_WHOLE}),
    "best": ("plateau", {None: "must be a number", (1.0, 2.0): "must be a number"}),
    "T_i": ("restarts", {2.5: NOT_WHOLE, 0: "a whole number above 0"}),
    "base_lrs": ("exponential", {None: NO_LIST, 0.1: NO_LIST, ((1, 2),): NO_LIST}),
    "_last_lr": ("plateau", {None: NO_LIST, (None,): NO_LIST, "ab": NO_LIST}),
    "_schedulers": (
        "sequential",
        {None: "must be a list of", "ab": "must be a list of", (None, None): "must have a dict"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("key", DAMAGED)
def test_what_is_no_number_of_its_kind_is_refused(key):
    name, values = DAMAGED[key]
    scheduler = ALL[name](lrs)
    for value, message in values.items():
        with pytest.raises(ValueError, match=message):
            scheduler.load_state_dict({**saved_of(scheduler), key: value})


def test_numbers_may_be_tensors():
    scheduler = ALL["step"](lrs)
    saved = saved_of(scheduler)
    made = {key: torch.tensor(saved[key]) for key in ("last_epoch", "base_lrs")}
    made["_last_lr"] = [torch.tensor([lr]) for lr in saved["_last_lr"]]
    loaded = scheduler.state_dict(scheduler.load_state_dict({**saved, **made}))
    for key in ("base_lrs", "_last_lr"):
        np.testing.assert_array_equal(loaded[key], np.float32(saved[key]))


def test_a_one_cycles_dict_of_an_earlier_torch():
    """It holds the function by which it anneals, and not its name."""
    scheduler = lrs.OneCycleLR(0.1, 10)
    state, own = scheduler.init(stepped_state())
    saved = scheduler.state_dict(own)
    assert saved.pop("_anneal_func_type") == "cos"
    loaded = scheduler.load_state_dict({**saved, "anneal_func": torch.cos})
    for _ in range(9):
        _, loaded = scheduler.step(state, loaded)
        state, own = scheduler.step(state, own)
        assert scheduler.get_last_lr(loaded) == scheduler.get_last_lr(own)


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


@pytest.mark.parametrize("name", [*WITH_LAST_EPOCH, "sequential"])
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
