"""`jp.state_dict` and `jp.load_state_dict`: torch's layout on this side, and what they refuse."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_port as jp
from parity_tests.oracles.bits import assert_same_tree

PARAMS = {"a": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "b": jnp.ones(())}
GROUPS = [{"params": "b"}, {"params": "**/bias", "frozen": True}, {"params": jp.REST, "lr": 0.25}]


def stepped(tx, steps=2):
    state, params = tx.init(PARAMS), PARAMS
    for _ in range(steps):
        params, state = jp.step(tx, PARAMS, state, params)
    return state


def test_has_torchs_layout():
    tx = jp.SGD(GROUPS, lr=0.5, momentum=0.9)
    saved = jp.state_dict(tx, stepped(tx), PARAMS)
    first, frozen, rest = saved["param_groups"]
    assert (first["params"], first["param_names"], first["lr"]) == ([0], ["b"], 0.5)
    assert frozen == {"frozen": True, "params": [1], "param_names": ["a/bias"]}
    assert (rest["params"], rest["lr"], rest["nesterov"]) == ([2], 0.25, False)
    assert set(saved["state"]) == {0, 2}
    assert type(saved["state"][0]["momentum_buffer"]) is np.ndarray


def test_has_no_state_before_torch_would():
    for tx, held in ((jp.Adam(), 0), (jp.Adagrad(), 3), (jp.SGD(momentum=0.9), 0), (jp.SGD(), 0)):
        assert len(jp.state_dict(tx, tx.init(PARAMS), PARAMS)["state"]) == held


FACTORIES = {
    "adamw": lambda: jp.AdamW(GROUPS, amsgrad=True),
    "sgd without momentum": lambda: jp.SGD(GROUPS),
    "optax": lambda: jp.param_groups(optax.adamw, learning_rate=0.1),
    "optax in groups": lambda: jp.param_groups(
        optax.sgd, [{"params": "b"}, {"params": jp.REST}], learning_rate=0.1, momentum=0.9
    ),
    "mixed": lambda: jp.SGD([{"params": "b"}, {"params": jp.REST, "optimizer": jp.adam}]),
    "scheduled": lambda: jp.SGD(lr=optax.linear_schedule(1.0, 0.0, 10)),
    "clipped": lambda: optax.chain(optax.clip_by_global_norm(1.0), jp.RMSprop(momentum=0.9)),
}


@pytest.mark.parametrize("make", FACTORIES.values(), ids=FACTORIES)
@pytest.mark.parametrize("steps", [0, 2])
def test_load_undoes_state_dict(make, steps):
    tx = make()
    state = stepped(tx, steps)
    restored = jp.load_state_dict(make(), jp.state_dict(tx, state, PARAMS), PARAMS)
    assert_same_tree(restored, state)


def test_a_users_own_rule_comes_back():
    def decayed_sign(lr=0.1, beta=0.9):
        return iter(())

    def update(grad, param, state, *, lr, beta):
        m = state["m"] * beta.astype(param.dtype) + grad
        return param - lr.astype(param.dtype) * jnp.sign(m), {"m": m}

    rule = jp.engine.Rule(decayed_sign, lambda param, **_: {"m": jnp.zeros_like(param)}, update)
    tx = jp.param_groups(jp.transformation(rule), GROUPS)
    state = stepped(tx)
    saved = jp.state_dict(tx, state, PARAMS)
    assert set(saved["state"][0]) == {"m"}
    assert_same_tree(jp.load_state_dict(tx, saved, PARAMS), state)


def test_numbers_are_those_of_the_state_dict():
    saved = jp.state_dict(jp.Adam(lr=1 / 3), jp.Adam(lr=1 / 3).init(PARAMS), PARAMS)
    restored = jp.load_state_dict(jp.Adam(), saved, PARAMS)
    assert jp.get_hyperparams(restored)[0]["lr"] == 1 / 3


def test_order_in_a_group_does_not_matter_where_there_are_names():
    tx = jp.Adam()
    state = stepped(tx)
    saved = jp.state_dict(tx, state, PARAMS)
    (group,) = saved["param_groups"]
    turned = {k: group[k][::-1] for k in ("params", "param_names")}
    assert_same_tree(
        jp.load_state_dict(tx, {**saved, "param_groups": [{**group, **turned}]}, PARAMS), state
    )


def adam(**changes):
    """A state dict of Adam in two groups, damaged."""
    tx = jp.Adam(GROUPS)
    saved = jp.state_dict(tx, stepped(tx), PARAMS)
    state = {k: dict(v) for k, v in saved["state"].items()}
    groups = [dict(group) for group in saved["param_groups"]]
    for where, value in changes.items():
        kind, number, *name = where.split("_", 2)
        target = {"state": state, "group": groups}[kind]
        if not name:
            target[int(number)] = value
        elif value is None:
            del target[int(number)][name[0]]
        else:
            target[int(number)][name[0]] = value
    return {"state": state, "param_groups": groups}


def without(index):
    saved = adam()
    del saved["state"][index]
    return saved


DAMAGED = {
    "nothing": ({}, "no 'state' and no 'param_groups'"),
    "a list": ([1], "it is list"),
    "state is a list": ({"state": [], "param_groups": []}, "'state' is list"),
    "groups are a dict": ({"state": {}, "param_groups": {}}, "not a list of dicts"),
    "no groups": ({"state": {}, "param_groups": []}, "is empty"),
    "fewer groups": (
        {**adam(), "param_groups": [{**adam()["param_groups"][0]}], "state": {}},
        "1 parameter groups, the optimizer 3",
    ),
    "swapped groups": (
        {**adam(), "param_groups": adam()["param_groups"][::-1]},
        "in group 2, jp.REST here",
    ),
    "an index twice": (adam(group_2_params=[0]), r"\[0\] are in 'param_groups' twice"),
    "an index beyond": (adam(group_2_params=[7]), "not 0 to 2"),
    "indices as text": (adam(group_2_params=["2"]), "no list of indices"),
    "too many names": (adam(group_2_param_names=["a/kernel", "x"]), "1 parameters and 2 names"),
    "another name": (adam(group_2_param_names=["a/weight"]), 'no parameter "a/weight"'),
    "names that are none": (adam(group_2_param_names=[3]), "not a list of strings"),
    "state of no parameter": (adam(state_9={}), "entry for 9"),
    "state is text": (adam(state_0="x"), "state of parameter 0 is str"),
    "an option missing": (adam(group_0_betas=None), "no 'betas'"),
    "an option too many": (adam(group_0_momentum=0.9), "no 'momentum'"),
    "a static option": (adam(group_0_amsgrad=True), "amsgrad is True there and False here"),
    "a number out of range": (adam(group_0_eps=-1.0), "Invalid epsilon value"),
    "NaN for a number": (adam(group_0_lr=float("nan")), "Invalid learning rate"),
    "text for a number": (adam(group_0_lr="fast"), "must be a number"),
    "frozen there": (adam(group_0_frozen=True), "not frozen, unlike there"),
    "state of a frozen one": (adam(state_1={"step": np.float32(1)}), "is frozen"),
    "a NaN step": (adam(state_0_step=np.float32("nan")), "step .* is nan"),
    "a negative step": (adam(state_0_step=np.float32(-1)), "step .* is -1.0"),
    "a fraction of a step": (adam(state_0_step=np.float32(1.5)), "step .* is 1.5"),
    "a step of two": (adam(state_0_step=np.ones(2, np.float32)), r"step .* shape \(2,\)"),
    "a shape": (adam(state_2_exp_avg=np.ones(6, np.float32)), r"shape \(6,\); \(2, 3\)"),
    "a wider type": (adam(state_2_exp_avg=np.full((2, 3), 0.1)), "without loss"),
    "complex": (adam(state_2_exp_avg=np.ones((2, 3), np.complex64)), "without loss"),
    "an object": (adam(state_2_exp_avg=object()), "not an array"),
    "an entry missing": (adam(state_2_exp_avg=None), 'no "exp_avg"'),
    "an entry too many": (adam(state_2_max_exp_avg_sq=np.ones((2, 3))), '"max_exp_avg_sq"'),
    "a count below zero": (adam(group_0_update_count=-1), "update_count"),
}


@pytest.mark.parametrize(("damaged", "message"), DAMAGED.values(), ids=DAMAGED)
def test_what_does_not_fit_is_refused(damaged, message):
    with pytest.raises((ValueError, TypeError), match=message):
        jp.load_state_dict(jp.Adam(GROUPS), damaged, PARAMS)


def test_all_that_is_wrong_is_listed():
    damaged = adam(state_0_step=np.float32("nan"), state_2_exp_avg=np.ones(6, np.float32))
    with pytest.raises(ValueError, match=r"(?s)step of \"b\" is nan.*shape \(6,\)"):
        jp.load_state_dict(jp.Adam(GROUPS), damaged, PARAMS)


def test_parameters_of_a_group_count_by_themselves():
    tx = jp.Adam()
    saved = jp.state_dict(tx, stepped(tx), PARAMS)
    with_two = {**saved, "state": {k: v for k, v in saved["state"].items() if k != 1}}
    apart = {**saved, "state": {**saved["state"], 1: {**saved["state"][1], "step": np.float32(9)}}}
    for given in (with_two, apart):
        again = jp.state_dict(tx, jp.load_state_dict(tx, given, PARAMS), PARAMS)
        assert again["state"].keys() == given["state"].keys()
        for index, held in given["state"].items():
            assert again["state"][index]["step"] == held["step"]


@pytest.mark.parametrize("step", [2**31, [7.0], np.float64(3), 2**24 + 1])
def test_any_step_of_torchs_is_taken(step):
    tx = jp.Adam()
    saved = jp.state_dict(tx, stepped(tx), PARAMS)
    saved["state"][0]["step"] = step
    again = jp.state_dict(tx, jp.load_state_dict(tx, saved, PARAMS), PARAMS)
    assert again["state"][0]["step"] == np.float32(np.ravel(step)[0])


def test_arrays_around_the_optimizer_have_no_place():
    tx = optax.chain(optax.trace(0.9), jp.SGD())
    with pytest.raises(ValueError, match="save the whole state with Orbax"):
        jp.state_dict(tx, tx.init(PARAMS), PARAMS)


def test_another_optimizers_state_is_refused():
    saved = jp.state_dict(jp.AdamW(), jp.AdamW().init(PARAMS), PARAMS)
    assert saved["param_groups"][0]["decoupled_weight_decay"] is True
    with pytest.raises(ValueError, match="decoupled_weight_decay is True there and False here"):
        jp.load_state_dict(jp.Adam(), saved, PARAMS)
    with pytest.raises(ValueError, match="made by another optimizer"):
        jp.state_dict(jp.SGD(), jp.Adam().init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match='"c" is in only one'):
        jp.state_dict(jp.SGD(), jp.SGD().init(PARAMS), {**PARAMS, "c": jnp.ones(1)})
    with pytest.raises(ValueError, match="hold no numbers"):
        jp.state_dict(jp.sgd(), jp.sgd().init(PARAMS), PARAMS)


def test_whole_numbers_may_be_numpys():
    params = {"w": jnp.ones(3)}
    for tx in (jp.SGD(lr=lambda count: 0.1 / (count + 1)), jp.LBFGS(max_iter=7)):
        saved = jp.state_dict(tx, tx.init(params), params)
        (group,) = saved["param_groups"]
        group |= {k: np.int64(v) for k, v in group.items() if type(v) is int}
        group["params"] = list(map(np.int64, group["params"]))
        jp.load_state_dict(tx, saved, params)
