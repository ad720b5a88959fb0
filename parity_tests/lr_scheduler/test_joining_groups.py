"""Groups that join in mid-run: what torch's schedulers do, or refuse, here too; then in a scan."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import lr_scheduler as lrs
from jaxopt_port.verify.cases import TorchSchedulers
from parity_tests.oracles.joining_groups import (
    PARAMS,
    STEPS,
    TWO,
    PortJoining,
    TorchJoining,
    run,
    scanned,
)
from parity_tests.oracles.scheduler_case import Case

pytestmark = pytest.mark.filterwarnings("ignore:The epoch parameter")

joining = functools.partial(Case, lrs=TWO)
FLAT, HALVED = {"metric": lambda i: 1.0}, {"epoch": lambda i: i // 2}

CASES = {
    "lambda": joining(lambda s: s.LambdaLR(lambda e: 0.9**e)),
    "lambda list": joining(lambda s: s.LambdaLR([lambda e: 0.9**e, lambda e: 0.8**e])),
    "multiplicative": joining(lambda s: s.MultiplicativeLR(lambda e: 0.95)),
    "multiplicative list": joining(lambda s: s.MultiplicativeLR([lambda e: 0.9, lambda e: 0.8])),
    "step": joining(lambda s: s.StepLR(3, 0.5)),
    "multistep": joining(lambda s: s.MultiStepLR([2, 4, 4, 9], 0.5)),
    "constant": joining(lambda s: s.ConstantLR(0.5, 6)),
    "linear": joining(lambda s: s.LinearLR(0.25, total_iters=8)),
    "exponential": joining(lambda s: s.ExponentialLR(0.9)),
    "polynomial": joining(lambda s: s.PolynomialLR(9, 2.0)),
    "cosine": joining(lambda s: s.CosineAnnealingLR(30)),
    "cosine that turns": joining(lambda s: s.CosineAnnealingLR(5)),
    "restarts": joining(lambda s: s.CosineAnnealingWarmRestarts(4, 2)),
    "cyclic": joining(lambda s: s.CyclicLR(0.01, 0.1, 4)),
    "cyclic without momentum": joining(lambda s: s.CyclicLR(0.01, 0.1, 4, cycle_momentum=False)),
    "cyclic lists": joining(lambda s: s.CyclicLR([0.01, 0.02], [0.1, 0.2], 4)),
    "cyclic betas": joining(lambda s: s.CyclicLR(0.01, 0.1, 4), optimizer="Adam"),
    "onecycle": joining(lambda s: s.OneCycleLR(0.1, 20)),
    "onecycle without momentum": joining(lambda s: s.OneCycleLR(0.1, 20, cycle_momentum=False)),
    "onecycle in its last phase": joining(lambda s: s.OneCycleLR(0.1, 20, pct_start=0.1)),
    "onecycle three phases": joining(lambda s: s.OneCycleLR(0.1, 20, three_phase=True)),
    "onecycle betas": joining(lambda s: s.OneCycleLR(0.1, 20), optimizer="Adam"),
    "onecycle lists": joining(lambda s: s.OneCycleLR([0.1, 0.2], 20)),
    "onecycle too short": joining(lambda s: s.OneCycleLR(0.1, 7)),
    "plateau": joining(lambda s: s.ReduceLROnPlateau(patience=1), **FLAT),
    "plateau that waits": joining(lambda s: s.ReduceLROnPlateau(patience=50), **FLAT),
    "plateau list": joining(lambda s: s.ReduceLROnPlateau(patience=50, min_lr=[0.1, 0.2]), **FLAT),
    "plateau list that reduces": joining(
        lambda s: s.ReduceLROnPlateau(patience=4, min_lr=[0.01, 0.02]), **FLAT
    ),
    "swa": joining(lambda s: s.SWALR(0.02, 5)),
    "swa linear list": joining(lambda s: s.SWALR([0.02, 0.01], 5, "linear")),
    "swa at once": joining(lambda s: s.SWALR(0.02, 0)),
    "sequential": joining(
        lambda s: s.SequentialLR([s.LinearLR(0.1, total_iters=4), s.ExponentialLR(0.9)], [6])
    ),
    "sequential cosine": joining(
        lambda s: s.SequentialLR([s.LinearLR(0.1, total_iters=4), s.CosineAnnealingLR(90)], [2])
    ),
    "sequential cosine to come": joining(
        lambda s: s.SequentialLR([s.LinearLR(0.1, total_iters=4), s.CosineAnnealingLR(90)], [9])
    ),
    "sequential onecycle to come": joining(
        lambda s: s.SequentialLR([s.StepLR(3), s.OneCycleLR(0.1, 30)], [9])
    ),
    "sequential onecycle past": joining(
        lambda s: s.SequentialLR([s.OneCycleLR(0.1, 30), s.ExponentialLR(0.9)], [3])
    ),
    "sequential three": joining(
        lambda s: s.SequentialLR([s.ConstantLR(), s.StepLR(2), s.LambdaLR(lambda e: 0.5)], [3, 9])
    ),
    "chained": joining(
        lambda s: s.ChainedScheduler([s.LinearLR(0.2, total_iters=5), s.StepLR(6, 0.5)])
    ),
    "chained cosine": joining(
        lambda s: s.ChainedScheduler([s.ConstantLR(0.5, 3), s.CosineAnnealingLR(90)])
    ),
    "chained swa": joining(lambda s: s.ChainedScheduler([s.ConstantLR(0.5, 3), s.SWALR(0.1, 5)])),
    "three deep": joining(
        lambda s: s.SequentialLR(
            [
                s.ChainedScheduler(
                    [
                        s.SequentialLR([s.LinearLR(0.1), s.CosineAnnealingLR(90)], [4]),
                        s.ExponentialLR(0.99),
                    ]
                ),
                s.StepLR(2, 0.7),
                s.SWALR(0.01, 4),
            ],
            [6, 10],
        )
    ),
    "three deep chained": joining(
        lambda s: s.ChainedScheduler(
            [
                s.SequentialLR(
                    [s.SequentialLR([s.ConstantLR(0.5), s.StepLR(2, 0.9)], [2]), s.LinearLR()], [8]
                ),
                s.ChainedScheduler([s.MultiStepLR([9], 0.5), s.ExponentialLR(0.9)]),
            ]
        )
    ),
    "epoch step": joining(lambda s: s.StepLR(3, 0.9), **HALVED),
    "epoch exponential": joining(lambda s: s.ExponentialLR(0.9), **HALVED),
    "epoch restarts": joining(lambda s: s.CosineAnnealingWarmRestarts(3, 2), **HALVED),
}

# Before which steps groups join; -1 is before the scheduler is made.
TIMES = [(-1,), (0,), (-1, 2), (4,), (0, 7)]
GRID = list(itertools.product(CASES, TIMES))


@pytest.mark.parametrize(("name", "joins"), GRID)
def test_rates_and_refusals_are_torchs(name, joins):
    theirs, ours = (run(side, CASES[name], joins) for side in (TorchJoining, PortJoining))
    assert len(ours.rates) == len(theirs.rates)
    for step, (a, b) in enumerate(zip(ours.rates, theirs.rates, strict=True)):
        np.testing.assert_array_equal(a, b, err_msg=f"after step {step - 1}")
    assert ours.last_lrs == theirs.last_lrs
    if theirs.error is None:
        assert ours.error is None
        # torch lists a plateau's least rates anew when it next reduces one.
        ours.state_dict.pop("min_lrs", None), theirs.state_dict.pop("min_lrs", None)
        assert ours.state_dict == theirs.state_dict
    else:
        assert isinstance(ours.error, type(theirs.error))
        assert str(ours.error).startswith(str(theirs.error).partition("Please")[0])


LAST = 4
OUTCOMES = {name: run(TorchJoining, case, (LAST,)) for name, case in CASES.items()}
AT_ONCE = [name for name, outcome in OUTCOMES.items() if len(outcome.rates) == LAST + 1]


@pytest.mark.parametrize("name", AT_ONCE)
def test_what_torch_refuses_at_once_is_refused_when_traced(name):
    side = PortJoining(CASES[name], (LAST,))
    for i in range(LAST):
        side.step(i)
    side.join_before(LAST)
    with pytest.raises(type(OUTCOMES[name].error), match="the scheduler"):
        side.step(LAST, lambda *args: jax.eval_shape(side.scheduler.step, *args))


def test_what_torch_goes_on_with_goes_on_in_a_scan():
    going_on = {name: case for name, case in CASES.items() if name not in AT_ONCE}
    assert len(going_on) > 20
    for name, (rates, side) in scanned(going_on, (LAST,)).items():
        theirs = OUTCOMES[name]
        expected = [rate[0] for rate in theirs.rates[LAST + 1 :]]
        rates = rates[:, [0, 1, 3]]  # the third group is that of what was frozen
        np.testing.assert_array_equal(rates[: len(expected)], expected, err_msg=name)
        if theirs.error is None:
            saved = side.saved()
            saved.pop("min_lrs", None), theirs.state_dict.pop("min_lrs", None)
            assert saved == theirs.state_dict, name
        else:  # where torch refuses a step, the rates are NaN
            assert np.isnan(rates[len(expected) :]).all(), name


SECOND = {
    "a cosine after a step": (lambda s: s.StepLR(2, 0.5), lambda s: s.CosineAnnealingLR(20)),
    "swa after a line": (lambda s: s.LinearLR(0.5), lambda s: s.SWALR(0.01, 4)),
    "a cycle after a cosine": (lambda s: s.CosineAnnealingLR(30), lambda s: s.OneCycleLR(0.1, 20)),
    "a function after a plain rate": (
        lambda s: s.ExponentialLR(0.9),
        lambda s: s.LambdaLR(lambda e: 0.9**e),
    ),
}


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("name", SECOND)
def test_a_second_scheduler_after_a_group_has_joined(name, stepped):
    """It takes the entries that the first has left; the group that joined has none."""
    makes = SECOND[name]
    tensors = [torch.nn.Parameter(torch.ones(1)) for _ in range(3)]
    optimizer = torch.optim.SGD([{"params": [p]} for p in tensors[:2]], lr=0.3, momentum=0.9)
    theirs = [makes[0](TorchSchedulers(optimizer))]
    params = {k: jnp.ones(1) for k in "abc"}
    groups = [{"params": "a"}, {"params": "b"}, {"params": "c", "frozen": True}]
    tx = jp.SGD(groups, lr=0.3, momentum=0.9)
    ours = [makes[0](lrs)]
    state, own = ours[0].init(tx.init(params))
    optimizer.step()
    _, state = jp.step(tx, params, state, params)
    theirs[0].step()
    state, own = ours[0].step(state, own)
    optimizer.add_param_group({"params": [tensors[2]], "lr": 0.02})
    tx, state = jp.add_param_group(tx, state, params, {"params": "c", "lr": 0.02})
    if stepped:
        theirs[0].step()
        state, own = ours[0].step(state, own)
    entries = ours[0].param_groups(own)
    assert all("initial_lr" in entry for entry in entries[:2])
    assert entries[2:] == ([{}] if stepped else [])
    second = makes[1](TorchSchedulers(optimizer))
    state, own = makes[1](lrs).init(state, entries)
    for _ in range(5):
        second.step()
        state, own = makes[1](lrs).step(state, own)
        rates = [g["lr"] for g in jp.get_hyperparams(state) if "lr" in g]
        assert rates == [g["lr"] for g in optimizer.param_groups]


@pytest.mark.parametrize("compiled", [False, True])
def test_groups_that_rest_or_are_frozen_between_steps(compiled):
    """A group that rests keeps its rate, as in torch; one that was built frozen has none."""
    for name in ("cosine", "onecycle", "three deep", "swa"):
        theirs = run(TorchJoining, CASES[name], ())
        side = PortJoining(CASES[name], ())
        step = jax.jit(side.scheduler.step) if compiled else None
        for i in range(6 if compiled else STEPS):
            if i == 2:
                side.state = jp.set_hyperparams(side.state, frozen=True, group=1)
            if i == 4:
                group = {"params": "d", "frozen": True}
                side.tx, side.state = jp.add_param_group(side.tx, side.state, PARAMS, group)
            if i == 5:
                side.state = jp.set_hyperparams(side.state, frozen=False, group=1)
            side.step(i, step)
            np.testing.assert_array_equal(side.read(), theirs.rates[i + 1], err_msg=f"{name} {i}")
