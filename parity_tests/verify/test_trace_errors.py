"""Traces that cannot be read, and what is said about it."""

import contextlib
import json
import random
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import jaxopt_port as jp
from jaxopt_port import verify
from jaxopt_port.verify.recorder import TorchSide, record
from jaxopt_port.verify.trace import Trace
from parity_tests.interop.mutants import mutated
from parity_tests.verify.linear_layers import layer, zeros
from parity_tests.verify.recorded_runs import (
    CASES,
    batches,
    cross_entropy,
    jax_cross_entropy,
    side,
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded") / "run.trace"
    record(folder, side(CASES["sgd"]), batches(5))
    return folder


@pytest.fixture(scope="module")
def clipped(tmp_path_factory):
    """A trace of an optimizer with a state, whose step 3 is not checked."""
    folder = tmp_path_factory.mktemp("clipped") / "run.trace"
    record(folder, side(CASES["adam clipped"]), batches(5))
    return folder


def edited(**changed):
    def edit(folder):
        facts = json.loads((folder / "trace.json").read_text())
        facts = {k: v for k, v in {**facts, **changed}.items() if k not in changed or v is not None}
        (folder / "trace.json").write_text(json.dumps(facts))

    return edit


def cut(name, size):
    def edit(folder):
        file = folder / name
        file.write_bytes(file.read_bytes()[:size])

    return edit


def removed(name):
    return lambda folder: (folder / name).unlink()


def facts_with(change):
    """Change trace.json in place."""

    def edit(folder):
        facts = json.loads((folder / "trace.json").read_text())
        change(facts)
        (folder / "trace.json").write_text(json.dumps(facts))

    return edit


def line_with(step, **changed):
    """Change entries of a step's line, or an option of the first group: ``lr=`` and others."""

    def edit(folder):
        lines = [*map(json.loads, (folder / "scalars.jsonl").read_text().splitlines())]
        lines[step].setdefault("options", lines[0]["options"])
        for name, value in changed.items():
            entries = lines[step] if name in lines[step] else lines[step]["options"][0]
            entries[name] = value
            if value is ...:
                del entries[name]
        (folder / "scalars.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))

    return edit


def step_with(step, change):
    """Change the arrays of a step, and the size that its line says."""

    def edit(folder):
        file = folder / "steps" / f"{step:08d}.safetensors"
        arrays = load_file(file)
        change(arrays)
        save_file(arrays, file)
        line_with(step, bytes=file.stat().st_size)(folder)

    return edit


def without(*places):
    """Remove arrays, or all of a kind: ``grad/``."""

    def change(arrays):
        found = [name for name in arrays if name.startswith(places)]
        assert found
        for name in found:
            del arrays[name]

    return change


def as_dtype(place, dtype):
    return lambda arrays: arrays.update({place: arrays[place].astype(dtype)})


def flat(place):
    return lambda arrays: arrays.update({place: arrays[place].reshape(-1)})


def garbled(name, old, new):
    def edit(folder):
        file = folder / name
        assert old in file.read_bytes()
        file.write_bytes(file.read_bytes().replace(old, new))

    return edit


STEP = "steps/00000002.safetensors"
DAMAGES = {
    "no trace.json": (removed("trace.json"), "is no trace: a folder with trace.json"),
    "not JSON": (cut("trace.json", 40), "trace.json is damaged"),
    "other JSON": (edited(format="a list"), 'no "format": "jaxopt_port trace"'),
    "other version": (
        edited(version=9, environment={"jaxopt_port": "7.1"}),
        r"has version 9 of the format, and this jaxopt_port reads version 1.*recorded it \(7.1\)",
    ),
    "version true": (edited(version=True), "has version True of the format"),
    "lacks a fact": (edited(groups=None), "it lacks 'groups'"),
    "more steps than said": (edited(steps=4), "it has more than its 4 steps"),
    "incomplete": (edited(complete=False), "5 of 5 .* allow_partial=True, or --partial"),
    "missing step": (removed(STEP), "00000002.safetensors or its line in scalars.jsonl is missing"),
    "short step": (cut(STEP, 700), "00000002.safetensors or its line"),
    "no scalars": (removed("scalars.jsonl"), "00000000.safetensors or its line"),
    "short scalars": (cut("scalars.jsonl", -5), "00000004.safetensors or its line"),
    "garbled line": (garbled("scalars.jsonl", b'{"step": 1', b'{"step" 1'), "damaged in line 2"),
    "swapped line": (garbled("scalars.jsonl", b'"step": 1', b'"step": 3'), "line 2 is not that of"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_trace(name, recorded, tmp_path):
    edit, message = DAMAGES[name]
    shutil.copytree(recorded, tmp_path / "t")
    assert Trace.open(tmp_path / "t").steps == 5
    edit(tmp_path / "t")
    with pytest.raises(ValueError, match=message):
        Trace.open(tmp_path / "t")


W = "0.weight"
# What each part is beside the others: of a trace of Adam, clipped, with batch normalisation.
MISFITS = {
    "no parameter": (step_with(3, without(f"param/{W}")), f"param/{W} is missing"),
    "none in float64": (step_with(3, without(f"param64/{W}")), f"param64/{W} is missing"),
    "no update": (step_with(3, without("param")), f"param/{W} is missing.*param64/{W} is missing"),
    "no gradient": (step_with(3, without("grad/")), "grad/… is missing"),
    "one gradient": (step_with(3, without(f"grad/{W}")), f"it has clipped/{W}"),
    "no exact gradient": (step_with(4, without(f"checked64/grad/{W}")), f"grad/{W} is missing"),
    "no clipped": (step_with(3, without("clipped")), f"clipped/{W} is missing"),
    "one clipped": (step_with(3, without(f"clipped/{W}")), f"clipped/{W} is missing"),
    "no state": (step_with(3, without(f"state/{W}/exp_avg")), f"state/{W}/exp_avg is missing"),
    "a state lost": (
        step_with(3, without(f"state/{W}/exp_avg", f"state64/{W}/exp_avg")),
        f"state/{W}/exp_avg, which steps before have, is missing",
    ),
    "no buffer": (step_with(4, without("checked64/buffer_after/1.running_var")), "is missing"),
    "checks of no check": (
        step_with(3, lambda arrays: arrays.update({f"checked/param/{W}": arrays[f"param/{W}"]})),
        f"it has checked/param/{W}",
    ),
    "no batch": (step_with(3, without("batch/1")), r"of 2 arrays of the batch it has \['0'\]"),
    "another dtype": (step_with(3, as_dtype(f"param/{W}", "f2")), "is float16, and not float32"),
    "integers": (step_with(3, as_dtype(f"grad/{W}", "i4")), "is int32, and not float32"),
    "narrow in float64": (step_with(3, as_dtype(f"param64/{W}", "f4")), "and not float64"),
    "a batch's dtype": (step_with(3, as_dtype("batch/1", "f4")), "batch/1 is float32 of shape"),
    "a batch's shape": (step_with(3, flat("batch/0")), r"batch/0 is float32 of shape \(30,\)"),
    "a state's shape": (step_with(2, flat(f"state/{W}/exp_avg")), "state64/.* has|has shape"),
    "a state's dtype": (step_with(2, as_dtype(f"state64/{W}/exp_avg", "f2")), "is float16, and"),
    "an output's shape": (step_with(4, flat("checked64/output/0")), r"has shape \(18,\), the out"),
    "dtype of the run": (edited(dtype="bool"), r"it\['dtype'\] is 'bool'"),
    "dtype of tensors": (
        facts_with(lambda facts: facts["tensors"][1].update(dtype="float64")),
        "is float32, and not float64",
    ),
    "the first one's": (edited(dtype="float16"), "the first parameter is float32"),
    "a group that lacks one": (facts_with(lambda f: f["groups"][0].remove(W)), f"has state/{W}/"),
    "one twice": (facts_with(lambda f: f["groups"][0].append(W)), "no parameter, or one twice"),
    "no groups": (facts_with(lambda f: f.update(groups=[[]])), "have no parameter"),
    "left out": (
        facts_with(lambda f: f["budget"].update(left_out=["w"])), "leaves out 'w', no parameter",
    ),
    "clip": (edited(clip="yes"), r"it\['clip'\] is 'yes'"),
    "no clip": (edited(clip=False), f"it has clipped/{W}"),
    "scheduler": (edited(scheduler=3), r"it\['scheduler'\] is 3"),
    "metric": (edited(metric="x"), r"it\['metric'\] is 'x'"),
    "accumulation": (edited(accumulation_steps=2), "line 1 has 'stepped' True"),
    "stepped": (line_with(3, stepped="x"), r"line 4\['stepped'\] is 'x'"),
    "loss64": (line_with(4, loss64=None), "line 5 has 'checked' True and 'loss64' None"),
    "the first not checked": (line_with(0, checked=False, loss64=None), "line 1 is not checked"),
    "a rate in words": (line_with(3, lr="fast"), r"\['lr'\] is 'fast'"),
    "two rates": (line_with(3, lr=[1, 2]), r"\['lr'\] is a list"),
    "no rate": (line_with(3, lr=...), "lacks 'lr'"),
    "one beta": (line_with(3, betas=0.9), r"\['betas'\] is 0.9"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_a_trace_whose_parts_do_not_fit(name, clipped, tmp_path):
    edit, message = MISFITS[name]
    shutil.copytree(clipped, tmp_path / "t")
    edit(tmp_path / "t")
    with pytest.raises(ValueError, match=f"is damaged: .*({message})"):
        Trace.open(tmp_path / "t")


@pytest.mark.parametrize("name", ["inf", "nan"])
def test_names_that_could_be_numbers(name, tmp_path):
    module = torch.nn.ParameterDict({name: torch.ones(5, 3)})
    own = TorchSide(
        module=module,
        optimizer=torch.optim.SGD([{"params": module.parameters(), "name": name}], lr=0.1),
        forward=lambda module, batch: batch[0] @ module[name],
        loss=cross_entropy,
    )
    record(tmp_path / "t", own, batches(1), name=name)
    trace = Trace.open(tmp_path / "t")
    assert trace.name == trace.evaluation(0).options[0]["name"] == name
    read(tmp_path / "t")


# ── mutants ────────────────────────────────────────────────────────────────────────────────────


def jax_side():
    """The JAX side of the case: with batch normalisation, whose buffers a trace has."""
    params = {
        "0": zeros(5, 4),
        "1": {"scale": jnp.zeros(4), "bias": jnp.zeros(4)},
        "3": zeros(4, 3),
    }

    def apply(params, batch):
        x = layer(params["0"], batch[0])
        x = (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5) * params["1"]["scale"] + params["1"]["bias"]
        return layer(params["3"], jax.nn.relu(x))

    return verify.JaxSide(apply=apply, params=params, tx=jp.SGD(lr=0.01), loss=jax_cross_entropy)


def read(folder):
    """All that is read of a trace, but for what a comparison makes of it."""
    trace = Trace.open(folder, allow_partial=True)
    for step in range(trace.steps):
        trace.evaluation(step)
        trace.update(step)


def replayed(folder):
    return verify.replay(folder, jax_side(), allow_partial=True)


def mutants_of(recorded, count, target):
    files = sorted(each for each in recorded.rglob("*") if each.is_file())
    for seed in range(count):
        rng = random.Random(f"trace {seed}")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(recorded, target)
        file = target / rng.choice(files).relative_to(recorded)
        file.write_bytes(mutated(file.read_bytes(), rng))
        yield target


def within_bounds(action, mutants):
    """Other numbers are a finding, whose cause is searched: the bound is of all else."""
    for path in mutants:
        begun, report = time.process_time(), None
        with contextlib.suppress(ValueError, OSError, ImportError):
            report = action(path)
        if report is None or report.ok:
            assert time.process_time() - begun < 5
        else:
            assert "a fault of this library" not in str(report)


def test_mutants_are_read_or_refused(recorded, tmp_path):
    within_bounds(read, mutants_of(recorded, 150, tmp_path / "t"))


@pytest.mark.parametrize("action", [read, replayed], ids=lambda action: action.__name__)
def test_five_hundred_mutants(action, recorded, tmp_path):
    action(recorded)  # which compiles what the bound is not of
    within_bounds(action, mutants_of(recorded, 500, tmp_path / "t"))


@pytest.mark.parametrize("text", ["[" * 2000, '{"a":' * 2000], ids=["lists", "dicts"])
def test_deep_nesting(recorded, tmp_path, text):
    shutil.copytree(recorded, tmp_path / "t")
    (tmp_path / "t" / "trace.json").write_text(text)
    with pytest.raises(ValueError, match="damaged"):
        Trace.open(tmp_path / "t")


def test_a_damaged_header_of_a_step(recorded, tmp_path):
    shutil.copytree(recorded, tmp_path / "t")
    garbled(STEP, b'"grad/0.weight"', b'"grad/0.weight:')(tmp_path / "t")
    with pytest.raises(ValueError, match=r"00000002.safetensors is no .* or damaged"):
        Trace.open(tmp_path / "t")


def test_a_recording_that_was_cut_off(tmp_path):
    def breaking():
        yield from batches(3)
        raise OSError("the disk of the data is gone")

    with pytest.raises(OSError, match="gone"):
        record(tmp_path / "t", side(CASES["sgd"]), breaking(), steps=9)
    with pytest.raises(ValueError, match="3 of 9 steps are whole"):
        Trace.open(tmp_path / "t")
    trace = Trace.open(tmp_path / "t", allow_partial=True)
    assert trace.steps == 3
    assert trace.notes == ["the trace ends after 3 of 9 steps"]
    trace.evaluation(2)
    with pytest.raises(IndexError, match="steps 0 to 2, not 3"):
        trace.evaluation(3)


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no trace"):
        Trace.open(tmp_path / "nothing")


X, Y = batches(1)[0]
OTHERS = {
    "values": ((X + 1, Y), r"step 0: batch\[0\] has other values than those that were recorded"),
    "one bit": ((np.nextafter(X, 9).astype(X.dtype), Y), r"batch\[0\] has other values"),
    "labels": ((X, Y[::-1]), r"batch\[1\] has other values"),
    "shape": ((X[:3], Y), r"batch\[0\] has shape \(3, 5\); \(6, 5\) was recorded"),
    "length": ((X,), "batch is a tuple of 1; a tuple of 2 was recorded"),
    "dict": ({"x": X}, "batch is a dict with .'x'.; a tuple of 2"),
    "none": (None, "the case has to give the batches"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_batches_than_those_recorded(name, tmp_path):
    batch, message = OTHERS[name]
    record(tmp_path / "t", side(CASES["sgd"]), batches(1), store_batches=False)
    trace = Trace.open(tmp_path / "t")
    trace.evaluation(0, [X.astype(np.float64), Y])
    with pytest.raises(ValueError, match=message):
        trace.evaluation(0, batch)


def test_other_keys_than_those_recorded(tmp_path):
    own = side(CASES["sgd"])
    own.forward = lambda module, batch: module(batch["x"])
    own.loss = lambda output, batch: output.sum()
    record(tmp_path / "t", own, [{"x": X, "no": None}], store_batches=False)
    trace = Trace.open(tmp_path / "t")
    assert trace.evaluation(0, {"no": None, "x": X}).batch["no"] is None
    with pytest.raises(ValueError, match=r"dict with \['x', 'y'\]; a dict with \['x', 'no'\]"):
        trace.evaluation(0, {"x": X, "y": Y})
    with pytest.raises(ValueError, match=r"batch\['no'\] is a ndarray; None was recorded"):
        trace.evaluation(0, {"x": X, "no": Y})
