"""Learning rates that are tensors, filled and replaced between steps, in every optimizer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_port as jp
from parity_tests.oracles.bits import relative
from parity_tests.oracles.lbfgs import PROBLEMS
from parity_tests.oracles.lbfgs import torch_run as lbfgs_run
from parity_tests.oracles.optimizer import in_torch
from parity_tests.oracles.tolerances import bound

# torch's dtype and shape, and what is given here for it.
KINDS = {
    "float32": (torch.float32, (), jnp.float32),
    "float32 of one": (torch.float32, (1,), lambda x: np.full(1, x, np.float32)),
    "float64": (torch.float64, (), lambda x: torch.tensor(x, dtype=torch.float64)),
}
OPTIMIZERS = {
    "Adadelta": {},
    "Adafactor": {},
    "Adagrad": {"lr_decay": 0.1},
    "Adam": {"amsgrad": True},
    "AdamW": {},
    "Adamax": {},
    "ASGD": {},
    "NAdam": {},
    "RAdam": {},
    "RMSprop": {"momentum": 0.9},
    "Rprop": {},
    "SGD": {"momentum": 0.9, "weight_decay": 0.1},
    "Muon": {},
    "SparseAdam": {},
    "LBFGS": {"max_iter": 3},
}
# torch makes some state of the rate in the first step: it is filled before that one too.
BUILT, RATES, STEPS = 0.1, {0: 0.025, 5: 0.05}, 10
SHAPE = (40, 30)
ROWS = np.arange(SHAPE[0])[::-1].copy()


def drawn(name):
    rng = np.random.default_rng(20240229)
    start, *grads = rng.standard_normal((1 + STEPS, *SHAPE)).astype(np.float32)
    return start, [(ROWS, grad) if name == "SparseAdam" else grad for grad in grads]


def distance(param, target):
    return ((param - target) ** 2).sum()


def closure(param, target):
    param.grad = None
    loss = distance(param, target)
    loss.backward()
    return loss


def torch_run(name, kind):
    dtype, shape, _ = KINDS[kind]
    start, grads = drawn(name)
    param = torch.nn.Parameter(torch.tensor(start))
    rate = torch.full(shape, BUILT, dtype=dtype)
    optimizer = getattr(torch.optim, name)([param], lr=rate, **OPTIMIZERS[name])
    for i, grad in enumerate(grads):
        if i == 0:
            optimizer.param_groups[0]["lr"].fill_(RATES[i])
        elif i in RATES:
            optimizer.param_groups[0]["lr"] = torch.full(shape, RATES[i], dtype=dtype)
        if name == "LBFGS":
            optimizer.step(functools.partial(closure, param, torch.tensor(grad)))
        else:
            param.grad = in_torch(grad, SHAPE)
            optimizer.step()
    return param.detach().numpy()


@functools.cache
def stepped(name, compiled):
    """A step of which the rate is no part: one program for all kinds of rate."""
    tx = getattr(jp, name)(lr=1.0, **OPTIMIZERS[name])
    step = functools.partial(jp.step, tx)
    if name == "LBFGS":

        def step(target, *states):
            return jp.step(tx, functools.partial(distance, target=target), *states)

    return jax.jit(step) if compiled else step


def run(name, kind, compiled):
    given = KINDS[kind][-1]
    params, grads = drawn(name)
    state = getattr(jp, name)(lr=given(BUILT), **OPTIMIZERS[name]).init(params)
    for i, grad in enumerate(grads):
        if i in RATES:
            state = jp.set_hyperparams(state, lr=given(RATES[i]))
        params, state = stepped(name, compiled)(grad, state, params)
    return np.asarray(params)


# torch divides the rate, by a bias correction or a decay, before it meets an array.
DIVIDED = ("Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "NAdam", "SparseAdam")
SUMS = {
    "Adafactor": "odd gradients, Adafactor",
    "Muon": "odd gradients, Muon",
    "LBFGS": "lbfgs float32",
}


def allowed(name, kind):
    if name in SUMS:
        return bound(SUMS[name])
    if name in DIVIDED and kind != "float64":
        return bound("a rate that is a float32 tensor")
    return 0.0


@pytest.mark.parametrize(
    ("name", "compiled"),
    [
        pytest.param(name, compiled, id=f"{name}, {'jit' if compiled else 'eager'}")
        for name in OPTIMIZERS
        for compiled in (False, True)
        if compiled or name != "LBFGS"  # whose every eager step compiles
    ],
)
def test_a_rate_that_is_a_tensor(name, compiled, correct_root):
    for kind in KINDS:
        far = relative(run(name, kind, compiled), torch_run(name, kind))
        assert far <= allowed(name, kind), kind


LBFGS = {
    "fixed steps": ({}, torch.float32, True),
    "a search": ({"line_search_fn": "strong_wolfe"}, torch.float64, True),
    "a search, float32": ({"line_search_fn": "strong_wolfe"}, torch.float32, False),
}


@pytest.mark.parametrize("name", LBFGS)
def test_what_lbfgs_makes_of_a_rate_that_is_a_tensor(name):
    """Where torch has the bits of the number, this library is compared with it elsewhere."""
    options, dtype, alike = LBFGS[name]
    problem, rate = PROBLEMS["rosenbrock, right"], torch.tensor(0.1, dtype=dtype)
    of_tensor, of_number = (
        lbfgs_run(problem, [{**options, "max_iter": 4, "lr": lr}] * 3, "float64")
        for lr in (rate, rate.item())
    )
    pairs = zip(of_tensor, of_number, strict=True)
    same = [np.array_equal(got.params, want.params) for got, want in pairs]
    assert all(same) if alike else not any(same)
