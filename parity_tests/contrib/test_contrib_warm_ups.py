"""timm's plateau, detectron2's warm-ups and Noam's schedules, to the bit.

timm's is beside what it made; the others are beside `schedule_references`, written for these tests.
"""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_port as jp
from jaxopt_port import contrib
from parity_tests.contrib import schedule_references as theirs_of
from parity_tests.contrib.cases import RECORDED_SCHEDULES
from parity_tests.contrib.schedule_cases import (
    DETECTRON2,
    INVERSE_ROOT,
    LR,
    MULTIPLIERS,
    NOAM,
    PLATEAU,
    SCALES,
    STEPS,
    digest,
    metrics,
    shown,
)
from parity_tests.contrib.scheduled import (
    PARAMS,
    begun,
    check_rates,
    check_run,
    named,
    ours_of_fvcore,
    rates_of,
    stepping,
)

EXPECTED = json.loads(RECORDED_SCHEDULES.read_text())
METRICS = jnp.asarray(metrics(), jnp.float32)


def ended(cases):
    return [pytest.param(case, id=str(i)) for i, case in enumerate(cases)]


def by_metric(scheduler):
    return lambda state, own, t: scheduler.step(state, own, t, METRICS[t])


@pytest.mark.parametrize("arguments", ended(PLATEAU))
def test_timms_plateau(arguments):
    scheduler = contrib.PlateauLRScheduler(**arguments)
    compiled, eager, own = rates_of(scheduler, by_metric(scheduler), SCALES)
    expected = EXPECTED[shown("PlateauLRScheduler", arguments)]
    assert eager[:12].tolist() == expected["first"]
    assert digest(eager) == digest(compiled) == expected["digest"]
    saved = json.loads(json.dumps(scheduler.state_dict(own)))
    assert {name: saved[name] for name in expected["state_dict"]} == expected["state_dict"]


def test_a_broken_off_plateau_goes_on():
    scheduler = contrib.PlateauLRScheduler(**PLATEAU[2])
    state, own = begun(scheduler, SCALES)
    for t in range(1, 100):
        state, own = scheduler.step(state, own, t, METRICS[t])
    again = scheduler.load_state_dict(json.loads(json.dumps(scheduler.state_dict(own))))
    assert scheduler.get_last_lr(again) == scheduler.get_last_lr(own)
    other = state
    for t in range(100, 180):
        state, own = scheduler.step(state, own, t, METRICS[t])
        other, again = scheduler.step(other, again, t, METRICS[t])
        assert scheduler.get_last_lr(again) == scheduler.get_last_lr(own)
    assert scheduler.state_dict(again) == scheduler.state_dict(own)


def test_a_plateau_of_timms_begins_anew_with_its_best():
    scheduler = contrib.PlateauLRScheduler(patience_t=1)
    groups = [{"lr": 0.02, "initial_lr": 0.1}, {"lr": 0.3}]
    own = scheduler.load_state_dict({"best": 0.7, "last_epoch": 12}, groups)
    assert scheduler.get_last_lr(own) == [0.02, 0.3]
    held = scheduler.state_dict(own)
    assert (held["best"], held["last_epoch"], held["num_bad_epochs"]) == (0.7, 12, 0)
    assert held["base_values"] == [0.1, 0.3]
    with pytest.raises(ValueError, match="timm saves no rates in this state dict; give param_gr"):
        scheduler.load_state_dict({"best": 0.7, "last_epoch": 12})
    with pytest.raises(ValueError, match="not that of a PlateauLRScheduler: it has no 'best'"):
        scheduler.load_state_dict({"base_values": [0.1]})


def test_a_plateau_is_timms_at_its_edges():
    scheduler = contrib.PlateauLRScheduler(warmup_lr_init=0.25)
    state, own = begun(scheduler, SCALES)
    # Without a warm-up, epoch 0 is one all the same.
    assert scheduler.get_last_lr(scheduler.step(state, own, 0, 1.0)[1]) == [0.25, 0.25 * SCALES[1]]
    later, counted = scheduler.step(state, own, 1)
    assert scheduler.state_dict(counted) == scheduler.state_dict(own)  # no metric, no count
    assert scheduler.step_update(later, counted, 3) == (later, counted)
    with pytest.raises(ValueError, match="follows a metric"):
        scheduler.as_schedule(0.1)
    with pytest.raises(TypeError, match="metrics must be one number"):
        scheduler.step(state, own, 1, [1.0, 2.0])


@pytest.mark.parametrize(("name", "arguments"), named(DETECTRON2))
def test_detectron2s_rates(name, arguments):
    theirs = getattr(theirs_of, name)(theirs_of.optimizer_of(LR), **arguments)
    check_run(getattr(contrib, name)(**arguments), theirs)


@pytest.mark.parametrize("multiplier", ended(MULTIPLIERS))
def test_detectron2s_multipliers(multiplier):
    name, arguments = multiplier
    of = theirs_of.of_fvcore(name, **arguments)
    theirs = theirs_of.LRMultiplier(theirs_of.optimizer_of(LR), of, STEPS)
    own, saved = check_run(contrib.LRMultiplier(ours_of_fvcore(name, **arguments), STEPS), theirs)
    # fvcore's own object is such a function too.
    assert contrib.LRMultiplier(of, STEPS).load_state_dict(saved).kind == own.kind


@pytest.mark.parametrize("arguments", ended(NOAM))
def test_noams_rates(arguments):
    expected = theirs_of.noam_rates(LR, STEPS, **arguments)
    check_rates(contrib.get_noam_schedule(**arguments), expected)


@pytest.mark.parametrize("arguments", ended(INVERSE_ROOT))
def test_fairseqs_inverse_root(arguments):
    expected = [[rate, rate] for rate in theirs_of.inverse_square_root(STEPS, **arguments)]
    scheduler = contrib.InverseSquareRootSchedule(**arguments)
    own = check_rates(scheduler, expected, scheduler.step_update)
    with jax.enable_x64(True):
        schedule = scheduler.as_schedule(0.1, total_steps=90)
        assert [float(schedule(t)) for t in (0, 8, 95)] == [expected[t][0] for t in (0, 8, 95)]
    state, _ = begun(scheduler)
    assert scheduler.state_dict(own) == {"best": None}
    for loss in (3.0, 2.0, 2.5):
        state, own = scheduler.step(state, own, 1, loss)
    assert scheduler.state_dict(own) == {"best": 2.0}
    again = scheduler.load_state_dict({"best": 2.0}, [{"lr": 0.1}, {"lr": 0.1}])
    assert scheduler.get_last_lr(again) == [0.1, 0.1]
    _, again = scheduler.step_update(state, again, STEPS - 1)
    assert scheduler.get_last_lr(again) == expected[-1]
    assert scheduler.state_dict(again) == {"best": 2.0}


def made(name, *arguments, **more):
    return lambda: getattr(contrib, name)(*arguments, **more)


STEP = {"values": [1, 0.1], "num_updates": 9}
BAD = [
    (made("PlateauLRScheduler", decay_rate=1.0), "Factor should be < 1.0"),
    (made("PlateauLRScheduler", mode="x"), "mode x is unknown!"),
    (made("PlateauLRScheduler", warmup_t=-1), r"Invalid warmup_t \(-1\), must be >= 0"),
    (made("WarmupMultiStepLR", [3, 2]), r"list of increasing integers. Got \(3, 2\)"),
    (made("WarmupMultiStepLR", 30), "list of increasing integers. Got 30"),
    (made("WarmupMultiStepLR", ["a", "b"]), r"list of increasing integers. Got \('a', 'b'\)"),
    (made("MultiStepParamScheduler", [], 90), "values must have one for each stretch; got none"),
    (made("WarmupCosineLR", 9, warmup_method="x"), "Unknown warmup method: x; it is 'linear' or"),
    (made("WarmupCosineLR", 0), r"Invalid max_iters \(0\), must be > 0"),
    (made("LRMultiplier", float, 0), r"Invalid max_iter \(0\), must be > 0"),
    (made("WarmupParamScheduler", float, 0.1, 40), r"Invalid warmup_length \(40\), must be a part"),
    (made("MultiStepParamScheduler", [1, 0.1]), "num_updates and milestones cannot both be None"),
    (made("MultiStepParamScheduler", milestones=[3, 4], **STEP), "requires a list of 1 milestones"),
    (made("MultiStepParamScheduler", milestones=[9], **STEP), "smaller than total number of upd"),
    (made("MultiStepParamScheduler", [1, 2, 3], 9, [4, 4]), "Milestones must rise, from above 0"),
    (made("MultiStepParamScheduler", [1, 2, 3], 2), "num_updates must be greater than length"),
    (made("get_noam_schedule", 0), r"Invalid model_size \(0\), must be > 0"),
    (made("get_noam_schedule", 8, package="x"), "unknown package 'x'; there are opennmt, annot"),
    (made("InverseSquareRootSchedule", [0.1, 0.2]), "Cannot use a fixed learning rate schedule"),
    (made("InverseSquareRootSchedule", [-0.1]), r"Invalid lr \(-0.1\), must be >= 0"),
    (made("PlateauLRScheduler", decay_rate=-0.5), r"Invalid decay_rate \(-0.5\), must be >= 0"),
    (made("PlateauLRScheduler", lr_min=-1.0), r"Invalid lr_min \(-1.0\), must be >= 0"),
    (made("InverseSquareRootSchedule", 0.1, 0), r"Invalid warmup_updates \(0\), must be > 0"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


NO_NUMBERS = [
    (made("MultiStepParamScheduler", 1.0, 90), "values must be a list of numbers; got 1.0"),
    (made("MultiStepParamScheduler", [1, 2], "90"), "num_updates must be a number; got '90'"),
    (
        made("MultiStepParamScheduler", [1, 2], 9, ["a"]),
        "milestones must be a list of numbers; got",
    ),
    (made("WarmupParamScheduler", 0.5, 0.1, 0.1), "scheduler must be a function .*; got 0.5"),
    (made("WarmupParamScheduler", float, 0.1, None), "warmup_length must be a number; got None"),
    (made("CosineParamScheduler", "a", 0), "start_value must be a number; got 'a'"),
    (made("get_noam_schedule", "512"), "model_size must be a number; got '512'"),
    (made("InverseSquareRootSchedule", "0.1"), "lr of Inv.* must be a number; got '0.1'"),
]


@pytest.mark.parametrize(("make", "message"), NO_NUMBERS)
def test_what_is_no_number_is_said(make, message):
    with pytest.raises(TypeError, match=message):
        make()


STATE_DICTS = [
    (contrib.StepLRScheduler(3), {"base_values": None}),
    (contrib.PlateauLRScheduler(), {"best": None}),
    (contrib.InverseSquareRootSchedule(0.1), {"best": "a"}),
    (contrib.LRMultiplier(float, 9), {"base_lrs": ["a"]}),
    (contrib.LRMultiplier(float, 9), {"last_epoch": None}),
    (contrib.LRMultiplier(float, 9), {"last_epoch": 2.5}),
    (contrib.PlateauLRScheduler(), {"num_bad_epochs": 1.5}),
    (contrib.WarmupMultiStepLR([3]), {}),
]


@pytest.mark.parametrize(("scheduler", "wrong"), STATE_DICTS)
def test_what_is_no_state_dict_or_no_number_in_one_is_said(scheduler, wrong):
    state, own = begun(scheduler)
    with pytest.raises(TypeError, match="a scheduler's state dict is a dict; got NoneType"):
        scheduler.load_state_dict(None)
    for name in wrong:
        with pytest.raises(ValueError, match=f"{name} in the state dict must be a .*number"):
            scheduler.load_state_dict({**scheduler.state_dict(own), **wrong})
    step = getattr(scheduler, "step_update", scheduler.step)
    with pytest.raises(TypeError, match=r"needs the scheduler state|epoch must be a whole number"):
        step(1, state, own)


def test_what_is_no_multiplier_or_no_state_is_refused():
    with pytest.raises(TypeError, match="multiplier must be a function of how far the training is"):
        contrib.LRMultiplier(0.1, 9)
    scheduler = contrib.LRMultiplier(contrib.CosineParamScheduler(1, 0), 9)
    with pytest.raises(ValueError, match="not that of a LRMultiplier: it has no 'last_epoch'"):
        scheduler.load_state_dict({"base_lrs": [0.1]})
    inverse = contrib.InverseSquareRootSchedule(0.1)
    with pytest.raises(ValueError, match="not that of a InverseSquareRootSchedule: it has no 'b"):
        inverse.load_state_dict({"base_lrs": [0.1]})
    state, own = begun(inverse)
    with pytest.raises(ValueError, match="count of InverseSquareRootSchedule must be >= 0; got -1"):
        inverse.step_update(state, own, -1)


@pytest.mark.parametrize("multiplier", ended(MULTIPLIERS))
def test_a_multiplier_is_no_schedule(multiplier):
    tx = contrib.Lion(lr=ours_of_fvcore(multiplier[0], **multiplier[1]))
    with pytest.raises(TypeError, match=r"is a function of how far .*, and no schedule of a count"):
        jp.step(tx, PARAMS, tx.init(PARAMS), PARAMS)


def test_a_multiplier_past_its_end_raises_and_is_nan_where_compiled():
    steps = contrib.MultiStepParamScheduler([1, 0.5], num_updates=3, milestones=[2])
    scheduler = contrib.LRMultiplier(steps, 3)
    schedule = scheduler.as_schedule(1.0, total_steps=9)
    expected = [1.0, 1.0, 0.5, 0.5, math.nan, math.nan]
    np.testing.assert_array_equal([schedule(count) for count in range(6)], expected)
    np.testing.assert_array_equal(jax.jit(schedule)(jnp.arange(6)), expected)
    state, own = begun(scheduler)
    for _ in range(3):
        state, own = stepping(scheduler)(state, own, None)
    assert scheduler.get_last_lr(own) == [0.5 * lr for lr in LR]
    with pytest.raises(RuntimeError, match=r"where in ParamScheduler must be in \[0, 1\]"):
        scheduler.step(state, own)
    assert np.isnan(scheduler.get_last_lr(jax.jit(scheduler.step)(state, own)[1])).all()


def test_a_multiplier_after_another_schedule_goes_on_from_its_state_dict():
    cosine = contrib.LRMultiplier(contrib.CosineParamScheduler(1, 0), 10)
    after = jp.lr_scheduler.SequentialLR([jp.lr_scheduler.LinearLR(total_iters=3), cosine], [3])
    state, own = begun(after)
    for _ in range(5):
        state, own = stepping(after)(state, own, None)
    again = after.load_state_dict(json.loads(json.dumps(after.state_dict(own))))
    _, expected = stepping(after)(state, own, None)
    assert after.get_last_lr(stepping(after)(state, again, None)[1]) == after.get_last_lr(expected)


def test_stretches_of_one_length():
    scheduler = contrib.MultiStepParamScheduler([4, 3, 2, 1], num_updates=10)
    assert [scheduler(step / 10) for step in (0, 2, 3, 6, 9, 10)] == [4, 4, 3, 2, 1, 1]
    assert contrib.MultiStepParamScheduler([4, 3], milestones=[3, 9]) == (
        contrib.MultiStepParamScheduler([4, 3], 9, [3])
    )
    with pytest.raises(RuntimeError, match=r"where in ParamScheduler must be in \[0, 1\]: got 1.1"):
        scheduler(1.1)


def test_rates_belong_to_the_optimizers_groups():
    """A frozen group is not counted, by any of them."""
    groups = [{"params": "a", "lr": 0.5}, {"params": "b", "frozen": True}]
    for scheduler in (
        contrib.PlateauLRScheduler(),
        contrib.WarmupCosineLR(9),
        contrib.LRMultiplier(contrib.CosineParamScheduler(1, 0), 9),
        contrib.InverseSquareRootSchedule(0.5),
    ):
        _, own = scheduler.init(jp.SGD(groups, lr=0.1).init(PARAMS))
        assert len(scheduler.get_last_lr(own)) == 1
