"""Optimizer state to the other side and back: the same bits, dtypes and options."""

import jax
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import interop
from parity_tests.oracles.bits import assert_same_bits
from parity_tests.oracles.configurations import LEAFWISE, MUON
from parity_tests.oracles.two_networks import Matrices, Pair, flat, held, options

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64]
# Options that make an optimizer hold all that it can.
FULL = {
    "SGD": {"momentum": 0.9},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Adam": {"amsgrad": True, "lr": 0.1 + 1e-9},
}
# Entries of torch's groups that choose its implementation.
CHOSEN = {"SGD": {"foreach": False}, "Adam": {"foreach": False, "capturable": False}}


def optimizers():
    for optimizer in [*LEAFWISE, MUON]:
        for dtype in DTYPES:
            if not dtype.is_complex or optimizer.complex:
                yield pytest.param(optimizer, dtype, id=f"{optimizer.name} {dtype}")


@pytest.mark.parametrize(("optimizer", "dtype"), list(optimizers()))
def test_torch_here_torch(optimizer, dtype, x64):
    module = {"module": Matrices} if optimizer is MUON else {}
    own = CHOSEN.get(optimizer.name, {})
    pair = Pair(optimizer.torch, FULL.get(optimizer.name, {}), dtype, **module, **own)
    for group in pair.optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    pair.torch_steps(0, 3)
    params, tx, state = pair.from_torch()
    there = interop.optimizer_to_torch(tx, state, params, pair.module)
    for made in (pair.optimizer, there):  # nothing is held here for what is frozen
        made.state.pop(pair.module.still, None)
    assert_same_bits(held(there), held(pair.optimizer), "back in torch")
    assert options(there) == options(pair.optimizer)
    assert type(there) is type(pair.optimizer)


def both_ways():
    for optimizer in [*LEAFWISE, MUON]:
        for dtype in DTYPES if optimizer.name in ("SGD", "Adam") else DTYPES[:1]:
            yield pytest.param(optimizer, dtype, id=f"{optimizer.name} {dtype}")


@pytest.mark.parametrize(("optimizer", "dtype"), list(both_ways()))
def test_here_torch_here(optimizer, dtype, x64):
    module = {"module": Matrices} if optimizer is MUON else {}
    pair = Pair(optimizer.torch, FULL.get(optimizer.name, {}), dtype, **module)
    params, tx, state = pair.from_torch()
    params, state = pair.port_steps(tx, state, params, 0, 2)
    there = interop.optimizer_to_torch(tx, state, params, pair.module)
    again_tx, again = interop.optimizer_from_torch(there, params, pair.module)
    assert jp.get_hyperparams(again) == jp.get_hyperparams(state)
    assert_same_bits(flat(again), flat(state), "back here")
    assert jax.tree.structure(again_tx.init(params)) == jax.tree.structure(again)


def test_numbers_that_were_changed_in_mid_run_do_not_lose_the_buffer():
    pair = Pair(torch.optim.SGD, {"momentum": 0.9})
    pair.torch_steps(0, 2)
    pair.optimizer.param_groups[0]["momentum"] = 0.0
    params, tx, state = pair.from_torch()
    there = interop.optimizer_to_torch(tx, state, params, pair.module)
    for made in (pair.optimizer, there):  # nothing is held here for what is frozen
        made.state.pop(pair.module.still, None)
    assert_same_bits(held(there), held(pair.optimizer), "back in torch")
    state = jp.set_hyperparams(state, momentum=0.9)
    params, _ = pair.port_steps(tx, state, params, 2, 4)
    pair.optimizer.param_groups[0]["momentum"] = 0.9
    pair.torch_steps(2, 4)
    assert_same_bits(flat(params), flat(pair.params()), "after two more steps")
