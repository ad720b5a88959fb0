"""Which of Optax's transformations keep the optimizer's own bits around it, in `jp.step`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_port as jp
from parity_tests.oracles.bits import as_integers, assert_same_bits

RNG = np.random.default_rng(0)
START = {
    "w": RNG.standard_normal((40, 25)).astype(np.float32),
    "b": (1e-3 * RNG.standard_normal(1000)).astype(np.float32),  # crosses zero within a step
}
GRADS = [
    {k: RNG.standard_normal(v.shape).astype(np.float32) for k, v in START.items()} for _ in range(4)
]

KEEPS = {
    "a scale of one": lambda tx: optax.chain(tx, optax.scale(1.0)),
    "a schedule of one": lambda tx: optax.chain(
        tx, optax.scale_by_schedule(lambda count: jnp.float32(1.0))
    ),
    "two scales": lambda tx: optax.chain(tx, optax.scale(2.0), optax.scale(0.5)),
    "identity": lambda tx: optax.chain(optax.identity(), tx, optax.identity()),
    "clipping before": lambda tx: optax.chain(optax.clip_by_global_norm(1e9), tx),
    "clipping after": lambda tx: optax.chain(tx, optax.clip(10.0)),
    "zero_nans": lambda tx: optax.chain(optax.zero_nans(), tx),
    "masked": lambda tx: optax.chain(tx, optax.masked(optax.scale(1.0), {"w": True, "b": False})),
    "keep_params_nonnegative, not": lambda tx: optax.with_extra_args_support(tx),
    "accumulate_grads": lambda tx: jp.accumulate_grads(tx, 1),
    "partition": lambda tx: optax.partition({"all": tx}, {"w": "all", "b": "all"}),
}
OPTIMIZERS = {
    "AdamW": lambda: jp.AdamW(lr=0.01, weight_decay=0.1),
    "sgd": lambda: jp.sgd(lr=0.01, momentum=0.9),
    "Rprop": lambda: jp.Rprop(lr=0.01),
}


def run(tx):
    params, state = START, tx.init(START)
    for grads in GRADS:
        params, state = jp.step(tx, grads, state, params)
    return {k: np.asarray(v) for k, v in params.items()}


@pytest.fixture(scope="module")
def bare():
    return {name: run(make()) for name, make in OPTIMIZERS.items()}


@pytest.mark.parametrize(
    ("wrapper", "optimizer"),
    [*((name, "AdamW") for name in KEEPS), ("a scale of one", "sgd"), ("a scale of one", "Rprop")],
)
def test_bits_are_kept(wrapper, optimizer, bare):
    assert_same_bits(run(KEEPS[wrapper](OPTIMIZERS[optimizer]())), bare[optimizer], wrapper)


def test_the_updates_alone_would_lose_them(bare):
    """Without `jp.step` the same wrapper loses bits: the table above has something to keep."""
    tx = KEEPS["a scale of one"](OPTIMIZERS["AdamW"]())

    @jax.jit
    def step(grads, state, params):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params, state = START, tx.init(START)
    for grads in GRADS:
        params, state = step(grads, state, params)
    differ = [as_integers(params[k]) != as_integers(bare["AdamW"][k]) for k in START]
    assert sum(d.sum() for d in differ) > 0


def test_a_wrapper_that_changes_the_update_counts():
    tx = optax.chain(jp.sgd(lr=0.5), optax.scale(0.5))
    params, _ = jp.step(tx, {"w": jnp.ones(3)}, tx.init({"w": jnp.ones(3)}), {"w": jnp.ones(3)})
    np.testing.assert_array_equal(params["w"], 0.75)
    tx = optax.chain(jp.sgd(lr=0.5), optax.clip(0.1))
    grads = {"w": jnp.array([1.0, 0.1, -1.0])}
    params, _ = jp.step(tx, grads, tx.init(grads), {"w": jnp.ones(3)})
    np.testing.assert_allclose(params["w"], [0.9, 0.95, 1.1], rtol=1e-6)


def test_a_step_that_is_rejected_leaves_the_parameters():
    tx = optax.apply_if_finite(jp.SGD(lr=0.5, momentum=0.9), 3)
    params = {"w": jnp.ones(2)}
    after, _ = jp.step(tx, {"w": jnp.array([1.0, jnp.inf])}, tx.init(params), params)
    np.testing.assert_array_equal(after["w"], 1.0)


LOSES = {
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 1),  # jp.accumulate_grads keeps them
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),  # jp.GradScaler.step does
}


@pytest.mark.parametrize("wrapper", LOSES)
def test_what_updates_within_a_branch_is_exact_to_an_update(wrapper, bare):
    """Optax's branch hides the new parameter; what is left is the rounding of Optax's own sum."""
    params = run(LOSES[wrapper](OPTIMIZERS["AdamW"]()))
    for key, expected in bare["AdamW"].items():
        distance = np.abs(params[key] - expected)
        largest = max(np.abs(START[key]).max(), np.float32(0.04))  # or four steps
        assert distance.max() <= 4 * np.spacing(largest)
        assert (distance > 0).any(), "it keeps them now: move it into the other table"
