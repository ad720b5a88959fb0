"""Which differences of a run are told: faults of their own, leaves of one cause together."""

from types import SimpleNamespace

import pytest

from jaxopt_port.verify import Cause, Distance, Divergence
from jaxopt_port.verify.comparison._distances import Judgement
from jaxopt_port.verify.comparison._findings import findings
from jaxopt_port.verify.comparison._results import Found, Place, Results
from jaxopt_port.verify.diagnosis import ANOTHER

FAR = Distance(1.0, 1.0, 1.0, 1.0, 1.0, 0, 1.0)


def test_what_is_forgotten_is_no_difference():
    results = Results()
    for step, surely in ((0, None), (4, Judgement(2.0, 0.0, ""))):
        results.see(Place(step, "update", "a"), FAR, tuple, surely=surely)
    assert not results.stages["update"].ok
    results.forget(1)
    assert results.stages["update"].ok
    assert not results.knows("update", "a")


def found(step, stage, leaf, cause=None, words=""):
    divergence = Divergence(step, stage, leaf, "", "differs", FAR, 0.0, "")
    named = None if cause is None else Cause(cause, words or cause, f"mend {cause}")
    return Found(divergence, 2.0, lambda: named)


# What differs, and what is told of it: step, stage, cause, leaves.
CASES = {
    "a gradient follows from the forward pass": (
        [
            found(0, "forward", "output", "layer-eps"),
            found(0, "gradient", "a"),
            found(1, "forward", "output"),
        ],
        [(0, "forward", "layer-eps", ("output",))],
    ),
    "stages that are given torch's values are independent": (
        [
            found(0, "update", "a", "sign"),
            found(0, "loss", "loss", "loss-scale"),
            found(3, "data", "batch/0", "data-order"),
        ],
        [
            (0, "loss", "loss-scale", ("loss",)),
            (0, "update", "sign", ("a",)),
            (3, "data", "data-order", ("batch/0",)),
        ],
    ),
    "leaves of one cause are one finding": (
        [found(0, "update", "a", "sign"), found(0, "update", "b", "sign"), found(0, "update", "c")],
        [(0, "update", "sign", ("a", "b", "c"))],
    ),
    "leaves of two causes are two": (
        [found(0, "update", "a", "sign"), found(0, "update", "b", "frozen-leaf")],
        [(0, "update", "sign", ("a",)), (0, "update", "frozen-leaf", ("b",))],
    ),
    "opposite faults of one name are two": (
        [
            found(0, "update", "a", "frozen-leaf", "your side does not train it"),
            found(0, "update", "b", "frozen-leaf", "torch does not train it"),
        ],
        [(0, "update", "frozen-leaf", ("a",)), (0, "update", "frozen-leaf", ("b",))],
    ),
    "other numbers are other faults, at once and later": (
        [
            found(0, "update", "a", "number", "your side behaves as with lr=0.1"),
            found(0, "update", "b", "number", "your side behaves as with lr=0.5"),
            found(2, "update", "c", "number", "your side behaves as with lr=0.2"),
        ],
        [
            (0, "update", "number", ("a",)),
            (0, "update", "number", ("b",)),
            (2, "update", "number", ("c",)),
        ],
    ),
    "rates that show no more than another schedule are of the fault that they show elsewhere": (
        [
            found(0, "update", "a", "schedule", f"{ANOTHER}: at step 0 it is 0.1, torch's 0.2"),
            found(0, "update", "b", "schedule-length", "longer: at step 0 it is 0.1, torch's 0.2"),
            found(0, "update", "c", "schedule", f"{ANOTHER}: at step 0 it is 0.3, torch's 0.2"),
        ],
        [(0, "update", "schedule-length", ("a", "b")), (0, "update", "schedule", ("c",))],
    ),
    "the same cause later is the same": (
        [found(0, "update", "a", "sign"), found(2, "update", "b", "sign")],
        [(0, "update", "sign", ("a",))],
    ),
    "a rate that differs explains the update, of that leaf": (
        [
            found(0, "hyperparameters", "a", "number"),
            found(0, "update", "a"),
            found(0, "update", "b", "sign"),
        ],
        [(0, "hyperparameters", "number", ("a",)), (0, "update", "sign", ("b",))],
    ),
    "nothing is told after noise": (
        [found(0, "forward", "output", "not-repeatable"), found(0, "update", "a", "sign")],
        [(0, "forward", "not-repeatable", ("output",))],
    ),
    "where training leads follows from all": (
        [found(0, "data", "batch/0", "data-order"), found(1, "trajectory", "a")],
        [(0, "data", "data-order", ("batch/0",))],
    ),
}  # fmt: skip


def context_of(differences):
    return SimpleNamespace(
        lacking=False,
        results=SimpleNamespace(found=differences),
        names=SimpleNamespace(paths=(), params=()),
        evidence=SimpleNamespace(group_of=lambda path: path),
        notes=[],
    )


@pytest.mark.parametrize("name", CASES)
def test_what_is_told(name):
    differences, wanted = CASES[name]
    told = findings(context_of(differences))
    assert [(d.step, d.stage, d.cause and d.cause.name, d.leaves) for d in told] == wanted


def test_a_search_that_fails_costs_the_name_only():
    def fails():
        raise KeyError("a mistake of the search")

    one = found(0, "forward", "output")
    context = context_of([Found(one.divergence, 2.0, fails)])
    (told,) = findings(context)
    assert told.cause is None
    assert "the search for the cause of forward of output failed" in context.notes[0]
    assert "a mistake of the search" in context.notes[0]
