"""The loop around the step: the harness's recipes for it, and the drawing of schedules."""

import numpy as np
import pytest
from typer.testing import CliRunner

import jaxopt_port as jp
from jaxopt_port.cli import app
from jaxopt_port.cli._lr_figure import EXAMPLES, traces
from jaxopt_port.lr_scheduler._decays import LinearLR
from jaxopt_port.verify.cases import LOOP_RECIPES, load_digits, run

RUNNER = CliRunner()


# warm-up-cosine is below, plateau in the table of schedulers; the command runs all.
@pytest.mark.parametrize("name", ["one-cycle", "clip-ema"])
def test_loops_hold_their_bounds(name):
    report = run([name], digits=load_digits(), steps=12, seed=1)
    assert report.failures == []
    (result,) = report.results
    columns, compared = result.columns(), result.report.stages
    assert columns["schedule"]["value"] == columns["literal_differs"]["value"] == 0
    assert columns["update_param"]["value"] == columns["update_buffer"]["value"] == 0
    assert columns["averaged"]["value"] == 0
    assert bool(compared["averages"].leaves) == bool(compared["clipping"].leaves)
    assert bool(compared["averages"].leaves) == (name == "clip-ema")


def test_a_schedule_that_is_off_by_one_is_found(monkeypatch):
    true = LinearLR._get_lr

    def late(self, own, groups, initial):
        own.last_epoch -= 1
        lr = true(self, own, groups, initial)
        own.last_epoch += 1
        return lr

    monkeypatch.setattr(LinearLR, "_get_lr", late)
    ((_, first), *_) = run(["warm-up-cosine"], digits=load_digits(), steps=3).failures
    assert (first.stage, first.step) == ("hyperparameters", 0)


def test_help_knows_every_loop():
    unbroken = "".join(RUNNER.invoke(app, ["verify", "--help"]).output.split())
    assert [name for name in LOOP_RECIPES if name not in unbroken] == []


def test_an_example_of_every_scheduler_is_torchs():
    for title, plan in EXAMPLES.items():
        drawn = traces(plan, [0.1, 0.03], steps=40)
        np.testing.assert_array_equal(drawn.torch, drawn.port, err_msg=title)
    shown = {type(plan(jp.lr_scheduler)).__name__ for plan in EXAMPLES.values()}
    assert set(jp.lr_scheduler.SCHEDULERS) - shown == {"SWALR"}  # which follows another


def test_lr_draws_a_plan(tmp_path):
    file = tmp_path / "plan.png"
    plan = "SequentialLR([LinearLR(0.1), OneCycleLR(0.1, total_steps=40)], [5])"
    command = ["lr", plan, "--steps", "20", "--lr", "0.1", "--lr", "0.2", "--output", str(file)]
    result = RUNNER.invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "Largest difference from torch: 0." in result.output
    assert file.read_bytes().startswith(b"\x89PNG")


BAD_USAGE = {
    "nothing": (["lr"], "give a scheduler, or --all"),
    "both": (["lr", "StepLR(3)", "--all"], "give a scheduler, or --all"),
    "no expression": (["lr", "StepLR(3"], "is not a Python expression"),
    "no scheduler": (["lr", "StpLR(3)"], "there is no scheduler 'StpLR'"),
    "another package's": (
        ["lr", "get_linear_schedule_with_warmup(3, 9)"],
        "get_linear_schedule_with_warmup is of jaxopt_port.contrib, whose schedules torch has none",
    ),
    "a number": (["lr", "3"], "is no scheduler"),
    "bad arguments": (["lr", "LinearLR(start_factor=2.0)"], "Starting multiplicative factor"),
    "unknown argument": (["lr", "StepLR(size=2)"], "TypeError"),
    "no PNG": (["lr", "StepLR(3)", "--output", "lr.txt"], "is not a PNG"),
    "no folder": (["lr", "StepLR(3)", "--output", "/no/such/lr.png"], "does not exist"),
    "two choices": (["verify", "--all", "--recipe", "basic"], "--recipe or --all"),
}


@pytest.mark.parametrize("case", BAD_USAGE)
def test_bad_usage_exits_2_and_says_why(case):
    arguments, message = BAD_USAGE[case]
    result = RUNNER.invoke(app, arguments, env={"COLUMNS": "300", "NO_COLOR": "1"})
    assert result.exit_code == 2
    assert message in result.output
