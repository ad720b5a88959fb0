"""The optimizers of other packages, against what those packages made of the same gradients.

`recorded.json` is written by ``python -m parity_tests.contrib.matrix --record``, which has the
packages; ``make matrix`` compares with them step by step.
"""

import dataclasses
import functools
import inspect
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import contrib
from jaxopt_port.contrib._timm import cautious
from jaxopt_port.engine import leaf_states
from parity_tests.contrib.cases import CASES, RECORDED, fingerprint, gradients
from parity_tests.oracles.bits import assert_same_bits

EXPECTED = json.loads(RECORDED.read_text())
NAMES = sorted({reference.optimizer for reference in contrib.REFERENCES}, key=lambda c: c.__name__)


@functools.cache
def run(case):
    """The port at the end of a run in float64."""
    start, arrays = gradients(case)
    with jax.enable_x64(True):
        tx = case.made()
        params = {name: jnp.asarray(array) for name, array in start.items()}
        state = tx.init(params)
        for step, one in enumerate(arrays):
            goals = {name: jnp.asarray(array) for name, array in one.items()}
            params, state = jp.step(tx, case.given(goals, params, step), state, params)
        return tx, params, state


FIRST = "timm Lion()"  # in the quickest run, too
ROWS = [
    pytest.param(case, id=repr(case), marks=[pytest.mark.always] * (repr(case) == FIRST))
    for case in CASES
]


@pytest.mark.share(20)
@pytest.mark.parametrize("case", ROWS)
def test_a_run_ends_where_the_packages_own_does(case):
    _, params, _ = run(case)
    assert set(params) == set(EXPECTED[repr(case)])
    for name, expected in EXPECTED[repr(case)].items():
        assert fingerprint(params[name]) == pytest.approx(expected, rel=1e-12, abs=1e-12), name


@pytest.mark.share(20)
@pytest.mark.parametrize("case", ROWS)
def test_a_state_dict_goes_to_the_package_and_back(case):
    tx, params, state = run(case)
    with jax.enable_x64(True):
        ours = jp.state_dict(tx, state, params)
        theirs = case.reference.to_torch(ours)
        _check_as_theirs(theirs, case)
        again = case.reference.from_torch(theirs, _Attributes(case, ours))
        loaded = jp.load_state_dict(case.made(), again, params)
        back = case.reference.to_torch(jp.state_dict(case.made(), loaded, params))
    for path, held in leaf_states(state).items():
        assert_same_bits(leaf_states(loaded)[path], held, path)
    assert back["param_groups"] == theirs["param_groups"]


def _check_as_theirs(state_dict, case):
    """What the package counts in Python is such, and what is a group's is there."""
    reference = case.reference
    groups = state_dict["param_groups"]
    held = [*state_dict["state"].values(), *groups]
    for name in reference.counts:
        assert all(type(entry[name]) is int for entry in held if name in entry)
    assert all(group.get("train_mode", True) for group in groups)
    for name in reference.in_groups:
        assert all(name in group for group in groups)
        assert not any(name in entry for entry in state_dict["state"].values())
    for name in reference.wide:
        assert all(type(entry[name]) is float for entry in held if name in entry)
    assert not any("_mid" in name or "_low" in name for entry in held for name in entry)


class _Attributes:
    """What a package's optimizer has besides its groups."""

    def __init__(self, case, state_dict):
        group = state_dict["param_groups"][0]
        self.defaults = {}
        for option, (place, _) in case.reference.attributes.items():
            name, _, key = place.partition(".")
            if key:
                self.defaults[key] = group[option]
            else:
                setattr(self, name, group[option])


@pytest.mark.parametrize("cls", NAMES, ids=lambda cls: cls.__name__)
def test_both_spellings_have_one_signature(cls):
    ours = inspect.signature(cls).parameters
    lower = inspect.signature(cls.factory).parameters
    assert next(iter(ours)) == "params"
    assert {k: p.default for k, p in ours.items() if k != "params"} == {
        k: p.default for k, p in lower.items()
    }
    documented = inspect.getdoc(cls)
    assert all(f"    {name}: " in documented for name in ours)
    assert documented.splitlines()[0] == inspect.getdoc(cls.factory).splitlines()[0]
    assert isinstance(cls(), cls)


BAD = [
    ("Lion", {"lr": -1.0}, r"Invalid learning rate: -1.0 \(group 0, jp.REST\)"),
    ("Lion", {"betas": (0.9, 1.0)}, "Invalid beta parameter at index 1: 1.0"),
    ("Lion", {"package": "lion"}, "no package 'lion' has a Lion"),
    ("Lion", {"lr": 0.0, "corrected_weight_decay": True}, "requires a positive max lr, got 0.0"),
    ("Lion", {"decoupled_weight_decay": True}, "_decay is an option of lion-pytorch's alone"),
    *(
        ("Lion", {"package": "lion-pytorch", name: True}, f'{name} is .* or give package="timm"')
        for name in ("caution", "corrected_weight_decay", "maximize")
    ),
    ("Adafactor", {"min_dim_size_to_factor": 2}, "is an option of timm's alone, not of transf"),
    ("Adafactor", {"caution": True, "beta1": 0.9}, 'caution is .* or give package="timm"'),
    ("Lamb", {"max_grad_norm": 0.0}, "Invalid max_grad_norm value: 0.0"),
    ("Lars", {"nesterov": True}, "Nesterov momentum requires a momentum and zero dampening"),
    ("SGDW", {"momentum": -0.1}, "Invalid momentum value: -0.1"),
    ("MADGRAD", {"lr": 0.0}, "Learning rate 0.0 must be positive"),
    ("MADGRAD", {"params": [{"params": jp.REST, "lr": -0.1}]}, "Learning rate -0.1 must be posi"),
    ("MADGRAD", {"momentum": 1.0}, "Momentum 1.0 must be in the range"),
    ("Mars", {"mars_type": "adam"}, "MARS type not supported"),
    ("Adafactor", {"beta1": "0.9"}, "Invalid beta1 value: '0.9' .*; beta1 must be a number or"),
    ("AdafactorBigVision", {"eps": "a"}, "Invalid eps value: 'a' .*; eps must be a number or None"),
    ("NAdamW", {"clipping_threshold": [1]}, r"value: \[1\] .*; clipping_threshold must be a numb"),
    ("Adafactor", {"lr": 0.1}, "Cannot combine manual `lr` and `relative_step=True` options"),
    ("Adafactor", {"relative_step": False}, "there is neither a relative step nor a rate"),
    ("AdafactorBigVision", {"momentum_dtype": "int8"}, "int8 dtype not supported"),
    ("Muon", {"momentum": 1.0}, "Invalid momentum value: 1.0"),
    ("Prodigy", {"d0": 0.0}, "Invalid d0 value: 0.0"),
    ("Prodigy", {"slice_p": 0}, "Invalid slice_p value: 0"),
    ("Mars", {"betas_1d": (0.9, 1.0)}, "Invalid beta parameter at index 1: 1.0"),
    ("Mars", {"lr_1d_factor": -1.0}, "Invalid lr_1d_factor value: -1.0"),
    ("Kron", {"momentum": 1.0}, "Invalid beta parameter: 1.0"),
    ("Kron", {"memory_save_mode": "none"}, "Invalid memory_save_mode: none"),
    ("Kron", {"preconditioner_update_probability": 2.0}, "update_probability value: 2.0"),
    ("Kron", {"lr": 0.0, "corrected_weight_decay": True}, "requires a positive max lr, got 0.0"),
    ("Kron", {"seed": -1}, "Invalid seed value: -1"),
    ("Kron", {"seed": 2**64}, f"Invalid seed value: {2**64}"),
    ("Lars", {"trust_coeff": 0.0}, "Invalid trust_coeff value: 0.0"),
    ("Lars", {"eps": -1.0}, "Invalid epsilon value: -1.0"),
    ("NAdamW", {"clipping_threshold": 0.0}, "Invalid clipping_threshold value: 0.0"),
    ("Adafactor", {"relative_step": False, "lr": -1.0}, "Invalid learning rate: -1.0"),
    ("Adafactor", {"eps": (1e-30, -1.0)}, "Invalid epsilon value: -1.0"),
    ("Adafactor", {"clip_threshold": 0.0}, "Invalid clip_threshold value: 0.0"),
    ("Adafactor", {"beta1": 1.0}, "Invalid beta1 value: 1.0"),
    ("Adafactor", {"min_dim_size_to_factor": 1.5}, "Invalid min_dim_size_to_factor value: 1.5"),
    ("AdafactorBigVision", {"momentum": 1.0}, "Invalid momentum value: 1.0"),
    ("AdafactorBigVision", {"decay_offset": -1}, "Invalid decay_offset value: -1"),
    ("AdafactorBigVision", {"clipping_threshold": 0.0}, "Invalid clipping_threshold value: 0.0"),
    ("Prodigy", {"beta3": 1.0}, "Invalid beta3 value: 1.0"),
    ("Prodigy", {"d_coef": 0.0}, "Invalid d_coef value: 0.0"),
    ("Prodigy", {"growth_rate": 0.5}, "Invalid growth_rate value: 0.5"),
    ("DAdaptAdam", {"d0": -1.0}, "Invalid d0 value: -1.0"),
    ("DAdaptAdam", {"eps": 0.0}, "Invalid epsilon value: 0.0"),
    ("DAdaptAdam", {"layer_scale": -1.0}, "Invalid layer_scale value: -1.0"),
    ("DAdaptAdaGrad", {"momentum": 1.0}, "Invalid momentum value: 1.0"),
    ("DAdaptAdan", {"betas": (0.9, 0.9, 1.0)}, "Invalid beta parameter at index 2: 1.0"),
    ("DAdaptLion", {"lr": -1.0}, "Invalid learning rate: -1.0"),
    ("DAdaptSGD", {"growth_rate": 0.5}, "Invalid growth_rate value: 0.5"),
    ("AdamWScheduleFree", {"warmup_steps": -1}, "Invalid warmup_steps value: -1"),
    ("SGDScheduleFree", {"warmup_steps": 0.5}, "Invalid warmup_steps value: 0.5"),
    ("SGDScheduleFree", {"momentum": 1.0}, "Momentum must be between 0 and 1 exclusive: 1.0"),
    ("AdamWScheduleFree", {"betas": (0.0, 0.9)}, r"betas\[0\] must be above 0: 0.0"),
    ("RAdamScheduleFree", {"betas": (0.0, 0.9)}, r"betas\[0\] must be above 0: 0.0"),
    ("RAdamScheduleFree", {"eps": -1.0}, "Invalid epsilon value: -1.0"),
    ("SOAP", {"lr": -1.0}, r"learning rate must be positive. \(-1.0 > 0\)"),
    ("SOAP", {"betas": (1.0, 0.9)}, r"beta1 must be in the range \[0.0, 1.0\) .* got 1.0"),
    ("SOAP", {"shampoo_beta": -0.1}, "shampoo_beta must be non-negative .* got -0.1"),
    ("SOAP", {"shampoo_beta": 1.0}, "no gradient has a part at shampoo_beta=1.0"),
    ("SOAP", {"precondition_frequency": 0}, "Invalid precondition_frequency value: 0"),
    ("SOAP", {"max_precondition_dim": 0.5}, "Invalid max_precondition_dim value: 0.5"),
    ("AdEMAMix", {"betas": (0.9, 0.9, 1.5)}, r"beta3 must be in the range \[0.0, 1.0\] .* got 1.5"),
    ("AdEMAMix", {"alpha": -1.0}, "alpha must be non-negative .* got -1.0"),
    ("AdEMAMix", {"t_alpha_beta3": 0.0}, "a warm-up over 0.0 steps"),
    ("AdEMAMix", {"t_alpha_beta3": 9.0, "betas": (0.0, 0.9, 0.9)}, "from a decay of 0.0 to 0.9"),
    ("Adam8bit", {"amsgrad": True}, "amsgrad=True has no numbers to be compared with"),
    ("AdamW8bit", {"bf16_stochastic_round": True}, "draws torch's random numbers"),
    ("AdamW8bit", {"block_size": 0}, "Invalid block_size value: 0"),
    ("CAME", {"clip_threshold": 0.0}, "Invalid clip_threshold value: 0.0"),
    ("CAME", {"eps2": -1.0}, "eps2 must be non-negative .* got -1.0"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD)
def test_bad_arguments_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(contrib, name)(**options)


@pytest.mark.parametrize("cls", NAMES, ids=lambda cls: cls.__name__)
def test_a_decay_below_zero_is_named(cls):
    with pytest.raises(ValueError, match=r"(?i)weight.decay.* -0\.1"):
        cls(weight_decay=-0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: contrib.MADGRAD([{"params": "a"}, {"params": "b", "lr": 0.0}]),
        lambda: contrib.MADGRAD(lr=lambda count: 0.1 * count),
    ],
    ids=["group", "schedule"],
)
def test_madgrad_takes_a_rate_of_0_but_by_default(make):
    """As timm, which checks the default alone."""
    tx = make()
    state = tx.init(PARAMS)
    _, state = jp.step(tx, GRADS, state, PARAMS)
    if not callable(tx.definition.members[0].numbers["lr"]):
        state = jp.set_hyperparams(state, lr=0.0)
    saved = jp.state_dict(tx, state, PARAMS)
    assert saved["param_groups"][-1]["lr"] == 0.0
    assert jp.get_hyperparams(jp.load_state_dict(make(), saved, PARAMS))[-1]["lr"] == 0.0


def test_a_matrix_is_asked_for():
    with pytest.raises(ValueError, match=r"Muon steps matrices, .* has the shape \(3,\)"):
        contrib.Muon().init({"bias": jnp.ones(3)})


PARAMS = {"a": jnp.arange(1.0, 4.0), "b": jnp.ones((2, 2))}
GRADS = {"a": jnp.full(3, 3.0), "b": jnp.full((2, 2), -2.0)}


def _stepped(tx, params, steps=3):
    state = tx.init(params)
    for _ in range(steps):
        grads = {name: GRADS[name] for name in params}
        params, state = jp.step(tx, grads, state, params)
    return np.asarray(params["b"])


@pytest.mark.parametrize(
    ("cls", "options", "other"),
    [
        (contrib.Lamb, {"eps": 1.0, "weight_decay": 0.0}, {"trust_clip": True}),
        (contrib.Prodigy, {"d0": 0.1}, {"safeguard_warmup": True}),  # the same at a rate of 1
        (contrib.DAdaptAdam, {"d0": 0.1, "eps": 1.0}, {}),  # no static option may differ
    ],
    ids=["Lamb", "Prodigy", "DAdaptAdam"],
)
def test_what_is_added_up_is_added_up_over_all_groups(cls, options, other):
    """Two groups, of one program and, where they may be, of two, step as one."""
    expected = _stepped(cls(**options), PARAMS)
    groups = [{"params": "a"}, {"params": "b"}]
    assert np.array_equal(_stepped(cls(groups, **options), PARAMS), expected)
    others = [{"params": "b"}, {"params": "a", **other}]
    assert np.array_equal(_stepped(cls(others, **options), PARAMS), expected)
    assert np.all(_stepped(cls(**options), {"b": PARAMS["b"]}) != expected)


TOGETHER = {
    "Prodigy": {
        **{"lr": 0.5, "d_coef": 3.0, "d0": 1e-5, "growth_rate": 2.0, "betas": (0.5, 0.9)},
        **{"beta3": 0.5, "decouple": False, "use_bias_correction": True},
    },
    "DAdaptAdam": {"lr": 0.5, "growth_rate": 2.0, "betas": (0.5, 0.9)},
    "DAdaptSGD": {"lr": 0.5, "momentum": 0.5, "weight_decay": 0.1},
    "DAdaptAdaGrad": {"lr": 0.0, "momentum": 0.5},
    "DAdaptAdan": {"lr": 0.0, "betas": (0.9, 0.9, 0.9), "no_prox": True},
    "DAdaptLion": {"lr": 0.0, "betas": (0.5, 0.9)},
    "Lamb": {"max_grad_norm": 0.1},
}
ESTIMATING = [name for name in TOGETHER if name != "Lamb"]


@pytest.mark.parametrize("name", [name for name in ESTIMATING if name != "Prodigy"])
def test_the_first_groups_d0_is_that_of_all(name):
    cls = getattr(contrib, name)
    groups = [{"params": "a", "d0": 0.1}, {"params": "b"}]
    assert np.array_equal(_stepped(cls(groups), PARAMS), _stepped(cls(d0=0.1), PARAMS))


IN_COMMON = [(name, option) for name, own in TOGETHER.items() for option in own]
NUMBERS = [(n, option) for n, option in IN_COMMON if not isinstance(TOGETHER[n][option], bool)]


def _of_others(option):
    return rf'{option} \(group 1, "b"\) is .*, that of group 0, "a" .* set it for all at once'


@pytest.mark.parametrize(("name", "option"), IN_COMMON)
def test_one_rate_for_all_groups_needs_the_same_options(name, option):
    """A package raises at another rate, and takes the first group's, or its own, of the rest."""
    cls, other = getattr(contrib, name), {"params": "b", option: TOGETHER[name][option]}
    with pytest.raises(ValueError, match=_of_others(option)):
        cls([{"params": "a"}, other])
    tx = cls([{"params": "a"}, {"params": "b", "frozen": True}])
    with pytest.raises(ValueError, match=rf'{option} \(group 2, "b"\) is .*, that of group 0'):
        jp.add_param_group(tx, tx.init(PARAMS), PARAMS, other)


@pytest.mark.parametrize(("name", "option"), NUMBERS)
def test_a_number_of_all_groups_is_set_for_all_at_once(name, option):
    cls, value = getattr(contrib, name), TOGETHER[name][option]
    state = cls([{"params": "a"}, {"params": "b"}]).init(PARAMS)
    with pytest.raises(ValueError, match=_of_others(option)):
        jp.set_hyperparams(state, group=1, **{option: value})
    after = jp.set_hyperparams(state, **{option: value})
    assert [group[option] for group in jp.get_hyperparams(after)] == [value] * 2
    inside = jax.jit(lambda state, v: jp.set_hyperparams(state, **{option: v}))(state, value)
    assert jp.get_hyperparams(inside)[1][option] == pytest.approx(value, rel=1e-6)
    apart = jax.jit(lambda state, v: jp.set_hyperparams(state, group=1, **{option: v}))
    assert np.isnan(jp.get_hyperparams(apart(state, value))[0][option]).all()


@pytest.mark.parametrize("name", ESTIMATING)
def test_a_schedule_of_all_groups_is_the_same_one(name):
    cls, schedule = getattr(contrib, name), optax.constant_schedule(1.0)
    cls([{"params": "a"}, {"params": "b"}], lr=schedule)
    for other in (optax.constant_schedule(1.0), 1.0):
        with pytest.raises(ValueError, match=r"has one .* give all the same sch"):
            cls([{"params": "a", "lr": schedule}, {"params": "b", "lr": other}])
    state = cls([{"params": "a"}, {"params": "b"}]).init(PARAMS)
    apart = jp.lr_scheduler.LambdaLR([lambda epoch: 1.0, lambda epoch: 0.5])
    state, _ = jax.jit(apart.init)(state)
    assert np.isnan([group["lr"] for group in jp.get_hyperparams(state)]).all()


@pytest.mark.parametrize("rates", [(0.0, 1.0, 1.0), (1.0, 0.0, 1.0)])
@pytest.mark.parametrize("name", ["Prodigy", "DAdaptAdam", "DAdaptSGD"])
def test_a_group_may_have_a_rate_of_zero_beside_the_others(name, rates):
    params = {"a": jnp.ones(2), "b": jnp.ones(2), "c": jnp.ones(2)}
    groups = [{"params": k, "lr": lr} for k, lr in zip(params, rates, strict=True)]
    tx = getattr(contrib, name)(groups, d0=0.1)
    after, _ = jp.step(tx, jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    moved = [bool(jnp.any(after[k] != params[k])) for k in params]
    assert moved == [lr > 0 for lr in rates]


def test_what_is_evaluated_is_the_average_and_can_be_undone():
    tx = contrib.SGDScheduleFree(lr=0.5)
    params, state = PARAMS, tx.init(PARAMS)
    assert_same_bits(contrib.schedule_free_eval_params(state, params), params, "at first")
    for _ in range(3):
        params, state = jp.step(tx, GRADS, state, params)
    held = leaf_states(state)
    evaluated = contrib.schedule_free_eval_params(state, params)
    for name in params:  # y = (1 - momentum) z + momentum x
        between = 0.1 * held[name]["z"] + 0.9 * evaluated[name]
        np.testing.assert_allclose(between, params[name], rtol=1e-6)
    again = contrib.schedule_free_train_params(state, evaluated)
    np.testing.assert_allclose(again["a"], params["a"], rtol=1e-6)
    with pytest.raises(ValueError, match="no parameter is stepped by a schedule-free optimizer"):
        contrib.schedule_free_eval_params(jp.Adam().init(PARAMS), PARAMS)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_caution_keeps_what_torchs_product_is_above_zero_of(dtype):
    update, grad = np.meshgrid([2.0**-24, 2.0**-14, 1e-4, 1.0], 2.0 ** -np.arange(0, 25, 3.0))
    update, grad = np.stack([update, -update]).ravel(), np.tile(grad.ravel(), 2)
    theirs = [torch.tensor(x).to(getattr(torch, dtype)) for x in (update, grad)]
    with jax.enable_x64(True):
        kept = cautious(jnp.asarray(update, dtype), jnp.asarray(grad, dtype)) != 0
    assert kept.tolist() == (theirs[0] * theirs[1] > 0).tolist()


def test_evaluated_parameters_are_those_of_the_state():
    state = contrib.SGDScheduleFree(lr=0.5).init(PARAMS)
    for other in (
        {**PARAMS, "z": jnp.ones(2)},
        {k: v for k, v in PARAMS.items() if k != "b"},
    ):
        with pytest.raises(ValueError, match=r'not those of the state: they have (no "b"|a "z")'):
            contrib.schedule_free_eval_params(state, other)


def test_a_type_of_momentum_is_jaxs_or_its_name():
    shown = [
        jp.get_hyperparams(contrib.AdafactorBigVision(momentum_dtype=given).init(PARAMS))
        for given in (jnp.float16, np.dtype("float16"), "float16")
    ]
    assert shown[0] == shown[1] == shown[2]
    assert shown[0][0]["momentum_dtype"] == "float16"


OTHERS = [jp.SGD, jp.Adam, jp.Rprop, contrib.MADGRAD, contrib.Lion]


@pytest.mark.parametrize("other", OTHERS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("cls", [contrib.SGDScheduleFree, contrib.AdamWScheduleFree])
def test_what_another_optimizer_steps_is_evaluated_as_it_is(cls, other):
    alone = cls(lr=0.5)
    mixed = cls([{"params": "a"}, {"params": "b", "optimizer": other, "lr": 0.5}], lr=0.5)
    ends = []
    for tx, params in ((alone, {"a": PARAMS["a"]}), (mixed, PARAMS)):
        state = tx.init(params)
        for _ in range(2):
            params, state = jp.step(tx, {name: GRADS[name] for name in params}, state, params)
        ends.append((params, contrib.schedule_free_eval_params(state, params)))
    (_, expected), (params, found) = ends
    assert_same_bits({"a": found["a"]}, expected, "the average")
    assert found["b"] is params["b"]


def test_a_state_in_evaluation_mode_is_refused():
    (reference,) = [r for r in contrib.REFERENCES if r.name == "AdamWScheduleFree"]
    group = {"params": [0], "k": 3, "train_mode": False}
    with pytest.raises(ValueError, match=r"in evaluation mode, .* call optimizer.train\(\)"):
        reference.from_torch({"state": {0: {"z": np.ones(2)}}, "param_groups": [group]})


def test_a_state_that_does_not_say_its_mode_is_of_training():
    (reference,) = [r for r in contrib.REFERENCES if r.name == "AdamWScheduleFree"]
    group = {"params": [0], "k": 3, "weight_sum": 1.0, "lr_max": 0.1}
    saved = {"state": {0: {"z": np.ones(2)}}, "param_groups": [group]}
    assert reference.from_torch(saved)["state"][0]["k"] == 3


def test_a_soap_that_merges_axes_or_was_begun_otherwise_is_refused():
    soap = contrib.reference_named("SOAP")
    options = types.SimpleNamespace(maximize=False)
    group = {"params": [0, 1], "merge_dims": True}
    with pytest.raises(ValueError, match="SOAP has no merge_dims here"):
        soap.from_torch({"state": {}, "param_groups": [group]}, options)
    begun = {"exp_avg": np.ones(2), "GG": [[]], "Q": [[]], "precondition_frequency": 10}
    state = {i: {**begun, "shampoo_beta": 0.8 + 0.1 * i} for i in range(2)}
    group = {"params": [0, 1], "shampoo_beta": None}
    with pytest.raises(ValueError, match="begun with different options"):
        soap.from_torch({"state": state, "param_groups": [group]}, options)
    state[1]["shampoo_beta"] = 0.8
    (read,) = soap.from_torch({"state": state, "param_groups": [group]}, options)["param_groups"]
    assert read["shampoo_beta"] == 0.8


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"mu_dtype": "bfloat16"}, "Kron has no mu_dtype here: it is bfloat16 there"),
        ({"preconditioner_update_probability": abs}, "is a function there"),
    ],
)
def test_a_kron_that_is_not_here_is_refused(entry, message):
    kron = contrib.reference_named("Kron")
    group = {"params": [0], "preconditioner_update_probability": None, **entry}
    with pytest.raises(ValueError, match=message):
        kron.from_torch({"state": {}, "param_groups": [group]})


def test_kron_draws_the_same_again_and_otherwise_by_another_seed():
    params = {"b": PARAMS["b"]}
    seeds = 1, 1, 2, 2**32 + 1, 2**64 - 1
    first, again, *others = (_stepped(contrib.Kron(lr=0.1, seed=seed), params) for seed in seeds)
    assert np.array_equal(first, again)
    assert len({found.tobytes() for found in (first, *others)}) == 4


def test_kron_tells_its_factors_of_many_axes_apart():
    """A longer last axis: the factors of 12 axes are of different shapes, and keep them."""
    params = {"w": jnp.ones((1, 2, *[1] * 8, 2, 3))}
    tx = contrib.Kron(lr=0.1)
    begun = tx.init(params)
    _, state = jp.step(tx, {"w": jnp.arange(12.0).reshape(params["w"].shape)}, begun, params)
    assert jax.tree.map(jnp.shape, state.leaves) == jax.tree.map(jnp.shape, begun.leaves)


def test_a_class_that_another_version_does_not_have_is_named():
    newer = dataclasses.replace(contrib.reference_named("Kron"), module="numpy", name="Newer")
    with pytest.raises(ImportError, match=r"this timm has no Newer in numpy: install another"):
        newer.imported()


@pytest.mark.parametrize("name", ["Lion", "Adafactor"])
def test_a_name_that_several_packages_have_is_not_guessed(name):
    with pytest.raises(TypeError, match=f"several packages have an optimizer of the name '{name}'"):
        contrib.reference_named(name)
    assert contrib.reference_named(f"timm.{name}").package == "timm"


def test_what_a_state_dict_does_not_say_is_asked_for():
    lion = contrib.reference_named("lion-pytorch.Lion")
    with pytest.raises(ValueError, match="does not say what decoupled_weight_decay, max_lr_snap"):
        lion.from_torch({"state": {}, "param_groups": [{"params": [0], "lr": 0.1}]})
