"""What cannot be recorded, or not there, and what is said about it."""

import shutil
import sys
from pathlib import Path

import pytest

from jaxopt_port.verify.recorder import main, record
from jaxopt_port.verify.trace import Trace
from parity_tests.verify.recorded_runs import CASES, batches, side


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded") / "run.trace"
    record(folder, side(CASES["sgd"]), batches(2))
    return folder


ARGUMENTS = {
    "no length": ({"batches": iter(batches(2))}, TypeError, "say how many steps with steps="),
    "empty": ({"batches": []}, ValueError, "there are no batches"),
    "empty generator": ({"batches": iter([]), "steps": 2}, ValueError, "there are no batches"),
    "early end": ({"steps": 3}, ValueError, "end after 2 of 3 steps; give more, or steps=2"),
    "no steps": ({"steps": 0}, ValueError, "steps is 0"),
    "true": ({"steps": True}, TypeError, "steps is True; it must be an integer"),
    "every": ({"every": 0}, ValueError, "every is 0"),
    "budget text": ({"budget": "lots"}, ValueError, "'lots'; write bytes, or as '500 MB'"),
    "budget dots": ({"budget": "1.2.3 GB"}, ValueError, "'1.2.3 GB'; write"),
    "no budget": ({"budget": 0}, ValueError, "budget is 0 bytes"),
    "small budget": (
        {"budget": "1 kB"}, ValueError, r"the least is \d+: .*store_batches=False keeps hashes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_what_cannot_be_recorded(name, tmp_path):
    changed, kind, message = ARGUMENTS[name]
    with pytest.raises(kind, match=message):
        record(tmp_path / "t", side(CASES["sgd"]), **{"batches": batches(2)} | changed)
    if name != "early end":
        assert not (tmp_path / "t").exists()


def beside(name):
    """Put a file into a trace."""

    def make(place, recorded):
        shutil.copytree(recorded, place)
        (place / name).write_text("mine")

    return make


def foreign(place, recorded):
    place.mkdir()
    (place / "trace.json").write_text('{"format": "another"}')


# What stands where a trace is to be written, and may not go.
IN_THE_PLACE = {
    "a file": (lambda place, _: place.write_text("mine"), "is a file"),
    "a folder": (lambda place, _: (place / "steps").mkdir(parents=True), "is no trace"),
    "another's": (foreign, "is no trace"),
    "a trace with a file": (beside("notes.txt"), "has notes.txt, which no trace has"),
    "a trace with a step": (beside("steps/mine.safetensors"), "has steps/mine.safetensors, which"),
}


@pytest.mark.parametrize("name", IN_THE_PLACE)
def test_what_is_no_trace_is_not_replaced(name, recorded, tmp_path, monkeypatch, capsys):
    make, message = IN_THE_PLACE[name]
    make(tmp_path / "t", recorded)
    before = {each: each.is_dir() or each.read_bytes() for each in tmp_path.rglob("*")}
    with pytest.raises(FileExistsError, match=f"is there already, and {message}"):
        record(tmp_path / "t", None, batches(2), overwrite=True)
    monkeypatch.setattr("runpy.run_path", None)  # the case is not run
    with pytest.raises(SystemExit):
        main([__file__, str(tmp_path / "t"), "--overwrite"])
    assert message in capsys.readouterr().err
    assert before == {each: each.is_dir() or each.read_bytes() for each in tmp_path.rglob("*")}


CASE = """
from parity_tests.verify.recorded_runs import CASES, batches, side
STEPS = 3
def torch_side():
    return vars(side(CASES["sgd"]))
"""

ENDLESS = """
of_some = batches
def batches():
    yield from of_some()
"""


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    Path("case.py").write_text(CASE)
    main(["case.py", "t", "--hashes", "--every", "2"])
    trace = Trace.open("t")
    assert (trace.steps, trace.name, trace.stores_batches) == (3, "case", False)
    assert "3 of 3 steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "text", "options", "message"),
    [
        ("none.py", None, [], "there is no file none.py"),
        ("case.py", "STEPS = 2", [], "has no function torch_side() and batches()"),
        ("case.py", CASE, ["--budget", "foo"], "budget is 'foo'; write bytes, or as '500 MB'"),
        ("case.py", CASE, ["--every", "0"], "every is 0; it must be 1 or more"),
        ("case.py", CASE.replace("STEPS", "OTHER") + ENDLESS, [], "case.py says nothing of how"),
    ],
)
def test_the_command_says_what_is_wrong(
    file, text, options, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    if text is not None:
        Path(file).write_text(text)
    with pytest.raises(SystemExit):
        main([file, "t", *options])
    assert message in capsys.readouterr().err
