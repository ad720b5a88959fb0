"""The same groups and numbers on every kind of parameter tree."""

import dataclasses

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from flax.core import meta

import jaxopt_port as jp
from jaxopt_port import interop

OPTIONS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}


class Linear(nnx.Module):
    def __init__(self, rngs):
        self.stem = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)  # its statistics are no nnx.Param
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(self.norm(self.stem(x)))


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="head")(nn.Dense(4, name="stem")(x))


class CallableNet(eqx.Module):
    stem: eqx.nn.Linear
    head: eqx.nn.Linear
    activation: object = eqx.field(static=True, default=jnp.tanh)

    def __call__(self, x):
        return self.head(self.activation(self.stem(x)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layers:
    stem: jax.Array
    head: jax.Array


def linen():
    return LinenNet().init(jax.random.key(0), jnp.ones((1, 3)))


def equinox():
    one, two = jax.random.split(jax.random.key(0))
    return CallableNet(eqx.nn.Linear(3, 4, key=one), eqx.nn.Linear(4, 2, key=two))


def boxed():
    kernel = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model"))
    layer = nn.Dense(2, kernel_init=kernel)
    return {
        name: layer.init(jax.random.key(i), jnp.ones((1, 2)))["params"]
        for i, name in enumerate(("stem", "head"))
    }


# name: (parameters, the path of the head)
CONTAINERS = {
    "dict": (lambda: {"stem": {"w": jnp.ones((3, 4))}, "head": {"w": jnp.ones((4, 2))}}, "head"),
    "Linen variables": (linen, "params/head"),
    "Linen params": (lambda: linen()["params"], "head"),
    "Linen boxes": (boxed, "head"),
    "NNX state": (lambda: nnx.state(Linear(nnx.Rngs(0)), nnx.Param), "head"),
    "pure NNX state": (
        lambda: nnx.to_pure_dict(nnx.state(Linear(nnx.Rngs(0)), nnx.Param)),
        "head",
    ),
    "Equinox module": (equinox, "head"),
    "filtered Equinox module": (lambda: eqx.filter(equinox(), eqx.is_inexact_array), "head"),
    "dataclass": (lambda: Layers(stem=jnp.ones((3, 4)), head=jnp.ones((4, 2))), "head"),
    "list": (lambda: [jnp.ones(3), {"w": jnp.ones(2)}], "1"),
    "tuple": (lambda: (jnp.ones(3), jnp.ones(2)), "1"),
}
FROZEN = {"the rest trains": False, "the rest is frozen": True}


@pytest.mark.parametrize("frozen", FROZEN.values(), ids=FROZEN)
@pytest.mark.parametrize("container", CONTAINERS)
def test_groups_on_a_container(container, frozen):
    make, head = CONTAINERS[container]
    params = make()
    tx = jp.SGD(
        [{"params": head, "lr": 1.0}, {"params": jp.REST, **({"frozen": True} if frozen else {})}],
        **OPTIONS,
    )
    state = tx.init(params)
    grads = jax.tree.map(jnp.ones_like, params)
    after, state = jp.step(tx, grads, state, params)
    assert jax.tree.structure(after) == jax.tree.structure(params)
    owners = iter(state.table.assignment)
    for old, new in zip(jax.tree.leaves(params), jax.tree.leaves(after), strict=True):
        rate = [1.0, 0.0 if frozen else 0.1][next(owners)]
        expected = old - jnp.float32(rate) * (1 + jnp.float32(0.01) * old)
        np.testing.assert_allclose(new, expected, rtol=1e-6)
    updates, _ = tx.update(grads, state, params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)


def test_nnx_optimizer_under_nnx_jit_with_changes_in_mid_run():
    model, reference = Linear(nnx.Rngs(0)), Linear(nnx.Rngs(0))
    tx = jp.SGD([{"params": "head", "lr": 0.05}, {"params": jp.REST}], **OPTIONS)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    x, traces = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3), 0

    def loss(model):
        return jnp.mean(model(x) ** 2)

    @nnx.jit
    def train_step(model, optimizer):
        nonlocal traces
        traces += 1
        optimizer.update(model, nnx.grad(loss)(model))

    # The same by hand, on pure arrays.
    params = nnx.to_pure_dict(nnx.state(reference, nnx.Param))
    state = tx.init(params)
    for step in range(6):
        if step == 3:
            optimizer.opt_state = jp.set_hyperparams(optimizer.opt_state, lr=1e-3, group=0)
            state = jp.set_hyperparams(state, lr=1e-3, group=0)
        grads = nnx.to_pure_dict(nnx.state(nnx.grad(loss)(reference), nnx.Param))
        params, state = jp.step(tx, grads, state, params)
        nnx.update(reference, params)
        train_step(model, optimizer)
    assert traces == 1
    read = jp.get_hyperparams(optimizer.opt_state)
    assert read == jp.get_hyperparams(state)
    assert [group["lr"] for group in read] == [1e-3, 0.1]
    trained = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), trained, params
    )


def test_nnx_optimizer_takes_an_added_group():
    model = Linear(nnx.Rngs(0))
    tx = jp.SGD([{"params": "head"}, {"params": jp.REST, "frozen": True}], **OPTIONS)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    grads = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))

    @nnx.jit
    def train_step(model, optimizer, grads):
        optimizer.update(model, grads)

    before = jnp.array(model.stem.kernel[...])
    train_step(model, optimizer, grads)
    np.testing.assert_array_equal(model.stem.kernel[...], before)
    optimizer.tx, optimizer.opt_state = jp.add_param_group(
        tx, optimizer.opt_state, nnx.state(model, nnx.Param), {"params": "stem", "lr": 0.5}
    )
    train_step(model, optimizer, grads)
    assert not np.array_equal(model.stem.kernel[...], before)
    assert [g.get("lr") for g in jp.get_hyperparams(optimizer.opt_state)] == [0.1, None, 0.5]


@pytest.mark.parametrize(
    "tx", [jp.AdamW(lr=0.1), jp.param_groups(jp.adam, [{"params": jp.REST}], lr=0.1)]
)
def test_an_optimizer_in_a_tree_is_static(tx):
    (mapped,) = jax.tree.map(lambda leaf: leaf, [tx])
    assert mapped is tx
    assert jax.tree.leaves([tx]) == []


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Quantised(meta.AxisMetadata):
    value: jax.Array
    scale: jax.Array

    def unbox(self):
        return self.value

    def replace_boxed(self, val):
        return dataclasses.replace(self, value=val)

    add_axis = remove_axis = None


def test_of_a_box_with_several_arrays_each_is_a_leaf():
    params = {"w": Quantised(jnp.ones(2), jnp.ones(())), "b": jnp.ones(1)}
    assert jp.SGD(lr=0.1).init(params).table.paths == ("b", "w/value", "w/scale")


def test_a_box_of_linens_counts_as_its_leaf():
    """Names, states and what comes of torch are those of the tree without boxes."""
    params, bare = boxed(), meta.unbox(boxed())
    tx = jp.SGD([{"params": "head/kernel", "lr": 0.1}, {"params": jp.REST}], **OPTIONS)
    new, state = jp.step(tx, params, tx.init(params), params)
    own, _ = jp.step(tx, bare, tx.init(bare), bare)
    assert isinstance(new["head"]["kernel"], nn.Partitioned)
    jax.tree.map(np.testing.assert_array_equal, meta.unbox(new), own)
    held = jp.load_state_dict(tx, jp.state_dict(tx, state, new), own)
    jax.tree.map(np.testing.assert_array_equal, meta.unbox(state.leaves), held.leaves)
    layers = {name: torch.nn.Linear(2, 2) for name in params}
    module = torch.nn.ModuleDict(layers)
    layouts = {"*.weight": (1, 0)}
    made = interop.params_from_torch(module, params, layouts=layouts)
    assert jax.tree.structure(made) == jax.tree.structure(params)
    weight = layers["head"].weight.detach().numpy()
    np.testing.assert_array_equal(made["head"]["kernel"].value, weight.T)
