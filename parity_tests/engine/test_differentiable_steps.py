"""Derivatives of a step against those of torch with ``differentiable=True``.

torch differentiates one step: in a second one it overwrites in place what the first one's
derivative needs.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.testing._internal.common_optimizers import optim_db

import jaxopt_port as jp
from jaxopt_port.engine import as_program, leaf_states
from parity_tests.oracles.configurations import CASES
from parity_tests.oracles.states import with_leaf_states
from parity_tests.oracles.tolerances import bound

DIFFERENTIABLE = {
    info.optim_cls.__name__ for info in optim_db if "differentiable" in info.supported_impls
}
CHOSEN = [case for case in CASES if case.optimizer.name in DIFFERENTIABLE]
BEFORE = 2


def start(case, param, grads):
    """What torch holds after some steps: the parameter, and its state's arrays and scalars."""
    moving = torch.tensor(param)
    optimizer = case.optimizer.torch([moving], **case.options)
    for grad in grads:
        moving.grad = torch.tensor(grad)
        optimizer.step()
    held = {
        name: torch.as_tensor(x) for name, x in optimizer.state[moving].items() if x is not None
    }
    arrays = {name: x.numpy().copy() for name, x in held.items() if x.ndim}
    return moving.numpy(), arrays, {name: x for name, x in held.items() if not x.ndim}


def torchs(case, param, grad, arrays, scalars, weights):
    inputs = {
        name: torch.tensor(x, requires_grad=True)
        for name, x in {"param": param, "grad": grad, **arrays}.items()
    }
    # Copies: torch's rules change what they are given in place.
    moving, slope, *held = (x.clone() for x in inputs.values())
    optimizer = case.optimizer.torch([moving], differentiable=True, **case.options)
    moving.grad = slope
    optimizer.state[moving] = {
        **{name: x.clone() for name, x in scalars.items()},
        **dict(zip(arrays, held, strict=True)),
    }
    optimizer.step()
    last = (moving * torch.tensor(weights)).sum()
    found = torch.autograd.grad(last, list(inputs.values()), allow_unused=True)
    return {
        name: np.zeros_like(param) if x is None else x.numpy()
        for name, x in zip(inputs, found, strict=True)
    }


# A program for all configurations that differ in numbers alone.
@functools.partial(jax.jit, static_argnums=0)
def slopes(program, state, inputs, fixed, weights):
    def last(inputs):
        held = {name: x for name, x in inputs.items() if name not in ("param", "grad")}
        begun = with_leaf_states(state, {"w": fixed | held}) if leaf_states(state)["w"] else state
        new, _ = jp.step(program.tx, {"w": inputs["grad"]}, begun, {"w": inputs["param"]})
        return (new["w"] * weights).sum()

    return jax.grad(last)(inputs)


def ours(case, param, grad, arrays, scalars, weights):
    tx = case.optimizer.port(**case.options)
    fixed = {"has_momentum_buffer": True} | {name: x.numpy() for name, x in scalars.items()}
    given = {"param": param, "grad": grad, **arrays}
    given = {name: jnp.asarray(x) for name, x in given.items()}
    return slopes(as_program(tx), tx.init({"w": given["param"]}), given, fixed, weights)


@pytest.mark.parametrize("case", CHOSEN, ids=repr)
def test_derivatives(case, rng, x64):
    param, weights, grad, *grads = rng.standard_normal((3 + BEFORE, 7))
    param, arrays, scalars = start(case, param, grads)
    expected = torchs(case, param, grad, arrays, scalars, weights)
    got = ours(case, param, grad, arrays, scalars, weights)
    assert set(got) == set(expected)
    float32 = case.optimizer.name in {"Adam", "AdamW", "NAdam", "Adamax"}
    rtol = bound("torch's float32 corrections" if float32 else "torch's derivatives")
    for name, theirs in expected.items():
        np.testing.assert_allclose(got[name], theirs, rtol=rtol, atol=1e-13, err_msg=name)


def test_the_table_is_torchs():
    assert {case.optimizer.name for case in CHOSEN} == DIFFERENTIABLE
