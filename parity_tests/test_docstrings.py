"""The examples in docstrings run, and what is public has one."""

import doctest
import importlib
import inspect

import pytest

import jaxopt_port as jp

MODULES = [
    "jaxopt_port",
    "jaxopt_port.rules._sgd",
    "jaxopt_port.rules.torch_ops",
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
    "sgd",
    "step",
]


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
