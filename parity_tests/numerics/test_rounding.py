"""A fused multiply-add rounds once, and a product twice, in any program."""

import ctypes
import ctypes.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_port as jp
from jaxopt_port.numerics import fma, uncontracted

BITS = {np.float32: 24, np.float64: 53}
# Beyond, a float64 product is rounded by itself.
LARGEST = {np.float32: np.finfo(np.float32).max, np.float64: 1e150}


def numbers(rng, dtype, n):
    """Of few bits and of many, so that there are ties."""
    bits = rng.integers(1, BITS[dtype] + 1, n)
    whole = rng.integers(0, 2**62, n) % 2**bits
    sign = rng.choice([-1.0, 1.0], n)
    return (sign * whole * 2.0 ** (rng.integers(-20, 20, n) - bits)).astype(dtype)


def hard_cases(dtype, n=30_000):
    """Products and sums that cancel, that are far apart, and that lie between two numbers."""
    rng = np.random.default_rng(1)
    a, y, x = (numbers(rng, dtype, 3 * n) for _ in range(3))
    near = 1 + rng.integers(-2, 3, n) * 2.0 ** (1 - BITS[dtype])
    x[:n] = -(a[:n] * y[:n]) * near.astype(dtype)
    x[n : 2 * n] = a[n : 2 * n].astype(np.float64) * y[n : 2 * n] * 2.0 ** rng.integers(-70, 70, n)
    odd = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 1.0, -1.0, LARGEST[dtype]], dtype)
    grid = [np.ravel(v) for v in np.meshgrid(odd, odd, odd)]
    return [np.concatenate(pair) for pair in zip((a, y, x), grid, strict=True)]


def by_the_c_library(dtype, cases):
    library = ctypes.CDLL(ctypes.util.find_library("m"))
    function, kind = {
        np.float32: (library.fmaf, ctypes.c_float),
        np.float64: (library.fma, ctypes.c_double),
    }[dtype]
    function.restype, function.argtypes = kind, [kind] * 3
    return np.array(
        [function(*case) for case in zip(*map(np.ndarray.tolist, cases), strict=True)], dtype
    )


@pytest.mark.parametrize("dtype", [pytest.param(np.float32, marks=pytest.mark.always), np.float64])
@pytest.mark.parametrize("shape", [(-1, 7), (-1, 2)], ids=str)
def test_a_fused_multiply_add_is_rounded_once(dtype, shape):
    cases = hard_cases(dtype)
    expected = by_the_c_library(dtype, cases)
    rest = expected.size % shape[1]
    with jax.enable_x64(True):
        ours = jax.jit(fma)(*(v[: v.size - rest].reshape(shape) for v in cases))
    ours, expected = np.ravel(ours), expected[: expected.size - rest]
    # XLA flushes what is subnormal.
    tiny = np.finfo(dtype).tiny
    same = (ours == expected) | (np.isnan(ours) & np.isnan(expected))
    assert np.all(same | ((np.abs(expected) < tiny) & (np.abs(ours) <= tiny)))
    with np.errstate(all="ignore"):
        a, y, x = (v.astype(np.float64)[: expected.size] for v in cases)
        twice = (a * y + x).astype(dtype)
    assert np.sum(twice != expected) > np.sum(np.isnan(expected)) + 10, "the cases are not hard"


def test_derivatives_are_those_of_a_product_and_a_sum():
    a, y, x = (jnp.asarray(v, jnp.float32) for v in (0.5, [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]))
    args = jnp.full(3, a), y, x

    def plain(a, y, x):
        return a * y + x

    for order in (jax.jacfwd, jax.jacrev):
        for argnum in range(3):
            np.testing.assert_array_equal(order(fma, argnum)(*args), order(plain, argnum)(*args))
    np.testing.assert_array_equal(jax.grad(lambda a: fma(a, y, x).sum())(a), 6.0)
    np.testing.assert_array_equal(jax.grad(lambda x: uncontracted(x).sum())(x), np.ones(3))


@pytest.mark.parametrize("axes", [(None, 0, 0), (0, None, None), (0, 1, 2), (None, None, 1)])
def test_it_is_mapped_as_a_product_and_a_sum(axes):
    rng = np.random.default_rng(0)
    shapes = [() if axis is None else (5,) for axis in axes[:1]] + [(3, 4)] * 2
    args = [
        jnp.asarray(rng.integers(-4, 4, np.insert(s, d, 5) if d is not None and s != (5,) else s))
        for s, d in zip(shapes, axes, strict=True)
    ]
    args = [x.astype(jnp.float32) for x in args]
    mapped = jax.vmap(fma, in_axes=axes)(*args)
    expected = jax.vmap(lambda a, y, x: a * y + x, in_axes=axes)(*args)
    np.testing.assert_array_equal(mapped, expected)


@pytest.mark.parametrize("shape", [(64, 5), (40, 33), (9,)])
@pytest.mark.parametrize(("optimizer", "options"), [("SGD", {"weight_decay": 0.1}), ("Adam", {})])
def test_products_in_the_callers_program_are_rounded(optimizer, options, shape, monkeypatch):
    """A gradient that the caller scales, or a parameter, is no product of the step's own sums."""
    monkeypatch.setenv("JAXOPT_PORT_KERNELS", "off")
    rng = np.random.default_rng(0)
    params, grads = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for _ in range(2))
    tx = getattr(jp, optimizer)(lr=0.1, **options)
    # A state whose averages are no longer zero.
    state = jp.step(tx, grads * 0.7, tx.init(params), params)[1]

    def within(params, grads):
        return jp.step(tx, grads * 0.3, state, params * 0.9)

    apart = jp.step(tx, grads * jnp.float32(0.3), state, params * jnp.float32(0.9))
    leaves = map(jax.tree.leaves, (jax.jit(within)(params, grads), apart))
    for ours, expected in zip(*leaves, strict=True):
        np.testing.assert_array_equal(ours, expected)
