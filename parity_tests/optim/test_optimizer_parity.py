"""Every optimizer with a rule for one leaf against torch's, in each of torch's configurations.

torch's only arithmetic that cannot be had again is MKL's square root and the order of its float32
sums. With the root replaced by a correctly rounded one, torch has this library's bits; without, the
distance is bounded.
"""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import jaxopt_port as jp
from jaxopt_port.engine import leaf_states
from parity_tests.oracles.bits import assert_same_bits, most_ulps, relative, step_units
from parity_tests.oracles.configurations import CASES, Case
from parity_tests.oracles.optimizer import TorchOracle, beside, to_torch
from parity_tests.oracles.states import with_leaf_states
from parity_tests.oracles.tolerances import bound, step_bounds

# Where the layout is not the point.
pytestmark = pytest.mark.filterwarnings("ignore::jaxopt_port.engine.LayoutWarning")

ONE, THREE = ["one group", "three groups"]
CHECKED = (0, 1, 2, 9, 49)
# The vectors of torch's bfloat16 and float16 kernels; what is left over is rounded twice.
VECTOR = 32


def is_default(case):
    return case.description == "default"


def ascends(case):
    """Whether a gradient is negated: bits are alike there, which leaves nothing to other checks."""
    return bool(case.options.get("maximize"))


def cases(*groupings, keep=lambda case: True):
    """Cases with the groupings; of one group, where both are meant, the default configurations.

    One group is checked by its bits, which leaves nothing to the other checks.

    Two groups have torch's bits in every configuration too: see test_resume.
    """
    made = [
        pytest.param(
            case,
            grouping,
            id=f"{case!r}, {grouping}",
            marks=[pytest.mark.always] * (repr(case) == "AdamW default"),
        )
        for case in CASES
        if keep(case)
        for grouping in groupings
        if groupings != (THREE, ONE) or grouping == THREE or is_default(case)
    ]
    return pytest.mark.parametrize(("case", "grouping"), made)


class Run:
    """One case on both sides, from the same parameters and with the same gradients."""

    def __init__(self, case: Case, grouping: str, dtype=np.float32, **torchs_own):
        self.shapes = case.optimizer.shapes
        self._rng, self._dtype = np.random.default_rng(20240229), dtype
        groups = case.optimizer.groupings()[grouping]
        start = self._random()
        options = {**case.options, **torchs_own}
        self.oracle = TorchOracle(case.optimizer.torch, start, groups, options)
        self.tx = case.optimizer.port([{"params": group} for group in groups], **case.options)
        self.params = {name: jnp.asarray(array) for name, array in start.items()}
        self.state = self.tx.init(self.params)
        pool = [self._random() for _ in range(8)]
        self._pairs = [
            tuple({name: to(x) for name, x in grads.items()} for to in (jnp.asarray, to_torch))
            for grads in pool
        ]

    def _random(self):
        return {
            name: np.asarray(self._rng.standard_normal(shape), self._dtype)
            for name, shape in self.shapes.items()
        }

    def step(self, ours=True, torchs=True):
        """Take a step with the next gradients, each side from where it is."""
        of_jax, of_torch = self._pairs[int(self._rng.integers(len(self._pairs)))]
        if ours:
            self.params, self.state = jp.step(self.tx, of_jax, self.state, self.params)
        if torchs:
            self.oracle.step(of_torch)

    def follow(self):
        """Put this library where torch is."""
        self.params = {name: jnp.asarray(array) for name, array in self.oracle.params().items()}
        held = {name: self.oracle.held(name) for name in self.shapes}
        # Whether there is a momentum buffer yet, torch does not hold as an entry of its own.
        begun = {"has_momentum_buffer": "momentum_buffer" in held["wide"]}
        self.state = with_leaf_states(self.state, {k: begun | v for k, v in held.items()})

    def arrays(self):
        """By path and torch's name: both sides' parameters and states."""
        states = leaf_states(self.state)
        found = {}
        for path, param in self.oracle.params().items():
            found[path, "parameter"] = (np.asarray(self.params[path]), param)
            for name, theirs in self.oracle.held(path).items():
                found[path, name] = (np.asarray(states[path][name]), theirs)
        return found


@cases(THREE, ONE, keep=lambda case: not case.optimizer.sums)
def test_bits_are_torchs_where_its_root_is_correctly_rounded(case, grouping, correct_root):
    run = Run(case, grouping)
    for step in range(30):
        run.step()
        if step in (0, 1, 6, 29):
            arrays = {f"{path} {name}": pair for (path, name), pair in run.arrays().items()}
            ours, theirs = ({k: pair[i] for k, pair in arrays.items()} for i in (0, 1))
            assert_same_bits(ours, theirs, f"after step {step}")


def check_steps(case, grouping, dtype=np.float32):
    """Yield (name, units) of steps that start from torch's own parameters and state."""
    run = Run(case, grouping, dtype)
    for step in range(max(CHECKED) + 1):
        if step not in CHECKED:
            run.step(ours=False)
            continue
        if step:
            run.follow()
        before = {key: theirs for key, (_, theirs) in run.arrays().items()}
        run.step()
        for key, (ours, theirs) in run.arrays().items():
            if theirs.size:
                yield key, step_units(ours, theirs, before.get(key, np.zeros_like(theirs)))


@cases(THREE)
def test_one_step_from_torchs_own_state(case, grouping):
    of_param, of_state = step_bounds(case.optimizer.name)
    units = {True: [], False: []}
    for (_, name), found in check_steps(case, grouping):
        units[name == "parameter"].append(found.ravel())
    params, states = (np.concatenate(units[which] or [np.zeros(1)]) for which in (True, False))
    assert params.max() <= of_param
    assert states.max() <= of_state
    if not case.optimizer.sums:
        assert np.mean(params > 1) <= bound("elements beyond a unit")


@cases(THREE, keep=lambda case: not ascends(case))
def test_two_hundred_steps(case, grouping):
    """No further from torch than twice what its implementations are from each other."""
    run = Run(case, grouping)
    start = run.oracle.params()
    fused = Run(case, grouping, fused=True) if case.optimizer.fused else None
    for _ in range(200):
        run.step()
        if fused is not None:
            fused.step(ours=False)
    spread = {} if fused is None else {k: theirs for k, (_, theirs) in fused.arrays().items()}
    for key, (ours, theirs) in run.arrays().items():
        before = start[key[0]] if key[1] == "parameter" else 0.0
        allowed = bound("two hundred steps")
        if key in spread:
            allowed = 2 * relative(spread[key], theirs, before) + bound("one rounding")
        far = relative(ours, theirs, before)
        assert far <= (0 if case.optimizer.exact else allowed), key


# Each configuration has torch's bits in float32, and float64 is no other program.
@cases(THREE, keep=lambda case: is_default(case) or case.optimizer.sums or case.optimizer.exact)
def test_float64(case, grouping, x64):
    run = Run(case, grouping, np.float64)
    allowed = bound("float64 run, exact" if case.optimizer.exact else "float64 run")
    for _ in range(200):
        run.step()
    for key, (ours, theirs) in run.arrays().items():
        assert ours.dtype == theirs.dtype or theirs.ndim == 0, key
        assert relative(ours, theirs) <= allowed, key


@cases(THREE, keep=lambda case: not ascends(case))
def test_bfloat16(case, grouping):
    check_low_precision(case, grouping, ml_dtypes.bfloat16)


# What float16 has of its own is its range: bfloat16 has the other configurations.
@cases(THREE, keep=is_default)
def test_float16(case, grouping):
    check_low_precision(case, grouping, np.float16)


def check_low_precision(case, grouping, dtype):
    allowed = bound("low precision sums" if case.optimizer.sums else "low precision")
    for (path, name), units in check_steps(case, grouping, dtype):
        whole, tail = np.split(units.ravel(), [units.size - units.size % VECTOR])
        assert np.max(whole, initial=0) <= allowed, (path, name)
        # Where decay and gradient cancel, an adaptive step makes a whole step of their rounding.
        if name == "parameter" and not case.options.get("weight_decay"):
            assert np.max(tail, initial=0) <= bound("low precision tail"), path


def complex_arrays(rng, shape=(9, 7)):
    parts = rng.standard_normal((2, *shape))
    return np.asarray(parts[0] + 1j * parts[1], np.complex64)


@pytest.mark.parametrize("case", [case for case in CASES if case.optimizer.complex], ids=repr)
def test_complex_parameters(case, rng, correct_root):
    start = {"weight": complex_arrays(rng)}
    oracle = TorchOracle(case.optimizer.torch, start, [["weight"]], case.options)
    gradients = ({"weight": complex_arrays(rng)} for _ in range(5))
    *_, (params, state) = beside(oracle, case.optimizer.port(**case.options), start, gradients)
    held = leaf_states(state)["weight"]
    pairs = {"parameter": (params["weight"], oracle.params()["weight"])} | {
        name: (held[name], theirs) for name, theirs in oracle.held("weight").items()
    }
    for name, (ours, theirs) in pairs.items():
        assert np.asarray(ours).dtype == theirs.dtype, name
        assert relative(np.asarray(ours), theirs) <= bound("complex"), name
        if case.optimizer.port is jp.SGD:
            parts = [np.asarray(x).view(np.float32) for x in (ours, theirs)]
            assert most_ulps(*({name: part} for part in parts)) <= bound("sgd complex")


@pytest.mark.parametrize("case", [c for c in CASES if c.optimizer.sums], ids=repr)
def test_sums_are_nearer_to_float64_than_torchs(case, rng, x64):
    """Where torch's order of summation cannot be had, the difference is torch's own error."""
    start = rng.standard_normal(70_001).astype(np.float32)
    grad = rng.standard_normal(70_001).astype(np.float32)

    def torchs(dtype):
        # The dtype's eps, which the options leave to torch, must be that of float32 in both.
        eps = (float(np.finfo(np.float32).eps), 1e-3)
        options = {"eps": eps, **case.options}
        oracle = TorchOracle(case.optimizer.torch, {"w": start.astype(dtype)}, [["w"]], options)
        oracle.step({"w": grad.astype(dtype)})
        return oracle.params()["w"].astype(np.float64)

    tx = case.optimizer.port(**case.options)
    ours, _ = jp.step(tx, {"w": jnp.asarray(grad)}, tx.init({"w": start}), {"w": start})
    true = torchs(np.float64)
    errors = [
        np.mean(np.abs(x - true)) for x in (np.asarray(ours["w"], np.float64), torchs(np.float32))
    ]
    assert errors[0] <= errors[1]
