"""A step under JAX's transformations and within Optax's wrappers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import interop
from jaxopt_port.engine import Rule
from parity_tests.oracles.bits import assert_same_bits, step_units
from parity_tests.oracles.optimizer import TorchOracle, to_torch
from parity_tests.oracles.tolerances import bound

SHAPES = {"w": (5, 3), "b": (3,)}
GROUPS = [{"params": "w"}, {"params": "b", "lr": 0.02}]
OPTIONS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
STEPS = 8


def optimizer():
    return jp.SGD(GROUPS, **OPTIONS)


@pytest.fixture
def data(rng):
    arrays = [
        {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
        for _ in range(STEPS + 1)
    ]
    return arrays[0], arrays[1:]


@pytest.fixture
def expected(data):
    params, gradients = data
    oracle = TorchOracle(torch.optim.SGD, params, [["w"], ["b"]], OPTIONS, [{}, {"lr": 0.02}])
    for grads in gradients:
        oracle.step(grads)
    return oracle.params()


def eagerly(tx, params, gradients):
    state = tx.init(params)
    for grads in gradients:
        params, state = jp.step(tx, grads, state, params)
    return params


def jitted(tx, params, gradients):
    step, state = jax.jit(functools.partial(jp.step, tx)), jax.jit(tx.init)(params)
    for grads in gradients:
        params, state = step(grads, state, params)
    return params


def donated(tx, params, gradients):
    step = jax.jit(functools.partial(jp.step, tx), donate_argnums=(1, 2))
    params = jax.tree.map(jnp.array, params)
    state = tx.init(params)
    for grads in gradients:
        old = state, params
        params, state = step(grads, state, params)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old[1]))
    return params


def scanned(tx, params, gradients):
    def body(carry, grads):
        return jp.step(tx, grads, carry[1], carry[0]), None

    stacked = jax.tree.map(lambda *x: jnp.stack(x), *gradients)
    carry = (jax.tree.map(jnp.asarray, params), tx.init(params))
    return jax.jit(lambda carry: jax.lax.scan(body, carry, stacked)[0])(carry)[0]


def mapped(tx, params, gradients):
    """An ensemble of three equal members."""

    def ensemble(tree):
        return jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * 3), tree)

    members = ensemble(params)
    state = jax.vmap(tx.init)(members)
    step = jax.vmap(functools.partial(jp.step, tx))
    for grads in gradients:
        members, state = step(ensemble(grads), state, members)
    np.testing.assert_array_equal(members["w"][0], members["w"][2])
    return jax.tree.map(lambda x: x[1], members)


def chained(tx, params, gradients):
    return jitted(optax.chain(optax.clip(1e9), tx), params, gradients)


RUNS = {f.__name__: f for f in (eagerly, jitted, donated, scanned, mapped, chained)}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_bits_under(run, data, expected):
    assert_same_bits(jax.tree.map(np.asarray, run(optimizer(), *data)), expected, "at the end")


def test_clipping_before_the_step_is_torchs(data):
    params, gradients = data
    clipped = [{k: np.clip(v, -0.5, 0.5) for k, v in g.items()} for g in gradients]
    expected = eagerly(optimizer(), params, clipped)
    got = eagerly(optax.chain(optax.clip(0.5), optimizer()), params, gradients)
    assert_same_bits(got, jax.tree.map(np.asarray, expected), "at the end")


def test_a_transformation_after_the_step_is_heeded(data):
    """jp.step takes the new parameter itself only where nobody changed the update."""
    params, gradients = data
    halved = jp.step(
        tx := optax.chain(optimizer(), optax.scale(0.5)), gradients[0], tx.init(params), params
    )[0]
    full = jp.step(tx := optimizer(), gradients[0], tx.init(params), params)[0]
    for name in params:
        np.testing.assert_allclose(halved[name], (params[name] + full[name]) / 2, rtol=1e-6)


def test_extra_arguments_reach_a_transformation_that_takes_no_others(data):
    def update(updates, state, params=None, *, factor):
        return jax.tree.map(lambda u: u * factor, updates), state

    scale = optax.GradientTransformationExtraArgs(lambda params: (), update)
    params, gradients = data
    tx = optax.chain(scale, jp.sgd(lr=0.1))
    none, _ = jp.step(tx, gradients[0], tx.init(params), params, factor=jnp.zeros(()))
    assert_same_bits(none, params, "with gradients times 0")


def test_multi_steps_accumulate_and_keep_every_number(data):
    params, gradients = data
    tx = optax.MultiSteps(optimizer(), every_k_schedule=2)
    state = jp.set_hyperparams(tx.init(params), group=1, lr=1 / 3)
    update, p = jax.jit(tx.update), params
    for grads in gradients:
        updates, state = update(grads, state, p)
        p = optax.apply_updates(p, updates)
    assert jp.get_hyperparams(state)[1]["lr"] == 1 / 3
    means = [
        jax.tree.map(lambda a, b: a + (b - a) / 2, *gradients[i : i + 2])
        for i in range(0, STEPS, 2)
    ]
    base, q = optimizer(), params
    base_state = jp.set_hyperparams(base.init(params), group=1, lr=1 / 3)
    for grads in means:
        q, base_state = jp.step(base, grads, base_state, q)
    for name in params:
        np.testing.assert_allclose(p[name], q[name], rtol=2e-6, atol=1e-7)


def test_apply_if_finite_skips_a_bad_gradient(data):
    params, gradients = data
    tx = optax.apply_if_finite(optimizer(), max_consecutive_errors=2)
    bad = jax.tree.map(lambda g: np.full_like(g, np.nan), gradients[0])
    one_step = jp.step(optimizer_ := optimizer(), gradients[0], optimizer_.init(params), params)[0]
    p, state = jp.step(tx, gradients[0], tx.init(params), params)
    for name, expected_one in one_step.items():
        far = step_units(p[name], np.asarray(expected_one), params[name])
        assert far.max() <= bound("cond apart")
    skipped, after = jp.step(tx, bad, state, p)
    assert_same_bits(skipped, jax.tree.map(np.asarray, p), "after a step with NaN")
    assert jp.get_hyperparams(after) == jp.get_hyperparams(state)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("name", ["SGD", "AdamW", "Adadelta", "Adamax"])
def test_an_ensemble_has_its_own_learning_rates(data, name, constant):
    """Where all but the rates is one for all members, XLA would divide by its reciprocal."""
    params, (grads, *_) = data
    kind, rates = getattr(jp, name), [0.1, 0.5, 1 / 3]
    tx = kind(lr=0.1)

    def member(rate, params, grads):
        state = jp.set_hyperparams(tx.init(params), lr=rate)
        return jp.step(tx, grads, state, params)[0]

    with jax.enable_x64(True):
        rates_ = jnp.asarray(rates)
        if constant:
            many = jax.jit(jax.vmap(lambda rate: member(rate, params, grads)))(rates_)
        else:
            many = jax.jit(jax.vmap(member, (0, None, None)))(rates_, params, grads)
    for i, rate in enumerate(rates):
        one = jp.step(alone := kind(lr=rate), grads, alone.init(params), params)[0]
        assert_same_bits(jax.tree.map(lambda x, i=i: np.asarray(x[i]), many), one_np(one), "")


def one_np(tree):
    return jax.tree.map(np.asarray, tree)


def through_two_steps(tx, params, grads, lr):
    """The sum of squares of the parameters after two steps."""
    state = jp.set_hyperparams(tx.init(params), lr=lr)
    for _ in range(2):
        params, state = jp.step(tx, grads, state, params)
    return sum(jnp.sum(x**2) for x in jax.tree.leaves(params))


DIFFERENTIABLE = {
    "plain": {"lr": 0.1},
    "momentum": {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01},
    "nesterov": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "maximize": {"lr": 0.1, "maximize": True, "weight_decay": 0.1},
}


@pytest.mark.parametrize("case", DIFFERENTIABLE)
def test_derivatives_are_finite_differences(case, rng, x64):
    options = DIFFERENTIABLE[case]
    tx = jp.SGD(**options)
    params, grads = ({"w": jnp.asarray(rng.standard_normal(4))} for _ in range(2))
    arguments = (params, grads, jnp.asarray(options["lr"]))
    function = functools.partial(through_two_steps, tx)
    derivatives = jax.grad(function, argnums=(0, 1, 2))(*arguments)
    flat, rebuild = jax.flatten_util.ravel_pytree(arguments)
    got, _ = jax.flatten_util.ravel_pytree(derivatives)
    value = jax.jit(lambda x: function(*rebuild(x)))
    step = 1e-6
    for i in range(flat.size):
        nudge = step * jnp.eye(flat.size)[i]
        difference = (value(flat + nudge) - value(flat - nudge)) / (2 * step)
        np.testing.assert_allclose(got[i], difference, rtol=bound("finite differences"), atol=1e-8)


# torch detaches the first buffer, so that its derivative lacks what weight decay puts into it.
TORCH_DETACHES = {"momentum"}


@pytest.mark.parametrize("case", sorted(DIFFERENTIABLE.keys() - TORCH_DETACHES))
def test_derivatives_are_those_of_torchs_differentiable_sgd(case, rng):
    """With respect to parameters, in float32 and without x64."""
    options = DIFFERENTIABLE[case]
    start, grads = (rng.standard_normal(4).astype(np.float32) for _ in range(2))
    leaf, grad = to_torch(start).requires_grad_(), to_torch(grads)
    param = leaf.clone()
    optimizer = torch.optim.SGD([param], differentiable=True, **options)
    for _ in range(2):
        param.grad = grad
        optimizer.step()
    (torchs,) = torch.autograd.grad((param**2).sum(), [leaf])
    tx = jp.SGD(**options)
    ours = jax.grad(lambda p: through_two_steps(tx, p, {"w": jnp.asarray(grads)}, options["lr"]))
    np.testing.assert_allclose(
        ours({"w": jnp.asarray(start)})["w"], torchs, rtol=bound("differentiable"), atol=1e-6
    )


@pytest.mark.parametrize(
    ("grads", "said"),
    [
        ({"a": 2, "b": 3}, "params/a and params/b are one array"),
        ({"a": "w"}, "params/a and gradients/a are one array"),
    ],
    ids=["two parameters", "a gradient"],
)
def test_an_array_that_is_donated_and_used_besides_is_told(grads, said, capfd):
    tx, w = jp.SGD(lr=0.1), jnp.ones(33)
    params = dict.fromkeys(grads, w)
    grads = {name: w if by == "w" else w * by for name, by in grads.items()}
    state = tx.init(params)
    with pytest.raises(ValueError, match=said):
        jp.step(tx, grads, state, params, donate=True)
    jp.step(tx, grads, state, params)
    assert "donate" in capfd.readouterr().err  # XLA's own words


@pytest.mark.parametrize("name", ["AdamW", "RMSprop"])
def test_a_step_without_jit(name):
    tx = getattr(jp, name)(lr=0.1)
    params = {"w": jnp.linspace(-1, 1, 12).reshape(4, 3)}
    given = {"w": jnp.cos(params["w"])}, tx.init(params), params
    with jax.disable_jit():
        made = jp.step(tx, *given)
    for ours, theirs in zip(*map(jax.tree.leaves, (made, jp.step(tx, *given))), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_a_donated_step_has_taken_is_told(tmp_path):
    tx, params = jp.SGD(lr=0.1, momentum=0.9), {"w": jnp.ones(3)}
    grads, state = {"w": jnp.ones(3)}, tx.init(params)
    new, after = jp.step(tx, grads, state, params, donate=True)
    for given, name in (((state, params), "params"), ((state, new), "state")):
        with pytest.raises(ValueError, match=f"of {name} are no longer there: an earlier step"):
            jp.step(tx, grads, *given, donate=True)
    for reads in (
        lambda: jp.get_hyperparams(state),
        lambda: jp.set_hyperparams(state, lr=0.2),
        lambda: jp.state_dict(tx, state, new),
        lambda: jp.lr_scheduler.StepLR(2).init(state),
        lambda: interop.save_orbax(tmp_path / "run", params=new, state=state),
    ):
        with pytest.raises(ValueError, match="of state are no longer there: an earlier step"):
            reads()
    jp.step(tx, grads, after, new)


def of_leaf(name):
    return [{"params": lambda path, _: path == name, "lr": 0.5}, {"params": jp.REST}]


# Optimizers whose steps are one program, and which are not the same.
UNLIKE = {
    "numbers": (lambda: jp.SGD(lr=0.1), lambda: jp.SGD(lr=0.5)),
    "numbers of a group": (
        lambda: jp.param_groups(jp.sgd, [{"params": jp.REST, "lr": 0.1}]),
        lambda: jp.param_groups(jp.sgd, [{"params": jp.REST, "lr": 0.5}]),
    ),
    "trees": (
        lambda: jp.SGD([{"params": {"w": True, "b": False}, "lr": 0.5}, {"params": jp.REST}]),
        lambda: jp.SGD([{"params": {"w": False, "b": True}, "lr": 0.5}, {"params": jp.REST}]),
    ),
    "predicates": (lambda: jp.SGD(of_leaf("w")), lambda: jp.SGD(of_leaf("b"))),
}


@pytest.mark.parametrize("case", UNLIKE)
def test_an_optimizer_is_static_with_all_that_it_was_built_from(case):
    """Under jit, as Flax's ``TrainState.create`` is, and in a state's own structure."""
    params = {name: jnp.ones(shape) for name, shape in SHAPES.items()}
    (one, other), again = (make() for make in UNLIKE[case]), UNLIKE[case][0]()
    assert (one == other, one != other) == (False, True)
    assert jax.tree.structure(one) != jax.tree.structure(other)
    if case != "predicates":  # two functions are two
        assert (one == again, hash(one), one != again) == (True, hash(again), False)

    @functools.partial(jax.jit, static_argnums=0)
    def stepped(tx, params):
        return jp.step(tx, params, tx.init(params), params)

    for tx in (one, other):
        got, state = stepped(tx, params)
        expected, _ = jp.step(tx, params, tx.init(params), params)
        assert jp.get_hyperparams(state) == jp.get_hyperparams(tx.init(params))
        jax.tree.map(np.testing.assert_array_equal, got, expected)


@pytest.mark.parametrize("donate", [False, True])
def test_a_rebuilt_optimizer_runs_the_program_that_there_is(donate):
    traces = []

    def update(grad, param, state, *, lr):
        traces.append(lr)
        return param - lr.astype(param.dtype) * grad, state

    factory = jp.transformation(Rule(lambda lr=0.1: iter(()), lambda param, **_: {}, update))
    params = grads = {"w": np.ones(3, np.float32)}
    for lr in (0.1, 0.5, 0.1):
        tx = jp.param_groups(factory, lr=lr)
        params, _ = jp.step(tx, grads, tx.init(params), params, donate=donate)
    assert len(traces) == 1
