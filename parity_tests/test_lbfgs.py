"""L-BFGS against torch's: parameters, evaluations and state, call by call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import torch.nn.functional as F
from flax import nnx
from lbfgs_oracle import (
    COUNTS,
    PROBLEMS,
    assert_alike,
    compiled_call,
    defaults,
    distance,
    drift,
    port_run,
    torch_run,
)
from tolerances import Tolerance
from torch_oracle import configurations

from jaxopt_port.engine import leaf_paths
from jaxopt_port.interop import params_from_torch
from jaxopt_port.models import LeNet
from jaxopt_port.quasi_newton import lbfgs
from jaxopt_port.verify._digits import load_digits
from jaxopt_port.verify._torch_lenet import Net

TOLERANCES = {
    "float64": Tolerance(
        1e-9,
        "relative to the largest parameter",
        "sums in another order, amplified by the iterations; the cases stop where torch, started "
        "one unit in the last place away, drifts 1e-10 from itself",
    ),
    "float32": Tolerance(
        1e-4, "relative to the largest parameter", "the same, up to a drift of torch's of 1e-5"
    ),
    "state": Tolerance(1e-9, "relative to the largest entry", "float64, over a few calls"),
    "mixed": Tolerance(1e-6, "relative", "float32 leaves beside a float64 one are rounded alike"),
}
DRIFT = {"float64": 1e-10, "float32": 1e-5}
CALLS = 20
WOLFE = {"line_search_fn": "strong_wolfe"}


TABLE = dict(configurations(torch.optim.LBFGS))
VARIANTS: dict[str, dict[str, Any]] = {
    **TABLE,
    "wolfe, wraps": {**WOLFE, "history_size": 3, "max_iter": 4},
    "wolfe, max_iter 1": {**WOLFE, "max_iter": 1},
    "wolfe, max_eval 3": {**WOLFE, "max_eval": 3},
    "wolfe, max_eval 1": {**WOLFE, "max_iter": 2, "max_eval": 1},
    "wolfe, tolerance_change": {**WOLFE, "tolerance_change": 1e-3},
    "wolfe, tolerance_grad": {**WOLFE, "tolerance_grad": 0.1},
    "wolfe, lr 10": {**WOLFE, "lr": 10.0},
    "wolfe, lr 0.01": {**WOLFE, "lr": 0.01},
    "fixed, wraps": {"history_size": 3, "lr": 0.5},
    "fixed, max_iter 1": {"max_iter": 1, "lr": 0.5},
    "fixed, max_eval 3": {"max_eval": 3},
    "fixed, tolerance_change": {"tolerance_change": 1e-3, "lr": 0.3},
}

# By problem and variant, the calls compared: all CALLS, or as many as torch itself can be held to
# (test_where_a_case_stops_torch_drifts_from_itself shows it). Rosenbrock's valley amplifies a unit
# in the last place by up to 1e3 in a call, where no search holds the steps back.
FLOAT64 = {
    "rosenbrock": {
        "default": 1,
        "Tensor lr": CALLS,
        "tolerance_grad": 1,
        "strong_wolfe": CALLS,
        "wolfe, wraps": 5,
        "wolfe, max_eval 3": 14,
        "wolfe, tolerance_change": CALLS,
        "fixed, max_eval 3": 11,
    },
    "rosenbrock, right": {
        "default": CALLS,
        "non-default lr": CALLS,
        "tolerance_grad": CALLS,
        "strong_wolfe": CALLS,
        "wolfe, wraps": CALLS,
        "wolfe, max_iter 1": CALLS,
        "wolfe, max_eval 3": CALLS,
        "wolfe, max_eval 1": CALLS,
        "wolfe, tolerance_change": CALLS,
        "wolfe, tolerance_grad": CALLS,
        "wolfe, lr 10": CALLS,
        "wolfe, lr 0.01": CALLS,
        "fixed, wraps": 2,
        "fixed, max_iter 1": CALLS,
        "fixed, max_eval 3": CALLS,
        "fixed, tolerance_change": CALLS,
    },
    "rosenbrock, far": {
        "default": CALLS,
        "strong_wolfe": CALLS,
        "wolfe, wraps": CALLS,
        "wolfe, lr 10": CALLS,
        "fixed, wraps": CALLS,
    },
    "rosenbrock, zero": {
        "strong_wolfe": CALLS,
        "wolfe, wraps": CALLS,
        "wolfe, lr 0.01": CALLS,
    },
    "quadratic": {
        "default": CALLS,
        "strong_wolfe": CALLS,
        "wolfe, max_iter 1": CALLS,
        "wolfe, max_eval 3": CALLS,
        "fixed, tolerance_change": CALLS,
    },
}
FLOAT32 = {
    "rosenbrock": {
        "Tensor lr": CALLS,
        "wolfe, max_iter 1": CALLS,
        "fixed, max_iter 1": CALLS,
    },
    "rosenbrock, right": {"non-default lr": CALLS},
    "rosenbrock, zero": {"strong_wolfe": CALLS, "wolfe, tolerance_grad": CALLS},
    "quadratic": {
        "default": 1,
        "wolfe, tolerance_change": CALLS,
        "wolfe, lr 10": CALLS,
        "wolfe, max_iter 1": CALLS,
    },
}
TRAJECTORIES = [
    pytest.param(dtype, problem, variant, calls, id=f"{dtype}, {problem}, {variant}")
    for dtype, table in (("float64", FLOAT64), ("float32", FLOAT32))
    for problem, variants in table.items()
    for variant, calls in variants.items()
]
STOPPED = [case for case in TRAJECTORIES if case.values[-1] < CALLS]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "problem", "variant", "calls"), TRAJECTORIES)
def test_trajectories_are_torchs(dtype, problem, variant, calls):
    per_call = [VARIANTS[variant]] * calls
    with jax.enable_x64(dtype == "float64"):
        ours = port_run(PROBLEMS[problem], per_call, dtype)
    theirs = torch_run(PROBLEMS[problem], per_call, dtype)
    assert_alike(ours, theirs, TOLERANCES[dtype].bound)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "problem", "variant", "calls"), STOPPED)
def test_where_a_case_stops_torch_drifts_from_itself(dtype, problem, variant, calls):
    by_call = drift(PROBLEMS[problem], [VARIANTS[variant]] * CALLS, dtype)
    assert max(by_call) > DRIFT[dtype]


def test_all_of_torchs_table_is_compared():
    for dtype in (FLOAT64, FLOAT32):
        compared = {variant for variants in dtype.values() for variant in variants}
        assert set(TABLE) - compared <= ({"tolerance_grad"} if dtype is FLOAT32 else set())


class Scenario(NamedTuple):
    """A few calls with options of their own, compared with all of the state."""

    problem: str
    per_call: Sequence[Mapping[str, Any]]
    tolerance: str = "state"
    dtype: str | None = "float64"


def _calls(options: Mapping[str, Any], *changes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{**options, **change} for change in changes]


SMALL = {"history_size": 3, "max_iter": 3}
SEARCHED = {**WOLFE, **SMALL, "max_eval": 8}
SHORT_STEPS = {**SMALL, "max_eval": 6, "lr": 0.1}

# What two calls of three iterations leave, and then what each way out leaves of that.
WAYS_OUT = {
    "nothing new": {},
    "optimal at the start": {"tolerance_grad": 1e9},
    "too flat": {"tolerance_change": 1e9},
    "parameters hardly change": {"lr": 1e-4, "tolerance_change": 1e-3},
    "no iteration": {"max_iter": 0},
    "one iteration": {"max_iter": 1},
    "one evaluation": {"max_eval": 1},
    "more evaluations": {"max_iter": 7, "max_eval": 30},
    "another lr": {"lr": 0.02},
}
SCENARIOS = {
    **{
        f"{kind}: {name}": Scenario("rosenbrock, right", _calls(options, {}, {}, way_out, {}, {}))
        for kind, options in (("fixed", SHORT_STEPS), ("searched", SEARCHED))
        for name, way_out in WAYS_OUT.items()
    },
    **{
        f"{kind}: {name} at first": Scenario("rosenbrock, right", _calls(options, way_out, {}))
        for kind, options in (("fixed", SHORT_STEPS), ("searched", SEARCHED))
        for name, way_out in WAYS_OUT.items()
    },
    "fixed: optimal on the way": Scenario(
        "rosenbrock, right", _calls(SHORT_STEPS, {"tolerance_grad": 1800.0}, {})
    ),
    "searched: optimal on the way": Scenario(
        "rosenbrock, right", _calls(SEARCHED, {"tolerance_grad": 300.0}, {})
    ),
    "fixed: negative curvature": Scenario("double well", _calls(SHORT_STEPS, {}, {}, {})),
    "searched: negative curvature": Scenario("double well", _calls(SEARCHED, {}, {}, {})),
    "fixed: no curvature": Scenario("linear", _calls(SHORT_STEPS, {}, {})),
    "fixed: complex": Scenario("complex", _calls(SHORT_STEPS, {}, {}, {}), dtype=None),
    "searched: complex": Scenario("complex", _calls(SEARCHED, {}, {}, {}), dtype=None),
    "fixed: mixed": Scenario("mixed", _calls(SHORT_STEPS, {}, {}, {}), "mixed", None),
    "searched: mixed": Scenario("mixed", _calls(SEARCHED, {}, {}, {}), "mixed", None),
    # Steps that leave the domain of the objective, or overflow it.
    "fixed: NaN": Scenario("bowl", _calls({**SMALL, "lr": 3.0}, {}, {}, {})),
    "searched: NaN": Scenario("bowl", _calls({**SEARCHED, "lr": 3.0}, {}, {}, {})),
    "searched: NaN, far": Scenario("bowl", _calls({**SEARCHED, "lr": 30.0}, {}, {}, {})),
    "fixed: inf": Scenario("explosive", _calls({**SMALL, "lr": 100.0}, {}, {}, {})),
    "searched: inf": Scenario("explosive", _calls({**SEARCHED, "lr": 100.0}, {}, {}, {})),
}
STATE = ("d", "t", "old_dirs", "old_stps", "ro", "H_diag", "prev_flat_grad", "prev_loss")


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_call_leaves_torchs_state(name):
    problem, per_call, tolerance, dtype = SCENARIOS[name]
    problem, bound = PROBLEMS[problem], TOLERANCES[tolerance].bound
    with jax.enable_x64(True):
        ours = port_run(problem, per_call, dtype)
    theirs = torch_run(problem, per_call, dtype)
    assert_alike(ours, theirs, bound)
    for i, (got, want) in enumerate(zip(ours, theirs, strict=True)):
        for entry in STATE if want.state.get("d") is not None else ():
            where = f"{entry} after call {i}"
            ours_, theirs_ = (np.array(x.state[entry], np.float64) for x in (got, want))
            assert distance(ours_, theirs_) <= bound, where


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

    return net, nnx.as_pure(like), in_torch, in_jax


@pytest.mark.slow
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
    static = {key: numbers.pop(key) for key in ("history_size", "line_search_fn")}
    call = compiled_call(in_jax, **static)
    numbers = {key: np.asarray(value) for key, value in numbers.items()}
    params = params_from_torch(net, like)
    state = lbfgs(**static).init(params)
    losses = []
    try:
        for _ in range(calls):
            losses.append(optimizer.step(closure).item())
            params, state = call(params, state, numbers)
            held = optimizer.state[next(net.parameters())]
            assert (int(state.func_evals), int(state.n_iter)) == tuple(held[c] for c in COUNTS)
            for (path, want), (_, got) in zip(
                leaf_paths(params_from_torch(net, like)), leaf_paths(params), strict=True
            ):
                assert distance(np.asarray(got), np.asarray(want)) <= TOLERANCES["float64"].bound, (
                    path
                )
    finally:
        net.load_state_dict(start)
    assert losses[-1] <= losses[0]
