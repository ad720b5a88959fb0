"""SGD and Adagrad with row-sparse gradients, which torch's take as well as dense ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.experimental import sparse

import jaxopt_port as jp
from parity_tests.oracles.bits import relative
from parity_tests.oracles.optimizer import in_torch
from parity_tests.oracles.tolerances import bound

SHAPES = {"table": (11, 4), "cube": (7, 2, 3)}
OPTIONS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "maximize": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.3, "initial_accumulator_value": 0.1, "eps": 1e-3}),
    ("Adagrad", {"lr": 0.1, "maximize": True}),
]


def drawn(rng, dtype):
    """Rows of each parameter, some of them twice; then none; then a dense gradient."""
    for rows in (4, 0, 4, None, 4):
        grads = {}
        for name, shape in SHAPES.items():
            if rows is None:
                grads[name] = rng.standard_normal(shape).astype(dtype)
            else:
                indices = rng.integers(0, shape[0], rows)
                grads[name] = (indices, rng.standard_normal((rows, *shape[1:])).astype(dtype))
        yield grads


def in_jax(grad, shape, form):
    if not isinstance(grad, tuple):
        return jnp.asarray(grad)
    indices, values = jnp.asarray(grad[0], jnp.int32), jnp.asarray(grad[1])
    if form == "pair":
        return indices, values
    return sparse.BCOO((values, indices[:, None]), shape=shape)


CASES = [
    (*case, *[("pair", np.float32, True), ("BCOO", np.float64, False)][i % 2])
    for i, case in enumerate(OPTIONS)
]


@pytest.mark.parametrize(("name", "options", "form", "dtype", "compiled"), CASES)
def test_steps_are_torchs(name, options, form, dtype, compiled, rng):
    start = {k: rng.standard_normal(shape).astype(dtype) for k, shape in SHAPES.items()}
    tensors = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in start.items()}
    optimizer = getattr(torch.optim, name)(tensors.values(), **options)
    limit = bound(f"sparse gradients {np.dtype(dtype).name}")
    with jax.enable_x64(dtype == np.float64):
        tx, params = getattr(jp, name)(**options), jax.tree.map(jnp.asarray, start)
        step = functools.partial(jp.step, tx)
        if not compiled:  # Optax's own loop
            step = functools.partial(optax_step, tx)
        state = tx.init(params)
        for grads in drawn(rng, dtype):
            ours = {k: in_jax(g, SHAPES[k], form) for k, g in grads.items()}
            for key, tensor in tensors.items():
                tensor.grad = in_torch(grads[key], SHAPES[key])
            # torch's sparse momentum cannot take a dense gradient, nor its dense one a sparse.
            if "momentum" in options and not isinstance(grads["table"], tuple):
                continue
            optimizer.step()
            params, state = step(ours, state, params)
            for key, tensor in tensors.items():
                assert relative(params[key], tensor.detach().numpy()) <= limit


def optax_step(tx, grads, state, params):
    updates, state = tx.update(grads, state, params)
    return jax.tree.map(jnp.add, params, updates), state


@pytest.mark.parametrize("factory", [jp.SGD, jp.Adagrad])
def test_a_weight_decay_that_torch_refuses_is_nan(factory):
    tensor = torch.nn.Parameter(torch.ones(4))
    tensor.grad = in_torch(([1], [3.0]), (4,))
    with pytest.raises(RuntimeError, match=r"sparse"):
        getattr(torch.optim, factory.__name__)([tensor], weight_decay=0.1).step()
    tx, params = factory(weight_decay=0.1), jnp.ones(4)
    after, _ = jp.step(tx, (jnp.array([1]), jnp.array([3.0])), tx.init(params), params)
    assert np.isnan(after[1])


@pytest.mark.parametrize("padding", [-1, -7, 5])
@pytest.mark.parametrize(
    "tx",
    [jp.SparseAdam(), jp.SGD(momentum=0.9), jp.SGD(), jp.Adagrad()],
    ids=["SparseAdam", "momentum", "SGD", "Adagrad"],
)
def test_what_is_out_of_bounds_is_padding(tx, padding):
    """Negative too: torch refuses it, and in JAX's indexing it is a row from the end."""
    params = {"table": jnp.ones((5, 2))}
    state, rows = tx.init(params), jnp.array([[1.0, 2.0], [3.0, 4.0]])
    padded, _ = jp.step(tx, {"table": (jnp.array([4, padding]), rows)}, state, params)
    bare, _ = jp.step(tx, {"table": (jnp.array([4]), rows[:1])}, state, params)
    np.testing.assert_array_equal(padded["table"], bare["table"])


def test_indices_that_do_not_fit_are_refused():
    tx, params = jp.SGD(lr=0.1), {"table": jnp.ones((4, 2))}
    for grad, message in [
        ((jnp.array([1]), jnp.ones((2, 2))), "has indices of shape"),
        ((jnp.array([1.0]), jnp.ones((1, 2))), "they must be integers"),
        (([1, 2], jnp.ones((2, 2))), "a list; they must be one array"),
        (sparse.BCSR.fromdense(jnp.ones((4, 2))), "is a BCSR; give a BCOO"),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            jp.step(tx, {"table": grad}, tx.init(params), params)
    adam = jp.Adam()
    with pytest.raises(TypeError, match="does not support sparse gradients"):
        jp.step(adam, {"table": (jnp.array([1]), jnp.ones((1, 2)))}, adam.init(params), params)
