"""Bad input to groups that join and to numbers that are set: nothing is changed."""

import math

import jax
import jax.numpy as jnp
import optax
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import contrib
from parity_tests.oracles.bad_input import Bad, assert_refused

PARAMS = {"w": jnp.array([1.0, 2.0, 3.0]), "b": jnp.zeros(2)}
SHORT = {"w": jnp.ones(4), "b": jnp.ones(2)}
GROUPS = jp.SGD(
    [{"params": "w", "name": "stem"}, {"params": "b", "frozen": True}], lr=0.1, momentum=0.9
)
OF_GROUPS = GROUPS.init(PARAMS)
OF_ADAM = jp.Adam().init(PARAMS)
SCHEDULE = optax.linear_schedule(0.1, 0.0, 10)
OF_SCHEDULE = jp.SGD(
    [{"params": "w", "name": "stem"}, {"params": "b", "lr": SCHEDULE, "name": "head"}], lr=0.1
).init(PARAMS)


def joining(group, params=PARAMS, state=OF_GROUPS, tx=GROUPS):
    return lambda: jp.add_param_group(tx, state, params, group)


def joining_in_torch(group):
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    return lambda: sgd.add_param_group(group)


def sgd_of_torch(lr):
    return lambda: torch.optim.SGD([torch.ones(1)], lr=lr)


def setting(state=OF_GROUPS, **values):
    return lambda: jp.set_hyperparams(state, **values)


REQUIRED = "parameter group didn't specify a value of required optimization parameter"
DICT = "param_group must be a dict, but got"
NO_STATE = "expected the state of one grouped optimizer, found 0"
CASES = {
    "a word that joins": Bad(joining("b"), TypeError, DICT, joining_in_torch("b")),
    "None that joins": Bad(joining(None), TypeError, DICT, joining_in_torch(None)),
    "a list that joins": Bad(joining([{"params": "b"}]), TypeError, DICT, joining_in_torch([{}])),
    "no selector": Bad(joining({"lr": 0.1}), ValueError, "group 2 has no 'params' entry"),
    "another optimizer without its rate": Bad(
        lambda: contrib.Lion([{"params": "w", "optimizer": optax.adam}, {"params": "b"}]),
        ValueError,
        rf'{REQUIRED} learning_rate \(group 0, "w"\)',
    ),
    "an optimizer without an argument of its own": Bad(
        lambda: jp.param_groups(lambda lr, *rest, size, **more: optax.sgd(lr), lr=0.1),
        ValueError,
        rf"{REQUIRED} size \(group 0, jp\.REST\)",
    ),
    "a mapping and a group": Bad(
        setting(lr={"stem": 0.1}, group=0), ValueError, "a mapping, which says the groups itself"
    ),
    "a group by its name and its index": Bad(
        setting(lr={"stem": 0.1, 0: 0.2}), ValueError, "lr names a group twice"
    ),
    "a number beyond all": Bad(setting(lr=10**400), ValueError, "numbers beyond"),
    "two traced numbers for one": Bad(
        lambda: jax.jit(lambda lr: jp.set_hyperparams(OF_GROUPS, lr=lr, group=0))(jnp.ones(2)),
        ValueError,
        "Tensor lr must be 1-element",
    ),
    "a traced array for a pair": Bad(
        lambda: jax.jit(lambda b: jp.set_hyperparams(OF_ADAM, betas=b))(jnp.ones(2)),
        TypeError,
        "betas .* must be 2 numbers",
    ),
    "nothing selected": Bad(
        joining({"params": "n"}), ValueError, 'group 2, "n" matched no parameter'
    ),
    "trained already": Bad(
        joining({"params": "w"}),
        ValueError,
        "some parameters appear in more than one parameter group: "
        '"w" is in group 0, "stem" and in group 2, "w"',
    ),
    "a new name twice": Bad(
        joining({"params": "b", "name": "stem"}),
        ValueError,
        'two parameter groups are named "stem"',
    ),
    "a bad rate": Bad(
        joining({"params": "b", "lr": "a"}), TypeError, r'lr \(group 2, "b"\) must be'
    ),
    "a rate below 0": Bad(
        joining({"params": "b", "lr": -1}), ValueError, "Invalid learning rate: -1"
    ),
    "a bad option": Bad(joining({"params": "b", "lrr": 1.0}), TypeError, 'did you mean "lr"'),
    "another new one": Bad(
        joining({"params": "b"}, {**PARAMS, "n": jnp.ones(1)}),
        ValueError,
        '"n" is new, and only the new group, or a frozen',
    ),
    "one lost": Bad(
        joining({"params": "b"}, {"b": jnp.ones(2)}), ValueError, 'parameters have lost "w"'
    ),
    "one of another shape": Bad(
        joining({"params": "b"}, SHORT), ValueError, r'momentum_buffer of "w" has shape \(3,\)'
    ),
    "joining the lower-case": Bad(
        joining({"params": "b"}, tx=jp.sgd(lr=0.1)), TypeError, "needs an optimizer with groups"
    ),
    "joining another's state": Bad(
        joining({"params": "b"}, state=jp.Adam().init(PARAMS)), ValueError, "made by another optim"
    ),
    "joining parameters for a state": Bad(
        joining({"params": "b"}, OF_GROUPS, PARAMS), ValueError, NO_STATE
    ),
    "set to a word": Bad(setting(lr="a"), TypeError, "lr .* must be a number"),
    "set to None": Bad(setting(lr=None), TypeError, "lr .* must be a number"),
    "set to NaN": Bad(setting(lr=math.nan), ValueError, "Invalid learning rate: nan"),
    "set below 0": Bad(
        setting(lr=-1.0), ValueError, "Invalid learning rate: -1.0", sgd_of_torch(-1.0)
    ),
    "set for another number of groups": Bad(setting(lr=[0.1]), ValueError, "1 values for 2 groups"),
    "set to two numbers": Bad(
        setting(lr=jnp.ones(2)), ValueError, "Tensor lr must be 1-elem", sgd_of_torch(torch.ones(2))
    ),
    "set to a schedule": Bad(setting(lr=SCHEDULE), TypeError, r'lr \(group 0, "stem"\) must be a'),
    "set to a pair": Bad(setting(lr=(1.0, 2.0), group=0), TypeError, "lr .*must be one number"),
    "a list for one group": Bad(
        setting(group=0, lr=[1.0]), ValueError, "has a value for each group"
    ),
    "a bad number in a list": Bad(
        setting(OF_SCHEDULE, lr=[-1.0, None]), ValueError, "Invalid learning rate: -1"
    ),
    "a mapping of no group": Bad(
        setting(lr={"stm": 1.0}), ValueError, 'no group is named "stm"; did you mean "stem"'
    ),
    "set beside a schedule": Bad(
        setting(OF_SCHEDULE, group="head", lr=0.1),
        ValueError,
        r'lr is set by an Optax schedule \(group 1, "head"\)',
    ),
    "set beside a schedule in one of all": Bad(
        setting(OF_SCHEDULE, lr=0.1), ValueError, 'lr is set by an Optax schedule.*"head"'
    ),
    "momentum without a buffer": Bad(
        setting(OF_SCHEDULE, group=0, momentum=0.9),
        ValueError,
        r'built without the state that momentum would need \(group 0, "stem"\)',
    ),
    "None, which is held as infinity": Bad(
        setting(contrib.Lamb().init(PARAMS), max_grad_norm=None), TypeError, "give math.inf"
    ),
    "None for a pair": Bad(
        setting(contrib.Mars().init(PARAMS), betas_1d=None), TypeError, r"give \(math.inf, math.inf"
    ),
    "torch's implementation": Bad(
        setting(fused=True), TypeError, "'fused' .*chooses among torch's own"
    ),
    "misspelt": Bad(setting(lrr=0.1), TypeError, 'did you mean "lr"'),
    "a static option": Bad(
        setting(nesterov=True), ValueError, r'nesterov is static \(group 0, "stem"'
    ),
    "one of a frozen group": Bad(
        setting(group=1, lr=0.1), ValueError, 'group 1, "b" is frozen and has no options'
    ),
    "no such group": Bad(setting(group=5, lr=0.1), ValueError, "no group 5; the groups are 0 to 1"),
    "no such name": Bad(setting(group="stm", lr=0.1), ValueError, 'did you mean "stem"'),
    "half a group": Bad(setting(group=1.0, lr=0.1), TypeError, "group must be an index or a name"),
    "a bool for a group": Bad(
        setting(group=True, lr=0.1), TypeError, "group must be an index or a name"
    ),
    "rest as a word": Bad(
        setting(group=0, frozen="yes"), TypeError, "frozen must be True or False"
    ),
    "a part that is right": Bad(
        setting(lr=0.2, momentum=-1.0),
        ValueError,
        r'Invalid momentum value: -1.0 \(group 0, "stem"\)',
    ),
    "set in parameters": Bad(setting(PARAMS, lr=0.1), ValueError, NO_STATE),
    "set in a state of Optax's": Bad(
        setting(optax.adam(0.1).init(PARAMS), lr=0.1), ValueError, NO_STATE
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case):
    assert_refused(CASES[case], (PARAMS, OF_GROUPS, OF_SCHEDULE))
