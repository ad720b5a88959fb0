"""One trace serves a run in which numbers change."""

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxopt_port as jp

PARAMS = {"a": jnp.ones(3), "b": jnp.ones((2, 2)), "c": jnp.ones(())}
GROUPS = [{"params": "a"}, {"params": "b"}, {"params": jp.REST}]

# (optimizer, the numbers that change)
OPTIMIZERS = {
    "SGD": (
        lambda: jp.SGD(GROUPS, lr=0.1, momentum=0.9),
        ("lr", "momentum", "weight_decay"),
    ),
    "SGD in two programs": (
        lambda: jp.SGD([{"params": "a", "nesterov": True}, *GROUPS[1:]], lr=0.1, momentum=0.9),
        ("lr", "momentum", "weight_decay"),
    ),
    "optax.adamw": (
        lambda: jp.param_groups(optax.adamw, GROUPS, learning_rate=0.1),
        ("learning_rate", "b1", "weight_decay"),
    ),
    "chain": (
        lambda: optax.chain(optax.clip_by_global_norm(1.0), jp.SGD(GROUPS, lr=0.1, momentum=0.9)),
        ("lr", "momentum", "dampening"),
    ),
}


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_a_thousand_steps_and_fifty_changes_take_one_trace(case):
    make, names = OPTIMIZERS[case]
    tx, traces = make(), 0

    @jax.jit
    def train_step(grads, state, params):
        nonlocal traces
        traces += 1
        return jp.step(tx, grads, state, params)

    params, state = PARAMS, tx.init(PARAMS)
    for step in range(1000):
        if step % 20 == 10:
            change = step // 20
            group = [None, 0, 1, 2][change % 4]
            state = jp.set_hyperparams(
                state, group=group, **{names[change % 3]: 0.5 / (1 + change)}
            )
        params, state = train_step(PARAMS, state, params)
    assert traces == 1
    assert train_step._cache_size() == 1
