"""Bad arguments: each raises before any state is made or changed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax.training import train_state

import jaxopt_port as jp

LOOPS = {
    "TrainState": lambda tx: train_state.TrainState.create(apply_fn=None, params=PARAMS, tx=tx),
    "chain": lambda tx: optax.chain(optax.clip(1.0), tx).init(PARAMS),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2).init(PARAMS),
    "update": lambda tx: tx.update(PARAMS, None, PARAMS),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_a_class_in_the_place_of_an_optimizer(loop):
    with pytest.raises(TypeError, match=r"Adam is a class, and no optimizer yet.* Adam\(…\)"):
        LOOPS[loop](jp.Adam)


BAD_OPTIONS = {
    "negative lr": ({"lr": -0.1}, ValueError, "Invalid learning rate: -0.1"),
    "lr that is no number": ({"lr": float("nan")}, ValueError, "Invalid learning rate: nan"),
    "negative momentum": ({"momentum": -1.0}, ValueError, "Invalid momentum value: -1.0"),
    "negative decay": ({"weight_decay": -1}, ValueError, "Invalid weight_decay value: -1.0"),
    "nesterov without momentum": (
        {"nesterov": True},
        ValueError,
        r"Nesterov momentum requires a momentum and zero dampening.*got momentum=0.0",
    ),
    "nesterov with dampening": (
        {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
        ValueError,
        "Nesterov momentum requires a momentum and zero dampening.*dampening=0.1",
    ),
    "a schedule that starts below 0": (
        {"lr": lambda count: -1.0 + count},
        ValueError,
        "Invalid learning rate: -1.0",
    ),
    "a string": ({"lr": "0.1"}, TypeError, "lr.* must be a number or an Optax schedule; got '0.1'"),
    "None": ({"momentum": None}, TypeError, "momentum.* must be a number"),
    "a bool for a number": ({"lr": True}, TypeError, "lr.* must be a number"),
    "a complex number": ({"lr": 1j}, TypeError, "lr.* must be a number"),
    "a number for a flag": ({"nesterov": 0.9}, TypeError, "nesterov.* must be True or False"),
    "beyond float32": ({"lr": 1e39}, ValueError, "lr.* is 1e.39; numbers beyond 3.4e.38 overflow"),
    "a vector": ({"lr": np.ones(2)}, ValueError, r"Tensor lr must be 1-element.*shape \(2,\)"),
    "an unknown name": ({"learning_rate": 0.1}, TypeError, "'learning_rate'; torch calls it"),
    **{
        name: ({name: True}, TypeError, f"'{name}' chooses among torch's own implementations")
        for name in ("foreach", "fused", "capturable", "differentiable")
    },
}
SPELLINGS = {"lower-case": jp.sgd, "CapWords": jp.SGD}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_option(case, spelling):
    options, error, message = BAD_OPTIONS[case]
    with pytest.raises(error, match=message):
        SPELLINGS[spelling](**options)


# lr as it may be given, and what it reads back as.
NUMBERS = {
    "float": (0.1, 0.1),
    "int": (1, 1.0),
    "numpy.float32": (np.float32(0.1), float(np.float32(0.1))),
    "numpy array": (np.array(0.1), 0.1),
    "numpy array of one": (np.array([0.1]), 0.1),
    "jax.Array": (jnp.float32(0.1), float(np.float32(0.1))),
    "jax.Array of one": (jnp.full(1, 0.25), 0.25),
    "integer jax.Array": (jnp.asarray(1), 1.0),
    "torch tensor": (torch.tensor(0.1), float(np.float32(0.1))),
    "torch tensor of one": (torch.tensor([0.25]), 0.25),
    "torch float64": (torch.tensor(0.1, dtype=torch.float64), 0.1),
    "torch tensor with gradient": (torch.tensor(0.25, requires_grad=True), 0.25),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_kinds_of_number(kind):
    given, expected = NUMBERS[kind]
    params = {"w": jnp.ones(2)}
    for optimizer in (jp.SGD, jp.LBFGS):
        state = optimizer(lr=given).init(params)
        assert jp.get_hyperparams(state)[0]["lr"] == expected
        state = jp.set_hyperparams(optimizer(lr=0.5).init(params), lr=given)
        assert jp.get_hyperparams(state)[0]["lr"] == expected
    tx = jp.sgd(lr=given)
    stepped, _ = jp.step(tx, params, tx.init(params), params)
    assert stepped["w"].tolist() == [np.float32(1 - np.float32(expected))] * 2


PARAMS = {"stem": {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}, "head": jnp.ones(2)}

# (gradients, params, error, pattern)
BAD_GRADIENTS = {
    "a leaf missing": (
        {"stem": {"w": jnp.ones((2, 3))}, "head": jnp.ones(2)},
        PARAMS,
        ValueError,
        'the gradients have no "stem/b", which the parameters have; did you mean "stem/w"',
    ),
    "a leaf too many": (
        {**PARAMS, "tail": jnp.ones(1)},
        PARAMS,
        ValueError,
        'the gradients have "tail", which the parameters have not',
    ),
    "another shape": (
        {**PARAMS, "head": jnp.ones((2, 1))},
        PARAMS,
        ValueError,
        r'the gradient of "head" has shape \(2, 1\), the parameter \(2,\)',
    ),
    "another dtype": (
        {**PARAMS, "head": jnp.ones(2, jnp.bfloat16)},
        PARAMS,
        TypeError,
        'the gradient of "head" has dtype bfloat16, the parameter float32',
    ),
    "one number": (jnp.ones(()), {"stem": PARAMS["stem"]}, ValueError, r"one value of shape \(\)"),
    "an array for what is within": (
        {"stem": jnp.ones(3), "head": jnp.ones(2)},
        PARAMS,
        ValueError,
        'the gradients have no "stem/b", which the parameters have',
    ),
    "an array for what is far within": (
        {"net": jnp.ones(3)},
        {"net": {"stem": PARAMS["stem"]}},
        ValueError,
        'the gradients have "net", which the parameters have not',
    ),
    "the value beside them": (
        (jnp.ones(()), PARAMS),
        PARAMS,
        ValueError,
        "value_and_grad returns .* the gradients alone",
    ),
    "no params": (PARAMS, None, ValueError, r"params is required: tx.update\(grads, state, params"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("case", BAD_GRADIENTS)
def test_bad_gradients(case, spelling):
    grads, params, error, message = BAD_GRADIENTS[case]
    tx = SPELLINGS[spelling](lr=0.1, momentum=0.9)
    state = tx.init(PARAMS if params is None else params)
    before = jax.tree.map(np.asarray, state)
    with pytest.raises(error, match=message):
        tx.update(grads, state, params)
    with pytest.raises(error, match=message):
        jp.step(tx, grads, state, params)
    jax.tree.map(np.testing.assert_array_equal, before, state)


BAD_PARAMS = {
    "an integer array": ({"w": jnp.arange(3)}, '"w" has dtype int32; only floating and complex'),
    "a boolean array": ({"w": np.ones(2, bool)}, '"w" has dtype bool'),
    "a function": ({"act": jnp.tanh}, r'the parameter "act" is .*, not an array; keep only the'),
    "a string": ({"name": "x"}, "the parameter \"name\" is 'x', not an array"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("case", BAD_PARAMS)
def test_bad_parameters(case, spelling):
    params, message = BAD_PARAMS[case]
    with pytest.raises(TypeError, match=message):
        SPELLINGS[spelling](lr=0.1).init(params)


def test_types_in_which_torch_does_not_add_are_refused():
    tensor = torch.nn.Parameter(torch.ones(2).to(torch.float8_e4m3fn))
    tensor.grad = torch.ones(2).to(torch.float8_e4m3fn)
    with pytest.raises(NotImplementedError) as theirs:
        torch.optim.SGD([tensor], lr=0.1).step()
    for optimizer in SPELLINGS.values():
        with pytest.raises(NotImplementedError) as ours:
            optimizer(lr=0.1).init({"w": jnp.ones(2, jnp.float8_e4m3fn)})
        assert str(ours.value).startswith(str(theirs.value).partition("'")[0])


def test_two_parameters_of_one_path_are_refused():
    params = {"a/b": jnp.ones(2), "a": {"b": jnp.ones(3)}}
    with pytest.raises(ValueError, match='two parameters have the path "a/b"'):
        jp.SGD(lr=0.1).init(params)


def test_a_state_of_other_groups_or_parameters_is_refused():
    one = jp.SGD(lr=0.1)
    two = jp.SGD([{"params": "stem"}, {"params": jp.REST}], lr=0.1)
    with pytest.raises(ValueError, match="this state was made by another optimizer"):
        two.update(PARAMS, one.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match=r"the state is a dict, .* the order is jp.step"):
        jp.step(one, one.init(PARAMS), PARAMS, PARAMS)
    with pytest.raises(ValueError, match="got the optimizer, where its state is meant"):
        jp.set_hyperparams(one, lr=0.5)
    only = {"head": jnp.ones(2)}
    with pytest.raises(ValueError, match='the state was made for: "stem/b" is in only one'):
        one.update(only, one.init(PARAMS), only)


def test_a_traced_number_is_refused_by_a_grouped_optimizer():
    with pytest.raises(TypeError, match=r"lr .*is traced, but a grouped optimizer holds its"):
        jax.jit(lambda lr: jp.SGD(lr=lr).init(PARAMS))(0.1)


NESTED = {
    "inject_hyperparams of CapWords": lambda: optax.inject_hyperparams(jp.SGD)(lr=0.1).init(PARAMS),
    "inject_hyperparams of param_groups": lambda: optax.inject_hyperparams(
        lambda lr: jp.param_groups(optax.adam, learning_rate=lr)
    )(lr=0.1).init(PARAMS),
    "param_groups of CapWords": lambda: jp.param_groups(jp.SGD, lr=0.1),
    "param_groups of inject_hyperparams": lambda: jp.param_groups(
        optax.inject_hyperparams(optax.sgd), learning_rate=0.1
    ).init(PARAMS),
    "param_groups of a factory that holds CapWords": lambda: jp.param_groups(
        lambda lr: optax.chain(optax.clip(1.0), jp.SGD(lr=lr)), lr=0.1
    ).init(PARAMS),
    "param_groups of a factory that injects": lambda: jp.param_groups(
        lambda lr: optax.chain(optax.clip(1.0), optax.inject_hyperparams(jp.sgd)(lr=lr)), lr=0.1
    ).init(PARAMS),


    "a group's optimizer that is made": lambda: jp.AdamW(
        [{"params": "w", "optimizer": jp.SGD(lr=1.0)}]
    ),
    "a lower-case one that is made": lambda: jp.AdamW(
        [{"params": "w", "optimizer": jp.sgd(lr=1.0)}]
    ),
    "param_groups of an optimizer that is made": lambda: jp.param_groups(jp.SGD(lr=1.0)),
    "param_groups of one of Optax's": lambda: jp.param_groups(optax.sgd(1.0)),
    "a joining group's that is made": lambda: jp.add_param_group(
        tx := jp.SGD([{"params": "head"}, {"params": jp.REST, "frozen": True}]),
        tx.init(PARAMS), PARAMS, {"params": "stem", "optimizer": jp.Adam(lr=1.0)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NESTED)
def test_numbers_are_never_held_twice(case):
    with pytest.raises(TypeError, match=r"would be lost|has groups of its own"):
        NESTED[case]()
