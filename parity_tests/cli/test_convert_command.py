"""`jaxopt-port convert`: formats, layouts, and what it refuses."""

import dataclasses

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from jaxopt_port import interop
from jaxopt_port.cli import app
from jaxopt_port.cli._parsed import parsed_size
from parity_tests.interop.checkpoint_cases import as_torch_saves, same, trained

FACTORIES = """
import numpy as np, torch

def make_torch():
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4))

def make_jax():
    return {
        name: {"kernel": np.zeros((width, 4), np.float32), "bias": np.zeros(4, np.float32)}
        for name, width in (("0", 3), ("2", 4))
    }

def make_other():
    return {"0": {"kernel": np.zeros((3, 5), np.float32)}}

def broken():
    raise RuntimeError("no weights")
"""
BOTH = ["--torch", "model.py:make_torch", "--jax", "model.py:make_jax"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Call the command in a folder with run.pt and model.py."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(FACTORIES)
    torch.save(as_torch_saves(*trained("AdamW", steps=2)), "run.pt")

    def call(*arguments):
        return CliRunner().invoke(app, ["convert", *map(str, arguments)])

    return call


def test_formats(run):
    for source, target in (
        ("run.pt", "a.safetensors"),
        ("a.safetensors", "b.pt"),
        ("b.pt", "c.safetensors"),
    ):
        made = run(source, target)
        assert made.exit_code == 0, made.output
        assert f"Written to {target}" in made.output
    assert same(interop.load("c.safetensors"), interop.load("run.pt"))


def test_layouts_there_and_back(run):
    made = run("run.pt", "a.safetensors", "--optimizer", "AdamW", *BOTH)
    assert made.exit_code == 0, made.output
    assert "0/kernel  (3, 4)  0.weight" in made.output
    here = interop.load("a.safetensors")
    assert (here.layout, here.params["0/kernel"].shape) == ("jax", (3, 4))
    assert here.optimizer["state"][0]["exp_avg"].shape == (3, 4)
    back = run("a.safetensors", "b.pt", "--layout", "torch")
    assert back.exit_code == 0, back.output
    found = dataclasses.replace(interop.load("b.pt"), optimizer_name=None, param_map=None)
    assert same(found, interop.load("run.pt"))


def test_shards(run):
    arguments = ("run.pt", "model", "--params-only", "--max-shard-size", "0.06KB")
    made = run(*arguments)
    assert made.exit_code == 0, made.output
    assert same(interop.load("model").params, interop.load("run.pt").params)
    again = run(*arguments)
    assert again.exit_code == 2
    assert "is there already; pass --force" in again.output
    assert run(*arguments, "--force").exit_code == 0


def test_a_dry_run_writes_nothing(run, tmp_path):
    before = sorted(tmp_path.iterdir())
    shown = run("run.pt", "a.safetensors", "--dry-run")
    assert shown.exit_code == 0
    assert "not written" in shown.output
    assert sorted(tmp_path.iterdir()) == before


REFUSED = {
    "no file": (["none.pt", "a.safetensors"], "there is no file none.pt"),
    "an unknown format": (["run.pt", "a.npz"], "does not say what it shall be"),
    "a target that is there": (["run.pt", "run.pt"], "pass --force to replace it"),
    "one factory": (["run.pt", "a.pt", "--jax", "model.py:make_jax"], "--torch is missing"),
    "a factory without a name": (
        ["run.pt", "a.pt", "--torch", "model.py", "--jax", "x"],
        "is not file.py:function",
    ),
    "no such function": (
        ["run.pt", "a.pt", "--torch", "model.py:nothing", "--jax", "model.py:make_jax"],
        "has no attribute 'nothing'",
    ),
    "no such module": (
        ["run.pt", "a.pt", "--torch", "none.py:make", "--jax", "model.py:make_jax"],
        "there is no file none.py",
    ),
    "a factory that fails": (
        ["run.pt", "a.pt", "--torch", "model.py:broken", "--jax", "model.py:make_jax"],
        "RuntimeError: no weights",
    ),
    "another network": (
        ["run.pt", "a.pt", "--torch", "model.py:make_torch", "--jax", "model.py:make_other"],
        "do not have the same parameters",
    ),
    "no class": (["run.pt", "a.safetensors", *BOTH], "Set optimizer_name (--optimizer on"),
    "an unknown class": (
        ["run.pt", "a.safetensors", "--optimizer", "Adamm", *BOTH],
        'no optimizer has that name; did you mean "Adam"',
    ),
    "a class of several packages": (
        ["run.pt", "a.safetensors", "--optimizer", "Lion", *BOTH],
        "say timm.Lion, lion-pytorch.Lion",
    ),
    "names without a map": (
        ["run.pt", "a.safetensors", "--rename", "a=b"],
        "need both factories",
    ),
    "a layout without a map": (
        ["run.pt", "a.safetensors", "--layout", "jax"],
        "has no map of its own",
    ),
    "shards of more than parameters": (["run.pt", "model"], "shards are for parameters alone"),
    "shards in one file": (
        ["run.pt", "a.safetensors", "--max-shard-size", "5GB"],
        "max_shard_size is for a folder",
    ),
    "no size": (["run.pt", "m", "--max-shard-size", "big"], "'big' is no size"),
    "an unknown role": (["run.pt", "a.pt", "--key", "net=model"], "names a role 'net'"),
    "no role": (["run.pt", "a.pt", "--key", "net"], "is not role=key"),
    "an unknown key": (["run.pt", "a.pt", "--key", "params=net"], "says that params is 'net'"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_exits_with_2(run, tmp_path, arguments, message):
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    refused = run(*arguments)
    assert refused.exit_code == 2, refused.output
    assert message in refused.output
    after = {f.name: f.read_bytes() for f in tmp_path.iterdir() if f.name != "__pycache__"}
    assert after == before


def test_help_teaches():
    shown = CliRunner().invoke(app, ["convert", "--help"])
    assert "jaxopt-port convert run.pt run.safetensors" in shown.output


def test_sizes():
    found = [parsed_size(text) for text in ("5GB", "500 mb", "2GiB", "7", "1.5KB")]
    assert found == [5 * 10**9, 5 * 10**8, 2**31, 7, 1500]
    for text in ("", "GB", "-1GB", "5 apples", "0.1"):
        with pytest.raises(ValueError, match=r"is no size|less than one byte"):
            parsed_size(text)


def test_keys_say_what_is_what(run):
    torch.save({"g": {"w": torch.ones(1)}, "d": {"w": torch.zeros(1)}}, "gan.pt")
    assert "could each be the params" in run("gan.pt", "a.safetensors").output
    assert run("gan.pt", "a.safetensors", "--key", "params=d").exit_code == 0
    np.testing.assert_array_equal(interop.load("a.safetensors").params["w"], [0])
