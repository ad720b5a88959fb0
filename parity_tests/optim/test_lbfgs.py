"""L-BFGS against torch's: parameters, evaluations and state, call by call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import torch.nn.functional as F
from flax import nnx

from jaxopt_port._compat import as_pure
from jaxopt_port.engine import leaf_paths
from jaxopt_port.interop import params_from_torch
from jaxopt_port.models import LeNet
from jaxopt_port.optim._lbfgs import lbfgs
from jaxopt_port.verify.cases import Net, load_digits
from parity_tests.oracles.lbfgs import (
    COUNTS,
    PROBLEMS,
    STATIC,
    assert_alike,
    compiled_call,
    defaults,
    distance,
    drift,
    port_run,
    torch_run,
    traced,
)
from parity_tests.oracles.lbfgs_cases import (
    CALLS,
    FLOAT32,
    FLOAT64,
    SCENARIOS,
    TABLE,
    VARIANTS,
    WOLFE,
)
from parity_tests.oracles.tolerances import bound

DRIFT = {"float64": 1e-10, "float32": 1e-5}
TRAJECTORIES = [
    pytest.param(dtype, problem, variant, calls, id=f"{dtype}, {problem}, {variant}")
    for dtype, table in (("float64", FLOAT64), ("float32", FLOAT32))
    for problem, variants in table.items()
    for variant, calls in variants.items()
]
STOPPED = [case for case in TRAJECTORIES if case.values[-1] < CALLS]


@pytest.mark.parametrize(("dtype", "problem", "variant", "calls"), TRAJECTORIES)
def test_trajectories_are_torchs(dtype, problem, variant, calls):
    per_call = [VARIANTS[variant]] * calls
    with jax.enable_x64(dtype == "float64"):
        ours = port_run(PROBLEMS[problem], per_call, dtype)
    theirs = torch_run(PROBLEMS[problem], per_call, dtype)
    assert_alike(ours, theirs, bound(f"lbfgs {dtype}"))


@pytest.mark.parametrize(("dtype", "problem", "variant", "calls"), STOPPED)
def test_where_a_case_stops_torch_drifts_from_itself(dtype, problem, variant, calls):
    by_call = drift(PROBLEMS[problem], [VARIANTS[variant]] * CALLS, dtype)
    assert max(by_call) > DRIFT[dtype]


def test_all_of_torchs_table_is_compared():
    for dtype in (FLOAT64, FLOAT32):
        compared = {variant for variants in dtype.values() for variant in variants}
        assert set(TABLE) - compared <= ({"tolerance_grad"} if dtype is FLOAT32 else set())


STATE = ("d", "t", "old_dirs", "old_stps", "ro", "H_diag", "prev_flat_grad", "prev_loss")


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_call_leaves_torchs_state(name):
    problem, per_call, tolerance, dtype = SCENARIOS[name]
    problem, limit = PROBLEMS[problem], bound(f"lbfgs {tolerance}")
    with jax.enable_x64(True):
        ours = port_run(problem, per_call, dtype)
    theirs = torch_run(problem, per_call, dtype)
    assert_alike(ours, theirs, limit)
    for i, (got, want) in enumerate(zip(ours, theirs, strict=True)):
        for entry in STATE if want.state.get("d") is not None else ():
            where = f"{entry} after call {i}"
            ours_, theirs_ = (np.array(x.state[entry], np.float64) for x in (got, want))
            assert distance(ours_, theirs_) <= limit, where


def test_scenarios_take_the_ways_out_that_they_name():
    """By torch's counts, so that a scenario which stops elsewhere does not pass unnoticed."""
    counts = {
        name: [o.counts for o in torch_run(PROBLEMS[s.problem], s.per_call, s.dtype)]
        for name, s in SCENARIOS.items()
    }
    for kind in ("fixed", "searched"):
        before, after = counts[f"{kind}: optimal at the start"][1:3]
        assert after == (before[0] + 1, before[1])
        before, after = counts[f"{kind}: too flat"][1:3]
        assert after == (before[0] + 1, before[1] + 1)
        for way_out in ("optimal on the way", "parameters hardly change at first"):
            assert counts[f"{kind}: {way_out}"][0][1] < 3
        before, after = counts[f"{kind}: no iteration"][1:3]
        assert after == (before[0] + 1, before[1])
        before, after = counts[f"{kind}: one evaluation"][1:3]
        assert after == (before[0] + 2, before[1] + 1)
    for name in ("fixed: NaN", "searched: NaN, far", "fixed: inf", "searched: inf"):
        runs = torch_run(PROBLEMS[SCENARIOS[name].problem], SCENARIOS[name].per_call, "float64")
        assert any(not np.isfinite([*o.params, o.state["prev_loss"]]).all() for o in runs), name


LENET = {
    "wolfe": ({**WOLFE, "max_iter": 2, "history_size": 3}, CALLS),
    "wolfe, default limits": ({**WOLFE, "history_size": 3}, 1),
    "fixed": ({"lr": 0.2, "max_iter": 4, "history_size": 3}, CALLS),
    "fixed, default limits": ({"history_size": 3}, 1),
}


@functools.cache
def lenet() -> tuple[Net, Any, Callable[[], torch.Tensor], Callable[[Any], jax.Array]]:
    """A torch LeNet, its parameters, and the cross entropy of sixteen digits on both sides."""
    data = load_digits()
    images, labels = data.train_images[:16].astype(np.float64), data.train_labels[:16]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net().double()
    graph, like = nnx.split(
        nnx.eval_shape(lambda: LeNet(param_dtype=jnp.float64, rngs=nnx.Rngs(0)))
    )

    def in_torch() -> torch.Tensor:
        return F.cross_entropy(net(torch.tensor(images)), torch.tensor(labels).long())

    def in_jax(params: Any) -> jax.Array:
        logits = nnx.merge(graph, params)(jnp.asarray(images))
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels)).mean()

    return net, as_pure(like), in_torch, in_jax


@pytest.mark.parametrize("name", LENET)
def test_lenet_trains_as_torchs_does(name, x64):
    options, calls = LENET[name]
    net, like, in_torch, in_jax = lenet()
    start = {k: v.clone() for k, v in net.state_dict().items()}
    optimizer = torch.optim.LBFGS(net.parameters(), **options)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = in_torch()
        loss.backward()
        return loss

    numbers = defaults(options)
    static = {key: numbers.pop(key) for key in STATIC}
    call, numbers = compiled_call(in_jax, **static), traced(numbers)
    params = params_from_torch(net, like)
    state = lbfgs(**static).init(params)
    before = closure().item()
    try:
        for _ in range(calls):
            optimizer.step(closure)
            params, state = call(params, state, numbers)
            held = optimizer.state[next(net.parameters())]
            assert (int(state.func_evals), int(state.n_iter)) == tuple(held[c] for c in COUNTS)
            for (path, want), (_, got) in zip(
                leaf_paths(params_from_torch(net, like)), leaf_paths(params), strict=True
            ):
                assert distance(np.asarray(got), np.asarray(want)) <= bound("lbfgs float64"), path
        assert closure().item() < before
    finally:
        net.load_state_dict(start)
