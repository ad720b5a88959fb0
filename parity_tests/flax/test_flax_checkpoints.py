"""Runs in Flax's loops that are written to a file, by Flax's own means, and go on from it."""

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest
from flax import nnx, serialization

import jaxopt_port as jp
from jaxopt_port.flax import Optimizer, TrainState
from parity_tests.flax.test_flax_loops import (
    PARAMS,
    Net,
    by_step,
    gradients,
    state_of,
    trained,
    without,
)
from parity_tests.oracles.bits import assert_same_bits
from parity_tests.oracles.two_networks import flat

GRADS = gradients()
PARTED = [GRADS[0], without(GRADS[1], "head"), *GRADS[2:]]


def train_state(tx):
    return TrainState.create(apply_fn=None, params=PARAMS, tx=tx)


def by_msgpack(state, like, folder):
    del folder
    return serialization.from_bytes(like, serialization.to_bytes(state))


def by_orbax(state, like, folder):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "run", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "run", like)


@pytest.mark.parametrize("file", [by_msgpack, by_orbax])
@pytest.mark.parametrize("tx", [jp.AdamW(lr=1 / 3), jp.adamw(lr=1 / 3)], ids=["AdamW", "adamw"])
def test_a_train_state_goes_on(tx, file, tmp_path):
    state = train_state(tx)
    for g in GRADS[:2]:
        state = state.apply_gradients(grads=g)
    like = jax.tree.map(jnp.asarray, train_state(tx))
    state = file(jax.tree.map(jnp.asarray, state), like, tmp_path)
    for g in GRADS[2:]:
        state = state.apply_gradients(grads=g)
    assert int(state.step) == len(GRADS)
    assert_same_bits(flat(state.params), by_step(tx, GRADS), "resumed")


@pytest.mark.parametrize("tx", [jp.AdamW(lr=1 / 3), jp.adamw(lr=1 / 3)], ids=["AdamW", "adamw"])
def test_counts_that_have_parted_are_kept_by_flax_and_refused_where_they_are_not(tx):
    state = train_state(tx)
    for g in PARTED[:2]:
        state = state.apply_gradients(grads=g)
    restored = by_msgpack(state, train_state(tx), None)
    for g in PARTED[2:]:
        restored = restored.apply_gradients(grads=g)
    assert_same_bits(flat(restored.params), by_step(tx, PARTED), "resumed")
    leaves = jax.tree.leaves(state)  # a file of arrays alone
    bare = jax.tree.unflatten(jax.tree.structure(train_state(tx)), leaves)
    with pytest.raises(ValueError, match="its static part knows of 1"):
        bare.apply_gradients(grads=PARTED[2])


def test_a_group_that_rests_is_kept_by_flax():
    tx = jp.SGD([{"params": "head"}, {"params": jp.REST}], lr=0.1)
    state = train_state(tx)
    state = state.replace(opt_state=jp.set_hyperparams(state.opt_state, frozen=True, group=0))
    restored = by_msgpack(state, train_state(tx), None)
    assert restored.opt_state.table == state.opt_state.table
    assert jp.get_hyperparams(restored.opt_state)[0]["frozen"]


@pytest.mark.parametrize(
    ("saved", "wanted"),
    [
        (jp.SGD(lr=0.1, momentum=0.9), jp.SGD(lr=0.1)),
        (jp.RMSprop(momentum=0.9), jp.RMSprop()),
    ],
    ids=["SGD", "RMSprop"],
)
def test_a_buffer_that_would_be_lost_is_refused(saved, wanted):
    with pytest.raises(ValueError, match="has momentum_buffer, and that which it shall be"):
        by_msgpack(train_state(saved), train_state(wanted), None)


DAMAGED = {
    "no leaves": (lambda saved: saved.pop("leaves"), "is damaged: it has no leaves"),
    "no counts": (lambda saved: saved.pop("counts"), "is damaged: it has no counts"),
    "another table": (lambda saved: saved.update(table="{}"), "is damaged: its table is '{}'"),
    "another description": (lambda saved: saved.update(description="3"), "hold no state of this"),
    "of other shapes": (
        lambda saved: saved["leaves"]["exp_avg"]["head"].update(kernel=jnp.ones((2, 7))),
        r'leaves: "exp_avg/head/kernel" was saved as float32 of shape \(2, 7\); here it is',
    ),
    "of another dtype": (
        lambda saved: saved["leaves"]["exp_avg"]["head"].update(bias=jnp.ones(3, jnp.bfloat16)),
        r'leaves: "exp_avg/head/bias" was saved as bfloat16 of',
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_saved_state_that_is_damaged_or_of_other_parameters_is_refused(name):
    damage, message = DAMAGED[name]
    state = jp.AdamW(lr=0.1).init(PARAMS)
    saved = serialization.msgpack_restore(serialization.to_bytes(state))
    damage(saved)
    with pytest.raises(ValueError, match=message):
        serialization.from_state_dict(state, saved)


def nnx_by_msgpack(state, like, folder):
    del folder
    pure = serialization.msgpack_restore(serialization.msgpack_serialize(nnx.to_pure_dict(state)))
    nnx.replace_by_pure_dict(like, pure)
    return like


@pytest.mark.parametrize("file", [nnx_by_msgpack, by_orbax])
def test_a_model_and_its_optimizer_go_on(file, tmp_path):
    tx = jp.AdamW(lr=1 / 3)

    def fresh(seed):
        model = Net(seed)
        return model, Optimizer(model, tx, wrt=nnx.Param)

    model, optimizer = fresh(0)
    for g in GRADS[:2]:
        optimizer.update(model, state_of(g))
    optimizer.opt_state = jp.set_hyperparams(optimizer.opt_state, lr=0.1)
    other, resumed = fresh(3)
    saved = {"model": nnx.state(model), "optimizer": nnx.state(optimizer)}
    like = {"model": nnx.state(other), "optimizer": nnx.state(resumed)}
    for name, node in (("model", other), ("optimizer", resumed)):
        (tmp_path / name).mkdir()
        nnx.update(node, file(saved[name], like[name], tmp_path / name))
    assert jp.get_hyperparams(resumed.opt_state)[0]["lr"] == 0.1
    for g in GRADS[2:]:
        optimizer.update(model, state_of(g))
        resumed.update(other, state_of(g))
    assert_same_bits(trained(other), trained(model), "resumed")
    assert int(resumed.step[...]) == len(GRADS)
