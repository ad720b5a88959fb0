"""Flax's loops with this library's optimizer and train state: the bits of torch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import linen, nnx

import jaxopt_port as jp
from jaxopt_port.flax import Optimizer, TrainState
from parity_tests.oracles.bits import assert_same_bits
from parity_tests.oracles.optimizer import torchs_parameters
from parity_tests.oracles.tolerances import bound
from parity_tests.oracles.two_networks import flat

STEPS = 4


class Net(nnx.Module):
    """Two layers, and a count that is not trained."""

    def __init__(self, seed=0):
        self.stem = nnx.Linear(3, 4, rngs=nnx.Rngs(seed))
        self.head = nnx.Linear(4, 2, rngs=nnx.Rngs(seed + 1))
        self.seen = nnx.Variable(jnp.array(0))

    def __call__(self, x):
        return self.head(self.stem(x))


PARAMS = nnx.to_pure_dict(nnx.state(Net(), nnx.Param))


def gradients(like=PARAMS, steps=STEPS):
    rng = np.random.default_rng(5)
    return [
        jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape, np.float32)), like)
        for _ in range(steps)
    ]


def state_of(grads):
    """Gradients as nnx.grad returns them."""
    return jax.tree.map(nnx.Param, nnx.State(grads))


def trained(model):
    return flat(nnx.to_pure_dict(nnx.state(model, nnx.Param)))


def eagerly(tx, grads):
    model = Net()
    optimizer = Optimizer(model, tx, wrt=nnx.Param)
    for g in grads:
        optimizer.update(model, state_of(g))
    assert int(optimizer.step[...]) == len(grads)
    return trained(model)


def nnx_jit(tx, grads):
    model = Net()
    optimizer = Optimizer(model, tx, wrt=nnx.Param)
    step = nnx.jit(lambda model, optimizer, g: (optimizer.update(model, g), None)[1])
    for g in grads:
        step(model, optimizer, state_of(g))
    return trained(model)


def cached_partial(tx, grads):
    model = Net()
    optimizer = Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, g):
        optimizer.update(model, nnx.State(g))

    step = nnx.cached_partial(step, model, optimizer)
    for g in grads:
        step(g)
    return trained(model)


def split_and_merge(tx, grads):
    model = Net()
    graph, state = nnx.split((model, Optimizer(model, tx, wrt=nnx.Param)))

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, g):
        model, optimizer = nnx.merge(graph, state)
        optimizer.update(model, g)
        return nnx.state((model, optimizer))

    for g in grads:
        state = step(state, state_of(g))
    return trained(nnx.merge(graph, state)[0])


def train_state(tx, grads, jit=lambda step: jax.jit(step, donate_argnums=0)):
    params = jax.tree.map(jnp.array, PARAMS)
    state = TrainState.create(apply_fn=None, params=params, tx=tx)
    step = jit(lambda state, g: state.apply_gradients(grads=g))
    for g in grads:
        state = step(state, g)
    assert int(state.step) == len(grads)
    return flat(state.params)


def train_state_eagerly(tx, grads):
    return train_state(tx, grads, jit=lambda step: step)


def train_state_scanned(tx, grads):
    """Several steps in one call, which costs one call's time."""
    state = TrainState.create(apply_fn=None, params=PARAMS, tx=tx)
    several = jax.tree.map(lambda *g: jnp.stack(g), *grads)
    state, _ = jax.jit(
        lambda state: jax.lax.scan(lambda s, g: (s.apply_gradients(grads=g), None), state, several)
    )(state)
    return flat(state.params)


LOOPS = [
    eagerly,
    nnx_jit,
    cached_partial,
    split_and_merge,
    train_state,
    train_state_eagerly,
    train_state_scanned,
]


def by_step(tx, grads):
    params, state = PARAMS, tx.init(PARAMS)
    for g in grads:
        params, state = jp.step(tx, g, state, params)
    return flat(params)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_has_the_bits_of_torch(loop, correct_root):
    grads = gradients()
    sgd = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    theirs = torchs_parameters(torch.optim.SGD, flat(PARAMS), sgd, map(flat, grads))
    assert_same_bits(loop(jp.SGD(**sgd), grads), theirs, "SGD")
    adamw = {"lr": 0.01}
    theirs = torchs_parameters(torch.optim.AdamW, flat(PARAMS), adamw, map(flat, grads))
    assert_same_bits(loop(jp.adamw(**adamw), grads), theirs, "AdamW")


@pytest.mark.parametrize("cached", [False, True], ids=["nnx.jit", "cached_partial"])
def test_a_rate_that_is_set_between_steps_counts(cached):
    model, tx = Net(), jp.SGD(lr=0.1, momentum=0.9)
    optimizer = Optimizer(model, tx, wrt=nnx.Param)
    call = nnx.jit(lambda model, optimizer, g: (optimizer.update(model, nnx.State(g)), None)[1])
    step = nnx.cached_partial(call, model, optimizer) if cached else None
    state, expected = tx.init(PARAMS), PARAMS
    for i, g in enumerate(gradients()):
        step(g) if cached else call(model, optimizer, g)
        optimizer.opt_state = jp.set_hyperparams(optimizer.opt_state, lr=0.1 / (i + 2))
        expected, state = jp.step(tx, g, state, expected)
        state = jp.set_hyperparams(state, lr=0.1 / (i + 2))
    assert_same_bits(trained(model), flat(expected), "SGD")


def test_flaxs_own_optimizer_has_not():
    """The comparison above can fail."""
    grads = gradients(steps=20)
    tx = jp.SGD(lr=0.1, momentum=0.9)
    model = Net()
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for g in grads:
        optimizer.update(model, state_of(g))
    with pytest.raises(AssertionError):
        assert_same_bits(trained(model), by_step(tx, grads), "SGD")


@pytest.mark.parametrize("loop", [nnx_jit, split_and_merge, train_state])
@pytest.mark.parametrize(
    "tx",
    [
        optax.adam(0.1),
        optax.chain(optax.clip_by_global_norm(0.5), jp.AdamW(lr=0.1)),
        jp.param_groups(optax.adamw, [{"params": "stem"}, {"params": jp.REST}], learning_rate=0.1),
    ],
    ids=["Optax's", "a chain", "groups of Optax's"],
)
def test_any_transformation_will_do(loop, tx):
    grads = gradients()
    ours = loop(tx, grads)
    theirs = by_step(tx, grads)
    for name, expected in theirs.items():
        rtol = bound("Optax's own in Flax's loops")
        np.testing.assert_allclose(ours[name], expected, rtol=rtol, atol=1e-7)


def test_the_numbers_change_between_steps_with_no_retrace():
    model, grads, traces = Net(), gradients(), []
    groups = [{"params": "head", "lr": 0.05}, {"params": jp.REST}]
    tx = jp.SGD(groups, lr=0.1, momentum=0.9)
    optimizer = Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, g):
        traces.append(g)
        optimizer.update(model, g)

    params, state = PARAMS, tx.init(PARAMS)
    for i, g in enumerate(grads):
        if i == 2:
            optimizer.opt_state = jp.set_hyperparams(optimizer.opt_state, lr=1e-3, group=0)
            state = jp.set_hyperparams(state, lr=1e-3, group=0)
        step(model, optimizer, state_of(g))
        params, state = jp.step(tx, g, state, params)
    assert len(traces) == 1
    assert_same_bits(trained(model), flat(params), "in mid-run")
    assert jp.get_hyperparams(optimizer.opt_state) == jp.get_hyperparams(state)
    assert jp.get_hyperparams(optimizer.opt_state)[0]["lr"] == 1e-3


def without(grads, *names):
    return {k: {} if k in names else v for k, v in grads.items()}


def as_none(grads, *names):
    return {k: jax.tree.map(lambda _: None, v) if k in names else v for k, v in grads.items()}


@pytest.mark.parametrize("jit", [lambda step: step, nnx.jit], ids=["eager", "nnx.jit"])
@pytest.mark.parametrize("rested", [without, as_none])
def test_a_parameter_without_a_gradient_rests_and_so_does_its_count(jit, rested):
    """Who has counted with whom is static: it must come out of nnx.jit, too."""
    tx, grads = jp.AdamW(lr=0.1), gradients()
    grads[1] = rested(grads[1], "head")
    model, params, state = Net(), PARAMS, tx.init(PARAMS)
    optimizer = Optimizer(model, tx, wrt=nnx.Param)
    step = jit(lambda model, optimizer, g: (optimizer.update(model, g), None)[1])
    for g in grads:
        step(model, optimizer, jax.tree.map(nnx.Param, nnx.State(g)))
        params, state = jp.step(tx, g, state, params)
    assert_same_bits(trained(model), flat(params), "one gradient None")
    assert optimizer.opt_state.table == state.table
    assert len(set(state.table.clocks)) == 2


@pytest.mark.parametrize("tx", [jp.AdamW(lr=0.1), jp.adamw(lr=0.1)], ids=["AdamW", "adamw"])
def test_a_graph_that_was_split_off_before_counts_parted_is_refused(tx):
    model, grads = Net(), gradients()
    graph, state = nnx.split((model, Optimizer(model, tx, wrt=nnx.Param)))

    @jax.jit
    def step(state, g):
        model, optimizer = nnx.merge(graph, state)
        optimizer.update(model, g)
        return nnx.state((model, optimizer))

    state = step(state, state_of(without(grads[0], "head")))
    with pytest.raises(ValueError, match=r"nnx\.split"):
        step(state, state_of(grads[1]))


def test_only_what_wrt_names_is_trained():
    model = Net()
    wrt = nnx.All(nnx.Param, nnx.PathContains("head"))
    optimizer = Optimizer(model, jp.SGD(lr=0.1), wrt=wrt)
    before = trained(model)
    grads = nnx.grad(lambda m: jnp.sum(m(jnp.ones((2, 3)))), argnums=nnx.DiffState(0, wrt))(model)
    updates = optimizer.update(model, grads)
    after = trained(model)
    changed = {name for name in after if not np.array_equal(before[name], after[name])}
    assert changed == {"head/kernel", "head/bias"}
    for path, update in flat(nnx.to_pure_dict(updates)).items():
        np.testing.assert_array_equal(update, after[path] - before[path])
    # All gradients, of which the filter takes those that it names.
    grads = nnx.grad(lambda m: jnp.sum(m(jnp.ones((2, 3)))))(model)
    optimizer.update(model, grads)


def test_gradients_may_be_bare_arrays():
    model, (grads, *_) = Net(), gradients()
    tx = jp.SGD(lr=0.1)
    Optimizer(model, tx, wrt=nnx.Param).update(model, nnx.State(grads))
    assert_same_bits(trained(model), by_step(tx, [grads]), "bare")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda g: {"stem": g["stem"]["kernel"]}, ValueError, "stem"),
        (lambda g: jax.tree.map(lambda x: x.astype(jnp.float16), g), TypeError, "float16"),
        (lambda g: jax.tree.map(lambda x: x[None], g), ValueError, "shape"),
    ],
    ids=["another tree", "another dtype", "another shape"],
)
def test_gradients_that_do_not_fit_change_nothing(change, error, words):
    model, (grads, *_) = Net(), gradients()
    optimizer = Optimizer(model, jp.AdamW(lr=0.1), wrt=nnx.Param)
    before = flat(nnx.to_pure_dict(nnx.state((model, optimizer))))
    with pytest.raises(error, match=words):
        optimizer.update(model, state_of(change(grads)))
    assert_same_bits(flat(nnx.to_pure_dict(nnx.state((model, optimizer)))), before, "after")
    state = TrainState.create(apply_fn=None, params=PARAMS, tx=jp.AdamW(lr=0.1))
    with pytest.raises(error, match=words):
        state.apply_gradients(grads=change(grads))


def test_gradients_that_wrt_does_not_name_are_refused():
    model = Net()
    optimizer = Optimizer(model, jp.AdamW(lr=0.1), wrt=nnx.Param)
    with pytest.raises(ValueError, match=r"nnx\.DiffState\(0, wrt\)"):
        optimizer.update(model, nnx.State({}))


def test_what_is_meant_for_another_place_is_refused():
    model, (grads, *_) = Net(), gradients()
    optimizer = Optimizer(model, jp.AdamW(lr=0.1), wrt=nnx.Param)
    with pytest.raises(TypeError, match=r"the model comes first.*got a State and a Net"):
        optimizer.update(nnx.State(grads), model)
    with pytest.raises(TypeError, match=r"function: nnx\.grad\(loss\)\(model\) .*sam_perturbed"):
        optimizer.update(model, lambda model: jnp.sum(model(jnp.ones((2, 3)))))
    state = TrainState.create(apply_fn=None, params=PARAMS, tx=jp.AdamW(lr=0.1))
    with pytest.raises(TypeError, match=r"no attribute 'take_step'; .*params, take_step=…\)"):
        state.apply_gradients(grads=grads, take_step=True)
    with pytest.raises(
        AttributeError, match=r"no lr to be set: optimizer\.opt_state = jp\.set_hyp"
    ):
        optimizer.lr = 0.2


def test_a_loss_goes_to_transformations_that_search_along_a_line():
    model = Net()
    x = jnp.ones((2, 3))
    optimizer = Optimizer(model, jp.lbfgs(lr=0.5), wrt=nnx.Param)
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params):
        return jnp.mean(nnx.merge(graph, params, rest)(x) ** 2)

    first = loss(params)
    optimizer.update(
        model,
        nnx.grad(lambda m: jnp.mean(m(x) ** 2))(model),
        value=first,
        grad=nnx.state(nnx.grad(lambda m: jnp.mean(m(x) ** 2))(model)),
        value_fn=loss,
    )
    assert loss(nnx.state(model, nnx.Param)) < first


def test_a_state_is_gone_on_from():
    tx, grads = jp.AdamW(lr=0.1), gradients()
    model = Net()
    optimizer = Optimizer(model, tx, wrt=nnx.Param)
    for g in grads[:2]:
        optimizer.update(model, state_of(g))
    params = nnx.state(model, nnx.Param)
    saved = jp.state_dict(tx, optimizer.opt_state, params)
    other = Net(7)
    nnx.update(other, params)
    resumed = Optimizer(other, tx, wrt=nnx.Param, opt_state=jp.load_state_dict(tx, saved, params))
    for g in grads[2:]:
        resumed.update(other, state_of(g))
    assert_same_bits(trained(other), by_step(tx, grads), "resumed")
    with pytest.raises(ValueError, match="not one of this transformation"):
        Optimizer(model, jp.SGD(lr=0.1), wrt=nnx.Param, opt_state=optimizer.opt_state)


class Extended(TrainState):
    """As users extend Flax's."""

    batch_stats: object = None


def test_a_train_state_can_be_extended_and_trains_a_module():
    module, x = linen.Dense(2), jnp.ones((4, 3))
    params = module.init(jax.random.key(0), x)["params"]
    state = Extended.create(apply_fn=module.apply, params=params, tx=jp.AdamW(lr=0.1))

    def loss(params):
        return jnp.mean(state.apply_fn({"params": params}, x) ** 2)

    after = state.apply_gradients(grads=jax.grad(loss)(params), batch_stats={"mean": 1.0})
    assert (after.step, after.batch_stats) == (1, {"mean": 1.0})
    assert not np.array_equal(after.params["kernel"], params["kernel"])


def test_what_fp8_layers_overwrite_is_overwritten():
    name = "_overwrite_with_gradient"
    params = {"params": PARAMS, name: {"scale": jnp.ones(2)}}
    state = TrainState.create(apply_fn=None, params=params, tx=jp.SGD(lr=0.1))
    (grads, *_) = gradients()
    after = state.apply_gradients(grads={"params": grads, name: {"scale": jnp.zeros(2)}})
    np.testing.assert_array_equal(after.params[name]["scale"], 0)
    assert_same_bits(flat(after.params["params"]), by_step(jp.SGD(lr=0.1), [grads]), "fp8")
