"""Faults seeded into four networks are found, where they are and for what they are.

`python -m benchmarks faults` runs all of them, `python -m benchmarks false-alarms` the many runs
in which there is none.
"""

from collections import Counter

import jax.numpy as jnp
import pytest
import torch

from jaxopt_port.verify import CAUSES, STAGES
from parity_tests.faults.further import FURTHER
from parity_tests.faults.held_out import HELD_OUT
from parity_tests.faults.idioms import RATE, SCHEDULES, STEPS, Port, ports, right_port
from parity_tests.faults.models import unbroken
from parity_tests.faults.outside import OUTSIDE
from parity_tests.faults.seeded import FAULTS, score
from parity_tests.faults.trainings import told
from parity_tests.faults.unseen import UNSEEN

ALL_FAULTS = [*FAULTS, *HELD_OUT]
# Of the kinds, each is seeded twice at least.
KINDS = [
    "eps-placement", "decay-coupling", "decay-order", "dampening", "bias-correction",
    "first-momentum", "initial-accumulator", "betas-swapped", "schedule-offset",
    "schedule-per-epoch", "low-precision", "clip-epsilon", "clip-per-group", "gradient-scale",
    "frozen-leaf", "transposed", "biased-variance",
]  # fmt: skip


def test_the_table_has_every_kind_twice():
    counts = Counter(fault.cause for fault in FAULTS)
    assert [kind for kind in KINDS if counts[kind] < 2] == []
    assert {fault.cause for fault in ALL_FAULTS} - {None} <= set(CAUSES)
    assert {fault.stage for fault in ALL_FAULTS} <= set(STAGES)
    assert len({fault.name for fault in ALL_FAULTS}) == len(ALL_FAULTS)


# `python -m benchmarks harness` has all.
@pytest.mark.share(12)
@pytest.mark.parametrize("fault", ALL_FAULTS[::12], ids=lambda fault: fault.name)
def test_a_fault_is_found_and_named(fault):
    result = score(fault)
    assert result.found
    assert result.place, result.said
    assert result.cause, result.said


# A few of each kind; `python -m benchmarks harness` has all.
RIGHT = [
    Port("perceptron", "adamw", "warm-up and cosine", "injected"),
    Port("perceptron", "adam, L2", "exponential", "as it is"),
    Port("cell", "sgd", "staircase", "as it is"),
    Port("plain", "rmsprop", "a float32", "accumulate_grads"),
    Port("plain", "jp.adam", "pieces chosen", "MultiSteps"),
    Port("equinox", "jp.adadelta", "polynomial, a root", "accumulate_grads"),
    Port("plain", "jp.asgd", "inverse root", "as it is"),
    Port("plain", "jp.adam", "inverse root", "clipped apart"),
    Port("nnx bags", "jp.nadam", "linear, late", "clipped apart"),
    Port("linen images", "jp.amsgrad", "inverse root", "multi_transform", 1),
]


@pytest.mark.share(2)
@pytest.mark.parametrize("fault", [*UNSEEN, *OUTSIDE], ids=lambda fault: fault.name)
def test_faults_that_were_held_out_are_found_and_named(fault):
    said = told(fault)
    assert said.found, said.said
    assert said.named == len(fault.causes), said.said
    assert not said.wrong, said.said


# `python -m benchmarks harness` has all, and those that have no name yet.
@pytest.mark.share(12)
@pytest.mark.parametrize("fault", FURTHER[::8], ids=lambda fault: fault.name)
def test_faults_of_the_fourth_table_are_found_and_not_misnamed(fault):
    said = told(fault)
    assert said.found, said.said
    assert not said.wrong, said.said


def test_the_held_out_tables_know_their_causes():
    of_unseen, *of_others = (
        {n for fault in table for _, names in fault.causes for n in names.split("|")}
        for table in (UNSEEN, OUTSIDE, FURTHER)
    )
    assert of_unseen <= set(CAUSES)
    assert all(of_other <= {*CAUSES, ""} for of_other in of_others)


def test_ports_are_drawn_evenly_and_by_their_seed():
    drawn = list(ports(600))
    assert len(set(drawn)) == 600
    assert drawn == list(ports(600))
    for column in range(4):
        counts = Counter(port[column] for port in drawn)
        assert min(counts.values()) * 8 > max(counts.values()), counts


@pytest.mark.parametrize("name", SCHEDULES)
def test_both_sides_of_a_schedule_have_the_same_rates(name):
    scheduler, made = SCHEDULES[name]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    theirs = scheduler(optimizer) if scheduler else None
    rate = made(RATE)
    for count in range(STEPS):
        mine = float(rate(jnp.int32(count))) if callable(rate) else float(rate)
        # Optax calculates in float32; a cosine's end is a difference of such numbers.
        assert mine == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-5, abs=1e-9)
        optimizer.step()
        if theirs:
            theirs.step()


@pytest.mark.share(12)
@pytest.mark.parametrize("port", RIGHT, ids=lambda port: " ".join(port[:4]))
def test_a_right_port_as_people_write_it_raises_no_alarm(port):
    report = right_port(port)
    assert report.ok, str(report)


@pytest.mark.parametrize(
    ("model", "optimizer", "dtype", "seed"),
    [
        # Biases before the normalisations have gradients that are zero but for rounding.
        ("convolutions", "SGD", "bfloat16", 7),
        ("convolutions", "Adagrad", "float32", 7),
        ("transformer", "NAdam", "bfloat16", 1),
        ("perceptron", "RMSprop", "bfloat16", 3),
    ],
)
def test_no_false_alarm(model, optimizer, dtype, seed):
    report = unbroken(model, optimizer, seed, dtype, steps=40)
    assert report.ok, str(report)
