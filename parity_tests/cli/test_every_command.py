"""What holds for every command: help, exit codes, JSON, words that do no harm."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

import jaxopt_port as jp
from jaxopt_port.cli import app

RUNNER = CliRunner()
CASE = """
STEPS = 2

def batches():
    import numpy as np
    return [(np.ones((4, 2), np.float32),)] * 2

def torch_side():
    import torch
    net = torch.nn.Linear(2, 1)
    return dict(module=net, optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
                loss=lambda output, batch: output.square().mean())

def jax_side():
    import jax, jax.numpy as jnp, jaxopt_port as jp
    from jaxopt_port.verify import JaxSide
    params = {"kernel": jnp.zeros((2, 1)), "bias": jnp.zeros(1)}
    return JaxSide(params=params, tx=jp.SGD(lr=0.1),
                   apply=lambda params, batch: batch[0] @ params["kernel"] + params["bias"],
                   loss=lambda output, batch: (output**2).mean())
"""
# A call of each that does its work, in a folder with case.py and run.pt; what it leaves; and the
# function of ours that fails in the test of faults.
COMMANDS = {
    "new-case": (["new.py"], "jaxopt_port.cli._case.TEMPLATE"),
    "recorder": (["recorder.pyz"], "zipfile.ZipFile"),
    "record": (["case.py", "run.trace"], "jaxopt_port.verify.recorder.record"),
    "replay": (["run.trace", "case.py"], "jaxopt_port.verify.replay"),
    "verify": (["case.py"], "jaxopt_port.verify.compare"),
    "show": (["run.pt"], "jaxopt_port.interop.load"),
    "convert": (["run.pt", "run.safetensors"], "jaxopt_port.cli._conversion.prepared"),
    "lr": (["StepLR(3)", "--steps", "5"], "jaxopt_port.cli._lr_figure.draw"),
    "bench": (["--quick"], "subprocess.run"),
}
WITHOUT_JSON = {"bench"}  # passes everything on


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "case.py").write_text(CASE)
    net = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, "run.pt")
    return lambda *arguments: RUNNER.invoke(app, [*map(str, arguments)])


def test_the_table_has_every_command():
    assert typer.main.get_command(app).commands.keys() == COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_it_does_with_an_example_and_its_exit_codes(name):
    shown = RUNNER.invoke(app, [name, "--help"]).output
    flat = " ".join(shown.split())
    assert f"jaxopt-port {name} " in flat.partition("Example")[2]
    assert "Exit code 0: " in flat
    assert ("--json" in flat) != (name in WITHOUT_JSON)


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"bench"}))
def test_an_unknown_option_is_usage(name, run):
    result = run(name, *COMMANDS[name][0], "--no-such-\x1b[2J-option")
    assert result.exit_code == 2
    assert "\x1b[2J" not in result.output


def test_json(run, tmp_path):
    """In the order of the table, for replay needs what record has written."""
    found = {}
    for name in [each for each in COMMANDS if each not in WITHOUT_JSON]:
        result = run(name, *COMMANDS[name][0], "--json", "out.json")
        assert result.exit_code == 0, result.output
        assert "Written to out.json" in result.output
        found[name] = json.loads((tmp_path / "out.json").read_text())
    assert found["verify"]["ok"] is found["replay"]["ok"] is True
    assert found["show"]["params"] == {"weight": ["float32", [1, 2]], "bias": ["float32", [1]]}
    assert found["show"]["optimizers"]["optimizer"][0]["momentum"] == 0.9
    assert found["convert"]["written"] is True
    assert found["lr"]["difference"] == 0
    assert found["record"]["bytes"] > 1000


def fail(*_, **__):
    raise KeyError("of ours\x1b[2J")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_fault_of_ours_is_exit_code_3_and_one_line(name, run, monkeypatch):
    arguments, place = COMMANDS[name]
    if name == "new-case":
        monkeypatch.setattr(place, type("Broken", (), {"format": fail})())
    else:
        monkeypatch.setattr(place, fail)
    monkeypatch.setattr("jaxopt_port.cli._frame._PACKAGE", Path(__file__).parents[2])
    result = run(name, *arguments)
    assert result.exit_code == 3, result.output
    (line,) = result.stderr.strip().splitlines()
    assert "a fault of jaxopt_port" in line
    assert "KeyError: 'of ours\\x1b[2J'" in line
    assert "JAXOPT_PORT_TRACEBACK=1" in line
    monkeypatch.setenv("JAXOPT_PORT_TRACEBACK", "1")
    assert "Traceback" in run(name, *arguments).stderr


OWN = {
    "of a case": ("raise KeyError('mine')", ["verify", "case.py"], "KeyError: 'mine'"),
    "that ends the process": ("raise SystemExit(1)", ["verify", "case.py"], "exit code 1"),
    "of the files that a case reads": ("open('data.npz')", ["record", "case.py", "t"], "data.npz"),
}


@pytest.mark.parametrize("name", OWN)
def test_an_error_of_the_users_own_code_is_usage(name, run, tmp_path):
    code, arguments, words = OWN[name]
    (tmp_path / "case.py").write_text(code)
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.output


def test_names_carry_no_control_sequences(run, tmp_path):
    case = tmp_path / "case\x1b[2J.py"
    text = CASE.replace('"kernel"', '"ker\\x1b[2Jnel"').replace("jp.SGD(lr=0.1)", "jp.SGD(lr=0.2)")
    case.write_text(text + '\nRENAME = [("weight", "ker\\x1b[2Jnel")]\n')
    result = run("verify", case)
    assert result.exit_code == 1, result.output
    assert "\x1b" not in result.output
    assert "ker\\x1b[2Jnel" in result.output


WITHOUT = """
import sys
for name in {missing}: sys.modules[name] = None
from jaxopt_port.cli import main
sys.argv = ["jaxopt-port", *{arguments}]
main()
"""


@pytest.mark.parametrize(
    ("missing", "arguments", "code", "words"),
    [
        (["typer", "rich"], ["--version"], 0, f"jaxopt-port {jp.__version__}"),
        (["typer", "rich"], ["--help"], 0, "pip install 'jaxopt-port[verify]'"),
        (["typer", "rich"], ["verify"], 2, "(missing: typer)"),
        (["torch", "flax", "sklearn", "matplotlib"], ["convert", "--help"], 0, "SRC"),
        (["torch"], ["verify"], 2, "pip install 'jaxopt-port[verify]'"),
    ],
)
def test_without_extras(missing, arguments, code, words):
    source = WITHOUT.format(missing=missing, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert words in done.stdout + done.stderr


def test_as_a_module():
    command = [sys.executable, "-m", "jaxopt_port", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"jaxopt-port {jp.__version__}\n"
