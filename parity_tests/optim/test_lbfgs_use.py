"""L-BFGS in use: under jit, scan and injection, its limits, its history, its errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import jaxprs_in_params

import jaxopt_port as jp
from jaxopt_port.optim._lbfgs import _optimizer as _lbfgs
from jaxopt_port.optim._lbfgs import history_from, lbfgs, oldest_first
from parity_tests.oracles.lbfgs import PROBLEMS, assert_alike, outcome, port_states, rosenbrock

START = {"x": jnp.array([1.5, -1.0])}
FIXED = {"history_size": 3, "max_iter": 3, "lr": 0.1}
SEARCHED = {"history_size": 3, "max_iter": 3, "line_search_fn": "strong_wolfe"}


def _one_call(tx: Any, **extra: Any) -> Callable[[Any, Any], Any]:
    def call(params: Any, state: Any) -> Any:
        value, grads = jax.value_and_grad(rosenbrock)(params)
        updates, state = tx.update(grads, state, params, value=value, value_fn=rosenbrock, **extra)
        return optax.apply_updates(params, updates), state

    return call


def test_eager_jit_scan_and_vmap_are_one():
    tx = lbfgs(**SEARCHED)
    call, calls = _one_call(tx), 3
    jitted = jax.jit(call)
    params, state = START, tx.init(START)
    eager = call(params, state)
    for i in range(calls):
        params, state = jitted(params, state)
        if i == 0:
            assert_alike([outcome(*eager)], [outcome(params, state)], 1e-6)

    @jax.jit
    def scanned(params: Any) -> Any:
        start = (params, tx.init(params))
        return jax.lax.scan(lambda carry, _: (call(*carry), None), start, length=calls)[0]

    assert_alike([outcome(*scanned(START))], [outcome(params, state)], 1e-6)

    starts = {"x": jnp.array([[-1.2, 1.0], [1.5, -1.0], [0.5, 0.5]])}
    together = jax.jit(jax.vmap(scanned))(starts)
    for i in range(3):
        one = jax.tree.map(lambda x, i=i: x[i], together)
        alone = scanned({"x": starts["x"][i]})
        assert_alike([outcome(*one)], [outcome(*alone)], 1e-4)


@pytest.mark.parametrize("line_search_fn", [None, "strong_wolfe"])
def test_the_objective_is_traced_once_and_on_the_device(line_search_fn):
    traces = 0

    def value_fn(params: Any) -> Any:
        nonlocal traces
        traces += 1
        return rosenbrock(params)

    def program(**options: Any) -> Any:
        tx = lbfgs(line_search_fn=line_search_fn, **options)
        return jax.make_jaxpr(
            lambda grads, state, params: tx.update(
                grads, state, params, value=jnp.ones(()), value_fn=value_fn
            )
        )(START, tx.init(START), START)

    small = program(history_size=2, max_iter=2)
    assert traces == 1
    assert "callback" not in str(small)
    large = program(history_size=100, max_iter=100)
    assert _size(large.jaxpr) == _size(small.jaxpr)


def _size(jaxpr: Any) -> int:
    return sum(1 + sum(map(_size, jaxprs_in_params(e.params))) for e in jaxpr.eqns)


def test_numbers_and_limits_may_change_without_a_retrace():
    traces = 0

    @jax.jit
    def call(params: Any, state: Any, lr: Any, max_iter: Any, max_eval: Any) -> Any:
        nonlocal traces
        traces += 1
        tx = lbfgs(lr=lr, tolerance_grad=lr * 1e-7, history_size=3)
        return _one_call(tx, max_iter=max_iter, max_eval=max_eval)(params, state)

    params, state = START, lbfgs(history_size=3).init(START)
    counts = []
    for lr, max_iter, max_eval in [(0.1, 3, 9), (0.01, 1, 9), (0.1, 9, 4), (0.0, 5, 9)]:
        params, state = call(params, state, lr, max_iter, max_eval)
        counts.append((int(state.n_iter), int(state.func_evals)))
    # The third is ended by max_eval, the fourth by a step of length 0.
    assert counts == [(3, 3), (4, 4), (7, 8), (8, 10)]
    assert traces == 1


LIMITS = {
    "the factory's": ({"max_iter": 4, "max_eval": 9}, {}, (4, 9)),
    "torch's default": ({"max_iter": 7}, {}, (7, 8)),
    "of the call": ({"max_iter": 4, "max_eval": 9}, {"max_iter": 6, "max_eval": 3}, (6, 3)),
    "max_iter of the call": ({"max_iter": 4, "max_eval": 9}, {"max_iter": 6}, (6, 9)),
    "max_eval from max_iter of the call": ({}, {"max_iter": 50}, (50, 62)),
}


@pytest.mark.parametrize(("factory", "call", "want"), LIMITS.values(), ids=LIMITS)
def test_limits(factory, call, want, monkeypatch):
    seen = []

    def minimize(evaluate, params, loss, flat_grad, state, limits, line_search):
        seen.append((int(limits.max_iter), int(limits.max_eval)))
        return params, state

    monkeypatch.setattr(_lbfgs, "minimize", minimize)
    tx = lbfgs(**factory)
    tx.update(START, tx.init(START), START, value=1.0, value_fn=rosenbrock, **call)
    assert seen == [want]


def test_optax_injection():
    tx = optax.inject_hyperparams(lbfgs, static_args=("history_size", "line_search_fn"))(
        lr=0.1, max_iter=3, history_size=3
    )
    state = tx.init(START)
    state.hyperparams["lr"] = jnp.asarray(0.05)
    params, state = jax.jit(_one_call(tx))(START, state)
    plain = lbfgs(lr=0.05, max_iter=3, history_size=3)
    alone = jax.jit(_one_call(plain))(START, plain.init(START))
    assert_alike([outcome(params, state.inner_state)], [outcome(*alone)], 1e-6)


def test_low_precision_keeps_its_dtypes_and_descends():
    dtype = "bfloat16"
    params = {"x": jnp.array([0.1, -0.2, 0.3], dtype), "y": jnp.ones((), dtype)}

    def value_fn(p: Any) -> Any:
        return ((p["x"] ** 2 - 1) ** 2).sum() + (p["y"] - 3) ** 2

    tx = lbfgs(max_iter=5, history_size=2, line_search_fn="strong_wolfe")

    @jax.jit
    def call(params: Any, state: Any) -> Any:
        value, grads = jax.value_and_grad(value_fn)(params)
        updates, state = tx.update(grads, state, params, value=value, value_fn=value_fn)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    after, left = call(*call(params, state))
    assert jax.tree.map(jnp.result_type, (after, left)) == jax.tree.map(
        jnp.result_type, (params, state)
    )
    assert {state.d.dtype, state.old_dirs.dtype} == {jnp.dtype(dtype)}
    assert {state.t.dtype, state.prev_loss.dtype} == {jnp.dtype(jnp.float32)}
    assert value_fn(after) < 0.1 * value_fn(params)


BAD_OPTIONS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "negative lr": ({"lr": -0.1}, ValueError, "Invalid learning rate: -0.1"),
    "lr that is no number": ({"lr": float("nan")}, ValueError, "Invalid learning rate: nan"),
    "negative array": ({"lr": jnp.asarray(-1.0)}, ValueError, "Invalid learning rate: -1.0"),
    "a string": ({"lr": "0.1"}, TypeError, "lr must be a number"),
    "a schedule": ({"lr": lambda count: 0.1}, TypeError, "lr must be a number here; a schedule"),
    "None": ({"tolerance_grad": None}, TypeError, "tolerance_grad must be a number"),
    "a vector": ({"lr": np.ones(2)}, ValueError, r"Tensor lr must be 1-element.*shape \(2,\)"),
    "another line search": (
        {"line_search_fn": "armijo"},
        ValueError,
        "only 'strong_wolfe' is supported; got line_search_fn='armijo'",
    ),
    "max_iter of a half": ({"max_iter": 2.5}, TypeError, "max_iter must be an integer; got 2.5"),
    "no max_iter": ({"max_iter": None}, TypeError, "max_iter must be an integer; got None"),
    "a bool": ({"max_eval": True}, TypeError, "max_eval must be an integer; got True"),
    "no history": ({"history_size": 0}, ValueError, "Invalid history_size: 0"),
    "maximize that is no flag": ({"maximize": 1}, TypeError, "maximize must be True or False"),
    "half a history": ({"history_size": 1.5}, TypeError, "history_size must be an integer"),
}


@pytest.mark.parametrize(("options", "error", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        lbfgs(**options)


def test_traced_arguments_that_cannot_be():
    with pytest.raises(TypeError, match=r"history_size is traced.*static_args"):
        jax.eval_shape(lambda n: lbfgs(history_size=n).init(START), 3)
    with pytest.raises(ValueError, match="Tensor lr must be 1-element"):
        jax.eval_shape(lambda lr: lbfgs(lr=lr).init(START), jnp.ones(2))
    with pytest.raises(TypeError, match="max_iter must be an integer"):
        jax.eval_shape(lambda n: lbfgs(max_iter=n).init(START), 3.0)


BAD_CALLS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no value_fn": ({"value": 1.0}, ValueError, r"value_fn is required.*tx\.update\(grads, state"),
    "no value": ({"value_fn": rosenbrock}, ValueError, r"value is required.*value_and_grad"),
    "a vector": ({"value": np.ones(1), "value_fn": rosenbrock}, ValueError, r"shape \(1,\)"),
    "no parameters": (
        {"value": 1.0, "value_fn": rosenbrock, "params": None},
        ValueError,
        "params is required",
    ),
    "other gradients": (
        {"value": 1.0, "value_fn": rosenbrock, "updates": {"x": jnp.ones(3)}},
        ValueError,
        'gradient of "x" has shape',
    ),
    "half a limit": (
        {"value": 1.0, "value_fn": rosenbrock, "max_iter": 0.5},
        TypeError,
        "max_iter must be an integer",
    ),
}


@pytest.mark.parametrize(("given", "error", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_calls(given, error, message):
    tx = lbfgs()
    with pytest.raises(error, match=message):
        tx.update(**{"updates": START, "state": tx.init(START), "params": START, **given})


def test_parameters_without_an_element():
    with pytest.raises(ValueError, match="optimizer got an empty parameter list"):
        lbfgs().init({"x": jnp.zeros((0, 3))})


@pytest.mark.parametrize(
    ("tx", "params"),
    [
        (lbfgs(), {}),
        (jp.LBFGS(), {}),
        (jp.LBFGS([{"params": jp.REST, "frozen": True}]), START),
    ],
    ids=["lower case", "groups", "all frozen"],
)
def test_nothing_to_optimize(tx, params):
    """torch 2.14 evaluates the closure and returns; an earlier one has an IndexError."""
    seen = []

    def value_fn(params):
        seen.append(params)
        return jnp.ones(())

    after, state = jp.step(tx, value_fn, tx.init(params), params)
    assert len(seen) == 1
    assert jax.tree.all(jax.tree.map(np.array_equal, after, params))
    again, _ = jp.step(tx, value_fn, state, params)
    assert jax.tree.structure(again) == jax.tree.structure(params)


BAD_NUMBERS = {
    "negative": ({"lr": -1}, ValueError, "Invalid learning rate: -1"),
    "no number": ({"lr": "fast"}, TypeError, "lr.* must be a number"),
}


@pytest.mark.parametrize(("given", "error", "message"), BAD_NUMBERS.values(), ids=BAD_NUMBERS)
def test_numbers_are_checked_when_they_are_set(given, error, message):
    state = jp.LBFGS().init(START)
    with pytest.raises(error, match=message):
        jp.set_hyperparams(state, **given)
    assert jp.get_hyperparams(jp.set_hyperparams(state, lr=2))[0]["lr"] == 2.0


def test_a_history_goes_to_torchs_order_and_back():
    *_, (_, state) = port_states(PROBLEMS["rosenbrock, right"], [FIXED] * 3, "float32")
    assert int(state.oldest) > 0  # it has wrapped
    held = oldest_first(state.history)
    again = history_from(*held, like=state.history)
    assert int(again.oldest) == 0
    for ours, theirs in zip(oldest_first(again), held, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match=r"lengths 3, 2, 3; they must be of one length"):
        history_from(held[0], held[1][1:], held[2], like=state.history)
    with pytest.raises(ValueError, match=r"lengths 6, 6, 6.*at most history_size=3"):
        history_from(*([*x, *x] for x in held), like=state.history)
