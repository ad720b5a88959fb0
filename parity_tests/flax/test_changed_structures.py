"""An NNX optimizer whose state gets another structure in mid-run: groups freeze, buffers appear."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxopt_port as jp
from jaxopt_port.contrib import sam
from jaxopt_port.flax import Optimizer, TrainState

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2)


def loss(model):
    return jnp.mean((model(X) - 1) ** 2)


def train(model, optimizer):
    optimizer.update(model, nnx.grad(loss)(model))


def made(tx):
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    return model, Optimizer(model, tx, wrt=nnx.Param)


def values(model):
    return {name: np.asarray(getattr(model, name)[...]) for name in ("bias", "kernel")}


class Plain:
    """The same training by `jp.step`."""

    def __init__(self, tx):
        model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
        self.graph, params = nnx.split(model)
        self.tx, self.params = tx, jax.tree.map(jnp.array, nnx.to_pure_dict(params))
        self.state = tx.init(self.params)

    def step(self, **without):
        kernel, bias = self.params["kernel"], self.params["bias"]
        grads = jax.grad(lambda p: jnp.mean((X @ p["kernel"] + p["bias"] - 1) ** 2))(
            {"kernel": kernel, "bias": bias}
        )
        self.params, self.state = jp.step(self.tx, {**grads, **without}, self.state, self.params)


def assert_alike(model, plain):
    for name, value in values(model).items():
        np.testing.assert_allclose(value, plain.params[name], rtol=1e-6)


def test_a_group_is_frozen_and_a_call_of_before_is_refused():
    groups = [{"params": "bias"}, {"params": "kernel"}]
    model, optimizer = made(jp.SGD(groups, lr=0.1, momentum=0.9))
    step = nnx.cached_partial(nnx.jit(train), model, optimizer)
    step()
    optimizer.opt_state = jp.set_hyperparams(optimizer.opt_state, frozen=True, group=0)
    before = values(model)
    with pytest.raises(ValueError, match=r"another structure .* by nnx\.cached_partial"):
        step()
    anew = nnx.cached_partial(nnx.jit(train), model, optimizer)
    anew()
    optimizer.opt_state = jp.set_hyperparams(optimizer.opt_state, lr=0.0)  # counts there too
    after = values(model)
    anew()
    np.testing.assert_array_equal(after["bias"], before["bias"])
    assert (after["kernel"] != before["kernel"]).all()
    np.testing.assert_array_equal(values(model)["kernel"], after["kernel"])


@pytest.mark.parametrize("jit", [nnx.jit, lambda f: f], ids=["nnx.jit", "eager"])
def test_a_scheduler_brings_a_momentum_that_has_no_buffer_yet(jit):
    tx, scheduler = jp.SGD(lr=0.1), jp.lr_scheduler.OneCycleLR(0.1, total_steps=8)
    model, optimizer = made(tx)
    optimizer.opt_state, own = scheduler.init(optimizer.opt_state)
    plain = Plain(tx)
    plain.state, its = scheduler.init(plain.state)
    step = jit(train)
    for _ in range(4):
        step(model, optimizer)
        optimizer.opt_state, own = scheduler.step(optimizer.opt_state, own)
        plain.step()
        plain.state, its = scheduler.step(plain.state, its)
    assert_alike(model, plain)
    held = jax.tree.leaves(optimizer.opt_state, is_leaf=lambda x: isinstance(x, nnx.Variable))
    assert all(isinstance(x, nnx.OptState) for x in held)


@pytest.mark.parametrize("of", [nnx.PathContains("kernel"), nnx.Param], ids=["left out", "None"])
def test_one_leaf_has_no_gradient(of):
    tx = jp.AdamW(lr=0.1)
    model, optimizer = made(tx)
    plain = Plain(tx)

    @nnx.jit
    def step(model, optimizer):
        grads = nnx.grad(loss, argnums=nnx.DiffState(0, of))(model)
        grads = nnx.State(
            {"kernel": grads["kernel"], **({"bias": None} if of is nnx.Param else {})}
        )
        optimizer.update(model, grads)

    nnx.jit(train)(model, optimizer)
    plain.step()
    for _ in range(2):
        step(model, optimizer)
        plain.step(bias=None)
    nnx.jit(train)(model, optimizer)
    plain.step()
    assert_alike(model, plain)


def test_an_optimizer_of_nothing_is_refused():
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="has no variable that wrt="):
        Optimizer(model, jp.SGD(lr=0.1), wrt=nnx.LoRAParam)


@pytest.mark.parametrize("tx", [jp.lbfgs(lr=0.1), sam(jp.SGD(lr=0.1))], ids=["L-BFGS", "SAM"])
def test_a_train_state_takes_the_loss(tx):
    params = {"w": jnp.zeros(2)}
    state = TrainState.create(apply_fn=None, params=params, tx=tx)

    def loss(params):
        return jnp.sum((params["w"] - 1) ** 2)

    expected, _ = jp.step(tx, loss, tx.init(params), params)
    stepped = jax.jit(lambda state: state.apply_gradients(grads=loss))(state)
    np.testing.assert_array_equal(stepped.params["w"], expected["w"])
