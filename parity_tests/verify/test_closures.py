"""Steps that evaluate the loss themselves, L-BFGS's, beside each other."""

import functools
import re

import numpy as np
import optax
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port.verify import TorchSide, compare, replay
from jaxopt_port.verify.recorder import TorchRun, record
from parity_tests.verify.test_real_loops import batches, jax_side, louder, torch_side

WOLFE = {"line_search_fn": "strong_wolfe"}
SHORT = {"max_iter": 4, "history_size": 3, "lr": 0.5}
# One object for one program: what is compiled goes by identity.
OURS = {
    name: jp.LBFGS(**options)
    for name, options in {"plain": {}, "wolfe": WOLFE, "short": SHORT, "slow": {"lr": 0.9}}.items()
}


def theirs(closure=True, dtype=torch.float32, **options):
    def optimizer(module):
        return torch.optim.LBFGS(module.to(dtype).parameters(), **options)

    return torch_side(optimizer, closure=closure)


def mine(tx="plain", **rest):
    tx = OURS[tx] if isinstance(tx, str) else tx
    return jax_side(tx, **{"closure": True, **rest})


@functools.cache
def one_batch():
    """Return a batch that is trained on until its loss is that of rounding."""
    return [batches()[0]] * 6


RIGHT = {
    "plain, float64": (torch.float64, {}, "plain", one_batch),
    "short": (torch.float32, SHORT, "short", batches),
    "line search": (torch.float32, WOLFE, "wolfe", batches),
    "line search, float64": (torch.float64, WOLFE, "wolfe", one_batch),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_ports_are_the_same(name):
    dtype, options, tx, data = RIGHT[name]
    report = compare(theirs(dtype=dtype, **options), mine(tx), data())
    assert report.ok, report
    assert report.stages["update"].leaves
    assert "closure" in report.stages["trajectory"].skipped


FAULTS = {
    "rate": ({}, "slow", "hyperparameters", "lr=0.9"),
    "line search": (WOLFE, "plain", "hyperparameters", "line_search_fn=None"),
    "Optax's": (WOLFE, optax.lbfgs(), "update", None),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_found_in_the_first_step(name):
    options, tx, stage, words = FAULTS[name]
    first = compare(theirs(**options), mine(tx), one_batch()).first
    assert (first.step, first.stage) == (0, stage)
    assert words in first.cause.message if words else first.cause is None


def test_another_loss_is_found_as_a_loss():
    found = compare(theirs(), mine(loss=louder), one_batch()).found
    assert [(f.stage, f.cause.name) for f in found] == [("loss", "loss-scale")]


def test_a_trace_is_replayed(tmp_path):
    record(tmp_path / "run.trace", theirs(**SHORT), one_batch())
    assert replay(tmp_path / "run.trace", mine("short")).ok
    assert replay(tmp_path / "run.trace", mine("slow")).first.stage == "hyperparameters"
    with pytest.raises(ValueError, match="closure=True on torch's side only"):
        replay(tmp_path / "run.trace", mine("short", closure=False))


def test_another_optimizer_is_told_with_its_twin():
    report = compare(theirs(**SHORT), mine(jp.SGD(lr=0.5)), one_batch())
    assert report.first.cause.name == "another-optimizer"
    assert "jp.LBFGS" in report.first.cause.remedy


def test_rounding_that_decides_is_a_note():
    rng = np.random.default_rng(3)
    wild = [(50 * rng.normal(size=(8, 4)), rng.integers(0, 3, 8)) for _ in range(9)]
    report = compare(theirs(), mine(), wild)
    assert not [found for found in report.found if found.stage == "update"]
    assert any("rounding decides" in note for note in report.notes)


def normed():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 3)
    )


def test_each_evaluation_is_a_forward_pass_of_the_users_loop():
    """Running statistics are updated as often."""
    module, own = normed(), normed()
    cross_entropy = torch.nn.functional.cross_entropy
    side = TorchSide(
        module=module,
        optimizer=torch.optim.LBFGS(module.parameters()),
        loss=lambda output, batch: cross_entropy(output, batch[1]),
        closure=True,
    )
    run, optimizer = TorchRun(side, lambda step: True), torch.optim.LBFGS(own.parameters())
    for batch in batches()[:3]:
        run.evaluate(batch)
        run.update()
        x, y = map(torch.tensor, batch)

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = cross_entropy(own(x), y)
            loss.backward()
            return loss

        optimizer.step(closure)
    running = dict(module.named_buffers())
    assert all(torch.equal(b, running[n]) for n, b in own.named_buffers() if b.is_floating_point())


def clipped():
    return torch_side(lambda m: torch.optim.LBFGS(m.parameters()), closure=True, clip=print)


REFUSED = {
    "no closure": (lambda: (theirs(False), mine(closure=False)), "give closure=True"),
    "on one side": (lambda: (theirs(), mine(closure=False)), "closure=True on torch's side only"),
    "clipping": (lambda: (clipped(), mine()), "closure=True and clip="),
    "accumulation": (lambda: (theirs(), mine(accumulation_steps=2)), "closure=True beside"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(name):
    sides, words = REFUSED[name]
    with pytest.raises((TypeError, ValueError), match=re.escape(words)):
        compare(*sides(), one_batch())
