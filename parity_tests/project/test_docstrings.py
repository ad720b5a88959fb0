"""The examples in docstrings run, and what is public has one."""

import doctest
import importlib
import inspect
import pickle
from pathlib import Path

import jax
import numpy as np
import pytest
from torch.testing._internal.common_optimizers import optim_db

import jaxopt_port as jp
from jaxopt_port import contrib
from jaxopt_port.engine import Optimizer

PACKAGE = Path(jp.__file__).parent
FILES = [path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py")]
MODULES = sorted(
    ".".join(path.parts).removesuffix(".__init__")
    for path in FILES
    if ">>> " in (PACKAGE.parent / path.with_suffix(".py")).read_text()
)
OPTIMIZERS = [
    value
    for package in (jp, contrib)
    for value in (getattr(package, name) for name in dir(package))
    if isinstance(value, type) and issubclass(value, Optimizer) and value is not Optimizer
]
PUBLIC_FUNCTIONS = [
    "add_param_group",
    "get_hyperparams",
    "load_state_dict",
    "param_groups",
    "set_hyperparams",
    "state_dict",
    "step",
    "transformation",
    *(info.optim_cls.__name__ for info in optim_db),
]


@pytest.mark.share(12)
@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    outcome = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert outcome.failed == 0


@pytest.mark.parametrize("name", PUBLIC_FUNCTIONS)
def test_a_public_function_has_an_example(name):
    assert ">>> " in inspect.getdoc(getattr(jp, name))


def test_what_stands_around_the_step_has_an_example():
    public = [jp.GradScaler, jp.accumulate_grads, jp.get_total_norm]
    public += [getattr(jp, name) for name in dir(jp) if name.startswith("clip_")]
    for module in (jp.lr_scheduler, jp.swa_utils):
        public += [value for name, value in vars(module).items() if not name.startswith("_")]
    states = (jp.lr_scheduler.LRScheduler, jp.lr_scheduler.SchedulerState)
    for each in public:
        if callable(each) and each not in (*states, jp.swa_utils.AveragedState):
            assert ">>> " in inspect.getdoc(each), each


# What torch 2.14 has added.
LATER = {"LBFGS": {"maximize": False}}
# torch's arguments that choose among its own implementations.
SWITCHES = {"foreach", "fused", "capturable", "differentiable"}


@pytest.mark.parametrize("info", optim_db, ids=lambda info: info.optim_cls.__name__)
def test_signatures_are_torchs(info):
    theirs = {
        name: p.default
        for name, p in inspect.signature(info.optim_cls).parameters.items()
        if name not in SWITCHES
    }
    theirs |= LATER.get(info.optim_cls.__name__, {})
    cls = getattr(jp, info.optim_cls.__name__)
    ours = inspect.signature(cls).parameters
    assert next(iter(ours)) == "params"
    assert {k: p.default for k, p in ours.items() if k != "params"} == {
        k: v for k, v in theirs.items() if k != "params"
    }
    lower = inspect.signature(cls.factory).parameters
    assert {k: p.default for k, p in lower.items()} == {
        k: p.default for k, p in ours.items() if k != "params"
    }
    assert isinstance(cls(), cls)
    assert inspect.getdoc(cls).splitlines()[0] == inspect.getdoc(cls.factory).splitlines()[0]


def test_an_optimizer_shows_its_groups_and_their_numbers():
    tx = jp.SGD([{"params": "a", "lr": 0.5}, {"params": jp.REST, "frozen": True}], momentum=0.9)
    assert repr(tx).splitlines() == [
        "SGD (",
        'Parameter group 0, "a"',
        "    lr: 0.5",
        "    momentum: 0.9",
        "    dampening: 0.0",
        "    weight_decay: 0.0",
        "    nesterov: False",
        "    maximize: False",
        "Parameter group 1, jp.REST",
        "    frozen: True",
        ")",
    ]


@pytest.mark.parametrize("cls", OPTIMIZERS, ids=lambda c: c.__name__)
def test_both_spellings_can_be_pickled(cls):
    params = {"w": np.ones((2, 3), np.float32)}
    for tx in (cls(), cls.factory()):
        again = pickle.loads(pickle.dumps(tx))
        assert type(again) is type(tx)
        made, expected = (jax.tree.leaves(t.init(params)) for t in (again, tx))
        assert [x.shape for x in made] == [x.shape for x in expected]


def test_an_optimizer_can_be_subclassed_and_pickled():
    class Slow(jp.SGD):
        """SGD at a low rate."""

        def __new__(cls, params=jp.REST):
            return super().__new__(cls, params, lr=1e-4, momentum=0.9)

    assert isinstance(Slow("a"), jp.SGD)
    tx = jp.AdamW([{"params": "a"}, {"params": jp.REST, "lr": 0.1}], lr=0.2)
    again = pickle.loads(pickle.dumps(tx))
    assert isinstance(again, jp.AdamW)
    assert again == tx


def test_a_number_in_the_place_of_the_parameters_is_named():
    with pytest.raises(TypeError, match=r"got 0.1; a number is given by its name: lr=0.1"):
        jp.SGD(0.1)
