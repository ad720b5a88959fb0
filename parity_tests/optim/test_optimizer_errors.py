"""Every error of torch's own table, for every optimizer: raised here too, or without a meaning."""

import jax.numpy as jnp
import optax
import pytest
import torch
from jax.experimental import sparse
from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db

import jaxopt_port as jp
from jaxopt_port.engine import Rule, transformation
from parity_tests.oracles.optimizer import bad_arguments

CLASSES = [info.optim_cls for info in optim_db]
ERRORS = {
    (cls.__name__, description): error
    for cls in CLASSES
    for description, error in bad_arguments(cls).items()
}

_FOREACH = "foreach chooses among torch's own implementations; it is no option here"
_NAMES = "every path is a name"
MEANINGLESS = {
    "a param group cannot have duplicate parameters": (
        "a selector chooses a path, and a path once; two selectors of one group may both match it"
    ),
    "all optimizer params should be with/without names": _NAMES,
    "all optimizer param groups should be with/without names.": _NAMES,
    "lr as Tensor doesn't work with foreach & not capturable": _FOREACH,
    r"betas\[0\] as a Tensor is not supported for capturable=False and foreach=True": _FOREACH,
    "betas must be either both floats or both Tensors": "a number is a number, from whatever array",
}
COMPLEX, SPARSE = (
    {"w": jnp.ones((2, 2), jnp.complex64)},
    {"w": sparse.BCOO.fromdense(jnp.eye(2))},
)
# By torch's description: what is done here, for those that are not a matter of options alone.
DONE = {
    "invalid param type": lambda cls: cls(jnp.ones((1, 1))),
    "duplicate parameters should not occur across param groups either": lambda cls: cls(
        [{"params": "w"}, {"params": "w"}]
    ).init({"w": jnp.ones((1, 1))}),
    "only support 2D parameters": lambda cls: cls().init({"w": jnp.ones(2)}),
    "does not support complex parameters": lambda cls: cls().init(COMPLEX),
    "complex not supported": lambda cls: cls().init(COMPLEX),
    "dense params required": lambda cls: cls().init(SPARSE),
    "dense params required in param_groups": lambda cls: cls([{"params": "w"}]).init(SPARSE),
}
# Where the error cannot be torch's own.
OTHERWISE = {
    "invalid param type": (TypeError, "params argument given to the optimizer should be"),
    "does not support complex parameters": (ValueError, "does not support complex parameters"),
    "complex not supported": (ValueError, "SparseAdam does not support complex parameters"),
    "dense params required": (TypeError, 'the parameter "w/1" has dtype int32; only floating'),
    "dense params required in param_groups": (TypeError, 'the parameter "w/1" has dtype int32'),
}
# LBFGS refuses two groups before it looks at their parameters, as torch's class does last.
LBFGS = {
    "duplicate parameters should not occur across param groups either": (
        ValueError,
        "LBFGS doesn't support per-parameter options",
    )
}


def test_what_is_left_out_is_in_torchs_table():
    assert set(MEANINGLESS) <= {description for _, description in ERRORS}
    assert set(DONE) <= {description for _, description in ERRORS}
    assert len(CLASSES) == 15


@pytest.mark.parametrize(
    ("name", "description"),
    [key for key in ERRORS if key[1] not in MEANINGLESS],
    ids=lambda value: value,
)
def test_torchs_error(name, description):
    torchs = ERRORS[name, description]
    given = torchs.optimizer_error_input
    special = LBFGS.get(description) if name == "LBFGS" else None
    error, message = (
        special or OTHERWISE.get(description) or (torchs.error_type, torchs.error_regex)
    )
    done = DONE.get(description, lambda cls: cls(**given.kwargs))
    assert description in DONE or torchs.error_on == OptimizerErrorEnum.CONSTRUCTION_ERROR
    with pytest.raises(error, match=message):
        done(getattr(jp, name))


PAIRS = {
    "one number for two": ({"betas": 0.9}, TypeError, "betas.* must be 2 numbers; got 0.9"),
    "three for two": ({"betas": (0.9, 0.9, 0.9)}, TypeError, "betas.* must be 2 numbers"),
    "none for one": ({"betas": (0.9, None)}, TypeError, "betas.* must be a number"),
    "two for one": ({"lr": (0.1, 0.1)}, TypeError, "lr.* must be one number"),
    "nan": ({"betas": (0.9, float("nan"))}, ValueError, "Invalid beta parameter at index 1: nan"),
}


@pytest.mark.parametrize("spelling", [jp.adam, jp.Adam])
@pytest.mark.parametrize("case", PAIRS)
def test_numbers_in_pairs(case, spelling):
    options, error, message = PAIRS[case]
    with pytest.raises(error, match=message):
        spelling(**options)


def test_pairs_are_set_and_read_back():
    params = {"w": jnp.ones(2)}
    state = jp.Adam(betas=(0.8, 0.99)).init(params)
    state = jp.set_hyperparams(state, betas=(0.7, torch.tensor(0.5)))
    assert jp.get_hyperparams(state)[0]["betas"] == (0.7, 0.5)
    with pytest.raises(ValueError, match=r"Invalid beta parameter at index 0: 1.0 \(group 0"):
        jp.set_hyperparams(state, betas=(1.0, 0.5))
    state = jp.Adafactor().init(params)
    assert jp.get_hyperparams(state)[0]["eps"] == (None, 1e-3)
    state = jp.set_hyperparams(state, eps=(1e-30, 1e-2))
    assert jp.get_hyperparams(state)[0]["eps"] == (1e-30, 1e-2)
    state = jp.set_hyperparams(state, eps=(None, 1e-2))
    assert jp.get_hyperparams(state)[0]["eps"] == (None, 1e-2)


OTHERS_STATES = {
    "another rule's": (jp.adam(), jp.sgd(lr=0.1), "not that of adam .* it holds nothing"),
    "the other way round": (jp.sgd(lr=0.1), jp.adam(), "not that of sgd .* it holds step, exp_avg"),
    "a rule's that shares nothing": (
        jp.sgd(lr=0.1, momentum=0.9), jp.asgd(), "not that of sgd .* it holds "
    ),
    "with more": (jp.adam(), jp.adam(amsgrad=True), "it holds step, .*max_exp_avg_sq"),
    "with less": (jp.adam(amsgrad=True), jp.adam(), "it holds step, exp_avg, exp_avg_sq[.]"),
    "Optax's": (jp.adam(), optax.adam(0.1), "the state is a tuple, and not what"),
    "of groups": (jp.adam(), jp.Adam(), "it holds the numbers of groups"),
    "without a buffer": (jp.sgd(momentum=0.9), jp.sgd(), "made without what momentum=0.9 needs"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS_STATES)
def test_another_optimizers_state(case):
    tx, other, message = OTHERS_STATES[case]
    params = {"w": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match=message):
        tx.update(params, other.init(params), params)


def test_state_that_only_some_shapes_have_is_an_optimizers_own():
    """Adafactor's averages differ with the shape; a user's rule may have more such names."""
    by_rank = Rule(
        lambda lr=0.1: iter(()),
        lambda param, **_: {f"rank{param.ndim}": jnp.zeros_like(param)},
        lambda grad, param, state, **_: (param - grad, state),
    )
    tx, params = transformation(by_rank)(lr=0.1), {"w": jnp.ones((2, 2, 2))}
    state = tx.init(params)
    assert {"rank0", "rank2", "rank3"} <= set(tx.update(params, state, params)[1].leaves)


def test_a_state_goes_on_under_other_numbers():
    """Its count is kept whether or not a number is a schedule."""
    params = {"w": jnp.ones(2)}
    _, state = jp.step(jp.sgd(lr=0.5), params, jp.sgd(lr=0.5).init(params), params)
    later, _ = jp.step(jp.sgd(lr=lambda count: count / 4), params, state, params)
    assert float(later["w"][0]) == 0.75


GROUPS = {
    "an optimizer that is none": (
        [{"params": jp.REST, "optimizer": 3}],
        TypeError,
        "the optimizer .group 0, jp.REST. must be a factory, as jp.adamw is; got 3",
    ),
    "an option of the other optimizer": (
        [{"params": "w", "optimizer": jp.SGD, "betas": (0.9, 0.9)}, {"params": jp.REST}],
        TypeError,
        "unknown option 'betas' .group 0",
    ),
    "an optimizer for a frozen group": (
        [{"params": "w", "frozen": True, "optimizer": jp.SGD}, {"params": jp.REST}],
        ValueError,
        "is frozen: its option 'optimizer' has no use",
    ),
}


@pytest.mark.parametrize("case", GROUPS)
def test_groups_with_optimizers_of_their_own(case):
    groups, error, message = GROUPS[case]
    with pytest.raises(error, match=message):
        jp.Adam(groups)


def test_numbers_of_the_constructor_are_said_in_a_group_of_another_optimizer():
    given = {"lr": 0.01, "betas": (0.8, 0.95), "amsgrad": True, "eps": 1e-8}
    table = {"params": "w", "optimizer": jp.SparseAdam}
    words = r"whether lr=0.01, betas=\(0.8, 0.95\), which .* default: lr=0.001, betas=\(0.9, 0.999"
    with pytest.raises(ValueError, match=words):
        jp.Adam([table, {"params": jp.REST}], **given)
    tx = jp.Adam([{**table, "lr": 0.001, "betas": (0.9, 0.999)}, {"params": jp.REST}], **given)
    shown = jp.get_hyperparams(tx.init({"w": jnp.ones(2), "b": jnp.ones(2)}))
    assert [(group["lr"], group["betas"]) for group in shown] == [
        (0.001, (0.9, 0.999)), (0.01, (0.8, 0.95)),
    ]  # fmt: skip


def test_a_number_that_torch_has_one_of_is_not_a_groups():
    """torch.optim.Adagrad begins every sum with the optimizer's, whatever a group says."""
    groups = [{"params": "a", "initial_accumulator_value": 0.5}, {"params": jp.REST}]
    with pytest.raises(ValueError, match="adagrad has one for all groups"):
        jp.Adagrad(groups).init({"a": jnp.ones(2), "b": jnp.ones(2)})
