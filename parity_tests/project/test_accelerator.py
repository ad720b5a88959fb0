"""The command for accelerators: rehearsed on the CPU, bounded in time, and what it writes."""

import functools
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks._commands import app
from benchmarks.accelerator import _run, _speed, main
from benchmarks.accelerator._cases import CONTENDERS, REHEARSAL, WHOLE, batches
from benchmarks.accelerator._data import Item, gradients, start
from benchmarks.accelerator._parity import COMPARED, _distances
from benchmarks.accelerator._primitives import PRIMITIVES, found, inputs
from benchmarks.accelerator._report import markdown
from benchmarks.accelerator._sides import Sides
from benchmarks.speed import _tables
from benchmarks.speed._contender import LeftOutError
from benchmarks.speed._data import OPTIONS
from benchmarks.speed._results import FOLDER, Measurement, Results, load
from benchmarks.speed._shapes import shapes_of
from benchmarks.speed._worker import WorkerError
from jaxopt_port import _compat

ROOT = Path(_compat.__file__).parents[2]
# What a machine has that has jax, torch, flax, optax and pytest, and nothing else.
WITHOUT = "typer, plotly, matplotlib, sklearn, equinox, expecttest, hypothesis, transformers"


SLOW = "parity_tests.project.slow_side"


class Clock:
    """Time that passes where a step says so."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def steps(self, times):
        for i, seconds in enumerate(times):
            yield f"step {i}"
            self.now += seconds


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of parts that take some seconds each, without processes."""
    clock = Clock()
    monkeypatch.setattr(_run, "time", clock)
    monkeypatch.setattr(Sides, "begin", lambda self, *sides: None)

    def of(budget, **parts):
        monkeypatch.setattr(_run, "PARTS", dict.fromkeys(parts, 1))
        for name, times in parts.items():
            steps = functools.partial(clock.steps, times)
            monkeypatch.setattr(_run.Run, f"_{name}", lambda self, s=steps: s(), raising=False)
        return _run.Run(budget, tmp_path / "out.json", "", lambda text: None)

    return of


def test_a_part_that_takes_too_long_is_cut_and_the_next_has_its_share(run):
    made = run(40, first=[5] * 40, second=[1] * 3).measure()
    assert made.parts["budget"]["cut"] == {"first": "out of time after 4 steps, before step 4"}
    assert made.parts["budget"]["used"] == {"facts": 0, "first": 20, "second": 3}


def test_time_that_a_part_leaves_goes_to_those_after_it(run):
    made = run(50, first=[1], second=[6] * 8).measure()
    assert not made.parts["budget"]["cut"]


def test_nothing_begins_when_there_is_no_time(run):
    made = run(10, first=[20], second=[1]).measure()
    assert made.parts["budget"]["cut"] == {"second": "out of time after 0 steps, before step 0"}


def test_results_are_written_after_each_part(run):
    planned = run(50, first=[1], second=[1])
    seen = []
    planned._second = lambda: iter(seen.append(load(planned._out).parts["budget"]["used"]) or ())
    planned.measure()
    assert seen == [{"facts": 0, "first": 1}]


@pytest.fixture
def sides(monkeypatch):
    """Sides whose only process is `slow_side`'s."""
    monkeypatch.setattr("benchmarks.accelerator._sides._LEAST", 0.3)
    monkeypatch.setattr("benchmarks.accelerator._sides.MODULES", {"torch": SLOW})
    made = Sides(time.monotonic() + 60)
    yield made
    made.end()


def test_a_call_is_bounded_and_a_process_that_ended_is_made_anew(sides):
    with pytest.raises(LeftOutError, match="no such optimizer"):
        sides("torch", "refuse")
    with pytest.raises(WorkerError, match="exit code 3"):
        sides("torch", "leave")
    sides("torch", "sleep", 0)
    sides.until = time.monotonic() - 60
    with pytest.raises(WorkerError, match=r"no answer from torch in 0 s"):
        sides("torch", "sleep", 50)


def test_a_side_that_cannot_be_had_is_named(monkeypatch):
    monkeypatch.setattr("benchmarks.accelerator._sides.MODULES", {"torch": "no_such_module"})
    made = Sides(time.monotonic() + 60)
    assert not made.has("torch")
    with pytest.raises(LeftOutError, match="torch is not there: ModuleNotFoundError"):
        made("torch", "primitives")


def test_a_side_that_dies_as_it_prepares_costs_its_rows_only(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "benchmarks.accelerator._sides.MODULES", dict.fromkeys(("torch", "jax"), SLOW)
    )
    monkeypatch.setattr(_run, "PARTS", {"parity": 1})
    results = _run.Run(60, tmp_path / "out.json", "", lambda text: None).measure()
    assert results.parts["parity"] == []
    why = {(left["contender"], left["why"].partition(";")[0]) for left in results.left_out}
    assert why == {("jp.step", "the process for jax ended, exit code 3")}


def test_a_jax_that_cannot_start_leaves_torch_to_run(monkeypatch, tmp_path):
    sides = {"torch": SLOW, "jax": "no_such_module"}
    monkeypatch.setattr("benchmarks.accelerator._sides.MODULES", sides)
    monkeypatch.setattr(_run, "PARTS", {"primitives": 1, "parity": 1})
    results = _run.Run(60, tmp_path / "out.json", "", lambda text: None).measure()
    assert {"primitives", "parity"} <= results.parts["budget"]["used"].keys()
    assert ("everything", "jax") in {(x["case"], x["contender"]) for x in results.left_out}


@pytest.mark.parametrize("name", PRIMITIVES)
def test_a_primitive_is_named_by_what_it_calculates(name):
    of = PRIMITIVES[name]
    for reference, calculated in of.references.items():
        (row,) = found("torch", {name: calculated(*inputs(of.low))})
        assert (row.nearest, row.differ, row.ulps) == (reference, 0, 0)
    off = np.atleast_1d(next(iter(of.references.values()))(*inputs(of.low))).copy()
    off[0] = np.nextafter(off[0], off.dtype.type(np.inf))
    (row,) = found("torch", {name: off})
    assert (row.ulps, row.differ) == (1, 1 / off.size)


def test_distances_are_of_parameters_and_state():
    item = Item("SGD", {}, {})
    before = start("SGD", "float32")
    theirs = {k: v - 1 for k, v in before.items()}
    ours = {k: v.copy() for k, v in theirs.items()}
    ours["odd"][0, 0] = np.nextafter(ours["odd"][0, 0], np.float32(9))
    state = {"momentum_buffer": {k: np.ones_like(v) for k, v in before.items()}}
    other = {"momentum_buffer": {k: v * 2 for k, v in state["momentum_buffer"].items()}}
    (row,) = _distances(item, "float32", *COMPARED[0], {1: (ours, other)}, {1: (theirs, state)})
    assert 0 < row["units"] <= 1
    assert row["differ"] == 1 / sum(v.size for v in before.values())
    assert row["state_relative"] == 1


class Recorded:
    """A run whose device has some memory, which records who is timed together."""

    def __init__(self, gib):
        memory = {"torch": {"memory": gib * 2**30}, "jax": {"memory": None}}
        self.sides = types.SimpleNamespace(facts=memory)
        self.bandwidth, self.left_out, self.together = None, [], []

    def leave_out(self, case, contender, why):
        self.left_out.append((contender, why))


@pytest.mark.parametrize(
    ("gib", "together"), [(80, [1] * 7), (160, [2, 2, 2, 1]), (1000, [7]), (40, [])]
)
def test_contenders_that_do_not_fit_into_memory_follow_each_other(gib, together, monkeypatch):
    run = Recorded(gib)

    def timed(run, suite, case, contenders, settings, numbers, least, expected):
        run.together.append(contenders)

    monkeypatch.setattr(_speed, "_timed", timed)
    _speed._step(run, "Adam", "Llama-like 1 B", CONTENDERS)
    assert [len(group) for group in run.together] == together
    every = [(side, name) for side, names in CONTENDERS.items() for name in names]
    assert [pair for group in run.together for pair in group] == (every if together else [])
    assert [name for name, _ in run.left_out] == ([] if together else [n for _, n in every])
    assert all(why == "25 GiB are not free on the device" for _, why in run.left_out)


def test_no_gradient_is_zero_and_every_step_has_its_own():
    for name in ("SGD", "Muon"):
        first, second = (gradients(name, step, "bfloat16") for step in (0, 1))
        assert all(np.all(np.asarray(x, np.float32) != 0) for x in first.values())
        assert all(np.any(first[k] != second[k]) for k in first)


def test_defaults_come_first_and_no_configuration_is_left_out():
    items = [Item("ASGD", {"lr": 0.1}, {}), Item("LBFGS", {}, {}), Item("SGD", {}, {})]
    items.append(Item("ASGD", {}, {}))
    made = batches(items, ())
    assert [str(i) for i in made[0].items] == ["SGD()", "ASGD()"]
    for dtype in ("float32", "bfloat16"):
        configured = [i for b in made[2:] if b.dtype == dtype for i in b.items]
        assert configured == [items[2], items[0], items[3], items[1]]
    assert len(batches(items, ("SGD",))) == 2


@pytest.mark.parametrize("sizes", [WHOLE, REHEARSAL], ids=["whole", "rehearsal"])
def test_cases_can_be_had(sizes):
    for optimizer, model in [*sizes.step, *sizes.memory]:
        assert optimizer in OPTIONS
        assert shapes_of(model, optimizer)
    assert len(set(sizes.step)) == len(sizes.step)
    for test in sizes.tests:
        assert (ROOT / test).exists()
    assert sizes.compiled <= min(len(sizes.step), len(sizes.train))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --out FILE, to measure, or --show FILE, to read"),
        (["--out", "."], "is a folder; name a file"),
        (["--out", "x.json", "--budget", "0"], "--budget must be above 0 seconds; got 0"),
        (["--show", "no_such_file"], "no_such_file is not a file of results"),
    ],
)
def test_wrong_arguments_are_refused(arguments, said, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert said in capsys.readouterr().err


def on_gpu(**medians):
    machine = {"processor": "p", "threads": 2, "accelerators": ["NVIDIA H100, 580.1, 1 MHz"]}
    sides = {
        "jax": {"platform": "gpu", "device": "NVIDIA H100", "jax": "0.11.2"},
        "torch": {"torch": "2.11.0", "cuda": "13.0"},
    }
    results = Results("2026-01-01", "", machine, sides)
    for name, ms in medians.items():
        for case in ("Adam, GPT-2 small", "SGD, Llama-like 1 B"):
            times = (ms / 1e3,) * 3
            results.measurements.append(
                Measurement("step", case, name.replace("_", " "), "s", *times, limit=1e-3)
            )
    return results


def test_the_readmes_gpu_column_is_made_from_a_file_of_results(tmp_path):
    cpu, gpu = load(FOLDER / "cpu.json"), on_gpu(**{"jp.step": 1.1, "torch fused": 1.0})
    table = _tables.speed_table(cpu, gpu)
    assert "GPU: NVIDIA H100, driver 580.1, torch 2.11.0, cuda 13.0, jax 0.11.2" in table
    rows = {line.split(" | ")[0]: line for line in table.splitlines()}
    row = rows["| step, Adam, GPT-2 small: jp.step / torch fused"]
    assert row.endswith("| 1.10 (≤ 1.00: **not met**) |")
    row = rows["| step, SGD, Llama-like 1 B: jp.step / bandwidth limit"]
    assert row.endswith("|  |  |  | 1.10 (≤ 1.18: met) |")
    assert len({line.count("|") for line in table.splitlines() if line.startswith("|")}) == 1
    cpu.save(tmp_path / "cpu.json")
    command = ["readme", str(tmp_path / "cpu.json"), "--gpu", str(tmp_path / "cpu.json")]
    told = CliRunner().invoke(app, command)
    assert (told.exit_code, "was measured on a CPU" in told.output) == (2, True)


def test_all_of_it_is_rehearsed_on_the_cpu(tmp_path, capsys):
    """End to end, on what a bare machine has: it finds what is known of the CPU."""
    out = tmp_path / "results.json"
    program = (
        f"import sys; sys.modules.update(dict.fromkeys('{WITHOUT}'.split(', ')))\n"
        f"sys.argv = ['benchmarks', 'accelerator', '--budget', '900', '--out', {str(out)!r}]\n"
        "from benchmarks.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = load(out)
    assert results.parts["rehearsal"]
    assert not results.parts["budget"]["cut"]
    ours = {left["contender"] for left in results.left_out}
    assert ours <= {"jaxopt_port.flax.Optimizer"}, results.left_out
    nearest = {
        (row["primitive"], row["side"]): (row["nearest"], row["differ"])
        for row in results.parts["primitives"]
    }
    for side in ("torch", "jax"):
        for name in ("x.add(y, alpha=0.1)", "x.mul(0.1).add(y)", "x.lerp(y, 0.7)", "x.div(0.29)"):
            assert nearest[name, side] == (next(iter(PRIMITIVES[name].references)), 0)
    parity = results.parts["parity"]
    assert {row["steps"] for row in parity} == set(REHEARSAL.steps)
    assert {row["optimizer"] for row in parity} == set(REHEARSAL.optimizers)
    assert {(row["contender"], row["reference"]) for row in parity} == set(COMPARED)
    same = [row for row in parity if row["optimizer"] == "SGD" and "jp" in row["contender"]]
    assert all(row["differ"] == 0 for row in same if row["dtype"] == "float32")
    low = [row for row in parity if row["dtype"] == "bfloat16" and "jp" in row["contender"]]
    assert max(row["differ"] for row in low) < 0.01
    suites = {m.suite for m in results.measurements}
    assert suites == {"bandwidth", "step", "dispatch", "train", "memory"}
    differs = [m.differs for m in results.measurements if m.suite == "step" and "jp" in m.contender]
    assert differs
    assert max(differs) < 1e-5
    assert set(results.parts["tests"]["outcomes"]) <= {"PASSED", "SKIPPED"}
    assert results.parts["tests"]["outcomes"]["PASSED"] > 3
    assert markdown(results) == done.stdout
    assert main(["--show", str(out)]) == 0
    assert capsys.readouterr().out == done.stdout
