"""Momentum cycled on an optimizer that was built without: torch makes the buffer when it steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import contrib
from jaxopt_port import lr_scheduler as lrs
from jaxopt_port.verify.cases import TorchSchedulers
from parity_tests.oracles.bits import assert_same_bits, relative
from parity_tests.oracles.optimizer import TorchOracle
from parity_tests.oracles.tolerances import bound

STEPS = 9
GRADS = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)
PARAMS = {"a": np.ones(3, np.float32), "b": np.ones(2, np.float32)}

SCHEDULERS = {
    "onecycle": lambda s: s.OneCycleLR(0.1, 12),
    "onecycle three": lambda s: s.OneCycleLR([0.1, 0.2], 12, three_phase=True),
    "cyclic": lambda s: s.CyclicLR(0.01, 0.1, 3),
    "cyclic to zero": lambda s: s.CyclicLR(0.01, 0.1, 3, base_momentum=0.0),
    "sequential": lambda s: s.SequentialLR([s.CyclicLR(0.01, 0.1, 3), s.StepLR(2)], [5]),
    "chained": lambda s: s.ChainedScheduler([s.OneCycleLR(0.1, 12), s.ConstantLR()]),
}
OPTIONS = {
    "plain": {},
    "decay": {"weight_decay": 0.1},
    "dampening": {"dampening": 0.3},
    "maximize": {"maximize": True},
}


def gradient(i):
    return {"a": GRADS[i, :3], "b": GRADS[i, 3:]}


def torch_run(make, options, before):
    rates = [{}, {"lr": 0.02}]
    oracle = TorchOracle(torch.optim.SGD, PARAMS, [["a"], ["b"]], {"lr": 0.1, **options}, rates)
    after = []

    def step(i):
        oracle.step(gradient(i))
        after.append(oracle.params())

    for i in range(before):
        step(i)
    scheduler = make(TorchSchedulers(oracle.optimizer))
    for i in range(before, STEPS):
        step(i)
        scheduler.step()
    return after


RUNS = [(name, "plain", before) for name in SCHEDULERS for before in (0, 2)]
RUNS += [("cyclic", options, 0) for options in OPTIONS]


@pytest.mark.parametrize(("name", "options", "before"), RUNS)
def test_every_bit_of_torch(name, options, before):
    theirs = torch_run(SCHEDULERS[name], OPTIONS[options], before)
    groups = [{"params": "a"}, {"params": "b", "lr": 0.02}]
    tx = jp.SGD(groups, lr=0.1, **OPTIONS[options])
    params, state = PARAMS, tx.init(PARAMS)
    scheduler = SCHEDULERS[name](lrs)

    for i in range(before):
        params, state = jp.step(tx, gradient(i), state, params)
    state, own = scheduler.init(state)
    for i in range(before, STEPS):
        params, state = jp.step(tx, gradient(i), state, params)
        state, own = scheduler.step(state, own)
        assert_same_bits(params, theirs[i], f"after step {i}")


def test_a_step_and_its_schedule_in_one_program():
    make, options = SCHEDULERS["onecycle"], OPTIONS["dampening"]
    theirs, scheduler = torch_run(make, options, 0), make(lrs)
    tx = jp.SGD([{"params": "a"}, {"params": "b", "lr": 0.02}], lr=0.1, **options)

    def step(carried, grads):
        params, state, own = carried
        params, state = jp.step(tx, grads, state, params)
        return (params, *scheduler.step(state, own)), params

    carried = (PARAMS, *scheduler.init(tx.init(PARAMS)))
    # The first step makes the buffer, as a scan's carry may not.
    carried, params = jax.jit(step)(carried, gradient(0))
    assert_same_bits(params, theirs[0], "after the first step")
    rest = jax.tree.map(lambda *rows: np.stack(rows), *map(gradient, range(1, STEPS)))
    _, path = jax.lax.scan(step, carried, rest)
    for i in range(1, STEPS):
        assert_same_bits({k: v[i - 1] for k, v in path.items()}, theirs[i], f"after step {i}")


LR_ALONE = {
    "lambda": lrs.LambdaLR(lambda epoch: 0.9**epoch),
    "cyclic without momentum": lrs.CyclicLR(0.01, 0.1, 3, cycle_momentum=False),
    "timm's": contrib.CosineLRScheduler(10),
}


@pytest.mark.parametrize("name", LR_ALONE)
def test_a_schedule_of_the_rate_alone_makes_no_buffer(name):
    """Begun in a compiled program too, where the momentum is not known."""
    scheduler, tx = LR_ALONE[name], jp.SGD(lr=0.1)
    state, _ = jax.jit(scheduler.init)(tx.init(PARAMS))
    assert jp.step(tx, gradient(0), state, PARAMS)[1].leaves == {}


def test_rmsprop_too():
    tensor = torch.nn.Parameter(torch.ones(5))
    theirs = torch.optim.RMSprop([tensor], lr=0.01)
    torch_scheduler = torch.optim.lr_scheduler.CyclicLR(theirs, 0.01, 0.1, 3)
    tx, scheduler = jp.RMSprop(lr=0.01), lrs.CyclicLR(0.01, 0.1, 3)
    params = jnp.ones(5)
    state, own = scheduler.init(tx.init(params))
    for grad in GRADS:
        tensor.grad = torch.tensor(grad)
        theirs.step()
        torch_scheduler.step()
        params, state = jp.step(tx, jnp.asarray(grad), state, params)
        state, own = scheduler.step(state, own)
    limit = bound("two hundred steps")
    assert relative(params, tensor.detach().numpy()) <= limit


def test_the_state_before_the_first_step():
    """Nothing is held yet: not in a state dict either, and a group may join."""
    tx, scheduler = jp.SGD(lr=0.1), lrs.OneCycleLR(0.1, 12)
    state, _ = scheduler.init(tx.init({"a": jnp.ones(2)}))
    assert jp.state_dict(tx, state, {"a": jnp.ones(2)})["state"] == {}
    params = {"a": jnp.ones(2), "b": jnp.ones(1)}
    tx, state = jp.add_param_group(tx, state, params, {"params": "b"})
    _, state = jp.step(tx, params, state, params)
    assert set(state.leaves) == {"momentum_buffer"}
    np.testing.assert_array_equal(state.leaves["momentum_buffer"]["a"], 1)


def test_optaxs_loop_and_a_chain():
    tx = optax.chain(optax.clip_by_global_norm(1e9), jp.SGD(lr=0.1))
    state, _ = lrs.CyclicLR(0.5, 0.5, 3).init(tx.init({"w": jnp.zeros(1)}))
    params = {"w": jnp.zeros(1)}
    for expected in (-0.5, -1.45):
        updates, state = tx.update({"w": jnp.ones(1)}, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["w"], expected, rtol=1e-6)
