"""Which of Optax's transformations keep the optimizer's own bits around it, in `jp.step`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_port as jp
from benchmarks.parity import _loops as loops
from parity_tests.oracles.bits import as_integers, assert_same_bits
from parity_tests.oracles.optimizer import TorchOracle

RNG = np.random.default_rng(0)
START = {
    "w": RNG.standard_normal((40, 25)).astype(np.float32),
    # Crosses zero within a step; and of a size at which LLVM is left to contract.
    "b": (1e-3 * RNG.standard_normal(10_000)).astype(np.float32),
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
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 1),
    "MultiSteps around clipping": lambda tx: optax.MultiSteps(
        optax.chain(optax.clip_by_global_norm(1e9), tx, optax.scale(1.0)), lambda count: 1
    ),
    "MultiSteps that may skip": lambda tx: optax.MultiSteps(
        tx, 1, should_skip_update_fn=optax.skip_not_finite
    ),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "apply_if_finite of MultiSteps, scaled": lambda tx: optax.chain(
        optax.apply_if_finite(optax.MultiSteps(tx, 1).gradient_transformation(), 3),
        optax.scale(1.0),
    ),
    "conditionally_transform": lambda tx: optax.conditionally_transform(tx, lambda count: True),
    "a branch of one's own": lambda tx: optax.GradientTransformation(
        tx.init,
        lambda grads, state, params: jax.lax.cond(
            jnp.isfinite(optax.tree.norm(grads)),
            lambda: tx.update(grads, state, params),
            lambda: (jax.tree.map(jnp.zeros_like, grads), state),
        ),
    ),
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


# Optax's wrappers in torch's loop: which gradients it steps with, and where.
INF = {"w": np.full((40, 25), np.inf, np.float32), "b": np.full(10_000, np.nan, np.float32)}


@functools.cache
def handed_on(name):
    """What Optax hands to the optimizer; None where it does not call it. A mean is its own."""
    wrap, grads, made = WINDOWS[name], given_to(name), []
    tx = wrap(optax.identity())
    update = jax.jit(tx.update)
    state = tx.init(START)
    for each in grads:
        given, after = update(each, state, START)
        stepped = int(after.gradient_step) > int(state.gradient_step)
        made.append({k: np.asarray(v) for k, v in given.items()} if stepped else None)
        state = after
    return made


def given_to(name):
    return [SIX[0], INF, *SIX[1:]] if "skips" in name else SIX


SIX = [GRADS[i % 4] for i in (0, 1, 2, 3, 1, 0)]
WINDOWS = {
    "MultiSteps 1": lambda tx: optax.MultiSteps(tx, 1),
    "MultiSteps 2": lambda tx: optax.MultiSteps(tx, 2),
    "MultiSteps 3": lambda tx: optax.MultiSteps(tx, 3),
    "MultiSteps 4, of sums": lambda tx: optax.MultiSteps(tx, 4, use_grad_mean=False),
    "MultiSteps, longer and longer": lambda tx: optax.MultiSteps(tx, lambda step: step + 1),
    "MultiSteps that skips": lambda tx: optax.MultiSteps(
        tx, 2, should_skip_update_fn=optax.skip_not_finite
    ),
}
# How gradients are wrapped, which are given, and what of them torch's optimizer steps with.
BESIDE_TORCH = {
    name: (wrap, given_to(name), lambda name=name: handed_on(name))
    for name, wrap in WINDOWS.items()
} | {
    "apply_if_finite": (
        lambda tx: optax.apply_if_finite(tx, 3), [SIX[0], INF, SIX[1]],
        lambda: [SIX[0], None, SIX[1]],
    ),
    "apply_if_finite, scaled": (
        lambda tx: optax.chain(optax.apply_if_finite(tx, 3), optax.scale(1.0)),
        [INF, SIX[0], SIX[1]],
        lambda: [None, SIX[0], SIX[1]],
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "mode"),
    [(name, mode) for name in BESIDE_TORCH for mode in ("eager", "jit", "scan")],
)
def test_a_wrapper_beside_torchs_loop(name, mode):
    wrap, given, taken = BESIDE_TORCH[name]
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    tx = wrap(jp.SGD(**options))
    oracle, expected = TorchOracle(torch.optim.SGD, START, [list(START)], options), []
    for grads in taken():
        if grads is not None:
            oracle.step(grads)
        expected.append(oracle.params())

    def step(carried, grads):
        params, state = jp.step(tx, grads, *carried)
        return (state, params), params

    carried = (tx.init(START), START)
    if mode == "scan":
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *given)
        _, made = jax.jit(lambda c, g: jax.lax.scan(step, c, g))(carried, stacked)
        made = [{k: v[i] for k, v in made.items()} for i in range(len(given))]
    else:
        step, made = jax.jit(step) if mode == "jit" else step, []
        for grads in given:
            carried, params = step(carried, grads)
            made.append(params)
    for i, (ours, theirs) in enumerate(zip(made, expected, strict=True)):
        assert_same_bits(ours, theirs, f"after gradient {i}")


@pytest.mark.parametrize("wrapper", ["`chain(·, scale(1.0))`", "`jp.accumulate_grads(·, 1)`"])
def test_large_arrays_lose_nothing(wrapper, monkeypatch):
    """LLVM contracts no product that is used twice, as an update and in the new parameter."""
    monkeypatch.setenv("JAXOPT_PORT_KERNELS", "off")
    assert loops.measured("`jp.step`", wrapper, steps=2) == (0, 0)


def test_constant_numbers_lose_nothing(bare, monkeypatch):
    """Where the rate is a constant, a product in a sum and an update would be one for XLA."""
    monkeypatch.setenv("JAXOPT_PORT_KERNELS", "off")
    assert_same_bits(run(KEEPS["a scale of one"](OPTIMIZERS["sgd"]())), bare["sgd"], "constant")
