"""Gradient accumulation and loss scaling, as torch's users write them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_port as jp
from parity_tests.oracles.bits import assert_same_bits
from parity_tests.oracles.optimizer import TorchOracle, to_torch

OPTIONS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
START = {"w": np.random.default_rng(0).standard_normal(33).astype(np.float32)}


def gradients(steps, seed=1):
    rng = np.random.default_rng(seed)
    return [{"w": rng.standard_normal(33).astype(np.float32)} for _ in range(steps)]


def test_accumulation_has_every_bit_of_torchs_loop():
    oracle = TorchOracle(torch.optim.SGD, START, [["w"]], OPTIONS)
    tx = jp.accumulate_grads(jp.SGD(**OPTIONS), steps=3)
    params, state, traces = START, tx.init(START), 0

    @jax.jit
    def train_step(grads, state, params):
        nonlocal traces
        traces += 1
        return jp.step(tx, grads, state, params)

    oracle.optimizer.zero_grad()
    for i, grads in enumerate(gradients(15)):
        tensor = oracle.tensors["w"]
        tensor.grad = (
            to_torch(grads["w"]) if tensor.grad is None else tensor.grad + to_torch(grads["w"])
        )
        if (i + 1) % 3 == 0:
            oracle.optimizer.step()
            oracle.optimizer.zero_grad()
        if i == 7:  # between steps, while gradients are held
            oracle.change(0, {"lr": 0.03})
            state = jp.set_hyperparams(state, lr=0.03)
        params, state = train_step(grads, state, params)
        assert_same_bits(params, oracle.params(), f"after gradient {i}")
    assert traces == 1


def test_accumulation_in_an_optax_loop():
    tx = jp.accumulate_grads(jp.sgd(lr=0.5), steps=2)
    params = {"w": jnp.zeros(2)}
    state = tx.init(params)
    for expected in (0.0, -1.0, 0.0, -1.0):
        updates, state = tx.update({"w": jnp.ones(2)}, state, params)
        assert updates["w"].tolist() == [expected] * 2


INFINITE = {3, 4, 11}
SCALER = {"init_scale": 2.0**12, "growth_factor": 1.7, "backoff_factor": 0.3, "growth_interval": 4}


def test_grad_scaler_follows_torchs():
    oracle = TorchOracle(torch.optim.SGD, START, [["w"]], OPTIONS)
    theirs = torch.amp.GradScaler("cpu", **SCALER)
    ours = jp.GradScaler(**SCALER)
    scaler_state = ours.init()
    tx = jp.SGD(**OPTIONS)
    params, state = START, tx.init(START)
    tensor = oracle.tensors["w"]
    for i, grads in enumerate(gradients(20)):
        factor = np.float32(np.inf if i in INFINITE else 1.0)
        oracle.optimizer.zero_grad()
        theirs.scale((tensor * to_torch(grads["w"] * factor)).sum()).backward()
        theirs.step(oracle.optimizer)
        theirs.update()

        def loss(params, grads=grads, factor=factor, scaler_state=scaler_state):
            return ours.scale(jnp.sum(params["w"] * grads["w"] * factor), scaler_state)

        scaled = jax.grad(loss)(params)
        unscaled, found_inf = ours.unscale(scaled, scaler_state)
        assert bool(found_inf) == (i in INFINITE)
        params, state = ours.step(tx, unscaled, state, params, found_inf)
        scaler_state = ours.update(scaler_state, found_inf)
        assert ours.state_dict(scaler_state) == theirs.state_dict(), f"step {i}"
        assert_same_bits(params, oracle.params(), f"after step {i}")
        if i == 9:  # each goes on from the other's state dict
            scaler_state = ours.load_state_dict(theirs.state_dict())
            theirs.load_state_dict(ours.state_dict(scaler_state))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int32", "complex64"])
@pytest.mark.parametrize("shape", [(), (1,), (2,)])
def test_a_loss_is_scaled_in_torchs_type(dtype, shape):
    """One number of float16 becomes float32, as torch promotes it: 3 * 65536 is none of float16."""
    loss, scaler = np.full(shape, 3.0), jp.GradScaler()
    theirs = torch.amp.GradScaler("cpu").scale(torch.tensor(loss).to(getattr(torch, dtype)))
    ours = scaler.scale(jnp.asarray(loss, dtype), scaler.init())
    assert ours.dtype.name == str(theirs.dtype).removeprefix("torch.")
    np.testing.assert_array_equal(ours.astype(complex), theirs.to(torch.complex128))


def test_a_skipped_step_leaves_the_step_count():
    tx, scaler = jp.Adam(lr=0.1), jp.GradScaler()
    params = {"w": jnp.ones(3)}
    state = tx.init(params)
    after = jax.jit(lambda found: scaler.step(tx, params, state, params, found))(True)
    jax.tree.map(np.testing.assert_array_equal, after, (params, state))


FOUND = {"torch's": np.float32(1.0), "no number": np.float32(0.0), "Python's": 1.0, "a bool": True}


@pytest.mark.parametrize("found", FOUND)
def test_an_infinity_is_told_by_a_boolean_or_by_torchs_number(found):
    scaler, tx = jp.amp.GradScaler(), jp.SGD(lr=0.1)
    grads = {"w": jnp.ones(33)}
    after, _ = scaler.step(tx, grads, tx.init(START), START, FOUND[found])
    assert np.array_equal(after["w"], START["w"]) == bool(FOUND[found])
    scaled = scaler.update(scaler.init(), FOUND[found]).scale
    assert (scaled < scaler.init().scale) == bool(FOUND[found])


def test_what_a_scaled_step_takes_besides():
    scaler, tx = jp.amp.GradScaler(), jp.LBFGS(line_search_fn="strong_wolfe")
    value_fn = jax.tree_util.Partial(lambda params: jnp.sum(params["w"] ** 2))
    value, grads = jax.value_and_grad(value_fn)(START)
    more = {"value": value, "grad": grads, "value_fn": value_fn.func}
    after, _ = scaler.step(tx, grads, tx.init(START), START, False, **more)
    assert value_fn(after) < value
    with pytest.raises(TypeError, match="leave donate out here"):
        scaler.step(tx, grads, tx.init(START), START, False, donate=True)
    with pytest.raises(RuntimeError, match=r"^Closure use is not currently supported"):
        scaler.step(tx, value_fn.func, tx.init(START), START, False)


def test_the_whole_scaled_step_in_one_program():
    scaler, tx = jp.GradScaler(growth_interval=1), jp.SGD(lr=0.1)
    params, traces = {"w": jnp.ones(3)}, 0

    @jax.jit
    def train_step(params, state, scaler_state):
        nonlocal traces
        traces += 1

        def loss(params):
            half = params["w"].astype(jnp.float16)
            return scaler.scale(jnp.sum(half * half).astype(jnp.float32), scaler_state)

        grads, found_inf = scaler.unscale(jax.grad(loss)(params), scaler_state)
        params, state = scaler.step(tx, grads, state, params, found_inf)
        return params, state, scaler.update(scaler_state, found_inf), found_inf

    state, scaler_state, found = tx.init(params), scaler.init(), []
    for _ in range(12):
        params, state, scaler_state, found_inf = train_step(params, state, scaler_state)
        found.append(bool(found_inf))
    assert any(found)
    assert not all(found)
    assert traces == 1
    assert np.isfinite(params["w"]).all()


@pytest.mark.parametrize("scale", [2.0**120, 2.0**126, 1.7e38, 2.0**127, 3.3e38])
def test_a_scale_whose_reciprocal_is_subnormal(scale):
    """torch divides by it all the same; XLA would take its reciprocal for 0."""
    drawn = np.float32(scale) * np.random.default_rng(0).uniform(-1, 1, 100).astype(np.float32)
    theirs = torch.amp.GradScaler("cpu", init_scale=scale)
    theirs.scale(torch.zeros(()))
    parameter = torch.nn.Parameter(torch.zeros(100))
    parameter.grad = torch.from_numpy(drawn.copy())
    theirs.unscale_(torch.optim.SGD([parameter], lr=0.1))
    scaler = jp.GradScaler(init_scale=scale)
    unscaled, found = jax.jit(scaler.unscale)({"w": drawn}, scaler.init())
    assert not found
    assert np.array_equal(unscaled["w"], parameter.grad.numpy())


def test_grad_scaler_switches():
    scaler = jp.GradScaler()
    state = scaler.init()
    assert scaler.update(state, jnp.array(True), new_scale=5.0).scale == 5.0
    largest = jp.GradScaler(init_scale=3e38, growth_interval=1)
    assert largest.update(largest.init(), jnp.array(False)).scale == np.float32(3e38)
    off = jp.GradScaler(enabled=False)
    grads = {"w": jnp.full(2, jnp.inf)}
    assert off.scale(3.0, state) == 3.0
    assert off.unscale(grads, state)[0] is grads
    assert off.update(state, jnp.array(True)) is state
    assert off.state_dict(state) == {}
    assert off.load_state_dict({}) == off.init()
