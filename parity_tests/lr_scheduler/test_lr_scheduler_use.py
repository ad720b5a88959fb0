"""Schedulers in use: groups, wrapped states, compiled loops, schedules."""

import functools
import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from torch.optim import lr_scheduler as torchs

import jaxopt_port as jp
from jaxopt_port import contrib
from jaxopt_port import lr_scheduler as lrs
from jaxopt_port.verify.cases import TorchSchedulers
from parity_tests.oracles.scheduled_groups import GROUPS, PARAMS, stepped_optimizer, stepped_state


@pytest.fixture
def state():
    return stepped_state()


# ── groups and states ──────────────────────────────────────────────────────────────────────────


def test_groups_of_two_programs():
    groups = [{"params": "a", "nesterov": True}, {"params": "b", "lr": 0.2}, {"params": "c"}]
    state = jp.SGD(groups, lr=0.1, momentum=0.9).init(PARAMS)
    begun, _ = lrs.ConstantLR(0.5).init(state)
    assert [g["lr"] for g in jp.get_hyperparams(begun)] == [0.05, 0.1, 0.05]


def test_optax_factories_have_their_own_names():
    tx = jp.param_groups(optax.adamw, [{"params": "a"}, {"params": jp.REST}], learning_rate=0.1)
    scheduler = lrs.OneCycleLR(0.1, 10, max_momentum=0.7)
    begun, _ = scheduler.init(tx.init(PARAMS))
    for group in jp.get_hyperparams(begun):
        assert (group["learning_rate"], group["b1"]) == (pytest.approx(0.004), 0.7)


@pytest.mark.parametrize(
    "scheduler",
    [lrs.ConstantLR(), lrs.StepLR(3), lrs.CosineAnnealingLR(5), lrs.ReduceLROnPlateau()],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_a_scheduled_number_is_refused(scheduler):
    """Also by what leaves the rate as it is in the beginning."""
    state = jp.SGD(lr=optax.constant_schedule(0.1)).init(PARAMS)
    with pytest.raises(ValueError, match="set by an Optax schedule"):
        scheduler.init(state)


BEGUN = {
    "LambdaLR": lambda s: s.LambdaLR(lambda epoch: 0.5**epoch),
    "CosineAnnealingLR": lambda s: s.CosineAnnealingLR(10),
    "resumed": lambda s: s.StepLR(3, last_epoch=5),
}


@pytest.mark.parametrize("name", BEGUN)
def test_an_initial_rate_among_a_groups_options_is_the_base(name):
    tensors = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    rates = [{"initial_lr": 0.3}, {"lr": 0.2, **({"initial_lr": 0.2} if name == "resumed" else {})}]
    pairs = [{"params": [t], **r} for t, r in zip(tensors, rates, strict=True)]
    ours = torch.optim.SGD(pairs, lr=0.1)
    theirs = BEGUN[name](TorchSchedulers(ours))
    groups = [{"params": p, **r} for p, r in zip(("a", jp.REST), rates, strict=True)]
    tx, params = jp.SGD(groups, lr=0.1), {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    scheduler = BEGUN[name](lrs)
    ours.step()
    state, own = scheduler.init(jp.step(tx, params, tx.init(params), params)[1])
    for _ in range(4):
        assert [g["lr"] for g in jp.get_hyperparams(state)] == theirs.get_last_lr()
        theirs.step()
        state, own = scheduler.step(state, own)


def test_a_scheduler_begins_in_a_compiled_program():
    state = jp.SGD([{"params": jp.REST, "initial_lr": 0.3}], lr=0.1).init(PARAMS)
    scheduler = lrs.LambdaLR(lambda epoch: 0.5)
    one, two = scheduler.init(state), jax.jit(scheduler.init)(state)
    assert jp.get_hyperparams(one[0])[0]["lr"] == jp.get_hyperparams(two[0])[0]["lr"] == 0.15


ENTRIES_OF_ONE = {  # the scheduler, what both groups have, what one has, and what is then missed
    "the initial rate": (lrs.LambdaLR(lambda epoch: 0.5), {}, "initial_lr", None),
    "what nobody reads": (lrs.StepLR(3), {}, "max_momentum", None),
    "no rate to resume from": (lrs.StepLR(3, last_epoch=5), {}, "initial_lr", "initial_lr"),
    "no bound to resume from": (
        lrs.OneCycleLR(0.3, 9, last_epoch=5, cycle_momentum=False),
        {"initial_lr": 0.3, "min_lr": 0.1},
        "max_lr",
        "max_lr",
    ),
}


@pytest.mark.parametrize("name", ENTRIES_OF_ONE)
@pytest.mark.parametrize("whose", [0, 1])
def test_a_group_without_an_entry_has_none_in_a_compiled_program(name, whose):
    scheduler, both, entry, missed = ENTRIES_OF_ONE[name]
    groups = [{"params": p, **both} for p in ("a", jp.REST)]
    groups[whose][entry] = 0.7
    state = jp.SGD(groups, lr=0.1, momentum=0.9).init({"a": jnp.zeros(2), "b": jnp.zeros(2)})
    begin = [scheduler.init, jax.jit(scheduler.init)]
    if missed:
        for each in begin:
            with pytest.raises(KeyError, match=missed):
                each(state)
        return
    (one, own), (two, compiled) = (each(state) for each in begin)
    np.testing.assert_equal(scheduler.param_groups(compiled), scheduler.param_groups(own))
    assert jp.get_hyperparams(two) == jp.get_hyperparams(one)


def test_states_in_a_chain_and_in_nnx():
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    tx = optax.chain(optax.clip_by_global_norm(1.0), jp.SGD(lr=0.1, momentum=0.9))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    scheduler = lrs.OneCycleLR(0.1, 10)
    optimizer.opt_state, sched_state = scheduler.init(optimizer.opt_state)

    @nnx.jit
    def train_step(model, optimizer, sched_state):
        grads = nnx.grad(lambda model: jnp.sum(model(jnp.ones(2)) ** 2))(model)
        optimizer.update(model, grads)
        optimizer.opt_state, sched_state = scheduler.step(optimizer.opt_state, sched_state)
        return sched_state

    for _ in range(3):
        sched_state = train_step(model, optimizer, sched_state)
    (lr,) = scheduler.get_last_lr(sched_state)
    group = jp.get_hyperparams(optimizer.opt_state)[0]
    assert group["lr"] == lr
    assert group["momentum"] == pytest.approx(0.85, abs=0.01)


# ── compiled loops ─────────────────────────────────────────────────────────────────────────────


def test_training_and_scheduling_in_one_scan_of_a_thousand_steps():
    tx = jp.SGD(GROUPS, lr=0.1, momentum=0.9)
    warm_up = lrs.LinearLR(0.1, total_iters=50)
    scheduler = lrs.SequentialLR([warm_up, lrs.CosineAnnealingLR(950)], [50])
    traces = 0

    def step(carried, _):
        nonlocal traces
        traces += 1
        params, state, sched_state = carried
        params, state = jp.step(tx, params, state, params)
        state, sched_state = scheduler.step(state, sched_state)
        return (params, state, sched_state), None

    @jax.jit
    def train(params):
        state, sched_state = scheduler.init(tx.init(params))
        return jax.lax.scan(step, (params, state, sched_state), length=1000)[0]

    assert "callback" not in str(jax.make_jaxpr(train)(PARAMS))
    traces = 0
    _, _, sched_state = train(PARAMS)
    assert traces <= 1  # none where the trace above is used again
    made = stepped_optimizer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warm_up = torch.optim.lr_scheduler.LinearLR(made, 0.1, total_iters=50)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(made, 950)
        theirs = torch.optim.lr_scheduler.SequentialLR(made, [warm_up, cosine], [50])
        for _ in range(1000):
            theirs.step()
    assert scheduler.get_last_lr(sched_state) == theirs.get_last_lr()
    assert scheduler.state_dict(sched_state) == theirs.state_dict()


def test_a_step_too_many_in_a_compiled_program_is_nan(state):
    scheduler = lrs.OneCycleLR(0.1, 1)
    step = jax.jit(scheduler.step)
    begun = step(*scheduler.init(state))
    assert np.isfinite(scheduler.get_last_lr(begun[1])).all()
    assert np.isnan(scheduler.get_last_lr(step(*begun)[1])).all()


def test_eager_and_compiled_steps_mix(state):
    scheduler = lrs.CosineAnnealingWarmRestarts(3, 2)
    step = jax.jit(scheduler.step)
    mixed = eager = scheduler.init(state)
    for i in range(12):
        eager = scheduler.step(*eager)
        mixed = (step if i % 2 else scheduler.step)(*mixed)
    assert scheduler.state_dict(mixed[1]) == scheduler.state_dict(eager[1])
    assert jax.tree.structure(mixed) == jax.tree.structure(eager)
    assert jax.tree.map(jnp.result_type, mixed) == jax.tree.map(jnp.result_type, eager)


# ── schedules ──────────────────────────────────────────────────────────────────────────────────

SCHEDULES = {
    "onecycle": (lrs.OneCycleLR(0.1, 60), 61),
    "restarts": (lrs.CosineAnnealingWarmRestarts(7, 2), 50),
    "swa": (lrs.SWALR(0.01, 20), 40),
    "three deep": (
        lrs.SequentialLR([lrs.ChainedScheduler([lrs.LinearLR(), lrs.StepLR(4)])], []),
        50,
    ),
}


@pytest.mark.parametrize("case", SCHEDULES)
def test_as_schedule_is_the_undisturbed_run(case):
    scheduler, steps = SCHEDULES[case]
    tx = jp.SGD(lr=0.1, momentum=0.9)
    state = jp.step(tx, PARAMS, tx.init(PARAMS), PARAMS)[1]
    state, sched_state = scheduler.init(state)
    # Half of it is beyond the table.
    with jax.enable_x64(True):
        schedule = scheduler.as_schedule(0.1, steps_per_epoch=3, total_steps=steps // 2)
        compiled = jax.jit(schedule)
        for step in range(steps):
            assert [float(compiled(3 * step + 2))] == scheduler.get_last_lr(sched_state)
            if step < steps - 1:
                state, sched_state = scheduler.step(state, sched_state)
    assert scheduler.as_schedule(0.1)(0).dtype == jnp.float32


@pytest.mark.parametrize(
    "scheduler",
    [
        lrs.CosineAnnealingLR(5),
        lrs.LambdaLR(lambda epoch: 0.5 if epoch < 3 else 0.1),
        contrib.get_cosine_schedule_with_warmup(2, 7),
        contrib.CosineLRScheduler(t_initial=6, warmup_t=2),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_a_schedule_takes_counts_as_optaxs_do(scheduler):
    """One, or an array of them, as for a figure; mapped over, too."""
    schedule, counts = scheduler.as_schedule(0.1, total_steps=8), np.arange(8)
    each = np.array([schedule(count) for count in counts])
    np.testing.assert_array_equal(schedule(counts), each)
    np.testing.assert_array_equal(schedule(jnp.asarray(counts).reshape(2, 4)), each.reshape(2, 4))
    np.testing.assert_array_equal(jax.jit(schedule)(counts), each)
    np.testing.assert_array_equal(jax.vmap(schedule)(counts), each)
    assert schedule(counts[:0]).shape == (0,)


def test_a_count_below_zero_is_the_beginning():
    schedule = lrs.StepLR(2).as_schedule(0.1, total_steps=8)
    assert schedule(-1) == jax.jit(schedule)(-1) == schedule(0)


def test_a_step_of_a_finite_schedule_goes_on_under_debug_nans(state):
    scheduler = lrs.OneCycleLR(0.1, 10)
    with jax.debug_nans(True):
        begun = jax.jit(scheduler.step)(*scheduler.init(state))
    assert np.isfinite(scheduler.get_last_lr(begun[1])).all()


METRICS = [torch.tensor(0.5, requires_grad=True), torch.tensor([0.5]), np.float16(0.5), "0.5"]


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_what_torch_takes_for_a_metric(metric, state):
    scheduler = lrs.ReduceLROnPlateau()
    _, own = scheduler.step(*scheduler.init(state), metric)
    assert scheduler.state_dict(own)["best"] == 0.5


def test_a_schedule_in_a_plain_optax_chain():
    schedule = lrs.StepLR(2, gamma=0.5).as_schedule(0.5, total_steps=10)
    tx = optax.sgd(schedule)
    params, state = {"w": jnp.zeros(1)}, tx.init({"w": jnp.zeros(1)})
    moved = []
    for _ in range(5):
        updates, state = tx.update({"w": jnp.ones(1)}, state, params)
        moved.append(-float(updates["w"][0]))
    assert moved == [0.5, 0.5, 0.25, 0.25, 0.125]


def test_a_plateau_is_no_schedule():
    with pytest.raises(ValueError, match="follows a metric"):
        lrs.ReduceLROnPlateau().as_schedule(0.1)
    with pytest.raises(ValueError, match="positive integer steps_per_epoch"):
        lrs.StepLR(3).as_schedule(0.1, 0)


def test_schedulers_can_be_hashed_and_compared():
    assert lrs.MultiStepLR([1, 2]) == lrs.MultiStepLR((1, 2))
    assert len({lrs.StepLR(3), lrs.StepLR(3), lrs.OneCycleLR([0.1, 0.2], 10)}) == 2


class Remembers:
    def __init__(self):
        self.calls = 0

    def __call__(self, epoch):
        self.calls += 1
        return 0.9**epoch


CACHED = functools.lru_cache(lambda epoch: 0.9**epoch)
# torch's, ours, and a file between them
SAVED = {
    "a tuple of milestones": (
        lambda o: torchs.SequentialLR(
            o, [torchs.ConstantLR(o), torchs.ExponentialLR(o, 0.9)], milestones=(2,)
        ),
        lrs.SequentialLR([lrs.ConstantLR(), lrs.ExponentialLR(0.9)], np.array([2])),
    ),
    "a file of JSON": (
        lambda o: torchs.MultiStepLR(o, [1, 3, 3]),
        lrs.MultiStepLR([1, 3, 3]),
        lambda saved: json.loads(json.dumps(saved)),
    ),
    "a function that is compiled": (
        lambda o: torchs.LambdaLR(o, lambda epoch: 0.9**epoch),
        lrs.LambdaLR(jax.jit(lambda epoch: 0.9**epoch)),
    ),
    "a function with a cache": (lambda o: torchs.LambdaLR(o, CACHED), lrs.LambdaLR(CACHED)),
    "a function beside a partial": (
        lambda o: torchs.CyclicLR(o, 0.1, 0.2, scale_fn=lambda x: 1.0, cycle_momentum=False),
        lrs.CyclicLR(
            0.1, 0.2, scale_fn=functools.partial(lambda k, x: k, 1.0), cycle_momentum=False
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SAVED)
def test_what_torch_saved_is_gone_on_from(case):
    make, scheduler, *files = SAVED[case]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    theirs, params, tx = make(optimizer), jnp.ones(2), jp.SGD(lr=0.1)
    state, _ = scheduler.init(tx.init(params))
    for moment in range(5):
        saved = theirs.state_dict()
        for through in files:
            saved = through(saved)
        sched_state = scheduler.load_state_dict(saved)
        assert scheduler.state_dict(sched_state)["last_epoch"] == moment
        assert scheduler.get_last_lr(sched_state) == theirs.get_last_lr()
        optimizer.step()
        theirs.step()
        params, state = jp.step(tx, params, state, params)
        state, sched_state = scheduler.step(state, sched_state)
        assert jp.get_hyperparams(state)[0]["lr"] == theirs.get_last_lr()[0]


def test_a_function_with_a_memory_is_to_be_made_as_it_was():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    theirs = torchs.LambdaLR(optimizer, Remembers())
    optimizer.step()
    theirs.step()
    saved = theirs.state_dict()
    with pytest.raises(ValueError, match="a function that remembers something as it was then"):
        lrs.LambdaLR(Remembers()).load_state_dict(saved)


def test_a_plateau_whose_groups_have_grown_is_loaded():
    def group():
        return {"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.5}

    optimizer = torch.optim.SGD([group()])
    theirs = torchs.ReduceLROnPlateau(optimizer, min_lr=[0.01], patience=3)
    theirs.step(1.0)
    optimizer.add_param_group(group())
    theirs.step(1.0)  # legal in torch until it reduces a rate
    ours = lrs.ReduceLROnPlateau(min_lr=[0.01], patience=3)
    assert ours.get_last_lr(ours.load_state_dict(theirs.state_dict())) == [0.5, 0.5]
