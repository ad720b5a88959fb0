"""Bad options, of the defaults and of each group, before anything is made: in torch's words."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port.interop import TorchOptimizer

BAD = [
    *((name, {"lr": -1.0}) for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta")),
    *((name, {"lr": -1.0}) for name in ("Adamax", "NAdam", "RAdam", "ASGD", "Rprop")),
    *((name, {"lr": -1.0}) for name in ("Adafactor", "Muon")),
    ("SparseAdam", {"lr": -1.0}),
    ("SGD", {"momentum": -0.5}),
    ("SGD", {"weight_decay": -0.5}),
    ("SGD", {"nesterov": True}),
    ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.5}),
    ("Adam", {"betas": (1.0, 0.9)}),
    ("Adam", {"betas": (0.9, -0.1)}),
    ("Adam", {"eps": -1.0}),
    ("AdamW", {"weight_decay": -1.0}),
    ("NAdam", {"momentum_decay": -0.1}),
    ("RMSprop", {"alpha": -0.1}),
    ("RMSprop", {"momentum": -0.1}),
    ("Adagrad", {"lr_decay": -0.5}),
    ("Adagrad", {"initial_accumulator_value": -0.5}),
    ("Adadelta", {"rho": 1.1}),
    ("Rprop", {"etas": (1.0, 0.5)}),
    ("Muon", {"momentum": -0.5}),
    ("Muon", {"adjust_lr_fn": "arbitrary"}),
    ("SparseAdam", {"eps": 0.0}),
]
GOOD = {
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "nesterov": False,
    "dampening": 0.0,
    "betas": (0.9, 0.99),
    "eps": 1e-8,
    "momentum_decay": 0.1,
    "alpha": 0.9,
    "lr_decay": 0.0,
    "initial_accumulator_value": 0.0,
    "rho": 0.9,
    "etas": (0.5, 1.2),
    "adjust_lr_fn": None,
}


def spelled(name, bad, where, make):
    """The optimizer with bad defaults that its group overrides, or with a bad group."""
    good = {option: GOOD[option] for option in bad}
    defaults, group = (bad, good) if where == "default" else (good, bad)
    return make(name, group, defaults)


def of_torch(name, group, defaults):
    tensor = torch.nn.Parameter(torch.ones(2, 2))
    return getattr(torch.optim, name)([{"params": [tensor], **group}], **defaults)


def of_torch_optimizer(name, group, defaults):
    tensor = torch.nn.Parameter(torch.ones(2, 2))
    return TorchOptimizer([{"params": [tensor], **group}], getattr(jp, name), **defaults)


SPELLINGS = {
    "class": lambda name, group, defaults: getattr(jp, name)(
        [{"params": "w", **group}], **defaults
    ),
    "param_groups": lambda name, group, defaults: jp.param_groups(
        getattr(jp, name).factory, [{"params": "w", **group}], **defaults
    ),
    "TorchOptimizer": of_torch_optimizer,
}


@pytest.mark.parametrize(("place", "named"), [("default", "(the default)"), ("group", "(group 0")])
@pytest.mark.parametrize(
    ("case", "spelling"), list(itertools.product(BAD, SPELLINGS)), ids=lambda x: str(x)
)
def test_a_bad_default_beside_a_good_group_and_a_bad_group_are_refused(
    case, spelling, place, named
):
    """torch checks no group: its words are those for defaults."""
    name, bad = case
    with pytest.raises((ValueError, TypeError)) as theirs:
        spelled(name, bad, "default", of_torch)
    with pytest.raises(theirs.type) as ours:
        spelled(name, bad, place, SPELLINGS[spelling])
    assert str(ours.value).startswith(str(theirs.value))
    assert named in str(ours.value)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_betas_are_both_numbers_or_both_arrays(name):
    tensor = [torch.nn.Parameter(torch.ones(2))]
    with pytest.raises(ValueError, match="betas must be") as theirs:
        getattr(torch.optim, name)(tensor, betas=(0.9, torch.tensor(0.99)))
    for betas in ((0.9, jnp.float32(0.99)), (jnp.float32(0.9), 0.99), (0.9, torch.tensor(0.99))):
        for make in (getattr(jp, name), getattr(jp, name.lower())):
            with pytest.raises(ValueError, match="betas must be") as ours:
                make(betas=betas)
            assert str(ours.value).startswith(str(theirs.value))
    getattr(jp, name)(betas=(jnp.float32(0.9), jnp.float32(0.99)))
    getattr(jp, name)(betas=(np.float64(0.9), 0.99))


UNACCEPTED = {
    "Muon": torch.ones(3),
    "Muon cube": torch.ones(2, 2, 2),
    "SparseAdam": torch.ones(2, 2, dtype=torch.complex64),
}


@pytest.mark.parametrize("case", UNACCEPTED)
def test_a_parameter_that_is_not_supported_is_refused_at_once(case):
    name, tensor = case.split()[0], torch.nn.Parameter(UNACCEPTED[case])
    with pytest.raises(ValueError, match=r"only supports|does not support") as theirs:
        getattr(torch.optim, name)([tensor])
    group = {"params": iter([tensor])}
    forms = ([tensor], [{"params": tensor}], [("w", tensor)], iter([tensor]), [group])
    words = str(theirs.value).partition("torch.Size")[0].rpartition("]: ")[2]
    for params in forms:
        with pytest.raises(ValueError, match=r"only supports|does not support") as ours:
            TorchOptimizer(params, getattr(jp, name))
        assert str(ours.value).startswith(words)
    with pytest.raises(ValueError, match=r"only supports|does not support") as ours:
        getattr(jp, name)().init({"w": jnp.asarray(UNACCEPTED[case].numpy())})
    assert str(ours.value).startswith(words)
