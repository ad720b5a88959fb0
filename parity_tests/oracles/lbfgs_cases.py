"""Configurations of L-BFGS as data: whole runs, and calls that end in each of its ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from parity_tests.oracles.optimizer import configurations

CALLS = 20
WOLFE = {"line_search_fn": "strong_wolfe"}

# In torch's own table since 2.14.
ASCENDING = {"maximize": {"maximize": True}, "maximize_strong_wolfe": {"maximize": True, **WOLFE}}
TABLE = ASCENDING | dict(configurations(torch.optim.LBFGS))
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
    "quadratic, upside down": {"maximize": CALLS, "maximize_strong_wolfe": CALLS},
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
    "quadratic, upside down": {"maximize": 1},
    "rosenbrock, zero, upside down": {"maximize_strong_wolfe": CALLS},
}


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
