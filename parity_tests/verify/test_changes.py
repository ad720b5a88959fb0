"""What a loop changes in mid-run is compared; who watches sees what both sides hold."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port.engine import leaf_states
from jaxopt_port.verify import compare, replay
from jaxopt_port.verify.recorder import record
from parity_tests.verify.test_real_loops import (
    ADAMW,
    STEPS,
    batches,
    jax_side,
    torch_side,
)

AT = 5  # between two checks
LR = 0.003


def slower(optimizer):
    optimizer.param_groups[0]["lr"] = LR


def anew(optimizer):
    groups = [{**group, "lr": LR} for group in optimizer.param_groups]
    optimizer.load_state_dict(torch.optim.AdamW(groups).state_dict())


def sgd_and_adamw(m):
    return [
        torch.optim.SGD([p for p in m.parameters() if p.ndim == 2], lr=0.1, momentum=0.9),
        torch.optim.AdamW([p for p in m.parameters() if p.ndim == 1], lr=0.01),
    ]


def both_anew(optimizers):
    for one in optimizers:
        one.state.clear()


def port_slower(state, params):
    return jp.set_hyperparams(state, lr=LR)


def port_anew(state, params):
    return jp.AdamW(lr=LR).init(params)


def injected_slower(state, params):
    return state._replace(hyperparams={**state.hyperparams, "learning_rate": jnp.float32(LR)})


INJECTED = optax.inject_hyperparams(optax.adamw)(learning_rate=0.01, weight_decay=0.01)
AXES = jp.SGD(
    [{"params": "**/kernel"}, {"params": jp.REST, "optimizer": jp.AdamW, "lr": 0.01}],
    lr=0.1, momentum=0.9,
)  # fmt: skip
RIGHT = {
    "a number": (slower, {}, ADAMW, port_slower),
    "a new optimizer": (anew, {}, ADAMW, port_anew),
    "Optax's number": (slower, {}, INJECTED, injected_slower),
    "two new optimizers": (
        both_anew, {"optimizer": sgd_and_adamw}, AXES, lambda state, params: AXES.init(params)
    ),
    "within an accumulation": (
        slower, {"accumulation_steps": 2}, optax.MultiSteps(ADAMW, 2),
        lambda state, params: state._replace(
            inner_opt_state=jp.set_hyperparams(state.inner_opt_state, lr=LR)
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.always) if n == "a new optimizer" else n for n in RIGHT],
)
def test_a_change_on_both_sides_is_the_same_training(name, tmp_path):
    change, rest, tx, own = RIGHT[name]
    theirs, mine = torch_side(changes={AT: change}, **rest), jax_side(tx, changes={AT: own})
    report = compare(theirs, mine, batches())
    assert report.ok, str(report)
    assert report.stages["trajectory"].steps == STEPS
    record(tmp_path / "t", theirs, batches())
    assert replay(tmp_path / "t", mine).ok
    if change is slower:
        assert report.curves.lr_torch[0] == [0.01] * AT + [LR] * (STEPS - AT)


# What is found, where, and by which names it may be called; None: by none.
FAULTS = {
    "on torch's side": ({AT: slower}, {}, AT, "hyperparameters", ["number", "schedule"]),
    "on yours": ({}, {AT: port_slower}, AT, "hyperparameters", ["number", "schedule"]),
    "a step late": (
        {AT: slower}, {AT + 1: port_slower}, AT, "hyperparameters", ["schedule-offset"]
    ),
    "moments kept": ({AT: anew}, {AT: port_slower}, AT, "update", [None]),
    "moments lost": ({AT: slower}, {AT: port_anew}, AT, "update", [None]),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_change_of_one_side_is_found(name):
    theirs, mine, step, stage, names = FAULTS[name]
    report = compare(torch_side(changes=theirs), jax_side(changes=mine), batches())
    assert (report.first.step, report.first.stage) == (step, stage), str(report)
    assert (report.first.cause and report.first.cause.name) in names, str(report)


REFUSED = {
    "another optimizer": (
        {AT: lambda o: torch.optim.SGD(o.param_groups)}, {}, TypeError, r"\[5\].* another SGD"
    ),
    "another group": (
        {AT: lambda o: o.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})}, {},
        ValueError, r"changes\[5\] of torch's side makes 2 groups of 1; give the optimizer all",
    ),
    "no state": ({}, {AT: lambda *_: None}, TypeError, r"changes\[5\].*returned NoneType, not"),
    "torch's: no step": ({"5": slower}, {}, ValueError, "changes has '5' for a step"),
    "yours: no step": ({}, {-1: port_slower}, ValueError, "changes has -1 for a step"),
    "torch's: no function": ({5: 0.1}, {}, TypeError, r"changes are functions by step.*\{5: 0.1\}"),
    "yours: no function": ({}, {5: 0.1}, TypeError, r"changes are functions by step.*\{5: 0.1\}"),
    "yours: a list": ({}, [port_slower], TypeError, "changes are functions by step"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_change_is_refused(name):
    theirs, mine, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words):
        compare(torch_side(changes=theirs), jax_side(changes=mine), batches())


def test_a_change_after_the_end_is_told():
    sides = torch_side(changes={STEPS: slower}), jax_side(changes={STEPS + 2: port_slower})
    report = compare(*sides, batches())
    assert report.ok
    assert any(f"changes at step {STEPS} and later were not made" in n for n in report.notes)


@pytest.mark.parametrize("wrong", [False, True])
def test_who_watches_sees_each_step_of_both_sides(wrong):
    side, seen = torch_side(), []

    def watch(step):
        torchs = dict(side.module.named_parameters())
        np.testing.assert_array_equal(
            step.torch["first/kernel"], torchs["first.weight"].detach().numpy().T
        )
        held = leaf_states(step.state)["last/bias"]["exp_avg"]
        np.testing.assert_allclose(held, step.torch_state["last/bias"]["exp_avg"], rtol=1e-5)
        assert step.grads["first"]["kernel"].shape == step.alone["first/kernel"].shape == (4, 6)
        yours, theirs = step.alone64 or (step.yours, step.torch)
        far = max(float(np.max(np.abs(yours[path] - theirs[path]))) for path in theirs)
        seen.append((step.step, bool(step.alone64), far))

    own = jax_side(changes={AT: port_slower} if wrong else {})
    report = compare(side, own, batches(), free_steps=3, watch=watch)
    assert report.ok is not wrong
    steps = [step for step, _, _ in seen]
    # Found at an unchecked step: it goes back to the check before.
    assert steps == ([0, 1, 2, 3, 4, 5, *range(3, STEPS)] if wrong else list(range(STEPS)))
    assert {alone for step, alone, _ in seen if step < 3} == {True}
    assert max(far for step, _, far in seen if step < AT) < 1e-6
    assert (max(far for _, _, far in seen) > 1e-3) is wrong
