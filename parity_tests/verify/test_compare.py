"""`verify.compare` finds what it should where it should."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import verify
from jaxopt_port.verify import Report, recorder
from jaxopt_port.verify.comparison import _environment
from parity_tests.verify.compared_runs import (
    STEPS,
    apply,
    batches,
    mine,
    theirs,
    torch_loss,
    torch_net,
)
from parity_tests.verify.linear_layers import mean_square


def test_the_same_training_is_the_same_and_what_is_given_stays():
    side = theirs()
    side.scheduler = torch.optim.lr_scheduler.StepLR(side.optimizer, 15)
    before = copy.deepcopy((side.module.state_dict(), side.scheduler.state_dict()))
    report = verify.compare(side, mine(scheduler=jp.lr_scheduler.StepLR(15)), batches())
    assert report.ok, str(report)
    assert report.steps == STEPS
    assert len(report.curves.loss_yours) == STEPS
    assert report.curves.lr_yours == report.curves.lr_torch
    assert report.stages["update"].steps == STEPS
    assert report.stages["forward"].steps == 7  # 0, 1, 2, 10, 20, 30 and the last
    for name, value in side.module.state_dict().items():
        assert torch.equal(value, before[0][name])
    assert side.scheduler.state_dict() == before[1]
    assert side.optimizer.state_dict()["state"] == {}
    assert side.optimizer.param_groups[0]["lr"] == 0.05


def _gradient_fault(params, batch):
    """A forward pass that is wrong for one batch, between two checks."""
    marked = batch[0][0, 0] == 99.0
    return apply(params, batch) * jnp.where(marked, 1.5, 1.0)


def test_a_fault_between_two_checks_is_found_by_going_back():
    data = batches()
    data[26][0][0, 0] = 99.0
    report = verify.compare(theirs(), mine(apply=_gradient_fault), data)
    assert report.ok, "no check sees step 26, and nothing comes of it: torch's gradients are fed"
    data[30][0][0, 0] = 99.0
    seen = []
    report = verify.compare(
        theirs(), mine(apply=_gradient_fault), data, progress=lambda *done: seen.append(done)
    )
    assert (report.first.step, report.first.stage) == (26, "forward")
    assert seen[0] == (1, STEPS)
    assert seen[-1] == (report.steps, report.steps)


@pytest.mark.parametrize("from_step", [0, 17])
def test_an_optimizer_is_watched_at_every_step(from_step):
    tx = optax.sgd(lambda count: jnp.where(count < from_step, 0.05, 0.04), momentum=0.9)
    report = verify.compare(theirs(), mine(tx=tx), batches())
    assert (report.first.step, report.first.stage) == (from_step, "update")
    assert set(report.first.leaves) == {"0/kernel", "0/bias", "2/kernel", "2/bias"}
    assert "hyperparameters" in report.stages
    assert not report.stages["hyperparameters"].leaves


def test_to_the_end():
    report = verify.compare(theirs(), mine(tx=jp.SGD(lr=0.04)), batches(), stop=False)
    assert report.steps == STEPS
    assert report.first.step == 0


def test_own_batches_and_own_parameters_are_compared():
    data = batches()
    own = [data[1], *data[1:]]
    report = verify.compare(theirs(), mine(batches=own), data)
    assert (report.first.step, report.first.stage, report.first.leaf) == (0, "data", "batch/0")
    side = theirs()
    values = {k: v.detach().numpy() for k, v in side.module.named_parameters()}
    params = {n: {"kernel": values[f"{n}.weight"].T, "bias": values[f"{n}.bias"]} for n in "02"}
    assert verify.compare(side, mine(params=params, imports=False), data).ok
    params["2"]["bias"] = params["2"]["bias"] + 1e-4
    report = verify.compare(side, mine(params=params, imports=False), data)
    first = report.first
    assert (first.step, first.stage, first.leaf) == (0, "parameters", "2/bias")
    assert first.torch_name == "2.bias"


def _narrow(params, batch):
    return apply(params, batch).astype(jnp.bfloat16).astype(params["0"]["bias"].dtype)


def _float32_only(params, batch):
    return apply(*jax.tree.map(lambda x: x.astype(jnp.float32), (params, batch)))


def with_whole_numbers(output):
    return output, output.argmax(-1), output > 0


@pytest.mark.parametrize(("factor", "cause"), [(1, None), (2, "loss-scale")])
def test_whole_numbers_and_masks_may_be_outputs(factor, cause, tmp_path):
    torch_side = theirs(
        forward=lambda module, batch: with_whole_numbers(module(batch[0])),
        loss=lambda output, batch: torch_loss(output[0], batch),
    )
    side = mine(
        apply=lambda params, batch: with_whole_numbers(apply(params, batch)),
        loss=lambda output, batch: factor * mean_square(output[0], batch),
    )
    recorder.record(tmp_path / "trace", torch_side, batches(3))
    compared = verify.compare(torch_side, side, batches(3))
    for report in (compared, verify.replay(tmp_path / "trace", side)):
        assert (report.first and report.first.cause and report.first.cause.name) == cause, report
        assert not report.notes


def test_low_precision_is_found_and_a_fixed_dtype_is_said():
    report = verify.compare(theirs(), mine(apply=_narrow), batches())
    assert (report.first.step, report.first.stage) == (0, "forward")
    report = verify.compare(theirs(), mine(apply=_float32_only), batches())
    assert report.ok
    assert "float32 though it is given float64" in report.notes[0]


def _by_std(params, batch):
    made = apply(params, batch)
    return made / jnp.std(made)  # whose program has NaN for no elements at all


def _without_infinities(params, batch):
    made = apply(params, batch)
    return jnp.where(jnp.isinf(made), jnp.nan, made)


class ByStd(torch.nn.Sequential):
    def forward(self, x):
        made = super().forward(x)
        return made / made.std(correction=0)


_DRAWN = np.random.default_rng(5)


def _drawn_anew(params, batch):
    made = _without_infinities(params, batch)
    return made + jnp.where(made > 9, _DRAWN.normal(), 0.0)  # which no output shows


@pytest.mark.parametrize(
    ("port", "module", "found"),
    [
        (_by_std, ByStd, None),
        (_without_infinities, torch.nn.Sequential, None),
        (_drawn_anew, torch.nn.Sequential, "not-repeatable"),
    ],
)
def test_a_nan_in_a_program_is_the_same_in_the_next_trace(port, module, found):
    report = verify.compare(
        theirs(module=module(*torch_net())), mine(apply=port), batches(), steps=3
    )
    causes = [divergence.cause.name for divergence in report.found]
    assert causes == ([] if found is None else [found]), str(report)


def test_a_report_goes_through_json(tmp_path):
    report = verify.compare(theirs(), mine(tx=optax.sgd(jnp.inf)), batches(), steps=5)
    assert report.first.distance.mismatched > 0
    assert Report.from_json(report.to_json()).to_json() == report.to_json()
    file = tmp_path / "report.json"
    report.write(file)
    assert file.read_text().startswith("{")
    assert list(tmp_path.iterdir()) == [file]
    (tmp_path / "plain").touch()
    assert file.stat().st_mode == (tmp_path / "plain").stat().st_mode
    named = dataclasses.replace(report, name="nan")
    assert Report.from_json(named.to_json()).name == "nan"
    with pytest.raises(ValueError, match="schema 99"):
        Report.from_json({"schema": 99})


def test_products_in_tf32_are_said(monkeypatch):
    assert not _environment.of_precision()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    (said,) = _environment.of_precision()
    assert "TF32" in said
    with jax.default_matmul_precision("highest"):
        assert not _environment.of_precision()
