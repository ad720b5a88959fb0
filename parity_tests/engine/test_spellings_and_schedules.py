"""Optax's literal spelling against CapWords; schedules as numbers in both."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_port as jp
from jaxopt_port import contrib
from parity_tests.oracles.bits import assert_same_bits

SHAPES = {"slow": (33,), "fast": (7, 9)}
LABELS = {name: name for name in SHAPES}
STEPS = 30

# Numbers that float32 holds exactly: inject_hyperparams rounds the others.
EXACT = {
    "plain": {"lr": 0.125},
    "momentum": {"lr": 0.125, "momentum": 0.875},
    "dampening": {"lr": 0.125, "momentum": 0.875, "dampening": 0.25},
    "nesterov": {"lr": 0.125, "momentum": 0.5, "nesterov": True, "weight_decay": 0.0625},
    "maximize": {"lr": 0.125, "weight_decay": 0.0625, "maximize": True},
}


def data(rng):
    return [
        {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
        for _ in range(STEPS + 1)
    ]


def jitted_step(tx):
    @jax.jit
    def step(grads, state, params):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


@pytest.mark.parametrize("case", EXACT)
def test_the_literal_spelling_gives_the_same_bits(case, rng):
    options = EXACT[case]
    literal = optax.multi_transform(
        {
            "slow": optax.inject_hyperparams(jp.sgd)(**options),
            "fast": optax.inject_hyperparams(jp.sgd)(**{**options, "lr": 0.5}),
        },
        LABELS,
    )
    grouped = jp.SGD([{"params": "slow"}, {"params": "fast", "lr": 0.5}], **options)
    params, *gradients = data(rng)
    apply_literal = jitted_step(literal)
    ours, theirs = params, params
    state, literal_state = grouped.init(params), literal.init(params)
    for step, grads in enumerate(gradients):
        if step == 10:
            state = jp.set_hyperparams(state, group=0, lr=0.25)
            injected = literal_state.inner_states["slow"].inner_state
            injected.hyperparams["lr"] = jnp.asarray(0.25, injected.hyperparams["lr"].dtype)
        ours, state = jp.step(grouped, grads, state, ours)
        theirs, literal_state = apply_literal(grads, literal_state, theirs)
    assert_same_bits(ours, jax.tree.map(np.asarray, theirs), "at the end")


@pytest.mark.parametrize("case", EXACT)
def test_lower_case_and_capwords_give_the_same_bits(case, rng):
    params, *gradients = data(rng)
    runs = []
    for tx in (jp.sgd(**EXACT[case]), jp.SGD(**EXACT[case])):
        p, state = params, tx.init(params)
        for grads in gradients:
            p, state = jp.step(tx, grads, state, p)
        runs.append(jax.tree.map(np.asarray, p))
    assert_same_bits(*runs, "at the end")


SCHEDULES = {
    "linear": optax.linear_schedule(0.1, 0.0, 20),
    "cosine": optax.warmup_cosine_decay_schedule(0.0, 0.1, 5, STEPS),
    "step": optax.piecewise_constant_schedule(0.1, {7: 0.1, 11: 0.1}),
    "the user's": lambda count: 0.1 / (1 + count),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_schedule_is_the_same_numbers_set_by_hand(schedule, rng):
    params, *gradients = data(rng)
    options = {"momentum": 0.9, "weight_decay": 0.01}
    lower, capwords = jp.sgd(lr=schedule, **options), jp.SGD(lr=schedule, **options)
    by_hand = jp.SGD(lr=0.1, **options)
    p1 = p2 = p3 = params
    s1, s2, s3 = lower.init(params), capwords.init(params), by_hand.init(params)
    for count, grads in enumerate(gradients):
        with jax.enable_x64(True):
            lr = float(schedule(jnp.asarray(count)))
        s3 = jp.set_hyperparams(s3, lr=lr)
        p1, s1 = jp.step(lower, grads, s1, p1)
        p2, s2 = jp.step(capwords, grads, s2, p2)
        p3, s3 = jp.step(by_hand, grads, s3, p3)
        # XLA's float64 cosine, say, may differ by a bit when it is compiled in another program.
        assert jp.get_hyperparams(s2)[0]["lr"] == pytest.approx(lr, rel=1e-15)
    expected = jax.tree.map(np.asarray, p3)
    assert_same_bits(p1, expected, "lower-case")
    assert_same_bits(p2, expected, "CapWords")


@pytest.mark.parametrize("kind", [jp.sgd, jp.SGD])
def test_what_a_schedule_may_return(kind):
    params = {"w": jnp.ones(2)}
    tx = kind(lr=lambda count: jnp.ones(1) / (count + 1))
    stepped, _ = jp.step(tx, params, tx.init(params), params)
    assert stepped["w"].tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"lr must be 1-element.*of shape \(2,\)"):
        kind(lr=lambda count: jnp.ones(2))
    tx = kind(lr=lambda count: 0.1 if count < 1 else 0.2)
    state = tx.init(params)
    with pytest.raises(TypeError, match=r"the schedule .*<lambda> \(line \d+ .*\(jnp.where for if"):
        jp.step(tx, params, state, params)


def test_each_group_may_have_its_own_schedule():
    tx = jp.SGD(
        [
            {"params": "slow", "lr": optax.linear_schedule(1.0, 0.0, 4)},
            {"params": "fast", "momentum": lambda count: 0.5 + 0.1 * count},
        ],
        lr=0.25,
        momentum=0.5,
    )
    params = {name: jnp.ones(shape) for name, shape in SHAPES.items()}
    state = tx.init(params)
    for _ in range(3):
        params, state = jp.step(tx, params, state, params)
    assert [(g["lr"], g["momentum"]) for g in jp.get_hyperparams(state)] == [
        (0.5, 0.5),
        (0.25, pytest.approx(0.7)),
    ]
    with pytest.raises(ValueError, match="momentum is set by an Optax schedule"):
        jp.set_hyperparams(state, group=1, momentum=0.1)
    assert jp.get_hyperparams(jp.set_hyperparams(state, group=1, lr=0.5))[1]["lr"] == 0.5


INJECTED = optax.inject_hyperparams(jp.sgd)
BUFFERS = {"a default": {}, "zero": {"momentum": 0.0}, "momentum": {"momentum": 0.9}}


@pytest.mark.parametrize("case", BUFFERS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_injection_holds_what_the_numbers_need(case, dtype):
    """The state is that of the bare spelling, eagerly and traced."""
    params = {"w": jnp.ones(3, dtype)}
    tx, bare = INJECTED(lr=0.1, **BUFFERS[case]), jp.sgd(lr=0.1, **BUFFERS[case])
    state = tx.init(params)
    assert state.inner_state.leaves.keys() == bare.init(params).leaves.keys()
    for traced in (jax.eval_shape, lambda f, *args: jax.jit(f)(*args)):
        assert jax.tree.structure(traced(tx.init, params)) == jax.tree.structure(state)


@pytest.mark.parametrize("factory", [jp.sgd, contrib.madgrad])
def test_an_injected_momentum_that_has_no_buffer_is_never_ignored(factory):
    params = {"w": jnp.ones(3)}
    tx = optax.inject_hyperparams(factory)(lr=0.1, momentum=0.0)
    state = tx.init(params)
    bare = factory(lr=0.1, momentum=0.0)
    expected, _ = jax.jit(bare.update)(params, bare.init(params), params)
    state.hyperparams["momentum"] = jnp.asarray(0.9)
    with pytest.raises(ValueError, match=r"made without what momentum=0\.89\d* needs"):
        tx.update(params, state, params)
    updates, _ = jax.jit(tx.update)(params, state, params)
    assert jnp.isnan(updates["w"]).all()
    state.hyperparams["momentum"] = jnp.asarray(0.0)
    updates, _ = jax.jit(tx.update)(params, state, params)
    assert_same_bits(updates, expected, "at the momentum that it was built with")
