"""optimizer_from_torch knows the classes of other packages, and optimizer_to_torch makes them."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.optimization import Adafactor

import jaxopt_port as jp
from jaxopt_port import contrib, interop
from parity_tests.oracles.tolerances import bound

SHAPES = {"a": (4, 3), "b": (3,)}


def module():
    rng = np.random.default_rng(3)
    tensors = {k: torch.from_numpy(rng.standard_normal(shape)) for k, shape in SHAPES.items()}
    return torch.nn.ParameterDict({k: torch.nn.Parameter(t) for k, t in tensors.items()})


def drawn():
    rng = np.random.default_rng(4)
    return [{k: rng.standard_normal(shape) for k, shape in SHAPES.items()} for _ in range(6)]


def stepped(optimizer, of, grads):
    for given in grads:
        for name, tensor in of.items():
            tensor.grad = torch.from_numpy(given[name].copy())
        optimizer.step()


def ported(of):
    return {name: jnp.asarray(tensor.detach().numpy().copy()) for name, tensor in of.items()}


@pytest.mark.parametrize(
    "options",
    [
        {"beta1": 0.9, "warmup_init": True},
        {"lr": 0.01, "relative_step": False, "scale_parameter": False},
    ],
    ids=str,
)
def test_a_run_of_transformers_adafactor_goes_over_and_back(options):
    grads, unbroken, broken = drawn(), module(), module()
    stepped(Adafactor(unbroken.values(), **options), unbroken, grads)
    theirs = Adafactor(broken.values(), **options)
    stepped(theirs, broken, grads[:2])
    with jax.enable_x64(True):
        params = ported(broken)
        tx, state = interop.optimizer_from_torch(theirs, params, broken)
        for given in grads[2:4]:
            ours = {name: jnp.asarray(grad) for name, grad in given.items()}
            params, state = jp.step(tx, ours, state, params)
        for name, tensor in broken.items():
            tensor.data.copy_(torch.from_numpy(np.array(params[name])))
        again = interop.optimizer_to_torch(tx, state, params, broken)
    assert type(again) is Adafactor
    assert again.param_groups[0]["lr"] == options.get("lr")
    stepped(again, broken, grads[4:])
    for name, tensor in unbroken.items():
        np.testing.assert_allclose(
            broken[name].detach(), tensor.detach(), rtol=bound("float64 run")
        )


def test_a_state_dict_is_told_by_its_package_and_name():
    of = module()
    theirs = Adafactor(of.values())
    stepped(theirs, of, drawn()[:2])
    with jax.enable_x64(True):
        _, state = interop.optimizer_from_torch(
            theirs.state_dict(),
            ported(of),
            of,
            optimizer_name="transformers.Adafactor",
            param_names=list(SHAPES),
        )
    assert jp.get_hyperparams(state)[0]["package"] == "transformers"
    with pytest.raises(ValueError, match="has no"):
        interop.optimizer_from_torch(
            theirs.state_dict(),
            ported(of),
            of,
            optimizer_name="Adafactor",
            param_names=list(SHAPES),
        )


class AdamWLike(torch.optim.AdamW):
    """Defined in a module that no package has."""


def test_a_class_is_known_by_its_module_and_name():
    assert contrib.reference_of(Adafactor).optimizer is contrib.Adafactor
    assert contrib.reference_of(torch.optim.Adafactor) is None
    elsewhere = type("Lion", (torch.optim.SGD,), {"__module__": "timmy.optim"})
    assert contrib.reference_of(elsewhere) is None
    within = type("Lion", (torch.optim.SGD,), {"__module__": "timm.optim.lion"})
    assert contrib.reference_of(within).package == "timm"
    of = module()
    with pytest.raises(TypeError, match=r"AdamWLike is not a class of torch.optim itself, nor one"):
        interop.optimizer_from_torch(AdamWLike(of.values()), ported(of), of)


def test_a_package_that_is_not_here_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    of = {"a": module()["a"]}
    params = ported(of)
    tx = contrib.Lion()
    with pytest.raises(ImportError, match="timm is needed for its Lion"):
        interop.optimizer_to_torch(tx, tx.init(params), params, torch.nn.ParameterDict(of))
