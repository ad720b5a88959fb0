"""Muon on torch's side: its own axes, and an iteration that rounds to bfloat16 in float64 too."""

import numpy as np
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import interop
from jaxopt_port.verify import JaxSide, TorchSide, compare
from parity_tests.verify.linear_layers import layer, mean_square, zeros

STEPS, SIZE = 10, 24
LIKE = {"0": zeros(8, SIZE), "1": zeros(SIZE, SIZE)}
ADAMW = {"params": jp.REST, "optimizer": jp.AdamW, "lr": 4e-3}


def apply(params, batch):
    return layer(params["1"], layer(params["0"], batch[0]))


def batches():
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(16, 8)), rng.normal(size=(16, SIZE))) for _ in range(STEPS)]


def torch_side():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(8, SIZE), torch.nn.Linear(SIZE, SIZE))
    rest = [p for name, p in module.named_parameters() if name != "1.weight"]
    matrix = torch.optim.Muon([module[1].weight], lr=0.02, weight_decay=0.1)
    optimizers = [matrix, torch.optim.AdamW(rest, lr=4e-3)]
    return TorchSide(module=module, optimizer=optimizers, loss=mean_square)


def port(**changes):
    groups = [{"params": "1/kernel"}, {**ADAMW, "weight_decay": 0.01}]
    tx = jp.Muon(groups, **{"lr": 0.02, "weight_decay": 0.1, **changes})
    return interop.in_torch_layout(tx, LIKE)


# Beside torch's Muon and AdamW; where the first difference is, if there is one.
SIDES = {
    "a square matrix": (port(), None),
    "another momentum": (port(momentum=0.9), (0, "hyperparameters")),
    "no Nesterov": (port(nesterov=False), (0, "update")),
    "four iterations": (port(ns_steps=4), (0, "hyperparameters")),
}


@pytest.mark.parametrize("name", SIDES)
def test_a_square_matrix_of_muons(name):
    tx, wanted = SIDES[name]
    mine = JaxSide(apply=apply, params=LIKE, tx=tx, loss=mean_square)
    report = compare(torch_side(), mine, batches())
    first = report.first
    assert (first and (first.step, first.stage)) == wanted, str(report)
    if wanted is None:
        assert "bfloat16" in report.stages["trajectory"].skipped
