"""The parity check catches each fault of a table, and no fault where there is none."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port.engine import transformation
from jaxopt_port.numerics.torch_ops import add, mul
from parity_tests.faults.patched import FAULTS as FAULTS_OF_RECIPES
from parity_tests.oracles.optimizer import TorchOracle, check_bits


def _maximize_ignored(grad, param, state, *, maximize, **options):
    return jp.sgd.rule.update(grad, param, state, maximize=False, **options)


def _momentum_in_one_rounding(grad, param, state, *, momentum, dampening, begun, **options):
    """momentum * buf + (1 - dampening) * grad with one fused multiply-add too many."""
    held = state["momentum_buffer"]
    buf = jnp.where(begun, add(mul(grad, 1 - dampening), held, alpha=momentum), grad)
    # Handed on as a first gradient, which the true update takes as its buffer.
    first = jnp.zeros_like(begun)
    options |= {"momentum": momentum, "dampening": dampening, "begun": first}
    return jp.sgd.rule.update(buf, param, state, **options)


FAULTS = {fault.name: fault.update for fault in FAULTS_OF_RECIPES} | {
    "maximize ignored": _maximize_ignored,
    "momentum in one rounding": _momentum_in_one_rounding,
}
# A configuration in which each shows.
SHOWN_BY = {
    "sign of dampening": {"momentum": 0.9, "dampening": 0.5},
    "decay after momentum": {"momentum": 0.9, "weight_decay": 0.1},
    "lr in bfloat16": {"lr": 0.1},
    "first buffer dampened": {"momentum": 0.9, "dampening": 0.5},
    "nesterov dropped": {"momentum": 0.9, "nesterov": True},
    "momentum forgotten": {"momentum": 0.9},
    "maximize ignored": {"maximize": True},
    "momentum in one rounding": {"momentum": 0.9},
}


def check_parity(factory, options, steps=5):
    rng = np.random.default_rng(7)
    start, *gradients = ({"w": rng.standard_normal(257).astype(np.float32)} for _ in range(steps))
    options = {"lr": 0.01, **options}
    oracle = TorchOracle(torch.optim.SGD, start, [["w"]], options)
    check_bits(oracle, jp.param_groups(factory, **options), start, gradients)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(fault):
    options = SHOWN_BY[fault]
    check_parity(jp.sgd, options)
    broken = transformation(dataclasses.replace(jp.sgd.rule, update=FAULTS[fault]))
    with pytest.raises(AssertionError, match=r"w after step \d: \d+ of 257 differ"):
        check_parity(broken, options)
