"""Every scheduler in the table, eagerly and compiled, against torch's own."""

import copy

import numpy as np
import pytest

from parity_tests.oracles.port_scheduler import PortSide, run
from parity_tests.oracles.scheduler import OF_TORCH as CASES
from parity_tests.oracles.scheduler import TorchSide, jitted, scanned, torch_run
from parity_tests.oracles.tolerances import bound

FEW = 20
AT_ONCE = 30
# Every case is stepped eagerly too; here every other one.
OTHERS = list(CASES)[::2]
BATCHES = [OTHERS[i : i + AT_ONCE] for i in range(0, len(OTHERS), AT_ONCE)]


# One of each kind is in every run, and restarts that come within so few steps.
EACH = {"restarts doubling", *{name.partition(" ")[0]: name for name in reversed(CASES)}.values()}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.always) if n in EACH else n for n in CASES]
)
def test_bits_and_state_dict_of_torch(name):
    ours, theirs = PortSide(CASES[name]), TorchSide(CASES[name])
    assert ours.saved() == theirs.saved()
    np.testing.assert_array_equal(run(ours, FEW), run(theirs, FEW))
    assert ours.saved() == theirs.saved()


@pytest.mark.parametrize("name", CASES)
def test_bits_of_torch_through_changes_and_exchanged_state_dicts(name):
    case = CASES[name]
    ours, theirs = PortSide(case), TorchSide(case)
    change = {
        100: lambda side: side.set_lr(0.0123, 0),
        130: lambda side: side.set_lr(0.7, len(case.lrs) - 1),
    }
    np.testing.assert_array_equal(run(ours, 200, change), run(theirs, 200, change))

    our_dict, their_dict = ours.saved(), copy.deepcopy(theirs.saved())
    assert our_dict == their_dict
    entries = ours.scheduler.param_groups(ours.sched_state) if case.resumed else None
    ours.sched_state = ours.scheduler.load_state_dict(their_dict, entries)
    theirs.scheduler = TorchSide(case).scheduler
    theirs.scheduler.load_state_dict(our_dict)
    for scheduler in nested(theirs.scheduler):
        scheduler.optimizer = theirs.optimizer
    ours.from_, theirs.from_ = 200, 200
    np.testing.assert_array_equal(run(ours, 100), run(theirs, 100))


def nested(scheduler):
    inner = getattr(scheduler, "_schedulers", ())
    return [scheduler, *(each for one in inner for each in nested(one))]


def check(names, runs):
    for name in names:
        if CASES[name].own_function:
            limit = bound("a user's function in a traced schedule")
            np.testing.assert_allclose(runs[name], torch_run(name), rtol=limit, atol=0)
        else:
            np.testing.assert_array_equal(runs[name], torch_run(name), err_msg=name)


@pytest.mark.parametrize("names", BATCHES, ids=lambda names: f"{names[0]} to {names[-1]}")
def test_bits_of_torch_in_scan(names):
    check(names, scanned(names))


JITTED = [
    "cosine floor",
    "cyclic beta1",
    "multistep twice",
    "onecycle lists",
    "plateau cooldown",
    "restarts fractions doubling",
    "three deep",
]


def test_bits_of_torch_and_one_trace_under_jit():
    check(JITTED, jitted(JITTED))
