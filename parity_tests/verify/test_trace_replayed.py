"""Traces of any budget can be replayed, and tell the same training from another."""

import jax
import numpy as np
import optax
import pytest
import torch
from safetensors.numpy import load_file

import jaxopt_port as jp
from jaxopt_port import verify
from jaxopt_port.verify.recorder import record
from jaxopt_port.verify.trace import Trace
from parity_tests.verify.linear_layers import layer, zeros
from parity_tests.verify.recorded_runs import Case, batches, jax_cross_entropy, side, wide

BUDGETS = ["2 GB", 800_000, 200_000, 100_000, 40_000]
CASE = Case(torch.optim.AdamW, wide, clip=0.1, options={"weight_decay": 0.1})


def apply(params, batch):
    return layer(params["2"], jax.nn.relu(layer(params["0"], batch[0])))


def jax_side(tx):
    params = {"0": zeros(5, 99), "2": zeros(99, 3)}
    clip = lambda grads: jp.clip_grad.clip_grad_norm(grads, 0.1)[0]  # noqa: E731
    return verify.JaxSide(apply=apply, params=params, tx=tx, loss=jax_cross_entropy, clip=clip)


SAME = jax_side(jp.AdamW(lr=0.01, weight_decay=0.1))
# Its numbers cannot be read, so that the difference has to show in the update.
OTHER = jax_side(optax.adamw(0.01, weight_decay=0.2))


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_trace_of_any_budget_is_replayed(budget, tmp_path):
    record(tmp_path / "t", side(CASE), batches(20), budget=budget)
    notes = Trace.open(tmp_path / "t").notes
    report = verify.replay(tmp_path / "t", SAME)
    assert (report.first, report.steps, report.notes) == (None, 20, notes)
    report = verify.replay(tmp_path / "t", OTHER)
    found = None if report.first is None else (report.first.step, report.first.stage)
    # The least budget holds no updates; the report says so.
    assert found == (None if "the trace has no updates" in notes else (0, "update"))


def test_nan_that_is_not_in_float64_differs(tmp_path):
    """Of a step that is not checked, too."""
    record(tmp_path / "t", side(CASE), batches(6), every=5)
    file = tmp_path / "t" / "steps" / "00000003.safetensors"
    held = load_file(file)["param/0.weight"]
    file.write_bytes(file.read_bytes().replace(held.tobytes(), (held * np.nan).tobytes()))
    first = verify.replay(tmp_path / "t", SAME).first
    assert (first.step, first.stage, first.torch_name) == (3, "update", "0.weight")
