"""Parameters without a gradient in a step, groups that rest and groups that join, beside torch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_port as jp
from parity_tests.oracles.bits import assert_same_bits
from parity_tests.oracles.configurations import LEAFWISE
from parity_tests.oracles.optimizer import to_numpy, to_torch
from parity_tests.oracles.two_networks import flat

SHAPES = {
    "stem": {"kernel": (5, 7), "bias": (7,)},
    "body": {"kernel": (3, 3, 2), "bias": (2,)},
    "head": {"kernel": (33, 5), "bias": (5,)},
    "late": {"kernel": (4, 4)},
}
# Which parameters have no gradient, in turn.
PATTERNS = [set(), {"stem/kernel", "stem/bias"}, {"head/kernel", "body/bias"}]
STEPS = 200
LATE, REST_BEGINS, REST_ENDS, THERE_AND_BACK, SLOWER = 60, 90, 130, 100, 150
OPTIONS = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01},
    "Adam": {"lr": 0.05, "amsgrad": True, "weight_decay": 0.01},
    "RMSprop": {"lr": 0.01, "momentum": 0.9, "centered": True},
    "ASGD": {"lr": 0.05, "lambd": 0.1, "t0": 20},
    "Adagrad": {"lr": 0.1, "lr_decay": 0.1},
}
BITS = [pytest.param(o, id=o.name) for o in LEAFWISE if o.name != "Adafactor"]


def drawn(seed):
    rng = np.random.default_rng(seed)
    is_shape = {"is_leaf": lambda x: isinstance(x, tuple)}
    return jax.tree.map(lambda s: rng.standard_normal(s).astype(np.float32), SHAPES, **is_shape)


def without(grads, missing):
    """Leave gradients out: a None in the place of a leaf, or of a subtree that has none."""
    left = {
        part: {k: None if f"{part}/{k}" in missing else g for k, g in own.items()}
        for part, own in grads.items()
    }
    return {k: None if all(g is None for g in v.values()) else v for k, v in left.items()}


class Torch:
    """torch's optimizer over the same parameters."""

    def __init__(self, name, groups, options):
        self.tensors = {k: to_torch(v).requires_grad_() for k, v in flat(drawn(0)).items()}
        made = [{**group, "params": self.of(group["params"])} for group in groups]
        self.optimizer = getattr(torch.optim, name)(made, foreach=False, **options)

    def of(self, part):
        return [tensor for path, tensor in self.tensors.items() if path.startswith(f"{part}/")]

    def step(self, grads, missing):
        for path, tensor in self.tensors.items():
            tensor.grad = None if path in missing else to_torch(grads[path])
        self.optimizer.step()


def flushed(x):
    """XLA has no subnormal numbers on the CPU, which NAdam's product of momenta comes to."""
    x = np.asarray(x)
    return np.where(np.abs(x) < np.finfo(x.dtype).tiny, x.dtype.type(0), x)


def state_of(torchs):
    """By path, what torch holds."""
    return {
        path: {k: to_numpy(torch.as_tensor(v)) for k, v in held.items() if v is not None}
        for path, tensor in torchs.tensors.items()
        if (held := torchs.optimizer.state.get(tensor))
    }


def check_state(tx, state, params, torchs):
    saved = jp.state_dict(tx, state, params)
    names = {
        index: path
        for group in saved["param_groups"]
        for path, index in zip(group["param_names"], group["params"], strict=True)
    }
    ours = {names[index]: held for index, held in saved["state"].items()}
    theirs = state_of(torchs)
    assert ours.keys() == theirs.keys()
    for path, held in theirs.items():
        assert_same_bits(
            {k: flushed(v) for k, v in ours[path].items()},
            {k: flushed(v) for k, v in held.items()},
            path,
        )


@pytest.mark.usefixtures("correct_root")
@pytest.mark.parametrize("optimizer", BITS)
def test_two_hundred_steps_of_a_run_that_changes(optimizer):
    options = OPTIONS.get(optimizer.name, {"lr": 0.02})
    groups = [{"params": "stem"}, {"params": "body"}, {"params": "head", "lr": 0.03}]
    torchs = Torch(optimizer.name, groups, options)
    tx = optimizer.port([*groups, {"params": jp.REST, "frozen": True}], **options)
    params = jax.tree.map(jnp.asarray, drawn(0))
    state = tx.init(params)
    for step in range(STEPS):
        if step == LATE:
            group = {"params": "late", "lr": 0.01}
            torchs.optimizer.add_param_group({**group, "params": torchs.of("late")})
            tx, state = jp.add_param_group(tx, state, params, group)
        if step in (REST_BEGINS, REST_ENDS):
            state = jp.set_hyperparams(state, frozen=step == REST_BEGINS, group=1)
        if step == SLOWER:
            torchs.optimizer.param_groups[0]["lr"] = 0.004
            state = jp.set_hyperparams(state, lr=0.004, group=0)
        missing = set(PATTERNS[step // 5 % len(PATTERNS)])
        if step < LATE:
            missing |= {"late/kernel"}
        grads = drawn(1 + step)
        params, state = jp.step(tx, without(grads, missing), state, params)
        resting = {"body/kernel", "body/bias"} if REST_BEGINS <= step < REST_ENDS else set()
        torchs.step(flat(grads), missing | resting)
        if step in (THERE_AND_BACK, STEPS - 1):
            check_state(tx, state, params, torchs)
            state = jp.load_state_dict(tx, jp.state_dict(tx, state, params), params)
    theirs = {path: to_numpy(tensor) for path, tensor in torchs.tensors.items()}
    assert_same_bits(flat(params), theirs, "at the end")


def test_a_fault_would_be_seen():
    """Zeros in the place of what there is not make another training."""
    tx = jp.AdamW(lr=0.1)
    params = {"a": jnp.ones(3), "b": jnp.ones(3)}
    state = jp.step(tx, params, tx.init(params), params)[1]
    none, _ = jp.step(tx, {"a": params["a"], "b": None}, state, params)
    zeros, _ = jp.step(tx, {"a": params["a"], "b": jnp.zeros(3)}, state, params)
    np.testing.assert_array_equal(none["a"], zeros["a"])
    np.testing.assert_array_equal(none["b"], params["b"])
    assert not np.array_equal(zeros["b"], params["b"])


@pytest.mark.parametrize("spelling", ["adamw", "AdamW"])
@pytest.mark.parametrize(
    "grads", [{"a": {"w": None, "v": 1.0}, "b": 1.0}, {"a": None, "b": 1.0}, {"b": 1.0}]
)
def test_ways_to_leave_a_gradient_out(grads, spelling):
    tx = getattr(jp, spelling)(lr=0.1)
    params = jax.tree.map(jnp.asarray, {"a": {"w": -0.0, "v": 2.0}, "b": 3.0})
    grads, state = jax.tree.map(jnp.asarray, grads), tx.init(params)
    updates, after = tx.update(grads, state, params)
    assert np.signbit(optax.apply_updates(params, updates)["a"]["w"])
    stepped, _ = jp.step(tx, grads, state, params)
    assert np.signbit(stepped["a"]["w"])
    assert stepped["b"] != params["b"]
    # The one that rested takes its own first step.
    fresh = jp.step(tx, params, tx.init(params), params)[0]["a"]["w"]
    np.testing.assert_array_equal(jp.step(tx, params, after, params)[0]["a"]["w"], fresh)


def test_a_foreign_factory_knows_no_missing_gradient():
    groups = [{"params": "a"}, {"params": "b"}]
    tx = jp.param_groups(optax.adam, groups, learning_rate=0.1)
    params = {"a": {"v": jnp.ones(2), "w": jnp.ones(2)}, "b": jnp.ones(2)}
    state = tx.init(params)
    with pytest.raises(
        ValueError, match=r'gradient of "a/w" is None.*of group 0, "a" does not know'
    ):
        jp.step(tx, {**params, "a": {"v": params["b"], "w": None}}, state, params)
    # A whole group may rest: its state and its count are as they were.
    after, state = jp.step(tx, {**params, "a": None}, state, params)
    np.testing.assert_array_equal(after["a"]["v"], params["a"]["v"])
    assert optax.tree.get(state.others["0"], "count") == 0
    assert optax.tree.get(state.others["1"], "count") == 1


BAD = {
    "no boolean": (lambda s: jp.set_hyperparams(s, frozen=1), TypeError, "must be True or False"),
    "built frozen": (
        lambda s: jp.set_hyperparams(s, frozen=False, group=1),
        ValueError,
        r"group 1, jp.REST was built frozen.*jp.add_param_group",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_rest(case):
    call, error, message = BAD[case]
    state = jp.SGD([{"params": "a"}, {"params": jp.REST, "frozen": True}]).init(
        {"a": jnp.ones(1), "b": jnp.ones(1)}
    )
    with pytest.raises(error, match=message):
        call(state)


def test_a_resting_group_shows_itself_and_its_numbers():
    state = jp.SGD(lr=0.1, momentum=0.9).init({"a": jnp.ones(1)})
    (options,) = jp.get_hyperparams(jp.set_hyperparams(state, frozen=True))
    assert (options["frozen"], options["lr"]) == (True, 0.1)
    again = jp.set_hyperparams(jp.set_hyperparams(state, frozen=True, lr=0.2), frozen=False)
    assert jp.get_hyperparams(again)[0]["lr"] == 0.2
    assert "frozen" not in jp.get_hyperparams(again)[0]


def test_schedulers_go_on_with_groups_that_rest():
    params = {"a": jnp.ones(1), "b": jnp.ones(1)}
    tx = jp.SGD([{"params": "a"}, {"params": "b", "lr": 0.5}], lr=1.0)
    scheduler = jp.lr_scheduler.ExponentialLR(gamma=0.5)
    state, own = scheduler.init(jp.set_hyperparams(tx.init(params), frozen=True, group=1))
    for _ in range(2):
        params, state = jp.step(tx, params, state, params)
        state, own = scheduler.step(state, own)
    assert [group["lr"] for group in jp.get_hyperparams(state)] == [0.25, 0.125]
    np.testing.assert_array_equal(params["b"], 1.0)
    again, _ = scheduler.init(state, param_groups=jp.get_hyperparams(state))
    assert len(jp.get_hyperparams(again)) == 2


def test_a_part_of_a_group_may_rest_within_scan_once_it_has_before():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    tx, grads = jp.AdamW(lr=0.1), {"a": jnp.ones(2), "b": None}
    first = jp.step(tx, grads, tx.init(params), params)

    def body(carry, _):
        return jp.step(tx, grads, carry[1], carry[0]), None

    (params, state), _ = jax.lax.scan(body, first, None, length=3)
    np.testing.assert_array_equal(state.scalars["step"], [4.0, 0.0])
    np.testing.assert_array_equal(params["b"], 1.0)


@pytest.mark.parametrize("tx", [jp.sgd(lr=0.1), jp.SGD(lr=0.1)], ids=["sgd", "SGD"])
def test_no_gradients_at_all_are_a_mistake(tx):
    params = {"a": jnp.ones(1)}
    with pytest.raises(ValueError, match="the gradients are None as a whole"):
        jp.step(tx, None, tx.init(params), params)
    with pytest.raises(ValueError, match="the gradients hold nothing, not even a None, for"):
        jp.step(tx, {}, tx.init(params), params)


def test_lbfgs_takes_no_gradient_for_zeros_in_a_group_too():
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    grads = {"a": jnp.ones(2), "b": None}
    extra = {"value": jnp.float32(1), "value_fn": lambda p: jnp.sum(p["a"])}
    made = []
    for tx in (jp.lbfgs(lr=0.5, max_iter=1), jp.LBFGS(lr=0.5, max_iter=1)):
        updates, _ = tx.update(grads, tx.init(params), params, **extra)
        made.append(updates)
    np.testing.assert_array_equal(made[0]["a"], made[1]["a"])
    np.testing.assert_array_equal(made[1]["b"], np.zeros(3, np.float32))
