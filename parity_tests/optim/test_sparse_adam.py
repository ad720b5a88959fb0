"""SparseAdam against torch's, with gradients as BCOO and as pairs of indices and values."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from jax.experimental import sparse

import jaxopt_port as jp
from jaxopt_port.engine import leaf_states
from parity_tests.oracles.bits import step_units
from parity_tests.oracles.optimizer import TorchOracle, configurations, in_torch
from parity_tests.oracles.tolerances import bound

CONFIGURATIONS = dict(configurations(torch.optim.SparseAdam))
TABLES = {"vector": (9,), "table": (11, 4), "cube": (7, 2, 3)}
GROUPINGS = {"one group": [list(TABLES)], "three groups": [[name] for name in TABLES]}


def as_pair(indices, values, shape):
    return jnp.asarray(indices), jnp.asarray(values)


def as_bcoo(indices, values, shape):
    columns = np.asarray(indices).reshape(len(values), -1)
    return sparse.BCOO((jnp.asarray(values), jnp.asarray(columns)), shape=shape)


FORMS = {"pair": as_pair, "BCOO": as_bcoo}


def random_rows(rng, shape, dtype, rows=6):
    indices = rng.integers(0, shape[0], rows)  # some of them twice
    return indices, np.asarray(rng.standard_normal((rows, *shape[1:])), dtype)


@pytest.mark.parametrize(
    ("case", "grouping", "dtype", "form"),
    [
        (case, grouping, dtype, form)
        for case in CONFIGURATIONS
        for grouping in GROUPINGS
        for dtype in (np.float32, np.float64)
        for form in FORMS
        # Of a float32 tensor torch calculates the step size in float32, also for float64.
        if (case, dtype) != ("Tensor lr", np.float64)
        if case == "default" or (grouping == "one group") == (dtype == np.float32)
    ],
)
def test_thirty_steps(case, grouping, form, dtype, rng, x64):
    options, groups = CONFIGURATIONS[case], GROUPINGS[grouping]
    start = {name: np.asarray(rng.standard_normal(s), dtype) for name, s in TABLES.items()}
    oracle = TorchOracle(torch.optim.SparseAdam, start, groups, options)
    tx = jp.SparseAdam([{"params": names} for names in groups], **options)
    params, state = start, tx.init(start)
    for _ in range(30):
        rows = {name: random_rows(rng, shape, dtype) for name, shape in TABLES.items()}
        before = oracle.params()
        grads = {name: FORMS[form](*row, TABLES[name]) for name, row in rows.items()}
        params, state = jp.step(tx, grads, state, params)
        oracle.step({name: in_torch(row, TABLES[name]) for name, row in rows.items()})
        for name, theirs in oracle.params().items():
            untouched = np.setdiff1d(np.arange(TABLES[name][0]), rows[name][0])
            np.testing.assert_array_equal(theirs[untouched], before[name][untouched])
    for name, theirs in oracle.params().items():
        far = step_units(params[name], theirs, start[name]).max()
        assert far <= bound("sparse adam run"), name
        for held, array in oracle.held(name).items():
            ours = np.asarray(leaf_states(state)[name][held])
            np.testing.assert_allclose(ours, array, rtol=8 * np.finfo(dtype).eps, err_msg=held)


def test_only_touched_rows_change():
    start = {"table": jnp.arange(12.0).reshape(6, 2)}
    tx = jp.SparseAdam()
    state = tx.init(start)
    grads = {"table": (jnp.array([4, 1, 4]), jnp.ones((3, 2)))}
    params, state = jp.step(tx, grads, state, start)
    changed = np.any(np.asarray(params["table"] != start["table"]), axis=1)
    assert np.flatnonzero(changed).tolist() == [1, 4]
    for name in ("exp_avg", "exp_avg_sq"):
        held = np.asarray(leaf_states(state)["table"][name])
        assert np.flatnonzero(held[:, 0]).tolist() == [1, 4]
    # A row that occurs twice has the sum of its gradients.
    assert leaf_states(state)["table"]["exp_avg"][4, 0] == np.float32(0.1) * 2


def test_update_and_apply_updates_give_the_same_and_padding_is_left_out():
    start = {"table": jnp.ones((4, 2))}
    tx = jp.sparse_adam(lr=0.1)
    grads = {"table": (jnp.array([2, 4, 4]), jnp.full((3, 2), 2.0))}  # 4 is out of bounds
    stepped, _ = jp.step(tx, grads, tx.init(start), start)
    updates, _ = tx.update(grads, tx.init(start), start)
    np.testing.assert_array_equal(stepped["table"], optax.apply_updates(start, updates)["table"])
    assert np.flatnonzero(np.asarray(updates["table"])[:, 0]).tolist() == [2]


def test_indices_of_single_elements():
    start = {"table": jnp.zeros((3, 2))}
    indices = jnp.array([[0, 1], [2, 0]])
    tx = jp.SparseAdam(lr=1.0)
    params, _ = jp.step(tx, {"table": (indices, jnp.array([1.0, -1.0]))}, tx.init(start), start)
    np.testing.assert_allclose(params["table"], [[0, -1], [0, 0], [1, 0]], atol=1e-6)


def test_beside_dense_parameters_and_frozen_ones():
    params = {"table": jnp.ones((5, 2)), "dense": jnp.ones(3), "still": jnp.ones(2)}
    tx = jp.SparseAdam(
        [
            {"params": "table"},
            {"params": "dense", "optimizer": jp.adam},
            {"params": "still", "frozen": True},
        ]
    )
    grads = {
        "table": (jnp.array([3]), jnp.ones((1, 2))),
        "dense": jnp.ones(3),
        "still": jnp.ones(2),
    }
    stepped, _ = jp.step(tx, grads, tx.init(params), params)
    assert {name: int(np.sum(stepped[name] != 1)) for name in stepped} == {
        "table": 2,
        "dense": 3,
        "still": 0,
    }


def cost(rows, table_rows):
    """Bytes that XLA reckons a donated step to move."""
    tx = jp.SparseAdam()
    params = {"table": jnp.zeros((table_rows, 8))}
    grads = {"table": (jnp.arange(rows), jnp.ones((rows, 8)))}
    # In the order in which they come back: XLA gives donated buffers to results in turn.
    step = jax.jit(lambda p, s, g: jp.step(tx, g, s, p), donate_argnums=(0, 1))
    compiled = step.lower(params, tx.init(params), grads).compile()
    memory = compiled.memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes


def test_memory_beyond_the_donated_table_does_not_grow_with_it():
    assert cost(16, 200_000) == cost(16, 2_000)


BAD = {
    "dense": (jnp.ones((4, 2)), TypeError, "SparseAdam does not support dense gradients, please"),
    "values of another width": (
        (jnp.array([1]), jnp.ones((1, 3))),
        ValueError,
        r"indices of shape \(1,\) and values of shape \(1, 3\); for a parameter of shape \(4, 2\)",
    ),
    "as many indices as values": (
        (jnp.array([1, 2]), jnp.ones((1, 2))),
        ValueError,
        r"indices of shape \(2,\) and values of shape \(1, 2\)",
    ),
    "float indices": ((jnp.ones(1), jnp.ones((1, 2))), TypeError, "they must be integers"),
    "another dtype": (
        (jnp.array([1]), jnp.ones((1, 2), jnp.bfloat16)),
        TypeError,
        'the gradient of "table" has dtype bfloat16, the parameter float32',
    ),
    "another shape": (
        sparse.BCOO((jnp.ones((1, 2)), jnp.zeros((1, 1), int)), shape=(9, 2)),
        ValueError,
        r"has shape \(9, 2\), the parameter \(4, 2\)",
    ),
}


@pytest.mark.parametrize("spelling", [jp.sparse_adam, jp.SparseAdam])
@pytest.mark.parametrize("case", BAD)
def test_bad_gradients(case, spelling):
    grad, error, message = BAD[case]
    params = {"table": jnp.ones((4, 2))}
    tx = spelling()
    state = tx.init(params)
    with pytest.raises(error, match=message):
        jp.step(tx, {"table": grad}, state, params)


def test_sparse_gradients_are_refused_by_the_others():
    params = {"table": jnp.ones((4, 2))}
    grad = {"table": as_bcoo([1], np.ones((1, 2), np.float32), (4, 2))}
    for tx, message in (
        (jp.adam(), "does not support sparse gradients"),
        (jp.Adam(), "does not support sparse gradients"),
        (jp.accumulate_grads(jp.SparseAdam(), 2), "not by what is around them"),
    ):
        with pytest.raises(TypeError, match=message):
            jp.step(tx, grad, tx.init(params), params)
