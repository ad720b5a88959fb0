"""Programs without float64: pairs of float32 in the place of each, and the same parameters."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_port as jp
from jaxopt_port.numerics import _pairs
from jaxopt_port.numerics._float64 import PARTS
from parity_tests.numerics.test_lowering import PROGRAMS, exported

pytestmark = pytest.mark.filterwarnings("ignore::jaxopt_port.engine.LayoutWarning")

THIRD_PART = 2.0**-42  # of a number that a scheduler writes: the third float32 part and roundings


def drawn(arrays):
    """The same arguments with other parameters and gradients than ones."""
    rng = np.random.default_rng(0)

    def other(x):
        made = rng.standard_normal(x.shape) if x.ndim == 2 and x.size > 50 else x
        return jax.device_put(np.asarray(made, x.dtype), x.sharding)

    return jax.tree.map(other, arrays)


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_float64_is_left_and_the_parameters_are_the_same(name, monkeypatch):
    monkeypatch.setenv("JAXOPT_PORT_KERNELS", "off")
    program, args = PROGRAMS[name]()
    without = jp.without_float64(program)
    assert not re.search(r"\bf64|xf64", exported(without, args, ["tpu"]).mlir_module())
    args = (*drawn(args[:1]), *args[1:])
    expected, made = (jax.tree.leaves(jax.jit(f)(*args)) for f in (program, without))
    for theirs, ours in zip(expected, made, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        if ours.shape[-1:] == (PARTS,):
            theirs, ours = (np.asarray(x, np.float64).sum(-1) for x in (theirs, ours))
            np.testing.assert_allclose(ours, theirs, rtol=THIRD_PART)
        else:
            np.testing.assert_array_equal(ours, theirs)


def pair(x):
    hi, lo = _pairs.constant(x)
    return _pairs.Pair(jnp.asarray(hi), jnp.asarray(lo))


def exact(x):
    """What a pair of a number is, with 64 bits."""
    hi, lo = _pairs.constant(x)
    return hi.astype(np.longdouble) + lo.astype(np.longdouble)


RNG = np.random.default_rng(1)
ANY = RNG.standard_normal(5000) * 10.0 ** RNG.integers(-4, 4, 5000)
OTHER = RNG.standard_normal(5000) * 10.0 ** RNG.integers(-4, 4, 5000)
BETAS = RNG.choice([0.9, 0.99, 0.999, 0.96, 2.0], 5000)
STEPS = RNG.integers(1, 60, 5000).astype(np.float64)


@pytest.mark.parametrize(
    ("operation", "args", "reference", "bits"),
    [
        ("add", (ANY, OTHER), np.add, 45),
        ("subtract", (ANY, OTHER), np.subtract, 45),
        ("multiply", (ANY, OTHER), np.multiply, 45),
        ("divide", (ANY, OTHER), np.divide, 45),
        ("square_root", (np.abs(ANY),), np.sqrt, 45),
        ("exponential", (np.clip(ANY, -30, 30),), np.exp, 42),
        ("logarithm", (np.abs(ANY) + 2,), np.log, 44),
        ("power", (BETAS, STEPS), np.power, 42),
        ("power", (STEPS, -0.8 * np.ones(5000)), np.power, 43),
        ("power", (-BETAS, STEPS), np.power, 42),
        ("cosine", (RNG.random(5000) * 1.5,), np.cos, 40),
        ("floor", (ANY,), np.floor, 60),
        ("remainder", (ANY, np.full(5000, 64.0)), np.fmod, 60),
    ],
)
def test_arithmetic_has_more_than_forty_bits(operation, args, reference, bits):
    made = jax.jit(getattr(_pairs, operation))(*map(pair, args))
    ours = np.asarray(made.hi, np.longdouble) + np.asarray(made.lo, np.longdouble)
    expected = reference(*map(exact, args))
    assert np.max(np.abs(ours - expected) / np.maximum(np.abs(expected), 1e-25)) < 2.0**-bits


@pytest.mark.parametrize(
    ("operation", "args"),
    [
        ("divide", (1.0, 0.0)),
        ("divide", (0.0, 0.0)),
        ("divide", (1.0, np.inf)),
        ("add", (np.inf, 1.0)),
        ("add", (np.inf, -np.inf)),
        ("multiply", (np.inf, 2.0)),
        ("power", (0.0, 2.0)),
        ("power", (2.0, 0.0)),
        ("power", (0.0, -1.0)),
        ("power", (0.9, 1e6)),
        ("power", (np.nan, 2.0)),
        ("power", (-2.0, 0.5)),
        ("square_root", (0.0,)),
        ("square_root", (np.inf,)),
        ("square_root", (-1.0,)),
        ("exponential", (-200.0,)),
        ("exponential", (200.0,)),
        ("logarithm", (0.0,)),
        ("largest", (np.nan, 1.0)),
        ("largest", (1.0, np.nan)),
    ],
)
def test_what_is_no_number_is_as_in_float32(operation, args):
    reference = {"square_root": np.sqrt, "exponential": np.exp, "logarithm": np.log}
    reference |= {"largest": np.maximum}
    with np.errstate(all="ignore"):
        expected = reference.get(operation, getattr(np, operation, None))(*map(np.float32, args))
    made = getattr(_pairs, operation)(*(pair(np.float64(x)) for x in args))
    np.testing.assert_array_equal(made.hi, expected)
    assert made.lo == 0


def test_constants_are_unseen_by_xla():
    """XLA makes x of (1 + x) - 1 in float32, which is what the error of a sum is found by."""
    x = np.float32(0.49991836)
    rounded = (np.float32(1) + x) - np.float32(1)
    assert jax.jit(lambda x: (np.float32(1) + x) - np.float32(1))(x) != rounded, "no longer"
    with jax.enable_x64(True):
        program = jp.without_float64(lambda x: (1.0 - x.astype(jnp.float64)).astype(jnp.float32))
        assert jax.jit(program)(x) == np.float32(1 - np.float64(x))


@pytest.mark.parametrize(
    ("function", "args", "error", "said"),
    [
        (lambda x: x + 1, (np.ones(2),), TypeError, "one of the arguments is a float64"),
        (
            lambda x: x.astype(jnp.float64),
            (np.float32(1),),
            TypeError,
            "one of the results is a float64",
        ),
        (
            lambda x: jnp.tan(x.astype(jnp.float64)).astype(jnp.float32),
            (np.float32(1),),
            NotImplementedError,
            "tan of a float64 has no counterpart in float32",
        ),
    ],
)
def test_what_cannot_be_without_it_is_named(function, args, error, said, x64):
    with pytest.raises(error, match=said):
        jax.jit(jp.without_float64(function))(*args)


def test_loops_and_choices_within_a_program(x64):
    def program(x):
        wide = x.astype(jnp.float64)
        wide = jax.lax.while_loop(lambda v: v < 10.0, lambda v: v * 1.1, wide)
        wide = jax.lax.cond(wide > 10.5, lambda v: v / 3, lambda v: v + 0.1, wide)
        return jax.lax.fori_loop(0, 3, lambda i, v: jnp.maximum(v, i) ** 2, wide).astype(x.dtype)

    for x in (np.float32(0.3), np.float32(1.7)):
        assert jax.jit(jp.without_float64(program))(x) == jax.jit(program)(x)
