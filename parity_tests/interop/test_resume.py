"""Runs that stop on one side and go on at the other, against runs that do not stop."""

import pytest
import torch

from parity_tests.oracles.bits import assert_same_bits, relative
from parity_tests.oracles.configurations import CASES, MUON, Case
from parity_tests.oracles.optimizer import configurations
from parity_tests.oracles.tolerances import RESUMED
from parity_tests.oracles.two_networks import Matrices, Pair, flat

MUON_CASES = [Case(MUON, *configuration) for configuration in configurations(torch.optim.Muon)]


def cases(keep):
    return pytest.mark.parametrize(
        "case",
        [case for case in CASES + MUON_CASES if keep(case.optimizer)],
        ids=repr,
    )


def crossed(case):
    """Yield (name, parameters where the run crossed, parameters of an unbroken run)."""
    module = {"module": Matrices} if case.optimizer is MUON else {}

    def pair():
        return Pair(case.optimizer.torch, case.options, **module)

    there = pair()
    params, tx, state = there.from_torch()
    here, half = there.port_steps(tx, state, params, 0, 50)
    there.torch_steps(0, 50)
    resumed, tx, state = there.from_torch()
    resumed, _ = there.port_steps(tx, state, resumed, 50, 100)
    there.torch_steps(50, 100)
    yield "torch, then here", flat(resumed), flat(there.params())

    whole, _ = there.port_steps(tx, half, here, 50, 100)
    back = pair()
    back.to_torch(tx, half, here)
    back.torch_steps(50, 100)
    yield "here, then torch", flat(back.params()), flat(whole)
    yield "here, and torch", flat(whole), flat(there.params())


@cases(keep=lambda optimizer: not optimizer.sums)
def test_bits_where_torchs_root_is_correctly_rounded(case, correct_root):
    for name, ours, theirs in crossed(case):
        assert_same_bits(ours, theirs, name)


@cases(keep=lambda optimizer: optimizer.sums)
def test_as_close_as_an_unbroken_run(case):
    far = {
        name: max(relative(ours[path], theirs[path]) for path in theirs)
        for name, ours, theirs in crossed(case)
    }
    unbroken = far.pop("here, and torch")
    for name, distance in far.items():
        assert distance <= max(unbroken, RESUMED[case.optimizer.name]), name
