"""What schedulers refuse and warn of, in torch's words, and that nothing is changed then."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import contrib
from jaxopt_port import lr_scheduler as lrs
from jaxopt_port.verify.cases import TorchSchedulers
from parity_tests.oracles.scheduled_groups import PARAMS, stepped_optimizer, stepped_state


@pytest.fixture
def state():
    return stepped_state()


# ── errors ─────────────────────────────────────────────────────────────────────────────────────

# The same expression must raise the same error in torch, up to what is added here.
CONSTRUCTION = {
    "constant factor": lambda s: s.ConstantLR(1.5),
    "linear start": lambda s: s.LinearLR(0.0),
    "linear start above one": lambda s: s.LinearLR(1.1),
    "linear end": lambda s: s.LinearLR(0.5, 1.5),
    "restarts T_0": lambda s: s.CosineAnnealingWarmRestarts(0),
    "restarts T_mult": lambda s: s.CosineAnnealingWarmRestarts(10, 0),
    "restarts eta_min": lambda s: s.CosineAnnealingWarmRestarts(10, eta_min="0"),
    "cyclic mode": lambda s: s.CyclicLR(0.01, 0.1, mode="square"),
    "onecycle nothing": lambda s: s.OneCycleLR(0.1),
    "onecycle total": lambda s: s.OneCycleLR(0.1, total_steps=0),
    "onecycle epochs": lambda s: s.OneCycleLR(0.1, epochs=-1, steps_per_epoch=3),
    "onecycle steps": lambda s: s.OneCycleLR(0.1, epochs=3, steps_per_epoch=2.5),
    "onecycle pct": lambda s: s.OneCycleLR(0.1, 100, pct_start=1.5),
    "onecycle integer pct": lambda s: s.OneCycleLR(0.1, 100, pct_start=1),
    "onecycle strategy": lambda s: s.OneCycleLR(0.1, 100, anneal_strategy="sine"),
    "plateau factor": lambda s: s.ReduceLROnPlateau(factor=1.0),
    "plateau mode": lambda s: s.ReduceLROnPlateau("least"),
    "plateau threshold": lambda s: s.ReduceLROnPlateau(threshold_mode="both"),
    "swa strategy": lambda s: s.SWALR(0.1, anneal_strategy="sine"),
    "swa epochs": lambda s: s.SWALR(0.1, anneal_epochs=-1),
    "swa half an epoch": lambda s: s.SWALR(0.1, anneal_epochs=1.5),
    "multiplicative no function": lambda s: s.MultiplicativeLR(0.5),
    "multiplicative no functions": lambda s: s.MultiplicativeLR([0.95, 0.95]),
    "sequential empty": lambda s: s.SequentialLR([], []),
    "sequential milestones": lambda s: s.SequentialLR([s.StepLR(3), s.StepLR(4)], [2, 3]),
    "sequential plateau": lambda s: s.SequentialLR([s.ReduceLROnPlateau()], []),
    "chained empty": lambda s: s.ChainedScheduler([]),
    "chained plateau": lambda s: s.ChainedScheduler([s.StepLR(2), s.ReduceLROnPlateau()]),
    # found by init, which knows the groups
    "lambda list": lambda s: s.LambdaLR([lambda e: 1.0] * 3),
    "cyclic base_lr list": lambda s: s.CyclicLR([0.1], 0.1),
    "cyclic max_lr list": lambda s: s.CyclicLR(0.1, [0.1, 0.2, 0.3]),
    "cyclic momentum list": lambda s: s.CyclicLR(0.1, 0.2, base_momentum=[0.5] * 3),
    "onecycle max_lr list": lambda s: s.OneCycleLR([0.1], 100),
    "onecycle momentum list": lambda s: s.OneCycleLR(0.1, 100, max_momentum=[0.9]),
    "plateau min_lr list": lambda s: s.ReduceLROnPlateau(min_lr=[0.1, 0.2, 0.3]),
    "swa list": lambda s: s.SWALR([0.1]),
    "resumed": lambda s: s.StepLR(3, last_epoch=5),
    "onecycle divides by zero": lambda s: s.OneCycleLR(0.1, 10, pct_start=0.1),
}


@pytest.mark.parametrize("case", CONSTRUCTION)
def test_bad_arguments_get_torchs_error(case, state):
    with pytest.raises((ValueError, TypeError, KeyError, ZeroDivisionError)) as theirs:
        CONSTRUCTION[case](TorchSchedulers(stepped_optimizer()))
    before = jax.tree.map(np.asarray, state)
    with pytest.raises(theirs.type) as ours:
        CONSTRUCTION[case](lrs).init(state)
    # torch said "by" before 2.13.
    assert str(ours.value).startswith(str(theirs.value).replace("must by one", "must be one"))
    jax.tree.map(np.testing.assert_array_equal, before, state)


# What torch takes, and fails of some steps later.
EARLIER = {
    "a word": (lambda: lrs.StepLR(3, gamma="x"), TypeError, "gamma of StepLR must be a number"),
    "nothing": (lambda: lrs.ExponentialLR(None), TypeError, "gamma of ExponentialLR must be"),
    "a list": (lambda: lrs.CosineAnnealingLR(10, [0.1, 0.2]), TypeError, "eta_min of Cosine"),
    "compared": (lambda: lrs.LinearLR("a"), TypeError, "start_factor of LinearLR must be a number"),
    "no steps": (lambda: lrs.StepLR(0), ValueError, "step_size must not be 0"),
    "no length": (lambda: lrs.CosineAnnealingLR(0), ValueError, "T_max must not be 0"),
    "one milestone": (lambda: lrs.MultiStepLR(5), TypeError, "a list of epochs; got 5"),
    "words": (lambda: lrs.MultiStepLR(["a"]), TypeError, "a list of epochs"),
    "no function": (lambda: lrs.LambdaLR(0.9), TypeError, "should be a function, but got float"),
}


@pytest.mark.parametrize("case", EARLIER)
def test_arguments_are_refused_at_once(case):
    make, error, message = EARLIER[case]
    with pytest.raises(error, match=message):
        make()


def test_wrong_lengths_say_that_frozen_groups_do_not_count(state):
    with pytest.raises(ValueError, match="Frozen groups are not counted; there are 1"):
        lrs.SWALR([0.1, 0.2, 0.3]).init(state)


def test_momentum_must_be_there():
    made = jp.Adadelta(lr=0.1).init(PARAMS)
    with pytest.raises(ValueError, match="must support momentum or beta1"):
        lrs.OneCycleLR(0.1, 10).init(made)


STEPS = {
    "no state": (lrs.StepLR(2), lambda s, st, _: s.step(st, None), TypeError, "that init"),
    "another's": (
        lrs.StepLR(2),
        lambda s, st, _: s.step(st, lrs.ExponentialLR(0.9).init(st)[1]),
        ValueError,
        "that of ExponentialLR, not of StepLR",
    ),
    "no optimizer": (lrs.StepLR(2), lambda s, st, own: s.step({}, own), ValueError, "found 0"),
    "half an epoch": (lrs.StepLR(2), lambda s, st, own: s.step(st, own, 0.5), TypeError, "whole"),
    "no metric": (
        lrs.ReduceLROnPlateau(),
        lambda s, st, own: s.step(st, own),
        TypeError,
        "missing 1 required positional argument: 'metrics'",
    ),
    "None for a metric": (
        lrs.ReduceLROnPlateau(), lambda s, st, own: s.step(st, own, None), TypeError, "one number"
    ),
    "two metrics": (
        lrs.ReduceLROnPlateau(),
        lambda s, st, own: s.step(st, own, jnp.ones(2)),
        TypeError,
        "one number",
    ),
    **{
        f"{type(metric).__name__} for a metric": (
            lrs.ReduceLROnPlateau(),
            lambda s, st, own, metric=metric: s.step(st, own, metric),
            TypeError,
            "one number",
        )
        for metric in ("low", [1.0], 1j, 10**400, torch.ones(2))
    },
    "negative epoch": (
        lrs.CosineAnnealingWarmRestarts(3),
        lambda s, st, own: s.step(st, own, -1),
        ValueError,
        "Expected non-negative epoch, but got -1",
    ),
    "too many steps": (
        lrs.OneCycleLR(0.1, 2),
        lambda s, st, own: s.step(*s.step(*s.step(st, own))),
        ValueError,
        "Tried to step 3 times. The specified number of total steps is 2",
    ),
    "a composite at a milestone": (
        lrs.SequentialLR([lrs.StepLR(2), lrs.ChainedScheduler([lrs.StepLR(3)])], [1]),
        lambda s, st, own: s.step(st, own),
        NotImplementedError,
        "only be the first",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STEPS)
def test_bad_steps_change_nothing(case, state):
    scheduler, step, error, message = STEPS[case]
    begun, sched_state = scheduler.init(state)
    before = jax.tree.map(np.asarray, (begun, sched_state))
    with pytest.raises(error, match=message):
        step(scheduler, begun, sched_state)
    jax.tree.map(np.testing.assert_array_equal, before, (begun, sched_state))


def test_more_groups_than_at_the_beginning(state):
    cosine = lrs.CosineAnnealingLR(1)
    _, sched_state = cosine.init(state)
    groups = [{"params": name} for name in "abc"]
    tx = jp.SGD(groups, lr=0.1, momentum=0.9)
    larger = jp.step(tx, PARAMS, tx.init(PARAMS), PARAMS)[1]
    larger, sched_state = cosine.step(larger, sched_state)  # which reads no base_lrs, as in torch
    with pytest.raises(ValueError, match="began with 2 groups, the optimizer has 3 now"):
        cosine.step(larger, sched_state)


BAD_STATE_DICTS = {
    "nothing": ({}, "not that of a scheduler"),
    "another kind": (lrs.ExponentialLR(0.5), "not that of a SequentialLR: it has no '_schedulers'"),
    "other arguments": (lrs.SequentialLR([lrs.StepLR(2), lrs.StepLR(4)], [6]), "step_size 2"),
    "fewer": (lrs.SequentialLR([lrs.StepLR(3)], []), "_milestones"),
}


@pytest.mark.parametrize("case", BAD_STATE_DICTS)
def test_bad_state_dicts(case, state):
    saved, message = BAD_STATE_DICTS[case]
    if saved:
        saved = saved.state_dict(saved.init(state)[1])
    ours = lrs.SequentialLR([lrs.StepLR(3), lrs.StepLR(4)], [6])
    with pytest.raises(ValueError, match=message):
        ours.load_state_dict(saved)


# ── warnings ───────────────────────────────────────────────────────────────────────────────────


def test_warnings_are_torchs(state):
    made, step_lr = stepped_optimizer(), lrs.StepLR(2)
    scheduler = torch.optim.lr_scheduler.StepLR(made, 2)
    made.step()
    with pytest.warns(UserWarning, match="The epoch parameter") as theirs:
        scheduler.step(3)
    with pytest.warns(UserWarning, match="The epoch parameter") as ours:
        step_lr.step(*step_lr.init(state), 3)
    assert str(ours[0].message) == str(theirs[0].message)
    assert ours[0].filename == __file__


def test_a_step_before_the_optimizers_warns_as_in_torch():
    fresh = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.warns(UserWarning, match="before `optimizer.step") as theirs:
        torch.optim.lr_scheduler.StepLR(fresh, 2).step()
    step_lr = lrs.StepLR(2)
    begun = step_lr.init(jp.SGD(lr=0.1).init(PARAMS))
    with pytest.warns(UserWarning, match="before `optimizer.step") as ours:
        begun = step_lr.step(*begun)
    assert str(ours[0].message) == str(theirs[0].message)
    step_lr.step(*begun)  # once


@pytest.mark.parametrize(
    "make",
    [
        contrib.CosineLRScheduler,
        contrib.InverseSquareRootSchedule,
        lambda n: contrib.PlateauLRScheduler(),
    ],
)
@pytest.mark.parametrize(
    "around", [lrs.ChainedScheduler, lambda parts: lrs.SequentialLR(parts, [])]
)
def test_what_is_stepped_by_an_epoch_is_no_part_of_another(make, around):
    with pytest.raises(TypeError, match="whose steps take an epoch"):
        around([make(5)])


@pytest.mark.parametrize("tx", [contrib.Prodigy, contrib.DAdaptAdam])
def test_rates_that_have_to_be_alike_stay_so(tx):
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    tx = tx([{"params": "a"}, {"params": "b"}])
    state = tx.init(params)
    with pytest.raises(ValueError, match="has one for all groups"):
        lrs.LambdaLR([lambda epoch: 1.0, lambda epoch: 0.5]).init(state)
    both = lrs.LambdaLR(lambda epoch: 0.5**epoch)
    state, own = both.init(state)
    _, state = jp.step(tx, params, state, params)
    state, _ = both.step(state, own)
    assert [g["lr"] for g in jp.get_hyperparams(state)] == [0.5, 0.5]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("scheduler", [lrs.StepLR(2), contrib.CosineLRScheduler(4)])
def test_a_rate_that_follows_from_the_step_is_not_scheduled(scheduler, compiled):
    init = jax.jit(scheduler.init) if compiled else scheduler.init
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    tx = contrib.Adafactor([{"params": "a", "relative_step": False, "lr": 0.1}, {"params": "b"}])
    with pytest.raises(ValueError, match=r"`relative_step=True` options \(group 1, .* give rel"):
        init(tx.init(params))
    init(contrib.Adafactor(lr=0.1, relative_step=False).init(params))
