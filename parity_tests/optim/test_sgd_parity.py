"""SGD against torch's, to the bit: every configuration of torch's own table."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port.engine import leaf_states
from parity_tests.oracles.bits import as_integers, assert_same_bits
from parity_tests.oracles.configurations import SHAPES
from parity_tests.oracles.optimizer import TorchOracle, beside, check_bits, configurations, to_torch

CONFIGURATIONS = configurations(torch.optim.SGD)
IDS = [description for description, _ in CONFIGURATIONS]

GROUPINGS = {"one group": [list(SHAPES)], "seven groups": [[name] for name in SHAPES]}

# (step, group or None for all, new values). Those of momentum need a group that holds a buffer.
CHANGES = [
    (100, None, {"lr": 3e-3}),
    (200, -1, {"lr": 7e-4}),
    (300, None, {"weight_decay": 0.01}),
    (400, 0, {"weight_decay": 0.3, "lr": 2e-2}),
    (600, None, {"weight_decay": 0.0}),
    (700, -1, {"lr": 0.0}),
    (750, None, {"lr": 1e-2}),
]
MOMENTUM_CHANGES = [(150, None, {"momentum": 0.5}), (550, -1, {"momentum": 0.99})]
REST_MOMENTUM_CHANGES = [
    (250, None, {"momentum": 0.0}),
    (350, None, {"momentum": 0.9}),
    (450, -1, {"dampening": 0.25}),
]


def changes_for(options):
    changes = list(CHANGES)
    if options.get("momentum", 0) != 0:
        changes += MOMENTUM_CHANGES
        # Nesterov's momentum may neither be 0 nor be dampened.
        changes += [] if options.get("nesterov") else REST_MOMENTUM_CHANGES
    return changes


def random_arrays(rng, dtype=np.float32, scale=1.0):
    return {
        name: np.asarray(scale * rng.standard_normal(shape), dtype)
        for name, shape in SHAPES.items()
    }


class Gradients:
    """Gradients by step, the same for both sides: a pool of random ones, drawn at random."""

    def __init__(self, rng, dtype=np.float32, size=40):
        self._pool = [random_arrays(rng, dtype) for _ in range(size)]
        self._jax = [{k: jnp.asarray(v) for k, v in g.items()} for g in self._pool]
        self._torch = [{k: to_torch(v) for k, v in g.items()} for g in self._pool]
        self._rng = rng

    def next(self):
        i = self._rng.integers(len(self._pool))
        return self._jax[i], self._torch[i]


def buffers(state):
    return {
        path: np.asarray(s["momentum_buffer"])
        for path, s in leaf_states(state).items()
        if s.get("has_momentum_buffer", False)
    }


def make(options, grouping):
    return jp.SGD([{"params": names} for names in grouping], **options)


@pytest.mark.parametrize(
    ("options", "grouping"),
    [
        pytest.param(options, GROUPINGS[grouping], id=f"{grouping}-{name}")
        for (_, options), name in zip(CONFIGURATIONS, IDS, strict=True)
        for grouping in GROUPINGS
        if grouping == "seven groups" or name == IDS[0]
    ],
)
def test_a_thousand_steps_through_changes_are_bit_equal(options, grouping, rng):
    start, gradients = random_arrays(rng), Gradients(rng)
    oracle = TorchOracle(torch.optim.SGD, start, grouping, options)
    tx = make(options, grouping)
    params = {name: jnp.asarray(x) for name, x in start.items()}
    state = tx.init(params)
    changes = changes_for(options)
    for step in range(1000):
        for _, group, values in (c for c in changes if c[0] == step):
            state = jp.set_hyperparams(state, group=group, **values)
            oracle.change(group, values)
        ours, theirs = gradients.next()
        params, state = jp.step(tx, ours, state, params)
        oracle.step(theirs)
        if step in (0, 1) or step % 50 == 49:
            assert_same_bits(params, oracle.params(), f"after step {step}")
            assert_same_bits(buffers(state), oracle.state("momentum_buffer"), f"buffer, {step}")


@pytest.mark.parametrize(
    "grouping",
    [pytest.param(GROUPINGS[name], id=name) for name in ("one group", "seven groups")],
)
@pytest.mark.parametrize("options", [o for _, o in CONFIGURATIONS])
def test_step_and_update_then_apply_updates_in_one_jit_are_bit_equal(options, grouping, rng):
    start, gradients = random_arrays(rng), Gradients(rng, size=10)
    oracle = TorchOracle(torch.optim.SGD, start, grouping, options)
    tx = make(options, grouping)

    @jax.jit
    def train_step(grads, state, params):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    stepped, applied = start, start
    stepped_state, applied_state = tx.init(start), tx.init(start)
    for step in range(40):
        ours, theirs = gradients.next()
        stepped, stepped_state = jp.step(tx, ours, stepped_state, stepped)
        applied, applied_state = train_step(ours, applied_state, applied)
        oracle.step(theirs)
        if step % 10 == 9:
            assert_same_bits(stepped, oracle.params(), f"after step {step}")
            assert_same_bits(applied, oracle.params(), f"applied after step {step}")


LOW_PRECISION = pytest.mark.parametrize(
    "dtype", [ml_dtypes.bfloat16, np.float16], ids=["bfloat16", "float16"]
)


@LOW_PRECISION
@pytest.mark.parametrize("options", [options for _, options in CONFIGURATIONS], ids=IDS)
def test_low_precision_is_bit_equal_in_torchs_vector_loop(options, dtype, rng):
    """A size that is a multiple of any vector's, with values that are subnormal in float16."""
    start = {"w": (1e-3 * rng.standard_normal(2048)).astype(dtype)}
    gradients = ({"w": (1e-3 * rng.standard_normal(2048)).astype(dtype)} for _ in range(30))
    oracle = TorchOracle(torch.optim.SGD, start, [["w"]], options)
    check_bits(oracle, jp.SGD(**options), start, gradients)


@LOW_PRECISION
def test_low_precision_hyperparameters_are_read_back_exactly(dtype):
    options = {"lr": 1e-5, "momentum": 0.999, "dampening": 0.1, "weight_decay": 1e-7}
    params = {"w": np.ones(3, dtype)}
    tx = jp.SGD(**options)
    _, state = jp.step(tx, params, tx.init(params), params)
    (read,) = jp.get_hyperparams(state)
    assert {name: read[name] for name in options} == options
    state = jp.set_hyperparams(state, lr=1 / 3)
    assert jp.get_hyperparams(state)[0]["lr"] == 1 / 3


def test_first_step_buffer_is_the_gradient_whatever_the_dampening():
    tx = jp.SGD(lr=0.0, momentum=0.9, dampening=0.75)
    params, grads = {"w": jnp.ones(2)}, {"w": jnp.array([4.0, -8.0])}
    _, state = jp.step(tx, grads, tx.init(params), params)
    assert buffers(state)["w"].tolist() == [4.0, -8.0]
    _, state = jp.step(tx, grads, state, params)
    assert buffers(state)["w"].tolist() == [
        np.float32(np.float32(4.0) * np.float32(0.9)) + 1.0,
        np.float32(np.float32(-8.0) * np.float32(0.9)) - 2.0,
    ]


ZEROS = np.array([[0.0, -0.0, 1.0, -0.0], [0.0, 0.0, -0.0, -0.0]], np.float32)
NOT_FINITE = np.array([[1, np.nan, np.inf, -np.inf, 0], [np.inf, 1, 1, np.inf, np.nan]], np.float32)


@pytest.mark.parametrize(
    ("arrays", "weight_decay"),
    [pytest.param(ZEROS, 0.1, id="zeros"), pytest.param(NOT_FINITE, 0.0, id="not finite")],
)
def test_signs_of_zeros_nan_and_infinity_are_torchs(arrays, weight_decay):
    start, grads = ({"w": array} for array in arrays)
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": weight_decay}
    oracle = TorchOracle(torch.optim.SGD, start, [["w"]], options)
    for params, _ in beside(oracle, jp.SGD(**options), start, 3 * [grads]):
        ours, theirs = np.asarray(params["w"]), oracle.params()["w"]
        np.testing.assert_array_equal(ours, theirs)
        number = ~np.isnan(theirs)
        np.testing.assert_array_equal(np.signbit(ours[number]), np.signbit(theirs[number]))


@pytest.mark.skipif(
    not torch.set_flush_denormal(False), reason="this CPU cannot be told to flush subnormals"
)
def test_subnormals_are_flushed_by_xla_and_by_torch_only_when_told_to():
    """The one difference that stays: XLA on the CPU flushes, and torch does by request."""
    values = {"w": np.full(64, 1.5e-38, np.float32)}
    grads = {"w": np.full(64, 1.2e-38, np.float32)}
    tx = jp.SGD(lr=1.0)
    ours, _ = jp.step(tx, grads, tx.init(values), values)
    assert as_integers(ours["w"]).max() == 0

    def torchs(flush):
        torch.set_flush_denormal(flush)
        try:
            oracle = TorchOracle(torch.optim.SGD, values, [["w"]], {"lr": 1.0})
            oracle.step(grads)
            return int(oracle.params()["w"].view(np.uint32).max())
        finally:
            torch.set_flush_denormal(False)

    assert torchs(flush=True) == 0
    assert torchs(flush=False) > 0
