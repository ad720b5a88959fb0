"""Options, shapes and gradients drawn at random: NaN and infinity stand where torch's stand.

Magnitudes keep clear of subnormal numbers, which XLA flushes on the CPU and torch does not.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parity_tests.oracles.bits import assert_same_bits, relative
from parity_tests.oracles.configurations import LEAFWISE
from parity_tests.oracles.optimizer import TorchOracle, beside
from parity_tests.oracles.tolerances import bound

RATE = st.floats(1e-4, 1.0)
UNIT = st.floats(0.01, 0.99)
DECAY = st.sampled_from([0.0, 0.01, 0.3])
EPS = st.sampled_from([1e-8, 1e-3, 0.5])
FLAG = st.booleans()
BETAS = st.tuples(UNIT, UNIT) | st.sampled_from([(0.9, 0.999), (0.0, 0.0)])

_COMMON = {"lr": RATE, "weight_decay": DECAY, "maximize": FLAG}
_ADAM = {**_COMMON, "betas": BETAS, "eps": EPS}
OPTIONS = {
    "Adadelta": {**_COMMON, "rho": st.floats(0.0, 1.0), "eps": EPS},
    "Adafactor": {
        **_COMMON,
        "beta2_decay": st.floats(-1.0, 0.0),
        "eps": st.tuples(st.sampled_from([None, 1e-6]), st.sampled_from([1e-3, 0.1])),
        "d": st.floats(1.0, 3.0),
    },
    "Adagrad": {
        **_COMMON,
        "eps": EPS,
        "lr_decay": DECAY,
        "initial_accumulator_value": st.sampled_from([0.0, 0.5]),
    },
    "Adam": {**_ADAM, "amsgrad": FLAG, "decoupled_weight_decay": FLAG},
    "AdamW": {**_ADAM, "amsgrad": FLAG},
    "Adamax": _ADAM,
    "ASGD": {
        **_COMMON,
        "lambd": DECAY,
        "alpha": st.floats(0.1, 2.0),
        "t0": st.sampled_from([0.0, 2.0, 1e6]),
    },
    "NAdam": {**_ADAM, "momentum_decay": DECAY, "decoupled_weight_decay": FLAG},
    "RAdam": {**_ADAM, "decoupled_weight_decay": FLAG},
    "RMSprop": {
        **_COMMON,
        "alpha": UNIT,
        "eps": EPS,
        "momentum": st.sampled_from([0.0, 0.9]),
        "centered": FLAG,
    },
    "Rprop": {
        "lr": RATE,
        "etas": st.tuples(UNIT, st.floats(1.01, 2.0)),
        "step_sizes": st.tuples(st.floats(1e-6, 1e-2), st.floats(0.1, 50.0)),
        "maximize": FLAG,
    },
    "SGD": {**_COMMON, "momentum": st.sampled_from([0.0, 0.9]), "dampening": DECAY},
}
SHAPES = [(), (3,), (4, 5)]
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan]


@st.composite
def arrays(draw, shape, special):
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    magnitude = 10.0 ** draw(st.integers(-4, 3))
    array = np.asarray(magnitude * rng.standard_normal(shape), np.float32)
    for value in draw(st.lists(st.sampled_from(special), max_size=3)) if special else ():
        array = array.copy()
        array.flat[int(rng.integers(array.size))] = value
    return array


@pytest.mark.parametrize("optimizer", LEAFWISE, ids=lambda optimizer: optimizer.name)
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_options_and_gradients(optimizer, data, correct_root):
    options = data.draw(st.fixed_dictionaries(OPTIONS[optimizer.name]))
    shape = data.draw(st.sampled_from(SHAPES))
    start = {"w": data.draw(arrays(shape, [0.0]))}
    oracle = TorchOracle(optimizer.torch, start, [["w"]], options)
    gradients = ({"w": data.draw(arrays(shape, SPECIAL))} for _ in range(3))
    stepped = beside(oracle, optimizer.port(**options), start, gradients)
    for step, (params, _) in enumerate(stepped):
        ours, theirs = np.asarray(params["w"]), oracle.params()["w"]
        assert np.array_equal(np.isnan(ours), np.isnan(theirs))
        infinite = np.isinf(theirs)
        assert np.array_equal(ours[infinite], theirs[infinite])
        finite = np.isfinite(theirs)
        if optimizer.sums:
            assert relative(ours[finite], theirs[finite]) <= bound("drawn sums")
        else:
            ours, theirs = (np.where(finite, x, 0) for x in (ours, theirs))
            assert_same_bits({"w": ours}, {"w": theirs}, f"after step {step}, {options}")
