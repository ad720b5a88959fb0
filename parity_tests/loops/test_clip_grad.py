"""Gradient clipping against torch.nn.utils."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from jax.experimental import checkify, sparse

import jaxopt_port as jp
from parity_tests.oracles.bits import assert_same_bits, most_ulps
from parity_tests.oracles.optimizer import TorchOracle, in_torch, to_numpy, to_torch
from parity_tests.oracles.tolerances import bound

NORMS = [0.0, 0.5, 1.0, 2.0, 3.0, math.inf, -math.inf]
DTYPES = ["float32", "bfloat16"]
SHAPES = {"a": (7, 5), "b": (64,), "c": ()}


def gradients(seed=0, dtype="float32", scale=1.0):
    rng = np.random.default_rng(seed)
    return {
        name: np.asarray(jnp.asarray(scale * rng.standard_normal(shape), dtype))
        for name, shape in SHAPES.items()
    }


def clipped_by_torch(grads, clip):
    params = {}
    for name, grad in grads.items():
        params[name] = torch.nn.Parameter(torch.zeros_like(to_torch(grad)))
        params[name].grad = to_torch(grad)
    norm = clip(list(params.values()))
    return {name: to_numpy(p.grad) for name, p in params.items()}, norm


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_norm", [0.1, 1e4])
def test_clip_grad_norm(max_norm, dtype):
    grads = gradients(dtype=dtype)

    def clip_by_each(grads):
        return [jp.clip_grad_norm(grads, max_norm, norm_type) for norm_type in NORMS]

    limit = bound(f"clip {dtype}")
    for norm_type, (ours, norm) in zip(NORMS, jax.jit(clip_by_each)(grads), strict=True):
        clip = functools.partial(
            torch.nn.utils.clip_grad_norm_, max_norm=max_norm, norm_type=norm_type
        )
        theirs, their_norm = clipped_by_torch(grads, clip)
        assert most_ulps({"norm": norm}, {"norm": to_numpy(their_norm)}) <= limit
        assert most_ulps(ours, theirs) <= limit


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_where_the_norm_is_known(dtype):
    """All that is not a sum has torch's bits: the 1e-6, the reciprocal, the product."""
    grads = gradients(dtype=dtype)
    norm = jp.get_total_norm(grads)
    clip = functools.partial(
        torch.nn.utils.clip_grads_with_norm_, max_norm=0.7, total_norm=to_torch(norm)
    )
    theirs, _ = clipped_by_torch(grads, clip)
    ours = jax.jit(lambda grads, norm: jp.clip_grads_with_norm(grads, 0.7, norm))(grads, norm)
    assert_same_bits(ours, theirs, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_clip_grad_value(dtype):
    grads = gradients(dtype=dtype)
    grads["b"] = np.where(np.arange(64) % 9 == 0, np.nan, grads["b"]).astype(grads["b"].dtype)
    clip = functools.partial(torch.nn.utils.clip_grad_value_, clip_value=0.3)
    theirs, _ = clipped_by_torch(grads, clip)
    assert most_ulps(jp.clip_grad_value(grads, 0.3), theirs) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_norms(bad):
    grads = gradients()
    grads["a"] = np.where(np.arange(35).reshape(7, 5) == 0, np.float32(bad), grads["a"])
    clip = functools.partial(torch.nn.utils.clip_grad_norm_, max_norm=1.0)
    theirs, _ = clipped_by_torch(grads, clip)
    ours, norm = jp.clip_grad_norm(grads, 1.0)
    assert not np.isfinite(norm)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)

    with pytest.raises(RuntimeError) as of_torch:
        clipped_by_torch(grads, functools.partial(clip, error_if_nonfinite=True))
    with pytest.raises(RuntimeError) as of_port:
        jp.clip_grad_norm(grads, 1.0, error_if_nonfinite=True)
    assert str(of_port.value) == str(of_torch.value)

    checked = functools.partial(jp.clip_grad_norm, max_norm=1.0, error_if_nonfinite=True)
    with pytest.raises(ValueError, match="checkify"):
        jax.jit(checked)(grads)
    error, _ = checkify.checkify(jax.jit(checked))(grads)
    assert "is non-finite, so it cannot be clipped" in error.get()


COMPLEX = np.array([10 + 20j, -3 - 4j, 0.5j], np.complex64)


@pytest.mark.parametrize("norm_type", [0.0, 1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("compiled", [False, True])
def test_complex_gradients_are_clipped_by_their_norm(norm_type, compiled):
    grads = {"a": COMPLEX, "b": np.float32([3.0, -1.0])}
    clip = functools.partial(
        torch.nn.utils.clip_grad_norm_, max_norm=1.0, norm_type=norm_type, foreach=False
    )
    theirs, norm = clipped_by_torch(grads, clip)
    ours = functools.partial(jp.clip_grad_norm, max_norm=1.0, norm_type=norm_type)
    clipped, our_norm = (jax.jit(ours) if compiled else ours)(grads)
    np.testing.assert_allclose(our_norm, norm, rtol=1e-6)
    for name, expected in theirs.items():
        assert clipped[name].dtype == expected.dtype
        np.testing.assert_allclose(clipped[name], expected, rtol=1e-6)


def test_complex_gradients_have_no_order():
    grads = {"a": COMPLEX}
    clip = functools.partial(torch.nn.utils.clip_grad_value_, clip_value=1.0)
    with pytest.raises(NotImplementedError) as theirs:
        clipped_by_torch(grads, clip)
    own = functools.partial(jp.clip_grad_value, clip_value=1.0)
    for ours in (own, jax.jit(own)):
        with pytest.raises(NotImplementedError) as refused:
            ours(grads)
        assert str(refused.value).startswith(str(theirs.value))
    tx = optax.chain(jp.clip_by_grad_value(1.0), jp.SGD(lr=0.1))
    with pytest.raises(NotImplementedError, match="clamp is not supported"):
        jp.step(tx, grads, tx.init(grads), grads)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda grads: jp.clip_grad_norm(grads, 1.0), torch.nn.utils.clip_grad_norm_),
        (lambda grads: jp.clip_grad_value(grads, 1.0), torch.nn.utils.clip_grad_value_),
        (jp.get_total_norm, lambda params, _: torch.nn.utils.get_total_norm([params[0].grad])),
    ],
)
def test_sparse_gradients_are_refused_by_name(ours, theirs):
    tensor = torch.nn.Parameter(torch.zeros(4))
    tensor.grad = in_torch(([1], [3.0]), (4,))
    with pytest.raises(NotImplementedError) as of_torch:
        theirs([tensor], 1.0)
    words = str(of_torch.value).partition(" backend")[0]
    pair = (jnp.array([1]), jnp.array([3.0]))
    for grads in (pair, sparse.BCOO((pair[1], pair[0][:, None]), shape=(4,))):
        with pytest.raises(NotImplementedError) as refused:
            ours({"table": grads})
        assert str(refused.value).startswith(words)


def test_nothing_to_clip():
    assert jp.clip_grad_norm({}, 1.0) == ({}, 0.0)
    grads, norm = jp.clip_grad_norm({"a": None, "b": jnp.ones(4)}, 1e3)
    assert grads["a"] is None
    assert float(norm) == 2.0


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_bits_of_an_optimizer_with_clipping_before_it(momentum):
    """A norm that sums exactly: every bit of 20 clipped steps, in one chain, over two groups."""
    rng = np.random.default_rng(3)
    params = {name: rng.standard_normal(4).astype(np.float32) for name in "ab"}
    options = {"lr": 0.1, "momentum": momentum, "weight_decay": 0.01}
    oracle = TorchOracle(torch.optim.SGD, params, [["a"], ["b"]], options, [{}, {"lr": 0.02}])
    groups = [{"params": "a"}, {"params": "b", "lr": 0.02}]
    tx = optax.chain(
        jp.clip_by_grad_value(2.0), jp.clip_by_grad_norm(1.0), jp.SGD(groups, **options)
    )
    state = tx.init(params)
    for step in range(20):
        grads = {name: rng.integers(-3, 4, 4).astype(np.float32) for name in "ab"}
        for name, tensor in oracle.tensors.items():
            tensor.grad = to_torch(grads[name])
        torch.nn.utils.clip_grad_value_(oracle.tensors.values(), 2.0)
        torch.nn.utils.clip_grad_norm_(oracle.tensors.values(), 1.0)
        oracle.optimizer.step()
        params, state = jp.step(tx, grads, state, params)
        assert_same_bits(params, oracle.params(), f"after step {step}")


@pytest.mark.parametrize("kind", ["built frozen", "for now", "within a chain", "NNX's gradients"])
def test_what_is_frozen_has_no_part_in_the_norm(kind):
    grads = gradients()
    theirs, norm = clipped_by_torch(
        {name: grads[name] for name in "ac"}, lambda ps: torch.nn.utils.clip_grad_norm_(ps, 0.7)
    )
    built = {"frozen": True} if kind == "built frozen" else {}
    tx = jp.SGD([{"params": ["a", "c"]}, {"params": "b", **built}], lr=0.1)
    tx = optax.chain(optax.identity(), tx) if kind == "within a chain" else tx
    state = tx.init(grads)
    if not built:
        assert jp.trained_grads(grads, state) == grads
        state = jp.set_hyperparams(state, frozen=True, group=1)
    given = grads
    if kind == "NNX's gradients":
        given = nnx.State({name: nnx.Param(grad) for name, grad in grads.items()})
    ours, own_norm = jax.jit(
        lambda grads, state: jp.clip_grad_norm(jp.trained_grads(grads, state), 0.7)
    )(given, state)
    assert len(jax.tree.leaves(ours)) == 2
    limit = bound("clip float32")
    assert most_ulps({"norm": own_norm}, {"norm": to_numpy(norm)}) <= limit
    assert most_ulps(dict(zip("ac", jax.tree.leaves(ours), strict=True)), theirs) <= limit


def test_a_frozen_box_of_several_arrays_has_no_part_in_the_norm():
    pairs = {name: nnx.Param((jnp.ones(2), jnp.ones(3))) for name in "ab"}
    state = jp.SGD([{"params": "a"}, {"params": jp.REST, "frozen": True}], lr=0.1).init(pairs)
    trained = jp.trained_grads(pairs, state)
    assert [leaf.shape for leaf in jax.tree.leaves(trained)] == [(2,), (3,)]


def test_a_gradient_may_be_a_number():
    assert jp.clip_grad_value({"a": 3.0}, 1.0)["a"] == 1.0


def test_gradients_of_what_no_optimizer_here_trains_are_refused():
    with pytest.raises(ValueError, match="the state has no optimizer of this library"):
        jp.trained_grads(gradients(), optax.sgd(0.1).init(gradients()))
