"""What code keeps in float32 by habit is lifted to float64, and what was meant is restored."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_port.verify.comparison._lifted import lifted
from jaxopt_port.verify.comparison._meant import MODEL, OPTIMIZER, Seen, meant

# A number, and whether it is found again.
NUMBERS = [
    (0.9, True), (1e-3, True), (0.999, True), (1 / 3, True), (1 / math.sqrt(8), True),
    (math.pi, True), (math.sqrt(2 / math.pi), True), (1 - 1e-6, True), (-0.1, True), (12.0, True),
    (math.log(10), True), (0.12345678901, False), (0.0, True), (math.inf, True),
    (3 / 4096, True), (float(np.finfo(np.float32).max), True),
]  # fmt: skip


@pytest.mark.parametrize(("number", "clear"), NUMBERS)
def test_a_rounded_number_is_found_again(number, clear):
    found, known = meant(float(np.float32(number)))
    assert known == clear
    if clear:
        assert found == pytest.approx(number, rel=1e-15) or found == number


def test_a_number_that_float32_has_rounded_is_seen_in_any_dtype():
    """An optimizer's is restored; a model's may be one of the data, that both sides share."""
    rounded = np.float32(0.1)
    with jax.enable_x64(True):
        for dtypes, expected in ((OPTIMIZER, 0.1), (MODEL, float(rounded))):
            seen = Seen()
            made = lifted(lambda x: x * rounded, dtypes, seen)(jnp.ones((), jnp.float64))
            assert float(made) == expected
            assert seen.rounded
            assert seen.inexact == (dtypes == MODEL)
        seen = Seen()
        lifted(lambda x: x * 0.1 + 0.375, MODEL, seen)(jnp.ones((), jnp.float64))
        assert not seen.rounded


SCHEDULES = {
    "exponential": (optax.exponential_decay(0.1, 1, 0.9), lambda t: 0.1 * 0.9**t),
    "linear": (optax.linear_schedule(0.1, 0.01, 12), lambda t: 0.1 - 0.09 * t / 12),
    "cosine": (
        optax.warmup_cosine_decay_schedule(0.0, 0.3, 2, 20),
        lambda t: 0.15 * (1 + math.cos(math.pi * (t - 2) / 18)),
    ),
    "table": (
        lambda count: jnp.array([0.3, 0.1, 0.7, 0.2, 0.6], jnp.float32)[count % 5],
        lambda t: (0.3, 0.1, 0.7, 0.2, 0.6)[t % 5],
    ),
    "in a loop": (
        lambda count: jax.lax.fori_loop(
            0, count, lambda i, r: r * jnp.float32(0.9), jnp.float32(0.1)
        ),
        lambda t: 0.1 * 0.9**t,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_lifted(name):
    schedule, exact = SCHEDULES[name]
    with jax.enable_x64(True):
        seen = Seen()
        rate = lifted(lambda count: jnp.asarray(schedule(count), jnp.float64), OPTIMIZER, seen)
        for t in (3, 7):
            assert float(rate(jnp.int32(t))) == pytest.approx(exact(t), rel=1e-14)
        assert seen.narrow == {"float32"}
        assert not seen.inexact


def casts(x):
    return jnp.tanh(x.astype(jnp.bfloat16)).astype(x.dtype)


def carries(x):
    return jax.lax.scan(lambda h, row: (jnp.tanh(h + row), None), jnp.zeros(3, jnp.float32), x)[0]


def gathers(x):
    return jax.grad(lambda t: (t.astype(jnp.float32)[jnp.array([0, 1, 1])] ** 2).sum())(x)


def branches(x):
    narrow = x.astype(jnp.float32)
    return jax.lax.cond(x.sum() > 0, lambda: jnp.sin(narrow), lambda: narrow)


FUNCTIONS = {
    "a cast": (casts, np.tanh), "a carry": (carries, None),
    "a gather's gradient": (gathers, lambda x: np.array([1, 2, 0])[:, None] * 2 * x),
    "branches": (branches, np.sin),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_lifted(name):
    function, exact = FUNCTIONS[name]
    with jax.enable_x64(True):
        x = jnp.linspace(0.1, 1, 9).reshape(3, 3)
        found = np.asarray(lifted(function, MODEL, Seen(), own="float32")(x))
        if exact is None:
            wanted = np.zeros(3)
            for row in np.asarray(x):
                wanted = np.tanh(wanted + row)
        else:
            wanted = exact(np.asarray(x))
    np.testing.assert_allclose(found, wanted, rtol=1e-14)


def test_random_bits_are_seen_and_turned_over():
    def drops(x):
        return x * jax.random.bernoulli(jax.random.key(3), 0.5, x.shape)

    with jax.enable_x64(True):
        x, seen = jnp.arange(1.0, 65), Seen()
        plain = lifted(drops, MODEL, seen)(x)
        assert seen.random
        assert not np.array_equal(plain, lifted(drops, MODEL, Seen(), disturbed=True)(x))
