"""The commands around case files, and the pytest plugin."""

import errno
import io
import json
import re
import subprocess
import sys
import zipfile

import pytest
import typer
from typer.testing import CliRunner

from jaxopt_port import verify
from jaxopt_port.cli import _cases, main
from jaxopt_port.cli import _main as _cli
from jaxopt_port.cli._case import CaseError, load_case
from parity_tests.verify import made_reports

RUNNER = CliRunner()


def run(*arguments):
    return RUNNER.invoke(_cli.app, [*map(str, arguments)])


@pytest.fixture
def case(tmp_path):
    """Return a new case file of few steps."""
    file = tmp_path / "case.py"
    assert run("new-case", file).exit_code == 0
    file.write_text(file.read_text().replace("STEPS = 100", "STEPS = 12"))
    return file


def with_a_fault(case):
    broken = case.with_name("broken.py")
    broken.write_text(
        case.read_text().replace("jp.AdamW(lr=1e-3, weight", "jp.Adam(lr=1e-3, weight")
    )
    return broken


def test_a_new_case_passes_and_a_fault_in_it_is_named(case, tmp_path):
    files = [tmp_path / "report.html", tmp_path / "report.json"]
    result = run("verify", case, "--html", files[0], "--json", files[1])
    assert result.exit_code == 0, result.output
    assert "the same training" in result.output
    assert json.loads(files[1].read_text())["ok"] is True
    assert files[0].read_text().startswith("<!doctype html>")
    result = run("verify", with_a_fault(case))
    assert result.exit_code == 1
    assert "step 0, update" in " ".join(result.output.split())
    assert "weight decay" in result.output


@pytest.mark.parametrize("made", [made_reports.passed, made_reports.differs], ids=["same", "not"])
def test_a_divergence_is_a_failure(made):
    report, exit_code = made(), 0
    try:
        _cases._show(report, None, None)
    except typer.Exit as error:
        exit_code = error.exit_code
    assert exit_code == int(made is made_reports.differs)


def test_record_and_replay(case, tmp_path):
    trace = tmp_path / "run.trace"
    result = run("record", case, trace)
    assert result.exit_code == 0
    assert "Next: jaxopt-port replay" in result.output
    assert run("replay", trace, case).exit_code == 0
    assert run("replay", trace, with_a_fault(case)).exit_code == 1
    result = run("record", case, trace)
    assert result.exit_code == 2
    assert "is there already" in result.output
    (trace / "steps" / "00000003.safetensors").unlink()
    result = run("replay", trace, case)
    assert result.exit_code == 2
    assert "is damaged" in result.output


REFUSED = {
    "no file": ("", ["verify", "{missing}"], "jaxopt-port new-case"),
    "no functions": ("STEPS = 3", ["verify", "{case}"], "no function torch_side"),
    "a misspelt name": ("STEP = 3", ["verify", "{case}"], 'did you mean "STEPS"'),
    "steps that are true": ("STEPS = True", ["verify", "{case}"], "must be a whole number"),
    "no steps": ("STEPS = 0", ["verify", "{case}"], "STEPS in .* must be a whole number"),
    "not a function": ("batches = []", ["verify", "{case}"], "batches in .* must be a function"),
    "recipes too": ("", ["verify", "{case}", "--all"], "not both"),
    "a case's dtype": ("", ["verify", "{case}", "--dtype", "float64"], "are for recipes"),
    "a report of recipes": ("", ["verify", "--html", "{missing}"], "for a case file"),
    "no folder": ("", ["verify", "{case}", "--html", "{missing}/x.html"], "does not exist"),
    "an old case": ("", ["new-case", "{case}"], "is there already"),
    "not Python": ("", ["new-case", "{missing}.txt"], "ends in .py"),
    "an old recorder": ("", ["recorder", "{case}"], "is there already"),
    "a trace for a case": ("", ["verify", "{trace}"], "is a trace, .* replay .*run.trace CASE.py"),
    "another order": ("", ["replay", "{case}", "{trace}"], "the order is: .* TRACE CASE.py"),
    "over the case": ("", ["record", "{case}", "{case}", "--overwrite"], "left as it is"),
    "over a folder": ("", ["record", "{case}", "{folder}", "--overwrite"], "left as it is"),
    "an old trace": ("", ["record", "{case}", "{trace}"], "--overwrite, replaces it"),
    "no Python": ("x = (", ["verify", "{case}"], r'case.py", line 1 x = .* SyntaxError'),
    "a null byte": ("x\0", ["verify", "{case}"], "SyntaxError: .* null bytes .*case.py"),
    "no Python to record": ("if 1:\n1", ["record", "{case}", "{missing}"], "py\", line 2 1"),
    "no Python to replay": ("x = (", ["replay", "{missing}", "{case}"], 'case.py", line 1 x'),
    "no Python imported": ("import other_case", ["verify", "{case}"], 'other_case.py", line 2'),
    "no side": ("def jax_side(): return 1", ["replay", "{missing}", "{case}"], "must be a JaxSide"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_bad_usage_is_exit_code_2(name, tmp_path):
    source, arguments, message = REFUSED[name]
    file = tmp_path / "case.py"
    file.write_text(source)
    names = {"case": "case.py", "trace": "run.trace", "folder": ".", "missing": "missing"}
    places = {key: tmp_path / name for key, name in names.items()}
    places["trace"].mkdir()
    (places["trace"] / "trace.json").write_text('{"format": "jaxopt_port trace"}')
    (tmp_path / "other_case.py").write_text("\n)")
    result = run(*(argument.format(**places) for argument in arguments))
    assert result.exit_code == 2
    assert file.read_text() == source
    assert re.search(message, " ".join(result.output.split())), result.output


def test_a_case_has_constants_of_its_own(tmp_path):
    file = tmp_path / "case.py"
    names = "LAYERS", "HEADS", "BATCH", "BATCH_SIZE", "MAX_STEPS", "WARMUP_STEPS", "EPOCHS", "NAME"
    file.write_text("".join(f"{name} = 1\n" for name in names))
    assert load_case(file).steps is None


def test_the_recorder_is_one_file(tmp_path):
    file = tmp_path / "record.pyz"
    result = run("recorder", file)
    assert result.exit_code == 0
    assert f"python {file} CASE.py run.trace" in result.output
    with zipfile.ZipFile(file) as archive:
        sources = [archive.read(name).decode() for name in archive.namelist()]
    assert re.search("import main\n\nmain\\(\\)", sources[0])
    names = {n for text in sources for n in re.findall(r"^(?:from|import) ([\w.]+)", text, re.M)}
    theirs = {n for n in names if n.split(".")[0] not in sys.stdlib_module_names}
    assert {n for n in theirs if not re.fullmatch(r"\._\w+|recorder", n)} == {
        "torch", "torch.overrides",
    }  # fmt: skip


def test_an_error_in_a_case_shows_where(tmp_path):
    file = tmp_path / "case.py"
    file.write_text("def a():\n    raise ValueError('of mine')\n\na()\n")
    with pytest.raises(ValueError, match="of mine"):
        load_case(file)
    file.rename(tmp_path / "case.txt")
    with pytest.raises(CaseError, match=r"must end in \.py"):
        load_case(tmp_path / "case.txt")


CASE = """
import numpy as np
def batches(): return [np.zeros((2, 3), np.float32)]
def jax_side(): {}
def torch_side(): {}
"""
FAULTS = {
    # what fails, and the exit code of the whole process
    "an error in the case": (CASE.format("return 1", "return {}['lr']"), "pass", 2, "KeyError"),
    "a case that asks": (CASE.format("return 1", "return input()"), "pass", 2, ""),
    "one that ends itself": (CASE.format("return 1", "raise SystemExit(1)"), "pass", 2, ""),
    "a fault of ours": (
        CASE.format("return 1", "return 1"),
        "import jaxopt_port.verify as v; v.compare = lambda *_, **__: {}['x']",
        3,
        "a fault of jaxopt_port, not of what it was given",
    ),
    "memory": (
        CASE.format("return 1", "return 1"),
        "import jaxopt_port.verify as v\ndef full(*_, **__): raise MemoryError\nv.compare = full",
        3,
        "a fault of jaxopt_port, not of what it was given",
    ),
}


@pytest.mark.parametrize(("case", "broken", "code", "said"), FAULTS.values(), ids=FAULTS)
def test_an_error_is_no_difference(case, broken, code, said, tmp_path, monkeypatch, capsys):
    (tmp_path / "case.py").write_text(case)
    monkeypatch.setattr(verify, "compare", verify.compare)
    monkeypatch.setattr(sys, "argv", ["jaxopt-port", "verify", str(tmp_path / "case.py")])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    exec(broken, {})
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert said in capsys.readouterr().err


class Closed(io.StringIO):
    def write(self, text):
        raise BrokenPipeError(errno.EPIPE, "the reader has gone")


def test_a_closed_pipe_is_no_difference(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["jaxopt-port", "--version"])
    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2


TESTS = """
import pytest
import case, broken

def test_same(assert_same_training):
    assert_same_training(case.theirs(), case.jax_side(), case.batches(), steps=4)

def test_different(assert_same_training):
    assert_same_training(case.theirs(), broken.jax_side(), case.batches(), steps=4)

def failing(report):
    report.write_text("")
    raise AssertionError

class TestTwice:
    @pytest.fixture(autouse=True)
    def fail(self, monkeypatch):
        monkeypatch.setattr("jaxopt_port.verify.assert_same_training", failing)

    def test_different(self, assert_same_training):
        for _ in range(2):
            with pytest.raises(AssertionError):
                assert_same_training()

def test_traces(torch_trace):
    torch_trace("lenet")
"""


def test_the_plugin(case, tmp_path):
    case.write_text(
        case.read_text()
        + "\n\ndef theirs():\n    from jaxopt_port.verify import TorchSide\n\n"
        + "    return TorchSide(**torch_side())\n"
    )
    with_a_fault(case)
    (tmp_path / "test_port.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "--training-reports", "reports"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "2 failed, 2 passed" in result.stdout
    assert "step 0, update of" in result.stdout
    assert "Likely cause:" in result.stdout
    assert "there is no trace 'lenet'" in result.stdout
    assert sorted(f.name for f in (tmp_path / "reports").iterdir()) == [
        "test_port.py-TestTwice-test_different-2.html",
        "test_port.py-TestTwice-test_different.html",
        "test_port.py-test_different.html",
    ]
