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
    "jaxopt_port._explain",
    "jaxopt_port.verify.record",
    "jaxopt_port.verify.compare._compare",
    "jaxopt_port.verify.compare._jax_side",
    "jaxopt_port.checkpoint._loading",
    "jaxopt_port.checkpoint._state_dict",
    "jaxopt_port.engine._factory",
    "jaxopt_port.quasi_newton._lbfgs",
    "jaxopt_port.engine._groups",
    "jaxopt_port.engine._hyperparams",
    "jaxopt_port.engine._regroup",
    "jaxopt_port.engine._step",
    *(
        f"jaxopt_port.interop.{name}"
        for name in (
            "_nnx",
            "_optimizers",
            "_schedulers",
            "_torch_optimizer",
            "files._checkpoint",
            "files._files",
            "files._layout_of_checkpoints",
            "files._orbax",
            "mapping._layout",
            "mapping._mapping",
            "mapping._param_map",
            "mapping._params",
        )
    ),
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
