"""Gradients from the least float to the largest, zeros of both signs, NaN and infinity.

XLA takes subnormals for zero on the CPU (`xla_cpu_ftz`), and torch does not: a subnormal gradient
is a zero here, and what torch holds below the least normal number may be zero in a state. Nothing
else differs, and no parameter but by that.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_port as jp
from parity_tests.oracles.optimizer import in_torch
from parity_tests.oracles.tolerances import bound

SIZES = {
    np.float32: [
        *(1e-45, 1e-42, 1e-40, 5e-39, 1.2e-38, 1e-37, 1e-30, 1e-23, 1e-22, 1e-20, 1e-19, 1e-15),
        *(1e-10, 1.0, 1e10, 1e15, 1e18, 1e19, 2e19, 1e20, 1e25, 1e30, 1e37, 3e38),
    ],
    np.float64: [
        *(5e-324, 1e-320, 1e-310, 3e-308, 1e-300, 1e-200, 1e-162, 1e-161, 1e-160, 1e-154, 1e-100),
        *(1e-20, 1.0, 1e20, 1e100, 1e153, 1e154, 2e154, 1e160, 1e200, 1e300, 1.7e308),
    ],
}
OPTIMIZERS = [
    ("Adadelta", {}),
    ("Adagrad", {}),
    ("Adam", {}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1}),
    ("AdamW", {}),
    ("Adamax", {}),
    ("ASGD", {}),
    ("NAdam", {}),
    ("RAdam", {}),
    ("RMSprop", {}),
    ("RMSprop", {"centered": True, "momentum": 0.9}),
    ("Rprop", {}),
    ("SGD", {}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("Adafactor", {}),
    ("Muon", {"lr": 0.1}),
    ("SparseAdam", {}),
]
SUMS = ("Adafactor", "Muon")
MATRIX = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.25]]) / 3
ROWS = np.array([0, 2, 1])
STEPS = 4


def drawn(dtype):
    """Gradients of one size each, by name: what is seen here, subnormals as zeros."""
    sizes = [*SIZES[dtype], 0.0, -0.0, np.nan, np.inf, -np.inf]
    with np.errstate(over="ignore"):
        grads = [(MATRIX * size).astype(dtype) for size in sizes]
    tiny = np.finfo(dtype).tiny
    return {
        f"{i:02d} {size:g}": (grad, np.where(np.abs(grad) < tiny, np.copysign(0, grad), grad))
        for i, (size, grad) in enumerate(zip(sizes, grads, strict=True))
    }


def torch_run(name, options, grads):
    tensors = {k: torch.nn.Parameter(torch.ones_like(torch.tensor(g))) for k, g in grads.items()}
    optimizer = getattr(torch.optim, name)(tensors.values(), **options)
    for _ in range(STEPS):
        for key, tensor in tensors.items():
            grad = (ROWS, grads[key]) if name == "SparseAdam" else grads[key]
            tensor.grad = in_torch(grad, (3, 2))
        optimizer.step()
    params = {k: t.detach().numpy() for k, t in tensors.items()}
    return params, {k: optimizer.state[t] for k, t in tensors.items()}


@functools.cache
def both(name, options, dtype):
    own = drawn(dtype)
    with jax.enable_x64(dtype == np.float64):
        params = {key: jnp.ones((3, 2), dtype) for key in own}
        tx = getattr(jp, name)(**dict(options))
        state = tx.init(params)
        grads = {key: jnp.asarray(grad) for key, (grad, _) in own.items()}
        if name == "SparseAdam":
            grads = {key: (jnp.asarray(ROWS), grad) for key, grad in grads.items()}
        for _ in range(STEPS):
            params, state = jp.step(tx, grads, state, params)
        state = jax.tree.map(np.asarray, state.leaves)
        params = jax.tree.map(np.asarray, params)
    seen = {key: flushed for key, (_, flushed) in own.items()}
    return params, state, *torch_run(name, dict(options), seen)


@pytest.mark.parametrize(
    ("name", "options", "dtype"),
    [
        pytest.param(name, options, dtype, id=f"{name} {options} {dtype.__name__}")
        for name, options in OPTIMIZERS
        for dtype in (np.float32, np.float64)
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_what_torch_makes_of_them(name, options, dtype):
    ours, our_state, theirs, their_state = both(name, tuple(options.items()), dtype)
    tiny = np.finfo(dtype).tiny
    rtol = bound(f"odd gradients, {name if name in SUMS else dtype.__name__}")
    for key, expected in theirs.items():
        np.testing.assert_allclose(ours[key], expected, rtol=rtol, atol=rtol, err_msg=key)
        for entry in our_state.keys() & their_state[key].keys():
            got, wanted = our_state[entry][key], their_state[key][entry].numpy()
            np.testing.assert_allclose(got, wanted, rtol=rtol, atol=4 * tiny, err_msg=key + entry)
            if key.split()[1] in ("0", "-0"):
                np.testing.assert_array_equal(np.signbit(got), np.signbit(wanted), err_msg=key)


def test_rprop_goes_by_the_sign_of_small_gradients():
    """1e-20 twice has a product that XLA flushes; below 1e-23 torch's own is zero."""
    ours, _, theirs, _ = both("Rprop", (), np.float32)
    for key, expected in theirs.items():
        np.testing.assert_array_equal(ours[key], expected, err_msg=key)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
@pytest.mark.parametrize(("dtype", "size"), [(np.float32, 1e-20), (np.float64, 1e-160)])
def test_rprop_goes_on_with_small_gradients(shape, dtype, size):
    with jax.enable_x64(True):
        param, grad, tx = jnp.ones(shape, dtype), jnp.full(shape, size, dtype), jp.Rprop()
        state = tx.init(param)
        for _ in range(20):
            param, state = jp.step(tx, grad, state, param)
        np.testing.assert_allclose(param, -0.8669, atol=1e-4)


ELEMENTWISE = [(n, o) for n, o in OPTIMIZERS if n not in ("Adafactor", "Muon", "SparseAdam")]


@pytest.mark.parametrize(("name", "options"), ELEMENTWISE, ids=str)
def test_scalars_are_as_the_entries_of_a_vector(name, options):
    """XLA rearranges products of scalars and constants, which it does not for arrays."""
    sizes = np.array([*SIZES[np.float32][::3], -1e-20, 0.0], np.float32)
    grads = {"all": sizes, **{f"{i:02d}": size for i, size in enumerate(sizes)}}
    params = jax.tree.map(lambda g: jnp.ones_like(g) / 3, grads)
    tx = getattr(jp, name)(**options)
    state = tx.init(params)
    for _ in range(STEPS):
        params, state = jp.step(tx, grads, state, params)
    whole = params.pop("all")
    np.testing.assert_array_equal(jnp.stack(jax.tree.leaves(params)), whole)


SPARSE = [((5,), (0,)), ((5, 3), (0, 3)), ((4, 2, 3), (0, 2, 3))]


@pytest.mark.parametrize(("shape", "values"), SPARSE)
@pytest.mark.parametrize("compiled", [False, True])
def test_an_empty_sparse_gradient_is_a_step(shape, values, compiled):
    tensor = torch.nn.Parameter(torch.ones(shape))
    theirs = torch.optim.SparseAdam([tensor], lr=0.1)
    params, tx = jnp.ones(shape), jp.SparseAdam(lr=0.1)
    step = jax.jit(functools.partial(jp.step, tx)) if compiled else functools.partial(jp.step, tx)
    state = tx.init(params)
    for k in (0, 2, 0, 1):
        rows = np.arange(k)
        grad = np.full((k, *values[1:]), 0.5, np.float32)
        tensor.grad = in_torch((rows, grad), shape)
        theirs.step()
        params, state = step((jnp.asarray(rows, jnp.int32), jnp.asarray(grad)), state, params)
        rtol = bound("odd gradients, float32")
        np.testing.assert_allclose(params, tensor.detach(), rtol=rtol)
        assert float(state.scalars["step"][0]) == theirs.state[tensor]["step"]
