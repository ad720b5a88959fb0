"""Lookahead and SAM, against what the packages made of the same gradients (`recorded.json`)."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_port as jp
from jaxopt_port import contrib
from parity_tests.contrib.cases import RECORDED, fingerprint
from parity_tests.contrib.wrapper_cases import WRAPPED, drawn
from parity_tests.oracles.bits import assert_same_bits

EXPECTED = json.loads(RECORDED.read_text())
PARAMS = {"a": jnp.arange(1.0, 4.0), "b": jnp.array([-0.3, 0.7])}
GRADS = {"a": jnp.array([1.0, -2.0, 0.5]), "b": jnp.array([0.1, 0.2])}


@pytest.mark.parametrize("case", WRAPPED, ids=repr)
def test_a_run_ends_where_the_packages_own_does(case):
    with jax.enable_x64(True):
        params = case.ours(*drawn())
        for name, expected in EXPECTED[repr(case)].items():
            assert fingerprint(params[name]) == pytest.approx(expected, rel=1e-12, abs=1e-12), name


def test_lookahead_keeps_the_bits_of_the_steps_between_and_the_groups():
    """Between meetings the step is the optimizer's own; a meeting is as timm has it."""
    inner = jp.SGD([{"params": "a", "lr": 0.3}, {"params": "b"}], lr=0.1, momentum=0.9)
    tx = contrib.lookahead(inner, k=np.int64(2), alpha=0.25)
    params, state = PARAMS, tx.init(PARAMS)
    alone, own = PARAMS, inner.init(PARAMS)
    state = jp.set_hyperparams(state, group=1, lr=0.2)
    own = jp.set_hyperparams(own, group=1, lr=0.2)
    for _ in range(3):
        alone, own = jp.step(inner, GRADS, own, alone)
        params, state = jp.step(tx, GRADS, state, params)
    assert [group["lr"] for group in jp.get_hyperparams(state)] == [0.3, 0.2]
    assert_same_bits(params, alone, "the first meeting moves nothing")
    slow = state.slow
    fast, _ = jp.step(inner, GRADS, own, alone)
    params, state = jp.step(tx, GRADS, state, params)
    assert_same_bits(params, state.slow, "the fast parameters are the slow ones")
    for name in params:
        expected = slow[name] + 0.25 * (fast[name] - slow[name])
        np.testing.assert_allclose(params[name], expected, rtol=1e-6)


def test_lookahead_leaves_out_what_has_no_gradient_at_a_meeting():
    tx = contrib.lookahead(jp.SGD(lr=0.1), k=1, package="pytorch_optimizer")
    params, _ = jp.step(tx, {**GRADS, "b": None}, tx.init(PARAMS), PARAMS)
    assert_same_bits({"b": params["b"]}, {"b": PARAMS["b"]}, "without a gradient")
    np.testing.assert_allclose(params["a"], PARAMS["a"] - 0.05 * GRADS["a"], rtol=1e-6)


# What the packages' Lookahead(SGD([p], lr=1.0), k=2) make of a gradient of 1 in all steps but
# these, counted from 0.
WITHOUT = [
    ("timm", (), (-1.0, -2.0, -3.0, -3.0, -4.0, -4.0)),
    ("timm", (1,), (-1.0, -1.0, -2.0, -3.0, -4.0, -4.0)),
    ("timm", (1, 3), (-1.0, -1.0, -2.0, -2.0, -3.0, -4.0)),
    ("timm", (3,), (-1.0, -2.0, -3.0, -3.0, -4.0, -3.5)),
    ("pytorch_optimizer", (), (-1.0, -1.0, -2.0, -2.0, -3.0, -3.0)),
    ("pytorch_optimizer", (1, 2), (-1.0, -1.0, -1.0, -1.0, -2.0, -2.0)),
]


@pytest.mark.parametrize("how", ["None", "frozen"])
@pytest.mark.parametrize(("package", "without", "expected"), WITHOUT)
def test_a_parameter_without_a_gradient_at_a_meeting(package, without, expected, how):
    tx = contrib.lookahead(jp.SGD([{"params": "p"}, {"params": "q"}], lr=1.0), k=2, package=package)
    params = {"p": jnp.zeros(1), "q": jnp.zeros(1)}
    state, found = tx.init(params), []
    for i in range(len(expected)):
        grads = {"p": jnp.ones(1), "q": jnp.ones(1)}
        if how == "None" and i in without:
            grads["p"] = None
        if how == "frozen":
            state = jp.set_hyperparams(state, frozen=i in without, group=0)
        params, state = jp.step(tx, grads, state, params)
        found.append(float(params["p"][0]))
    assert tuple(found) == expected


def test_sam_is_its_two_steps_and_keeps_the_state_dict():
    def loss(params):
        return sum(jnp.sum(jnp.cos(x)) for x in params.values())

    inner = jp.Adam(lr=0.1)
    tx, state = contrib.sam(inner, rho=0.3), inner.init(PARAMS)
    params, after = jp.step(tx, loss, state, PARAMS)
    ahead = contrib.sam_perturbed(PARAMS, jax.grad(loss)(PARAMS), rho=0.3)
    expected, own = jp.step(inner, jax.grad(loss)(ahead), state, PARAMS)
    assert_same_bits(params, expected, "both ways")
    held = jp.state_dict(tx, after, params)["state"][0]
    np.testing.assert_allclose(held["exp_avg"], own.leaves["exp_avg"]["a"], rtol=1e-6)
    apart = {k: ahead[k] - PARAMS[k] for k in PARAMS}
    np.testing.assert_allclose(jp.get_total_norm(apart), 0.3, rtol=1e-5)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("frozen", ["from the beginning", "for now"])
def test_sam_leaves_what_is_frozen_in_its_place(frozen, adaptive):
    """As torch, where what requires no gradient has none: not moved uphill, not in the norm."""

    def loss(params):
        return jnp.sum((params["a"] * params["b"][0]) ** 2) + jnp.sum(jnp.cos(params["b"]))

    built = {"frozen": True} if frozen == "from the beginning" else {}
    inner = jp.SGD([{"params": "a"}, {"params": "b", **built}], lr=0.1)
    state = inner.init(PARAMS)
    if not built:
        state = jp.set_hyperparams(state, frozen=True, group=1)
    tx = contrib.sam(inner, rho=0.3, adaptive=adaptive)
    params, _ = jp.step(tx, loss, state, PARAMS)
    alone, own = contrib.sam(jp.SGD(lr=0.1), rho=0.3, adaptive=adaptive), {"a": PARAMS["a"]}
    expected, _ = jp.step(alone, lambda p: loss({**PARAMS, **p}), alone.init(own), own)
    assert_same_bits(params, {**PARAMS, **expected}, "what is frozen is not there")


# What the packages make of the complex parameters and gradients below.
COMPLEX, OF_COMPLEX = jnp.array([1 + 2j, 3 - 1j]), jnp.array([0.5 - 1j, 2 + 1j])
AHEAD = {
    False: [1.1 + 1.8j, 3.4 - 0.8j],
    True: [1.16666667 + 2.33333333j, 4.46666667 - 1.26666667j],
}
SLOWED = {"timm": [0.92 + 2.16j, 2.68 - 1.16j], "pytorch_optimizer": [0.955 + 2.09j, 2.82 - 1.09j]}


@pytest.mark.parametrize("adaptive", AHEAD)
def test_complex_parameters_of_sam(adaptive):
    ahead = contrib.sam_perturbed(COMPLEX, OF_COMPLEX, 0.5, adaptive=adaptive)
    np.testing.assert_allclose(ahead, AHEAD[adaptive], rtol=1e-6)

    def loss(w):
        return jnp.sum(jnp.abs(w - OF_COMPLEX) ** 4)

    def downhill(w):  # torch's gradient
        return jnp.conj(jax.grad(loss)(w))

    tx = contrib.sam(jp.SGD(lr=0.001), rho=0.5, adaptive=adaptive)
    params, _ = jp.step(tx, loss, tx.init(COMPLEX), COMPLEX)
    ahead = contrib.sam_perturbed(COMPLEX, downhill(COMPLEX), 0.5, adaptive=adaptive)
    np.testing.assert_allclose(params, COMPLEX - 0.001 * downhill(ahead), rtol=1e-6)


@pytest.mark.parametrize("package", SLOWED)
def test_complex_parameters_of_lookahead(package):
    tx = contrib.lookahead(jp.SGD(lr=0.1), k=1, alpha=0.3, package=package)
    params, state = COMPLEX, tx.init(COMPLEX)
    for _ in range(3):
        params, state = jp.step(tx, OF_COMPLEX, state, params)
    np.testing.assert_allclose(params, SLOWED[package], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: contrib.lookahead(jp.SGD(), alpha=1.5), ValueError, "slow update rate: 1.5"),
        (lambda: contrib.lookahead(jp.SGD(), k=0), ValueError, "Invalid lookahead steps: 0"),
        (lambda: contrib.lookahead(jp.SGD(), k=np.int64(0)), ValueError, "lookahead steps: 0"),
        (lambda: contrib.lookahead(jp.SGD(), package="a"), ValueError, "no package 'a'"),
        (lambda: contrib.sam(jp.SGD(), rho=-1.0), ValueError, "rho must be non-negative; got -1.0"),
        (lambda: contrib.sam(jp.SGD(), perturb_eps=-1.0), ValueError, "perturb_eps must be non-n"),
        (lambda: contrib.lookahead(jp.SGD(), "0.5"), TypeError, "alpha must be one number; got '0"),
        (lambda: contrib.lookahead(jp.SGD(), None), TypeError, "alpha must be one number"),
        (lambda: contrib.lookahead(jp.SGD(), jnp.ones(2)), TypeError, "alpha must be one number"),
        (lambda: contrib.sam(jp.SGD(), None), TypeError, "rho must be one number; got None"),
        (lambda: contrib.sam(jp.SGD(), True), TypeError, "rho must be one number; got True"),
        (lambda: contrib.sam_perturbed(PARAMS, GRADS, "0.05"), TypeError, "rho must be one number"),
    ],
)
def test_bad_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_sam_asks_for_the_loss():
    tx = contrib.sam(jp.SGD(lr=0.1))
    with pytest.raises(TypeError, match=r"SAM requires closure: .* contrib.sam_perturbed"):
        jp.step(tx, GRADS, tx.init(PARAMS), PARAMS)
