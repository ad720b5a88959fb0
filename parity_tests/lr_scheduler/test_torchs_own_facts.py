"""The rates that torch's own tests expect, through its mutable spelling over this library's."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_port as jp
from jaxopt_port import lr_scheduler as lrs
from parity_tests.oracles.mutable_scheduler import MutableOptimizer, MutableScheduler
from parity_tests.oracles.scheduler_facts import FACTS


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


def follows_a_metric(scheduler):
    return isinstance(scheduler, lrs.ReduceLROnPlateau)


@pytest.mark.parametrize("name", FACTS)
def test_rates_by_formula(name):
    fact = FACTS[name]
    optimizer = optimizer_of(fact)
    schedule = schedule_of(fact, optimizer)
    made = [scheduler for scheduler, _, _ in schedule if scheduler is not None]
    assert made[-1].get_last_lr() == [group["lr"] for group in optimizer.param_groups]
    optimizer.step()
    check(optimizer, fact, 0, 0)
    dtypes = jax.tree.map(jnp.result_type, (optimizer.state, [each.own for each in made]))
    metrics = any(follows_a_metric(each.scheduler) for each in made)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The epoch parameter")
        for i in range(fact.steps - 1 if fact.told is None else len(fact.told)):
            active = [s for s, start, until in schedule if s is not None and start <= i < until]
            for scheduler in active:
                is_told = follows_a_metric(scheduler.scheduler) == metrics
                scheduler.step(*([] if fact.told is None or not is_told else [fact.told[i]]))
            at = i + 1 if fact.told is None or metrics else fact.told[i]
            check(optimizer, fact, at, i)
            last = [group["lr"] for group in optimizer.param_groups]
            assert not active or active[-1].get_last_lr() == last
    # No step compiles a second program for what comes after it.
    after = (optimizer.state, [each.own for each in made])
    assert jax.tree.map(jnp.result_type, after) == dtypes


AT_ONCE = {name: fact for name, fact in FACTS.items() if not isinstance(fact.make(lrs), list)}


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
        metrics = follows_a_metric(fact.make(lrs))
        of_length = min(length, fact.steps - 1 if fact.told is None else len(fact.told))
        for i in range(of_length):
            at = i + 1 if fact.told is None or metrics else fact.told[i]
            expected = [formulas(fact.lr)[k](fact.lrs[k], at) for k in range(2)]
            np.testing.assert_allclose(
                rates[i], expected, rtol=1e-9, atol=1e-12, err_msg=f"{name}, step {i}"
            )
