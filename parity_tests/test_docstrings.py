"""The examples in docstrings run, and what is public has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
from torch.testing._internal.common_optimizers import optim_db

import jaxopt_port as jp

MODULES = [
    "jaxopt_port",
    *(
        f"jaxopt_port.rules.{module.name}"
        for module in pkgutil.iter_modules(importlib.import_module("jaxopt_port.rules").__path__)
    ),
    "jaxopt_port.engine._factory",
    "jaxopt_port.quasi_newton._lbfgs",
    "jaxopt_port.engine._groups",
    "jaxopt_port.engine._hyperparams",
    "jaxopt_port.engine._regroup",
    "jaxopt_port.engine._step",
]
PUBLIC_FUNCTIONS = [
    "add_param_group",
    "get_hyperparams",
    "param_groups",
    "set_hyperparams",
    "step",
    "transformation",
    *(info.optim_cls.__name__ for info in optim_db),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    outcome = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert outcome.failed == 0


@pytest.mark.parametrize("name", PUBLIC_FUNCTIONS)
def test_a_public_function_has_an_example(name):
    assert ">>> " in inspect.getdoc(getattr(jp, name))


def test_capwords_are_documented_by_the_lower_case_spelling():
    assert inspect.getdoc(jp.SGD) == inspect.getdoc(jp.sgd)
    assert list(inspect.signature(jp.SGD).parameters) == [
        "params",
        *inspect.signature(jp.sgd).parameters,
    ]
