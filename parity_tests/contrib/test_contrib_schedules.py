"""The schedules of transformers, beside it, and timm's, beside what it made, to the bit."""

import json
import math

import jax
import jax.numpy as jnp
import pytest
import transformers.optimization

import jaxopt_port as jp
from jaxopt_port import contrib
from parity_tests.contrib.cases import RECORDED_SCHEDULES
from parity_tests.contrib.schedule_cases import (
    HUGGING_FACE,
    LR,
    SCALES,
    STEPS,
    TIMM,
    digest,
    shown,
)
from parity_tests.contrib.schedule_references import optimizer_of
from parity_tests.contrib.scheduled import begun, check_run, named, rates_of

EXPECTED = json.loads(RECORDED_SCHEDULES.read_text())


@pytest.mark.parametrize(("name", "arguments", "reads"), named(HUGGING_FACE))
def test_hugging_faces_rates(name, arguments, reads):
    theirs = getattr(transformers.optimization, name)(optimizer_of(LR), **arguments)
    check_run(getattr(contrib, name)(**arguments, **reads), theirs)


NAMED = [
    ("linear", {}),
    ("cosine", {}),
    ("cosine_with_restarts", {"num_cycles": 2}),
    ("polynomial", {"power": 2.0}),
    ("constant", {}),
    ("constant_with_warmup", {}),
    ("inverse_sqrt", {}),
    ("cosine_with_min_lr", {"min_lr": 0.01}),
    ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.1}),
    ("warmup_stable_decay", {"num_decay_steps": 5}),
]


@pytest.mark.parametrize(("name", "more"), NAMED)
def test_a_schedule_is_had_by_its_name(name, more):
    theirs = transformers.get_scheduler(name, optimizer_of(LR), 4, 20, more)
    ours = contrib.get_scheduler(name, 4, 20, more, lr_init=LR[0])
    schedule = ours.as_schedule(LR[0])
    for count in range(30):
        with jax.enable_x64(True):
            assert float(schedule(count)) == theirs.get_last_lr()[0], count
        theirs.optimizer.step()
        theirs.step()


def test_all_names_are_known_but_one():
    names = {kind.value for kind in transformers.SchedulerType} - {"greedy"}
    assert names == {*(name for name, _ in NAMED), "reduce_lr_on_plateau"}
    made = contrib.get_scheduler("reduce_lr_on_plateau", None, None, {"patience": 3})
    assert made == jp.lr_scheduler.ReduceLROnPlateau(patience=3)


WRONG = [
    (("greedy",), {}, "'greedy' is not a valid scheduler; there are linear, cosine"),
    (("linear",), {}, "linear requires `num_warmup_steps`, please provide that argument."),
    (("cosine", 3), {}, "cosine requires `num_training_steps`, please provide that argument."),
    (("polynomial", 3, 9), {}, "polynomial requires the optimizer's `lr`"),
    (("polynomial", 3, 9), {"lr_init": 1e-8}, "lr_end .* must be smaller than initial lr"),
    (("warmup_stable_decay", 3, 9), {}, "warmup_stable_decay requires `num_decay_steps`"),
    (("cosine_with_min_lr", 3, 9), {}, "One of min_lr or min_lr_rate should be set"),
    (("warmup_stable_decay", 3, 9, {"num_decay_steps": 2, "decay_type": "x"}), {}, "Unknown decay"),
]


@pytest.mark.parametrize(("given", "more", "message"), WRONG)
def test_what_is_wrong_is_said(given, more, message):
    with pytest.raises(ValueError, match=message):
        contrib.get_scheduler(*given, **more)


NO_NUMBERS = [
    (("linear", "2", 10), {}, "num_warmup_steps must be a number; got '2'"),
    (
        ("warmup_stable_decay", 2, None, {"num_decay_steps": [2]}),
        {},
        r"num_decay_steps .* got \[2\]",
    ),
    (("polynomial", 2, 9, {"power": "a"}), {"lr_init": 1.0}, "power must be a number; got 'a'"),
    (("polynomial", 2, 9), {"lr_init": "a"}, "lr_init must be a number; got 'a'"),
    (
        ("cosine", 2, 9, {"min_lr": 0.1}),
        {"lr_init": 1.0},
        "cosine has no argument 'min_lr' for sch",
    ),
    (("constant", None, None, {"x": 1}), {}, "constant has no argument 'x' for scheduler_specif"),
    (("cosine", 2, 9, 3), {}, "scheduler_specific_kwargs must be a dict; got 3"),
    (("cosine", 2, 9, {"num_cycles": None}), {}, "num_cycles must be a number; got None"),
]


@pytest.mark.parametrize(("given", "more", "message"), NO_NUMBERS)
def test_what_is_no_number_is_said(given, more, message):
    with pytest.raises(TypeError, match=message):
        contrib.get_scheduler(*given, **more)
    with pytest.raises(TypeError, match="num_training_steps must be a number; got None"):
        contrib.get_linear_schedule_with_warmup(2, None)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        contrib.get_linear_schedule_with_warmup(2)


@pytest.mark.parametrize(("name", "arguments"), named(TIMM))
def test_timms_rates(name, arguments):
    scheduler = getattr(contrib, name)(**arguments)
    state, _ = begun(scheduler, SCALES)
    by_epoch = arguments.get("t_in_epochs", True)
    step = scheduler.step if by_epoch else scheduler.step_update
    compiled, eager, own = rates_of(scheduler, step, SCALES)
    expected = EXPECTED[shown(name, arguments)]
    assert eager[:12].tolist() == expected["first"]
    assert digest(eager) == digest(compiled) == expected["digest"]
    other = scheduler.step_update if by_epoch else scheduler.step
    assert scheduler.get_last_lr(other(state, own, 3)[1]) == scheduler.get_last_lr(own)
    saved = json.loads(json.dumps(scheduler.state_dict(own)))
    assert saved == expected["state_dict"]
    again = step(state, scheduler.load_state_dict(saved), STEPS - 1)[1]
    assert scheduler.get_last_lr(again) == scheduler.get_last_lr(own)
    with pytest.raises(ValueError, match=r"was saved by a .* with warmup_t"):
        scheduler.load_state_dict({**saved, "warmup_t": 77})


@pytest.mark.parametrize("beyond", [1, 3000])
def test_a_count_beyond_the_table_has_pythons_bits_too(beyond):
    scheduler = contrib.get_cosine_schedule_with_warmup(3, 20)
    schedule = scheduler.as_schedule(0.3, total_steps=4)
    with jax.enable_x64(True):
        traced = jax.jit(schedule)(jnp.asarray(20 + beyond)) if beyond == 1 else None
        timm = contrib.StepLRScheduler(2.5, 0.999).as_schedule(0.3)
        far = 20_000 * beyond
        expected = 0.3 * 0.999 ** (far // 2.5)
        assert float(jax.jit(timm)(jnp.asarray(far))) == expected == float(timm(far))
    if traced is not None:
        assert float(traced) == 0.3 * scheduler.lr_lambda(21)


BAD = [
    ("CosineLRScheduler", {"t_initial": 0}, r"Invalid t_initial \(0\), must be > 0"),
    ("CosineLRScheduler", {"t_initial": 3, "cycle_limit": -1}, r"Invalid cycle_limit \(-1\)"),
    ("PolyLRScheduler", {"t_initial": 3, "lr_min": -1.0}, r"lr_min \(-1.0\), must be >= 0"),
    ("TanhLRScheduler", {"t_initial": 3, "lb": 4.0}, r"lb \(4.0\), must be < ub w/ ub=3.0"),
    ("TanhLRScheduler", {"t_initial": 3, "warmup_t": -1}, r"warmup_t \(-1\), must be >= 0"),
    ("StepLRScheduler", {"decay_t": 2, "decay_rate": -1.0}, r"decay_rate \(-1.0\), must be >= 0"),
    ("MultiStepLRScheduler", {"decay_t": [2], "decay_rate": -1.0}, r"decay_rate \(-1.0\), must"),
    ("CosineLRScheduler", {"t_initial": 3, "cycle_decay": -1.0}, r"cycle_decay \(-1.0\), must be"),
    ("StepLRScheduler", {"decay_t": 0}, r"Invalid decay_t \(0\), must be > 0"),
    ("CosineLRScheduler", {"t_initial": 3, "cycle_mul": 0}, r"cycle_mul \(0\), must be > 0"),
    ("PolyLRScheduler", {"t_initial": 3, "cycle_mul": -1}, r"cycle_mul \(-1\), must be > 0"),
    ("CosineLRScheduler", {"t_initial": 3, "noise_range_t": (2,)}, "range_t .* or a pair of count"),
    ("StepLRScheduler", {"decay_t": 3, "noise_range_t": "2"}, "must be the first noisy count, or"),
    (
        "WSDLRScheduler",
        {"t_initial": 3, "decay_t": 1, "noise_range_t": 2, "noise_pct": 0.0},
        r"Invalid noise_pct \(0.0\), must be > 0",
    ),
    ("MultiStepLRScheduler", {"decay_t": 5}, r"decay_t \(5\), must be a list of the milestones"),
    ("MultiStepLRScheduler", {"decay_t": "5,6"}, r"decay_t \('5,6'\), must be a list"),
    ("MultiStepLRScheduler", {"decay_t": [3], "warmup_lr_init": -1.0}, r"warmup_lr_init \(-1.0\)"),
    ("WSDLRScheduler", {"t_initial": 3, "decay_t": 4}, r"Invalid decay_t \(4\)"),
    ("WSDLRScheduler", {"t_initial": 3, "decay_t": 1, "decay_fn": "x"}, r"Invalid decay_fn \(x\)"),
    (
        "WSDLRScheduler",
        {"t_initial": 3, "decay_t": 1, "stable_fn": "rsqrt"},
        "requires a positive stable_timescale",
    ),
]


@pytest.mark.parametrize(("name", "arguments", "message"), BAD)
def test_bad_arguments_are_named(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(contrib, name)(**arguments)


def test_past_the_sum_of_cycles_that_grow_shorter_the_rate_is_the_lowest():
    scheduler = contrib.CosineLRScheduler(8, lr_min=0.01, cycle_mul=0.5, cycle_limit=20)
    schedule = scheduler.as_schedule(0.3)
    assert [float(schedule(t)) for t in (16, 17, 99)] == pytest.approx([0.01] * 3)
    assert jax.jit(schedule)(jnp.arange(99)).tolist() == schedule(jnp.arange(99)).tolist()


COUNTS = [
    ("1", TypeError, "epoch must be a whole number; got '1'"),
    (0.5, TypeError, "epoch must be a whole number; got 0.5"),
    (-1, ValueError, "the count of StepLRScheduler must be >= 0; got -1"),
    (None, ValueError, "the count of StepLRScheduler must be >= 0; got None"),
]


@pytest.mark.parametrize(("count", "error", "message"), COUNTS)
def test_a_count_that_is_none_is_refused(count, error, message):
    scheduler = contrib.StepLRScheduler(3)
    state, own = begun(scheduler)
    with pytest.raises(error, match=message):
        scheduler.step(state, own, count)


@pytest.mark.parametrize("lengths", [{"steps_per_epoch": 0}, {"total_steps": 0}])
def test_lengths_of_a_schedule_are_checked_as_everywhere(lengths):
    message = f"Expected positive integer {next(iter(lengths))}, but got 0"
    for scheduler in (contrib.StepLRScheduler(3), jp.lr_scheduler.StepLR(3)):
        with pytest.raises(ValueError, match=message):
            scheduler.as_schedule(0.1, **lengths)


def test_another_schedulers_state_dict_is_refused():
    scheduler = contrib.StepLRScheduler(3)
    saved = scheduler.state_dict(begun(scheduler)[1])
    with pytest.raises(ValueError, match="is not that of a CosineLRScheduler: it has no 't_init"):
        contrib.CosineLRScheduler(3).load_state_dict(saved)


JOINED = [
    ("CosineLRScheduler", {"t_initial": 10}, 0.1),
    ("StepLRScheduler", {"decay_t": 2, "decay_rate": 0.5}, 0.1),
    ("WSDLRScheduler", {"t_initial": 10, "decay_t": 3}, 0.1),
    ("PlateauLRScheduler", {"warmup_t": 4, "noise_range_t": 6, "patience_t": 0}, None),
]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("before", [1, 2])
@pytest.mark.parametrize(("name", "arguments", "metric"), JOINED)
def test_a_group_that_has_joined_keeps_its_rate_as_in_timm(
    name, arguments, metric, before, compiled
):
    scheduler, params = getattr(contrib, name)(**arguments), {k: jnp.ones(2) for k in "abc"}
    groups = [{"params": k, "lr_scale": 0.5} for k in "abc"[:before]]
    tx = jp.SGD([*groups, {"params": jp.REST, "frozen": True}], lr=0.1)
    alone, own_alone = scheduler.init(tx.init(params))
    tx, state = jp.add_param_group(tx, alone, params, {"params": "c", "lr": 0.02, "lr_scale": 0.25})
    own, step = own_alone, jax.jit(scheduler.step) if compiled else scheduler.step
    for t in (3, 4, 5):
        alone, own_alone = scheduler.step(alone, own_alone, t, metric)
        state, own = step(state, own, t, metric)
        rates = [group["lr"] for group in jp.get_hyperparams(state) if "lr" in group]
        assert rates == scheduler.get_last_lr(own) == [*scheduler.get_last_lr(own_alone), 0.02]
    again = scheduler.load_state_dict(scheduler.state_dict(own))
    assert scheduler.get_last_lr(step(state, again, 5, metric)[1]) == rates


@pytest.mark.parametrize(("name", "arguments", "metric"), JOINED)
def test_a_state_of_more_groups_than_there_are_is_refused(name, arguments, metric):
    scheduler, params = getattr(contrib, name)(**arguments), {k: jnp.ones(2) for k in "ab"}
    _, own = scheduler.init(jp.SGD([{"params": k} for k in "ab"], lr=0.1).init(params))
    with pytest.raises(ValueError, match=f"state of {name} is that of 2 groups, the .* has 1; beg"):
        scheduler.step(jp.SGD(lr=0.1).init(params), own, 3, metric)


def test_steps_without_an_end():
    scheduler = contrib.get_wsd_schedule(
        num_warmup_steps=2, num_decay_steps=5, num_stable_steps=math.inf
    )
    tx, params = jp.SGD(lr=1.0), {"w": jnp.ones(1)}
    state, own = scheduler.init(tx.init(params))
    rates = []
    for _ in range(4):
        rates.append(jp.get_hyperparams(state)[0]["lr"])
        _, state = jp.step(tx, params, state, params)
        state, own = scheduler.step(state, own)
    assert rates == [0.0, 0.5, 1.0, 1.0]
