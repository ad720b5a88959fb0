"""torch's own tests of its schedulers, through its mutable spelling over this library's."""

import dataclasses
import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_port as jp
from jaxopt_port import lr_scheduler as lrs
from parity_tests.oracles.mutable_scheduler import MutableOptimizer, MutableScheduler
from parity_tests.oracles.scheduler_facts import FACTS, LRS, Fact


def optimizer_of(fact):
    factory = getattr(jp, fact.optimizer)
    return MutableOptimizer(factory, [{}, {"lr": fact.lrs[1]}], lr=fact.lrs[0])


def formulas(of):
    return of if isinstance(of, tuple) else (of, of)


def check(optimizer, fact, step, i):
    for k, group in enumerate(optimizer.param_groups):
        expected = formulas(fact.lr)[k](fact.lrs[k], step)
        np.testing.assert_allclose(
            group["lr"], expected, rtol=1e-9, atol=1e-12, err_msg=f"step {i}"
        )
        if fact.momentum is not None:
            expected = formulas(fact.momentum)[k](fact.lrs[k], step)
            momentum = group["betas"][0] if "betas" in group else group["momentum"]
            np.testing.assert_allclose(momentum, expected, rtol=1e-9, err_msg=f"step {i}")


def schedule_of(fact, optimizer):
    """Schedulers with the step that each begins to end at; all in turn unless it is given."""
    made = fact.make(lrs)
    made = made if isinstance(made, list) else [made]
    if not isinstance(made[0], tuple):
        return [(MutableScheduler(optimizer, s), 0, 10**9) for s in made]
    starts = [0, *(until for _, until in made)]
    return [
        (None if s is None else MutableScheduler(optimizer, s), start, until)
        for (s, until), start in zip(made, starts, strict=False)
    ]


@pytest.mark.parametrize("name", FACTS)
def test_rates_by_formula(name):
    fact = FACTS[name]
    optimizer = optimizer_of(fact)
    schedule = schedule_of(fact, optimizer)
    optimizer.step()
    check(optimizer, fact, 0, 0)
    metrics = isinstance(fact.make(lrs), lrs.ReduceLROnPlateau)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The epoch parameter")
        for i in range(fact.steps - 1 if fact.told is None else len(fact.told)):
            told = [] if fact.told is None else [fact.told[i]]
            for scheduler, start, until in schedule:
                if scheduler is not None and start <= i < until:
                    scheduler.step(*told)
            at = i + 1 if fact.told is None or metrics else fact.told[i]
            check(optimizer, fact, at, i)
            last = [group["lr"] for group in optimizer.param_groups]
            active = [s for s, start, until in schedule if s is not None and start <= i < until]
            assert not active or active[-1].get_last_lr() == last


AT_ONCE = {name: fact for name, fact in FACTS.items() if not isinstance(fact.make(lrs), list)}


@pytest.mark.exhaustive
def test_the_same_in_one_compiled_scan():
    start, steps = {}, {}
    for name, fact in AT_ONCE.items():
        optimizer = optimizer_of(fact)
        scheduler = fact.make(lrs)
        start[name] = scheduler.init(optimizer.state)
        steps[name] = scheduler.step
    length = 10
    told = {n: np.asarray(f.told[:length]) for n, f in AT_ONCE.items() if f.told is not None}

    def step(carried, x):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The epoch parameter")
            made = {
                name: steps[name](*pair, *([x[name]] if name in x else []))
                for name, pair in carried.items()
            }
        return made, {name: state.numbers["lr"].parts for name, (state, _) in made.items()}

    with jax.enable_x64(True):  # so that metrics are not rounded
        _, parts = jax.jit(lambda c, x: jax.lax.scan(step, c, x, length=length))(start, told)
    for name, fact in AT_ONCE.items():
        rates = np.sum(np.asarray(parts[name], np.float64), -1)
        metrics = isinstance(fact.make(lrs), lrs.ReduceLROnPlateau)
        of_length = min(length, fact.steps - 1 if fact.told is None else len(fact.told))
        for i in range(of_length):
            at = i + 1 if fact.told is None or metrics else fact.told[i]
            expected = [formulas(fact.lr)[k](fact.lrs[k], at) for k in range(2)]
            np.testing.assert_allclose(
                rates[i], expected, rtol=1e-9, atol=1e-12, err_msg=f"{name}, step {i}"
            )


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
    def __init__(self):
        self.factor = 0.1

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


@pytest.mark.parametrize("name", WITH_LAST_EPOCH)
def test_initial_rates_stay(name):
    optimizer = MutableOptimizer(jp.SGD, [{}], lr=0.1)
    scheduler = MutableScheduler(optimizer, ALL[name](lrs))
    before = scheduler.scheduler.param_groups(scheduler.own)
    for _ in range(2):
        optimizer.set_lr(0.01)
        optimizer.step()
        scheduler.step()
    assert scheduler.scheduler.param_groups(scheduler.own) == before


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


def test_a_chains_rates_before_its_first_step():
    optimizer = MutableOptimizer(jp.SGD, [{}, {"lr": 0.5}], lr=0.05)
    chain = lrs.ChainedScheduler([lrs.LinearLR(0.4, total_iters=3), lrs.MultiStepLR([4, 8], 0.1)])
    assert MutableScheduler(optimizer, chain).get_last_lr() == [0.05 * 0.4, 0.5 * 0.4]


def test_a_plateaus_rates_before_its_first_step():
    optimizer = MutableOptimizer(jp.SGD, [{}, {}], lr=0.5)
    assert MutableScheduler(optimizer, lrs.ReduceLROnPlateau()).get_last_lr() == [0.5, 0.5]


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


def test_groups_that_join_a_plateau():
    optimizer = MutableOptimizer(jp.SGD, [{}, {}], lr=0.5)
    plateau = lrs.ReduceLROnPlateau("min", 0.1, 5, 0.1, cooldown=5)
    scheduler = MutableScheduler(optimizer, plateau)
    fact = FACTS["plateau with cooldown"]
    for i, metric in enumerate(fact.told):
        if i == 8:
            optimizer.add_param_group({"lr": 0.05})
        scheduler.step(metric)
        for group in optimizer.param_groups[:2]:
            np.testing.assert_allclose(group["lr"], fact.lr(0.5, i + 1))
    np.testing.assert_allclose(optimizer.param_groups[2]["lr"], 0.005)

    optimizer = MutableOptimizer(jp.SGD, [{}, {}], lr=0.5)
    listed = lrs.ReduceLROnPlateau(patience=0, threshold=1e-5, min_lr=[1e-5, 1e-4])
    scheduler = MutableScheduler(optimizer, listed)
    optimizer.add_param_group({"lr": 0.05})
    scheduler.step(1)
    with pytest.raises(RuntimeError, match="The number of param groups in the"):
        scheduler.step(1.3)


def test_warnings_of_the_order():
    for factory in (lrs.StepLR(3), lrs.LinearLR(0.5, 0.1, 5)):
        optimizer = MutableOptimizer(jp.SGD, [{}], lr=0.5)
        scheduler = MutableScheduler(optimizer, factory)
        with pytest.warns(UserWarning, match="how-to-adjust-learning-rate"):
            scheduler.step()
    optimizer = MutableOptimizer(jp.SGD, [{}], lr=0.5)
    sequence = lrs.SequentialLR([lrs.LinearLR(0.5, 0.1, 5), lrs.ExponentialLR(0.9)], [5])
    scheduler = MutableScheduler(optimizer, sequence)
    for _ in range(10):
        optimizer.step()
        scheduler.step()


def test_the_table_is_of_two_groups():
    assert len(FACTS) > 60
    assert all(isinstance(fact, Fact) and len(fact.lrs) == len(LRS) for fact in FACTS.values())
