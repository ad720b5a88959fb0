"""A state goes through what users do to states: nothing of it is rounded or lost."""

import copy
import functools
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_port as jp
from jaxopt_port import contrib

PARAMS = {"stem": jnp.arange(3.0), "head": jnp.ones(2)}
LR = 1 / 3  # not exact in float32


def optimizer():
    return jp.SGD([{"params": "stem"}, {"params": jp.REST, "lr": 0.1}], lr=LR, momentum=0.9)


def foreign():
    return jp.param_groups(optax.adamw, [{"params": "stem"}, {"params": jp.REST}], learning_rate=LR)


ROUND_TRIPS = {
    "pickle": lambda state: pickle.loads(pickle.dumps(state)),
    "deepcopy": copy.deepcopy,
    "NumPy": lambda state: jax.tree.map(np.asarray, state),
    "device_get": jax.device_get,
    "jnp.asarray": lambda state: jax.tree.map(jnp.asarray, state),
    "flatten": lambda state: jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(state)),
    "stack and unstack": lambda state: jax.tree.map(lambda x: jnp.stack([x, x])[0], state),
    "where": lambda state: jax.tree.map(lambda x: jnp.where(True, x, x).astype(x.dtype), state),
}


@pytest.mark.parametrize("make", [optimizer, foreign])
@pytest.mark.parametrize("trip", ROUND_TRIPS)
def test_round_trip(trip, make):
    tx = make()
    _, state = jp.step(tx, PARAMS, tx.init(PARAMS), PARAMS)
    back = ROUND_TRIPS[trip](state)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    assert jp.get_hyperparams(back) == jp.get_hyperparams(state)
    expected, _ = jp.step(tx, PARAMS, state, PARAMS)
    got, _ = jp.step(tx, PARAMS, back, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, expected, got)


@pytest.mark.parametrize("make", [optimizer, foreign])
def test_a_state_holds_no_64_bit_array(make):
    dtypes = {leaf.dtype.name for leaf in jax.tree.leaves(make().init(PARAMS))}
    assert dtypes <= {"float32", "int32", "bool"}


def test_a_pickled_state_goes_on_in_another_process(tmp_path):
    tx = optimizer()
    _, state = jp.step(tx, PARAMS, tx.init(PARAMS), PARAMS)
    hash(jax.tree.structure(state))  # a kept hash must not travel
    (tmp_path / "state").write_bytes(pickle.dumps(state))
    code = (
        "import pickle, sys, jax, jax.numpy as jnp, jaxopt_port as jp\n"
        "state = pickle.load(open(sys.argv[1], 'rb'))\n"
        "params = {'stem': jnp.arange(3.0), 'head': jnp.ones(2)}\n"
        "tx = jp.SGD([{'params': 'stem'}, {'params': jp.REST, 'lr': 0.1}], lr=1, momentum=0.9)\n"
        "assert jax.tree.structure(state) == jax.tree.structure(tx.init(params))\n"
        "params, state = jp.step(tx, params, state, params)\n"
        "print(jp.get_hyperparams(state)[0]['lr'] == 1 / 3, params['stem'].tolist())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "state"], capture_output=True, text=True, check=True
    )
    expected, _ = jp.step(tx, PARAMS, state, PARAMS)
    assert run.stdout.strip() == f"True {expected['stem'].tolist()}"


def test_groups_of_optaxs_factories_are_pickled():
    tx = pickle.loads(pickle.dumps(foreign()))
    assert jp.get_hyperparams(tx.init(PARAMS))[0]["learning_rate"] == LR


def test_rest_stays_one_object():
    assert pickle.loads(pickle.dumps(jp.REST)) is jp.REST
    assert copy.deepcopy(jp.REST) is jp.REST


@pytest.mark.parametrize("make", [optimizer, foreign])
def test_map_params_finds_what_belongs_to_parameters(make):
    tx = make()
    state = tx.init(PARAMS)
    marked = optax.tree.map_params(
        tx, lambda _: "leaf", state, transform_non_params=lambda _: "other"
    )
    assert set(jax.tree.leaves(marked)) == {"leaf", "other"}
    of_params = [leaf for leaf in jax.tree.leaves(marked) if leaf == "leaf"]
    assert len(of_params) == len(PARAMS) * (2 if make is foreign else 1)


@pytest.mark.parametrize("make", [optimizer, foreign])
def test_eval_shape_is_what_init_makes(make):
    shapes = jax.eval_shape(make().init, PARAMS)
    state = make().init(PARAMS)
    assert jax.tree.structure(shapes) == jax.tree.structure(state)
    described = jax.tree.map(lambda x: (x.shape, x.dtype), (shapes, state))
    assert described[0] == described[1]


CONTEXTS = {"x64 off": False, "x64 on": True}


@pytest.mark.parametrize("context", CONTEXTS)
def test_float32_parameters_give_the_same_bits_under_the_users_x64(context):
    grads = {"stem": np.full(3, 0.3, np.float32), "head": np.full(2, -0.7, np.float32)}
    tx = optimizer()
    expected, _ = jp.step(tx, grads, tx.init(PARAMS), PARAMS)
    with jax.enable_x64(CONTEXTS[context]):
        tx = optimizer()
        got, state = jp.step(tx, grads, tx.init(PARAMS), PARAMS)
        assert jp.get_hyperparams(state)[0]["lr"] == LR
    jax.tree.map(np.testing.assert_array_equal, expected, got)
    assert {x.dtype.name for x in jax.tree.leaves(got)} == {"float32"}


NUMPY_KINDS = {"float64 arrays": np.ones(3), "Python floats": 1.0, "weak arrays": jnp.asarray(1.0)}


@pytest.mark.parametrize("kind", NUMPY_KINDS)
@pytest.mark.parametrize("make", [jp.sgd, jp.SGD])
def test_what_jit_would_make_float32_is_float32(kind, make):
    params = {"w": NUMPY_KINDS[kind]}
    tx = make(lr=0.1, momentum=0.9)
    state = tx.init(params)
    updates, eager = tx.update(params, state, params)
    _, jitted = jp.step(tx, params, state, params)
    assert updates["w"].dtype == jnp.float32
    for after in (eager, jitted):
        kinds = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), (state, after))
        assert kinds[0] == kinds[1]


CLASSES = [
    cls
    for package in (jp, contrib)
    for cls in map(functools.partial(getattr, package), sorted(dir(package)))
    if isinstance(cls, type) and issubclass(cls, jp.Optimizer) and "factory" in vars(cls)
]


def fresh(cls):
    """An optimizer and parameters that it takes, which a layout like torch's would not change."""
    tx = cls()
    whole = {"w": jnp.ones((4, 4)), "b": jnp.zeros(4)}
    return tx, {"w": whole["w"]} if "Muon" in cls.__name__ else whole


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("trip", ["pickle", "deepcopy"])
def test_a_copy_of_a_state_is_its_optimizers(trip, cls):
    tx, params = fresh(cls)
    state = tx.init(params)
    back = ROUND_TRIPS[trip](state)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    tx.definition.check_state(back)
    assert ROUND_TRIPS[trip](tx).definition == tx.definition


@pytest.mark.parametrize("init", [lambda tx: tx.init, lambda tx: jax.jit(tx.init)], ids=["", "jit"])
def test_no_memory_is_held_twice(init):
    """What shares memory, with a parameter or within a state, cannot be donated."""
    made = {cls.__name__: fresh(cls) for cls in (*OVERLAPPING, jp.AdamW)}
    made["accumulated"] = (jp.accumulate_grads(jp.AdamW(), 2), PARAMS)
    for name, (tx, params) in made.items():
        leaves = jax.tree.leaves((params, init(tx)(params)))
        places = [leaf.unsafe_buffer_pointer() for leaf in leaves if leaf.size]
        assert len(set(places)) == len(places), name


OVERLAPPING = (contrib.AdaBelief, contrib.AdamWScheduleFree, contrib.CAME, contrib.Prodigy)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_nothing_rests_on_implicit_promotion(cls):
    if cls is jp.SparseAdam:
        grads = {"w": (jnp.array([0]), jnp.ones((1, 4))), "b": (jnp.array([0]), jnp.ones(1))}
    else:
        grads = None if cls is not jp.LBFGS else lambda params: jnp.sum(params["w"] ** 2)
    with jax.numpy_dtype_promotion("strict"):
        tx, params = fresh(cls)
        step = functools.partial(jp.step, tx, grads or params)
        after = jax.eval_shape(lambda params: step(tx.init(params), params), params)[0]
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, params)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_no_state_holds_a_nan(cls):
    """It would be an error under ``jax_debug_nans``, in the first jitted step."""
    tx, params = fresh(cls)
    held = [np.asarray(x) for x in jax.tree.leaves(tx.init(params))]
    assert not any(np.isnan(x).any() for x in held if x.dtype.kind == "f")


def test_numbers_that_there_are_not_are_no_error_under_debug_nans_and_debug_infs():
    groups = [{"params": "stem", "frozen": True}, {"params": "head", "optimizer": jp.RMSprop}]
    with jax.debug_nans(True), jax.debug_infs(True):
        without = jp.Adafactor()  # an eps of None
        jp.step(without, PARAMS, without.init(PARAMS), PARAMS)
        tx = jp.AdamW(groups)
        _, state = jp.step(tx, PARAMS, tx.init(PARAMS), PARAMS)
    assert [set(group) & {"alpha", "frozen"} for group in jp.get_hyperparams(state)] == [
        {"frozen"}, {"alpha"}
    ]  # fmt: skip


def test_weak_arrays_are_of_their_own_type_under_x64():
    weak = {"w": jnp.full(3, 0.5)}
    assert weak["w"].weak_type
    tx = jp.SGD(lr=0.1, momentum=0.9)
    with jax.enable_x64(True):
        for params in (weak, {"w": jnp.ones(3, jnp.float32)}):
            after, state = jp.step(tx, weak, tx.init(params), params)
            kinds = {leaf.dtype.name for leaf in (after["w"], state.leaves["momentum_buffer"]["w"])}
            assert kinds == {"float32"}


SHAPES = {"wider": ((3, 4), (1, 4)), "a scalar": ((), (3,)), "narrower": ((1, 4), (3, 4))}


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("tx", [jp.Rprop(lr=0.1), jp.ASGD(), jp.adam(), jp.SGD(momentum=0.9)])
def test_a_state_of_other_shapes_is_refused(tx, shapes):
    """Broadcasting would make another training of it, or another parameter."""
    before, now = ({"w": jnp.ones(shape)} for shape in shapes)
    with pytest.raises(ValueError, match=r'of "w" has shape .* in the state, .* by the parameters'):
        jp.step(tx, now, tx.init(before), now)
