"""optimizer_from_torch knows the classes of other packages, and optimizer_to_torch makes them."""

import sys
import types

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
        assert interop.spelled(theirs, params=params, module=broken) == jp.spelled(tx)
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


MISNAMED = [
    ("timm.Adafactor", {"eps": (1e-30, 1e-3)}, "no 'eps_scale', .*transformers.Adafactor"),
    ("transformers.Adafactor", {"eps": 1e-30, "eps_scale": 1e-3}, "has 'eps_scale', .*timm.Adaf"),
    ("timm.Lion", {"lr": 0.1, "betas": (0.9, 0.99)}, "has no 'maximize', .*lion-pytorch.Lion"),
]


@pytest.mark.parametrize(("name", "group", "message"), MISNAMED)
def test_a_state_dict_of_the_other_package_is_said_to_be_its(name, group, message):
    saved = {"state": {}, "param_groups": [{"params": [0], **group}]}
    with pytest.raises(ValueError, match=message):
        contrib.reference_named(name).from_torch(saved)


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


class AdafactorBigVision(torch.optim.Optimizer):
    """Made as timm's is."""

    def __init__(self, params, lr=1.0, momentum_dtype=torch.bfloat16):
        if isinstance(momentum_dtype, str):
            momentum_dtype = getattr(torch, momentum_dtype)
        super().__init__(params, {"lr": lr, "momentum_dtype": momentum_dtype})


@pytest.mark.parametrize("options", [{}, {"momentum_dtype": "float16"}], ids=str)
def test_an_average_of_a_type_of_its_own_goes_over(monkeypatch, options):
    timm = types.SimpleNamespace(AdafactorBigVision=AdafactorBigVision)
    monkeypatch.setitem(sys.modules, "timm.optim", timm)
    kind = options.get("momentum_dtype", "bfloat16")
    of = module().float()
    params = ported(of)
    tx = contrib.AdafactorBigVision(lr=0.01, min_dim_size_to_factor=2, **options)
    grads = {name: jnp.asarray(grad, jnp.float32) for name, grad in drawn()[0].items()}
    params, state = jp.step(tx, grads, tx.init(params), params)
    made = interop.optimizer_to_torch(tx, state, params, of)
    assert made.defaults["momentum_dtype"] is getattr(torch, kind)
    for name, tensor in of.items():
        held = made.state[tensor]
        assert held["exp_avg"].dtype is getattr(torch, kind)
        assert "exp_avg_sq" not in held or held["exp_avg_sq"].dtype is torch.float32
        ours = np.asarray(state.leaves["exp_avg"][name], np.float32)
        np.testing.assert_array_equal(held["exp_avg"].float().numpy(), ours)
