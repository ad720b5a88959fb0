"""Groups over Optax's own factories and the user's."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

import jaxopt_port as jp
from jaxopt_port.numerics import relative
from parity_tests.oracles.bits import most_ulps
from parity_tests.oracles.tolerances import bound

SHAPES = {"a": (130, 140), "b": (7,), "c": ()}
GROUPS = [{"params": "a"}, {"params": "b"}, {"params": jp.REST}]


def with_keywords(learning_rate, **options):
    return optax.chain(optax.add_decayed_weights(options["decay"]), optax.sgd(learning_rate))


def python_branches(learning_rate, order=2, power=1.0):
    """Compares an int in Python, as Optax's factories do."""
    return optax.chain(optax.scale(power), *[optax.sgd(learning_rate)] * (1 if order > 1 else 2))


FACTORIES = {
    "adamw": (optax.adamw, {"learning_rate": 0.01, "weight_decay": 0.1}),
    "adamw with a mask": (
        optax.adamw,
        {"learning_rate": 0.01, "mask": lambda tree: jax.tree.map(lambda x: x.ndim > 0, tree)},
    ),
    "adamw with a schedule": (
        optax.adamw,
        {"learning_rate": optax.linear_schedule(0.01, 0.001, 10)},
    ),
    "sgd": (optax.sgd, {"learning_rate": 0.01}),
    "sgd with momentum": (
        optax.sgd,
        {"learning_rate": 0.01, "momentum": 0.9, "nesterov": True},
    ),
    "sgd with a dtype": (
        optax.sgd,
        {"learning_rate": 0.01, "momentum": 0.9, "accumulator_dtype": jnp.float32},
    ),
    "adafactor": (
        optax.adafactor,
        {"learning_rate": 0.01, "min_dim_size_to_factor": 128, "momentum": 0.9},
    ),
    "adafactor with a schedule": (
        optax.adafactor,
        {"learning_rate": optax.linear_schedule(0.01, 0.001, 10)},
    ),
    "lion": (optax.lion, {"learning_rate": 0.01}),
    "rmsprop": (optax.rmsprop, {"learning_rate": 0.01, "momentum": 0.5}),
    "the user's with **kwargs": (with_keywords, {"learning_rate": 0.01, "decay": 0.1}),
    "the user's with an int": (python_branches, {"learning_rate": 0.01, "order": 3}),
    "a partial": (functools.partial(optax.adam, b1=0.8), {"learning_rate": 0.01}),
}


def data(rng, dtype=np.float32, steps=5):
    return [
        {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}
        for _ in range(steps + 1)
    ]


def updates_of(tx, params, gradients):
    """The updates of a run in which the parameters stay."""
    state, update, made = tx.init(params), jax.jit(tx.update), []
    for grads in gradients:
        updates, state = update(grads, state, params)
        made.append(jax.tree.map(np.asarray, updates))
    return made


@pytest.mark.parametrize("case", FACTORIES)
def test_equal_groups_compute_what_the_factory_does(case, rng):
    factory, options = FACTORIES[case]
    # All in one group, for adafactor clips over the leaves of an optimizer.
    tx = jp.param_groups(factory, [{"params": ["a", "b", "c"]}, {"params": jp.REST}], **options)
    params, *gradients = data(rng)
    ours = updates_of(tx, params, gradients)
    bare = updates_of(factory(**options), params, gradients)
    for got, expected in zip(ours, bare, strict=True):
        for name in SHAPES:
            assert relative(got[name], expected[name]) <= bound("foreign against bare")


@pytest.mark.parametrize("case", [c for c in FACTORIES if "mask" not in c])
def test_each_group_is_an_optimizer_of_its_own(case, rng):
    factory, options = FACTORIES[case]
    params, *gradients = data(rng, steps=2)
    ours = updates_of(jp.param_groups(factory, GROUPS, **options), params, gradients)
    for name in SHAPES:
        own = [{name: grads[name]} for grads in gradients]
        bare = updates_of(factory(**options), {name: params[name]}, own)
        for got, expected in zip(ours, bare, strict=True):
            assert relative(got[name], expected[name]) <= bound("foreign against bare")


# inject_hyperparams takes a mask or a dtype for a schedule, and loses what is behind **kwargs;
# it calculates schedules in float32.
INJECTABLE = {
    "adamw": (),
    "sgd": (),
    "sgd with momentum": (),
    "adafactor": ("min_dim_size_to_factor", "decay_offset", "dtype_momentum"),
    "lion": (),
    "rmsprop": (),
}


@pytest.mark.parametrize("case", INJECTABLE)
def test_float32_numbers_are_optaxs_own_injection(case, rng):
    factory, options = FACTORIES[case]
    injected = optax.inject_hyperparams(factory, static_args=INJECTABLE[case])(**options)
    params, *gradients = data(rng)
    ours = updates_of(jp.param_groups(factory, **options), params, gradients)
    theirs = updates_of(injected, params, gradients)
    for got, expected in zip(ours, theirs, strict=True):
        assert most_ulps(got, expected) <= bound("foreign against injected")


def test_the_groups_read_back_what_they_were_given():
    tx = jp.param_groups(optax.adamw, GROUPS, learning_rate=1 / 3, b2=0.9999)
    for group in jp.get_hyperparams(tx.init(data(np.random.default_rng(0))[0])):
        assert (group["learning_rate"], group["b2"], group["mask"]) == (1 / 3, 0.9999, None)


@pytest.mark.parametrize("case", [c for c in FACTORIES if "schedule" not in c])
def test_a_number_changes_between_steps(case, rng):
    factory, options = FACTORIES[case]
    tx = jp.param_groups(factory, GROUPS, **options)
    params, grads = data(rng, steps=1)
    state = jp.set_hyperparams(tx.init(params), group=1, learning_rate=0.0)
    update = jax.jit(tx.update)
    updates, state = update(grads, state, params)
    assert np.all(np.asarray(updates["b"]) == 0.0)
    assert np.any(np.asarray(updates["a"]) != 0.0)
    assert [g["learning_rate"] for g in jp.get_hyperparams(state)] == [0.01, 0.0, 0.01]


@pytest.mark.parametrize("case", ["adamw with a schedule", "adafactor with a schedule"])
def test_a_schedule_is_a_number_that_is_not_set_by_hand(case, rng):
    factory, options = FACTORIES[case]
    tx = jp.param_groups(factory, GROUPS, **options)
    params, grads = data(rng, steps=1)
    state = tx.init(params)
    for _ in range(3):
        _, state = tx.update(grads, state, params)
    assert jp.get_hyperparams(state)[0]["learning_rate"] == pytest.approx(0.01 - 2 * 0.0009)
    with pytest.raises(ValueError, match="learning_rate is set by an Optax schedule"):
        jp.set_hyperparams(state, learning_rate=0.1)


def test_bfloat16_adamw_keeps_its_numbers(rng):
    """Under optax.inject_hyperparams, 0.999 would become 1 and the update NaN."""
    tx = jp.param_groups(optax.adamw, GROUPS, learning_rate=0.01)
    params, *gradients = data(rng, ml_dtypes.bfloat16)
    params, *gradients = jax.tree.map(jnp.asarray, [params, *gradients])
    ours = updates_of(tx, params, gradients)
    bare = updates_of(optax.adamw(0.01), params, gradients)
    for got, expected in zip(ours, bare, strict=True):
        for name in SHAPES:
            assert got[name].dtype == expected[name].dtype == jnp.bfloat16
            wide = [np.asarray(x[name], np.float32) for x in (got, expected)]
            np.testing.assert_allclose(*wide, rtol=2**-6)
    state = tx.init(params)
    read = jp.get_hyperparams(state)[0]
    assert (read["b1"], read["b2"], read["eps"]) == (0.9, 0.999, 1e-8)


def test_static_arguments_that_only_the_user_knows():
    def factory(learning_rate, rank):
        return optax.sgd(learning_rate * [1.0, 2.0, 3.0][rank])

    params = {"w": jnp.zeros(1)}
    tx = jp.param_groups(factory, learning_rate=0.5, rank=2, static_args="rank")
    after, state = jp.step(tx, {"w": jnp.ones(1)}, tx.init(params), params)
    assert after["w"].tolist() == [-1.5]
    assert jp.get_hyperparams(state) == [{"learning_rate": 0.5, "rank": 2}]
    with pytest.raises(ValueError, match="rank is static"):
        jp.set_hyperparams(state, rank=1)


def test_static_arguments_need_not_be_hashable():
    def factory(learning_rate, scales=None):
        return optax.sgd(learning_rate * sum(scales))

    params = {"w": jnp.zeros(1)}
    tx = jp.param_groups(factory, learning_rate=0.5, scales=[1.0, 2.0])
    after, _ = jp.step(tx, {"w": jnp.ones(1)}, tx.init(params), params)
    assert after["w"].tolist() == [-1.5]


def test_frozen_and_static_groups_of_a_foreign_factory():
    tx = jp.param_groups(
        optax.sgd,
        [{"params": "a", "momentum": 0.9}, {"params": "b"}, {"params": jp.REST, "frozen": True}],
        learning_rate=1.0,
    )
    params = {name: jnp.zeros(2) for name in "abc"}
    grads = {name: jnp.ones(2) for name in "abc"}
    state = tx.init(params)
    for _ in range(2):
        params, state = jp.step(tx, grads, state, params)
    assert [params[name][0].item() for name in "abc"] == [pytest.approx(-2.9), -2.0, 0.0]
