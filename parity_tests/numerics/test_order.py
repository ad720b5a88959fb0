"""Leaves one after the other: the scratch of one at a time, and no bit changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_port as jp
from jaxopt_port import contrib
from jaxopt_port.numerics import later
from parity_tests.oracles.bits import assert_same_bits

SIDE = 256  # the smallest square that is worth an order


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("than", [np.float32(-np.nan), np.full((2, 3), -0.0), np.zeros(0)])
def test_all_bits_are_kept(dtype, than, rng):
    with jax.enable_x64(True):
        x = jnp.asarray(rng.integers(0, 256, 4096, np.uint8)).view(dtype)
        made = jax.jit(lambda x, than: later([x, x[:3]], than))(x, jnp.asarray(than))
        for mine, given in zip(made, (x, x[:3]), strict=True):
            np.testing.assert_array_equal(mine.view(jnp.uint8), given.view(jnp.uint8))


MOVING = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}


@pytest.mark.parametrize(
    "tx",
    [
        jp.SGD(**MOVING), jp.SGD(**MOVING, nesterov=True), jp.RMSprop(**MOVING, centered=True),
        jp.AdamW(), jp.Adam(amsgrad=True), jp.NAdam(), jp.RAdam(), jp.Adamax(), jp.ASGD(),
        jp.Adagrad(),
    ],
    ids=lambda tx: type(tx).__name__,
)  # fmt: skip
def test_an_elementwise_step_writes_in_place(tx, monkeypatch):
    """In plain XLA too: what it keeps beside the arguments is a page fault for each page."""
    monkeypatch.setenv("JAXOPT_PORT_KERNELS", "off")
    params = {str(i): jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32) for i in range(2)}
    state = jax.eval_shape(tx.init, params)
    step = jax.jit(lambda p, s, g: jp.step(tx, g, s, p), donate_argnums=(0, 1))
    memory = step.lower(params, state, params).compile().memory_analysis()
    assert memory.temp_size_in_bytes < SIDE**2


@pytest.mark.parametrize(
    ("factory", "most", "side"),
    [
        (jp.Muon, 4, SIDE),
        (jp.Adafactor, 3, SIDE),
        (contrib.AdamW8bit, 7.1, 2 * SIDE),  # XLA holds what it reads from codes where it is large
        (contrib.AdafactorBigVision, 3, SIDE),
    ],
    ids=lambda x: getattr(x, "__name__", None),
)
def test_the_scratch_is_that_of_one_leaf(factory, most, side, rng):
    tx = factory()
    params = {str(i): jnp.asarray(rng.standard_normal((side, side)), jnp.float32) for i in range(4)}
    grads = jax.tree.map(lambda x: x[::-1], params)
    state = tx.init(params)
    step = jax.jit(lambda p, s, g: jp.step(tx, g, s, p), donate_argnums=(0, 1))
    compiled = step.lower(params, state, grads).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= most * 4 * side**2
    alone = {}
    for name in params:
        only = {name: params[name]}
        alone |= jp.step(tx, {name: grads[name]}, tx.init(only), only)[0]
    after, _ = compiled(params, state, grads)
    assert_same_bits(*(jax.tree.map(np.asarray, x) for x in (after, alone)), "in one step")
