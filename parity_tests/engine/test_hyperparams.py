"""Reading and writing numbers between steps."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxopt_port as jp
from jaxopt_port import contrib
from jaxopt_port.engine._options import _OPTIONS_ELSEWHERE
from jaxopt_port.numerics import decoded, encoded
from jaxopt_port.optim import OPTIMIZERS

PARAMS = {"stem": jnp.ones(2), "body": jnp.ones(3), "head": jnp.ones(1)}
SCHEDULE = optax.linear_schedule(0.1, 0.0, 10)


def optimizer():
    return jp.SGD(
        [
            {"params": "stem", "name": "stem", "lr": 1 / 3},
            {"params": "body", "frozen": True},
            {"params": "head", "momentum": 0.9, "lr": SCHEDULE, "name": "head"},
        ],
        lr=0.1,
        weight_decay=1e-7,
    )


def test_hyperparams_are_the_groups_in_order_with_torchs_names():
    assert jp.get_hyperparams(optimizer().init(PARAMS)) == [
        {
            "name": "stem",
            "lr": 1 / 3,
            "momentum": 0.0,
            "dampening": 0.0,
            "weight_decay": 1e-7,
            "nesterov": False,
            "maximize": False,
        },
        {"frozen": True},
        {
            "name": "head",
            "lr": 0.1,
            "momentum": 0.9,
            "dampening": 0.0,
            "weight_decay": 1e-7,
            "nesterov": False,
            "maximize": False,
        },
    ]


# (call, group index, name, value)
WRITES = {
    "by index": ({"group": 0, "lr": 0.7}, 0, "lr", 0.7),
    "by negative index": ({"group": -1, "momentum": 0.7}, 2, "momentum", 0.7),
    "by name": ({"group": "head", "momentum": 0.5}, 2, "momentum", 0.5),
    "by NumPy index": ({"group": np.int64(2), "dampening": 0.25}, 2, "dampening", 0.25),
}


@pytest.mark.parametrize("case", WRITES)
def test_a_write_changes_one_entry(case):
    call, index, name, value = WRITES[case]
    state = optimizer().init(PARAMS)
    before = jp.get_hyperparams(state)
    after = jp.get_hyperparams(jp.set_hyperparams(state, **call))
    before[index][name] = value
    assert after == before


def test_without_a_group_all_that_train_are_written():
    state = jp.set_hyperparams(optimizer().init(PARAMS), weight_decay=0.3, dampening=0.1)
    read = [g for g in jp.get_hyperparams(state) if "frozen" not in g]
    assert [(g["weight_decay"], g["dampening"]) for g in read] == [(0.3, 0.1)] * 2


# Built without the state that another value needs; of some rules that is not the default.
WITHOUT_STATE = {
    "SGD": (jp.SGD(lr=0.1), "momentum", 0.9),
    "MADGRAD": (contrib.MADGRAD(momentum=0.0), "momentum", 0.9),
    "AdafactorBigVision": (contrib.AdafactorBigVision(momentum=None), "momentum", 0.9),
    "Prodigy": (contrib.Prodigy(betas=(0.0, 0.999)), "betas", (0.9, 0.999)),
}


@pytest.mark.parametrize("case", WITHOUT_STATE)
def test_what_needs_state_that_there_is_not_is_refused_when_traced_too(case):
    tx, name, given = WITHOUT_STATE[case]
    state = tx.init(PARAMS)
    assert jp.get_hyperparams(jax.jit(lambda s: jp.set_hyperparams(s, lr=0.2))(state))
    message = f"built without the state that {name} would need"
    with pytest.raises(ValueError, match=message):
        jp.set_hyperparams(state, **{name: given})
    for value in (lambda m: m, lambda m: given):
        with pytest.raises(ValueError, match=message):
            jax.jit(lambda s, m, v=value: jp.set_hyperparams(s, **{name: v(m)}))(state, given)


NOT_ONE_STATE = {
    "a lower-case state": (jp.sgd(lr=0.1), "found 0; the CapWords spellings and jp.param_groups"),
    "two grouped optimizers": (
        optax.chain(jp.SGD(lr=0.1), jp.SGD(lr=0.2)),
        "the state holds 2 grouped optimizers",
    ),
}


@pytest.mark.parametrize("case", NOT_ONE_STATE)
def test_there_must_be_one_grouped_state(case):
    tx, message = NOT_ONE_STATE[case]
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match=message):
        jp.get_hyperparams(state)
    with pytest.raises(ValueError, match=message):
        jp.set_hyperparams(state, lr=0.1)


def test_a_batch_of_states_must_be_mapped_over():
    tx = jp.SGD(lr=0.1)
    state = jax.vmap(tx.init)(jax.tree.map(lambda x: jnp.stack([x] * 4), PARAMS))
    grads = params = jax.tree.map(lambda x: jnp.stack([x] * 4), PARAMS)
    for call in (
        jp.get_hyperparams,
        lambda s: jp.set_hyperparams(s, lr=0.2),
        lambda s: jp.step(tx, grads, s, params),
    ):
        with pytest.raises(ValueError, match="the state is a batch of states"):
            call(state)


def test_numbers_inside_jit_are_float64_under_x64():
    state = jp.SGD(lr=0.1, momentum=0.9).init(PARAMS)

    @jax.jit
    def decay(state):
        with jax.enable_x64(True):
            return jp.set_hyperparams(state, lr=jp.get_hyperparams(state)[0]["lr"] * 0.1)

    assert jp.get_hyperparams(decay(state))[0]["lr"] == 0.1 * 0.1


LARGEST = float(np.finfo(np.float32).max)
SPECIAL = [0.0, 1.0, 0.1, 1 / 3, math.pi, 1e-8, 1e-22, 0.999, 3e38, math.inf]


@pytest.mark.parametrize("value", SPECIAL)
def test_special_numbers_are_held_exactly(value):
    state = jp.set_hyperparams(jp.SGD(lr=0.5).init(PARAMS), lr=value)
    state = jax.jit(lambda state: state)(state)
    assert jp.get_hyperparams(state)[0]["lr"] == value


@settings(deadline=None, derandomize=True)
@given(st.floats(1e-22, LARGEST, allow_subnormal=False), st.sampled_from([-1.0, 1.0]))
def test_three_float32_parts_hold_any_float64(magnitude, sign):
    value = sign * magnitude
    parts = encoded(value)
    assert parts.dtype == np.float32
    assert decoded(parts) == value
    with jax.enable_x64(True):
        traced = encoded(jnp.asarray(value))
    np.testing.assert_array_equal(traced, parts)


SEVERAL = {
    "a list": {"lr": [0.5, None, 0.25]},
    "a mapping": {"lr": {"stem": 0.5, -1: 0.25}},
    "a list beside a number": {"lr": [0.5, None, 0.25], "dampening": 0.1},
}


@pytest.mark.parametrize("case", SEVERAL)
def test_several_groups_are_set_at_once(case):
    groups = [{"params": "stem", "name": "stem"}, {"params": "body"}, {"params": "head"}]
    state = jp.set_hyperparams(jp.SGD(groups, lr=0.125).init(PARAMS), **SEVERAL[case])
    assert [group["lr"] for group in jp.get_hyperparams(state)] == [0.5, 0.125, 0.25]
    assert jp.get_hyperparams(state)[1]["dampening"] == SEVERAL[case].get("dampening", 0.0)


def test_tuples_are_set_for_each_group():
    state = jp.Adam([{"params": "stem"}, {"params": jp.REST}]).init(PARAMS)
    state = jp.set_hyperparams(state, betas={0: (0.5, 0.75)})
    assert [g["betas"] for g in jp.get_hyperparams(state)] == [(0.5, 0.75), (0.9, 0.999)]
    state = jp.set_hyperparams(state, betas=[0.25, 0.5])  # a pair, as JSON has it
    assert [g["betas"] for g in jp.get_hyperparams(state)] == [(0.25, 0.5)] * 2


@pytest.mark.parametrize("factory", [jp.adamw, jp.lbfgs, optax.adamw])
def test_keys_of_ones_own_are_kept_shown_and_set(factory):
    group = {"params": jp.REST, "lr_scale": 0.5, "tag": "decoder"}
    options = {"learning_rate": 0.1} if factory is optax.adamw else {}
    tx = jp.param_groups(factory, [group], **options)
    state = tx.init(PARAMS)
    (shown,) = jp.get_hyperparams(state)
    assert (shown["lr_scale"], shown["tag"]) == (0.5, "decoder")
    state = jp.set_hyperparams(state, lr_scale=0.25)
    saved = jp.state_dict(tx, state, PARAMS)
    assert saved["param_groups"][0]["lr_scale"] == 0.25
    again = jp.load_state_dict(tx, saved, PARAMS)
    assert jp.get_hyperparams(again) == jp.get_hyperparams(state)


@pytest.mark.parametrize(
    "name",
    ["momentun", "weight_decy", "learning_rate", "leraning_rate", "b1", "eps_root", "LR"],
)
def test_what_is_nearly_an_option_is_none_of_ones_own(name):
    with pytest.raises(TypeError, match=f"unknown option '{name}'"):
        jp.SGD([{"params": jp.REST, name: 0.1}])


def test_an_options_name_with_a_word_more_is_ones_own():
    tx = jp.SGD([{"params": jp.REST, "weight_decay_mult": 0.5, "lr_mult": 2.0}], weight_decay=0.1)
    (shown,) = jp.get_hyperparams(tx.init(PARAMS))
    assert (shown["weight_decay"], shown["weight_decay_mult"], shown["lr_mult"]) == (0.1, 0.5, 2.0)
    with pytest.raises(TypeError, match="unknown option 'weight_decay_'"):
        jp.SGD([{"params": jp.REST, "weight_decay_": 0.1}])


@pytest.mark.parametrize(
    ("given", "both"),
    [
        ([(0.8, 0.9), (0.7, 0.8)], [(0.8, 0.9), (0.7, 0.8)]),
        ([None, [0.7, 0.8]], [(0.9, 0.999), (0.7, 0.8)]),
        ([0.8, 0.9], [(0.8, 0.9)] * 2),
    ],
)
def test_a_list_of_pairs_has_one_for_each_group(given, both):
    state = jp.Adam([{"params": "stem"}, {"params": jp.REST}]).init(PARAMS)
    changed = jp.set_hyperparams(state, betas=given)
    assert [group["betas"] for group in jp.get_hyperparams(changed)] == both
    with pytest.raises(ValueError, match="betas has 1 values for 2 groups"):
        jp.set_hyperparams(state, betas=[(0.8, 0.9)])
    changed = jp.set_hyperparams(state, lr=(0.1, 0.2))
    assert [group["lr"] for group in jp.get_hyperparams(changed)] == [0.1, 0.2]


def test_numbers_are_read_and_set_by_optaxs_own_tools():
    state = jp.SGD([{"params": "stem", "lr": 0.1}, {"params": jp.REST, "lr": 0.2}]).init(PARAMS)
    rates = optax.tree.get(state, "lr")
    np.testing.assert_array_equal(np.asarray(rates), [0.1, 0.2])
    assert repr(rates) == "Float64([0.1, 0.2])"
    assert float(optax.tree.get(state, "momentum").value[0]) == 0.0
    for value in (0.5, jnp.float32(0.5), np.array([0.5, 0.5])):
        changed = optax.tree.set(state, lr=value)
        assert [group["lr"] for group in jp.get_hyperparams(changed)] == [0.5, 0.5]
        changed = jp.set_hyperparams(changed, lr=0.25, group=0)
        assert [group["lr"] for group in jp.get_hyperparams(changed)] == [0.25, 0.5]


def test_another_rule_may_call_another_kind_of_number_the_same():
    groups = [
        {"params": "stem"},
        {"params": "body", "optimizer": jp.Adafactor},
        {"params": jp.REST},
    ]
    tx = jp.AdamW(groups, eps=0.5)
    params, state = jp.step(tx, PARAMS, tx.init(PARAMS), PARAMS)
    assert [g["eps"] for g in jp.get_hyperparams(state)] == [0.5, (None, 1e-3), 0.5]
    state = jp.set_hyperparams(state, eps={1: (1e-30, 0.25), 2: 0.125})
    assert [g["eps"] for g in jp.get_hyperparams(state)] == [0.5, (1e-30, 0.25), 0.125]
    for group in ("stem", "head"):
        alone = jp.adamw(eps=0.5)
        own = {group: PARAMS[group]}
        np.testing.assert_array_equal(
            params[group], jp.step(alone, own, alone.init(own), own)[0][group]
        )


def test_numbers_of_a_wrong_length_are_named():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    tx = jp.SGD([{"params": "a"}, {"params": "b"}], lr=0.1)
    state = optax.tree_utils.tree_set(tx.init(params), lr=jnp.ones(3))
    for use in (lambda: jp.get_hyperparams(state), lambda: tx.update(params, state, params)):
        with pytest.raises(ValueError, match=r"set to an array of shape \(3,\); .* 2 groups"):
            use()


WITHIN_JIT = {
    "a rate": (jp.SGD(lr=0.1), {"lr": -1.0}, "Invalid learning rate: -1.0"),
    "a pair": (jp.Adam(), {"betas": (1.5, 0.9)}, "Invalid beta parameter at index 0: 1.5"),
}


@pytest.mark.parametrize(("eps", "refused"), [((None, 0.5), False), ((0.5, None), True)])
def test_a_number_beside_a_traced_one_is_checked(eps, refused):
    tx = jp.Adafactor()
    state = tx.init({"a": jnp.ones(2)})

    def changed(number):
        own = tuple(number if x == 0.5 else x for x in eps)
        return jp.set_hyperparams(state, eps=own)

    if refused:
        with pytest.raises(TypeError, match=r"eps .* must be a number .* got None"):
            jax.jit(changed)(0.5)
    else:
        assert jp.get_hyperparams(jax.jit(changed)(0.5))[0]["eps"] == eps


def test_a_count_that_something_else_has_set_is_told():
    tx, params = jp.Adam(), {"a": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"'step' of the state has shape \(\) where"):
        jp.step(tx, params, optax.tree.set(tx.init(params), step=0), params)


@pytest.mark.parametrize("case", WITHIN_JIT)
def test_a_known_bad_number_is_refused_within_jit(case):
    tx, bad, message = WITHIN_JIT[case]
    state = tx.init({"a": jnp.ones(2)})
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda s: jp.set_hyperparams(s, **bad))(state)
    nesterov = jp.SGD(lr=0.1, momentum=0.9, nesterov=True).init({"a": jnp.ones(2)})
    after = jax.jit(lambda s: jp.set_hyperparams(s, lr=0.5, dampening=0.0))(nesterov)
    assert jp.get_hyperparams(after)[0]["lr"] == 0.5


KEYS = {
    "beyond float32": ({"tokens": 1e39}, ValueError, "tokens .group 0, jp.REST. is 1e.39"),
    "frozen by a word": ({"frozen": "no"}, TypeError, "frozen .group 0, jp.REST. must be True or"),
    "L-BFGS's": ({"max_iter": 5}, TypeError, "unknown option 'max_iter'"),
}


@pytest.mark.parametrize("case", KEYS)
def test_keys_that_are_none_of_ones_own(case):
    keys, error, message = KEYS[case]
    with pytest.raises(error, match=message):
        jp.SGD([{"params": jp.REST, **keys}], lr=0.1)


def test_a_key_that_float64_cannot_hold_is_kept_and_not_set():
    own = {"seed": 2**60 + 1, "tag": "x", "group": 3, "state": 4.0}  # names of set_hyperparams'
    tx, params = jp.SGD([{"params": jp.REST, **own}], lr=0.1), {"a": jnp.ones(2)}
    state = tx.init(params)
    loaded = jp.load_state_dict(tx, jp.state_dict(tx, state, params), params)
    for held in (state, loaded):
        assert {k: jp.get_hyperparams(held)[0][k] for k in own} == own
    with pytest.raises(ValueError, match=r"tag .* is no number and is kept as it was given"):
        jp.set_hyperparams(state, tag="y")


@pytest.mark.parametrize("cls", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_every_option_is_known_as_one_of_another_optimizer(cls):
    assert set(inspect.signature(cls.factory).parameters) <= _OPTIONS_ELSEWHERE
