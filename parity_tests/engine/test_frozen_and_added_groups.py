"""Frozen groups, and groups added in mid-run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_port as jp
from jaxopt_port import contrib
from jaxopt_port.engine import leaf_states
from parity_tests.oracles.bits import assert_same_bits

OPTIONS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.5}
PARAMS = {"stem": jnp.array([1.0, -2.0]), "body": jnp.ones(5), "head": jnp.ones((2, 2))}
GRADS = jax.tree.map(lambda x: 0.3 * jnp.ones_like(x), PARAMS)
HEAD = {"params": "head", "momentum": 0.5}
FROZEN_REST = {"params": jp.REST, "frozen": True}

FACTORIES = {
    "SGD": lambda groups: jp.SGD(groups, **OPTIONS),
    "optax.adamw": lambda groups: jp.param_groups(
        optax.adamw,
        [{k: v for k, v in g.items() if k != "momentum"} for g in groups],
        learning_rate=0.1,
        weight_decay=0.5,
    ),
}


def run(tx, state, params, steps=3):
    for _ in range(steps):
        params, state = jp.step(tx, GRADS, state, params)
    return params, state


@pytest.mark.parametrize("factory", FACTORIES)
def test_frozen_parameters_are_untouched_and_hold_no_state(factory):
    tx = FACTORIES[factory]([{"params": "head"}, FROZEN_REST])
    state = tx.init(PARAMS)
    after, state = run(tx, state, PARAMS)
    assert_same_bits(
        {k: np.asarray(after[k]) for k in ("stem", "body")},
        {k: np.asarray(PARAMS[k]) for k in ("stem", "body")},
        "frozen",
    )
    assert not np.array_equal(after["head"], PARAMS["head"])
    frozen_shapes = {PARAMS["stem"].shape, PARAMS["body"].shape}
    held = jax.tree.leaves((state.leaves, state.others))
    assert not [leaf for leaf in held if leaf.shape in frozen_shapes]
    updates, _ = tx.update(GRADS, state, after)
    applied = optax.apply_updates(after, updates)
    np.testing.assert_array_equal(applied["stem"], PARAMS["stem"])


def test_all_may_be_frozen():
    tx = jp.SGD([{"params": jp.REST, "frozen": True, "name": "ice"}])
    after, state = run(tx, tx.init(PARAMS), PARAMS)
    updates, state = tx.update(GRADS, state, after)
    for made in (after, optax.apply_updates(after, updates)):
        jax.tree.map(np.testing.assert_array_equal, made, PARAMS)
    assert jp.get_hyperparams(state) == [{"name": "ice", "frozen": True}]


def test_a_group_of_rest_may_be_empty():
    tx = jp.SGD([{"params": "**"}, {"params": jp.REST, "lr": 1.0}], **OPTIONS)
    alone = jp.SGD(**OPTIONS)
    got, state = run(tx, tx.init(PARAMS), PARAMS)
    expected, _ = run(alone, alone.init(PARAMS), PARAMS)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert [g["lr"] for g in jp.get_hyperparams(state)] == [0.1, 1.0]


# The new group, and which group's numbers it shares a program with.
ADDED = {
    "same program": {"params": "stem", "lr": 0.01},
    "another program": {"params": "stem", "lr": 0.01, "nesterov": True},
    "no buffer": {"params": "stem", "momentum": 0.0},
    "named": {"params": "stem", "name": "late"},
    "frozen again": {"params": "stem", "frozen": True},
    "all that is left": {"params": jp.REST, "lr": 0.01},
}


@pytest.mark.parametrize("case", ADDED)
def test_the_old_group_goes_on_to_the_bit(case):
    tx = jp.SGD([HEAD, FROZEN_REST], **OPTIONS)
    params, state = run(tx, tx.init(PARAMS), PARAMS)
    state = jp.set_hyperparams(state, lr=0.07)
    expected, _ = run(tx, state, params)
    new_tx, new_state = jp.add_param_group(tx, state, params, ADDED[case])
    got, new_state = run(new_tx, new_state, params)
    np.testing.assert_array_equal(got["head"], expected["head"])
    assert jp.get_hyperparams(new_state)[0] == jp.get_hyperparams(state)[0]
    assert len(jp.get_hyperparams(new_state)) == 3
    # The old pair still works.
    again, _ = run(tx, state, params)
    np.testing.assert_array_equal(again["head"], expected["head"])


def test_the_new_group_starts_as_a_new_optimizer_would():
    tx = jp.SGD([HEAD, FROZEN_REST], **{**OPTIONS, "momentum": 0.9})
    params, state = run(tx, tx.init(PARAMS), PARAMS)
    options = {**OPTIONS, "dampening": 0.5, "lr": 0.02}
    new_tx, state = jp.add_param_group(tx, state, params, {"params": "stem", **options})
    got, state = run(new_tx, state, params)
    alone = jp.SGD([{"params": "stem"}, FROZEN_REST], **options)
    expected, alone_state = run(alone, alone.init(params), params)
    np.testing.assert_array_equal(got["stem"], expected["stem"])
    np.testing.assert_array_equal(
        leaf_states(state)["stem"]["momentum_buffer"],
        leaf_states(alone_state)["stem"]["momentum_buffer"],
    )


def test_new_parameters_are_taken_and_the_others_stay_frozen():
    tx = jp.SGD([HEAD, FROZEN_REST], **OPTIONS)
    params, state = run(tx, tx.init(PARAMS), PARAMS)
    grown = {**params, "neck": jnp.ones(4), "tail": jnp.ones(2)}
    grads = {**GRADS, "neck": jnp.ones(4), "tail": jnp.ones(2)}
    tx, state = jp.add_param_group(tx, state, grown, {"params": "neck"})
    after, _ = jp.step(tx, grads, state, grown)
    assert not np.array_equal(after["neck"], grown["neck"])
    np.testing.assert_array_equal(after["tail"], grown["tail"])


# How the stem was frozen, and what joined then, one after the other.
JOINED = {
    "by name": (
        [HEAD, {"params": ["stem", "body"], "frozen": True}],
        [{"params": "stem", "lr": 0.01}],
    ),
    "rest": (
        [HEAD, {"params": ["stem", "body"], "frozen": True}],
        [{"params": jp.REST, "lr": 0.01}],
    ),
    "rest of the rest": ([HEAD, FROZEN_REST], [{"params": jp.REST, "lr": 0.01}]),
    "new": ([HEAD, FROZEN_REST], [{"params": "neck"}, {"params": "stem", "lr": 0.01}]),
    "new, of a glob": ([{"params": "*"}], [{"params": "neck", "lr": 0.01}]),
    "new, of nobody before": (
        [{"params": ["head", "stem", "body"]}],
        [{"params": "neck"}, {"params": "tail"}],
    ),
}


@pytest.mark.parametrize("case", JOINED)
def test_a_run_with_groups_that_joined_is_resumed(case):
    first, later = JOINED[case]
    tx = jp.SGD(first, **OPTIONS)
    params, state = run(tx, tx.init(PARAMS), PARAMS)
    grads = {**GRADS, "neck": jnp.ones(4), "tail": jnp.ones(2)}
    for group in later:
        if group["params"] in ("neck", "tail"):
            params = {**params, group["params"]: grads[group["params"]]}
        tx, state = jp.add_param_group(tx, state, params, group)
    own = {name: grads[name] for name in params}
    params, state = jp.step(tx, own, state, params)
    assert jax.tree.structure(tx.init(params)) == jax.tree.structure(state)
    again = jp.load_state_dict(tx, jp.state_dict(tx, state, params), params)
    expected, got = (jp.step(tx, own, x, params)[0] for x in (state, again))
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_what_neither_it_nor_another_selects_is_named():
    tx = jp.SGD([HEAD, {"params": ["stem", "body"], "frozen": True}], **OPTIONS)
    tx, _ = jp.add_param_group(tx, tx.init(PARAMS), PARAMS, {"params": "stem"})
    with pytest.raises(ValueError, match=r'"neck" \(and 1 more\) is in no parameter group; add'):
        tx.init({**PARAMS, "neck": jnp.ones(2), "tail": jnp.ones(2)})


@pytest.mark.parametrize("factory", FACTORIES)
def test_an_added_group_may_be_donated(factory):
    tx = FACTORIES[factory]([{"params": "head"}, FROZEN_REST])
    params, state = run(tx, tx.init(PARAMS), PARAMS)
    tx, state = jp.add_param_group(tx, state, params, {"params": "stem"})
    step = jax.jit(functools.partial(jp.step, tx), donate_argnums=(1, 2))
    after, _ = step(GRADS, state, jax.tree.map(jnp.array, params))
    assert not np.array_equal(after["stem"], params["stem"])


def test_schedules_of_an_added_group_go_on_with_the_optimizers_count():
    schedule = optax.linear_schedule(1.0, 0.0, 10)
    tx = jp.SGD([{"params": "head", "lr": schedule}, FROZEN_REST], nesterov=True, momentum=0.9)
    params, state = run(tx, tx.init(PARAMS), PARAMS, steps=4)
    added = {"params": "stem", "lr": schedule, "nesterov": False}
    tx, state = jp.add_param_group(tx, state, params, added)
    _, state = run(tx, state, params, steps=1)
    rates = [g.get("lr") for g in jp.get_hyperparams(state)]
    assert rates == [pytest.approx(0.6), None, pytest.approx(0.6)]


def test_within_a_chain():
    tx = jp.SGD([HEAD, FROZEN_REST], **OPTIONS)
    params = PARAMS
    chained = optax.chain(optax.clip(1.0), tx)
    params, state = run(chained, chained.init(params), params)
    tx, state = jp.add_param_group(tx, state, params, {"params": "stem"})
    after, _ = run(optax.chain(optax.clip(1.0), tx), state, params)
    assert not np.array_equal(after["stem"], params["stem"])


AROUND = {
    "accumulation": lambda tx: jp.accumulate_grads(tx, 2),
    "timm's Lookahead": lambda tx: contrib.lookahead(tx, k=2),
    "pytorch_optimizer's": lambda tx: contrib.lookahead(tx, k=2, package="pytorch_optimizer"),
}
# After a gradient of 1 without "b", and another one with it.
WITHIN = {
    "accumulation": {"a": -2.0, "b": -1.0},
    "timm's Lookahead": {"a": -2.0, "b": -1.0},
    "pytorch_optimizer's": {"a": -1.0, "b": -0.5},
}


@pytest.mark.parametrize("case", AROUND)
def test_within_what_holds_something_of_each_parameter(case):
    around, params = AROUND[case], {"a": jnp.zeros(2), "b": jnp.zeros(3)}
    tx, own = jp.SGD([{"params": "a"}], lr=1.0), {"a": params["a"]}
    own, state = jp.step(around(tx), {"a": jnp.ones(2)}, around(tx).init(own), own)
    params = {**params, **own}
    tx, state = jp.add_param_group(tx, state, params, {"params": "b"})
    params, state = jp.step(around(tx), {"a": jnp.ones(2), "b": jnp.ones(3)}, state, params)
    assert {name: float(x[0]) for name, x in params.items()} == WITHIN[case]
