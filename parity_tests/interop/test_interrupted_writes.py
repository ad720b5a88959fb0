"""What does not fit changes no state, and a write that fails or is killed leaves the old file."""

import contextlib
import dataclasses
import errno
import json
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

import jaxopt_port as jp
from jaxopt_port import interop
from jaxopt_port.interop import Checkpoint
from parity_tests.interop.checkpoint_cases import same
from parity_tests.interop.small_run import PARAMS, TX, checkpoint

# ── files that are whole, for another optimizer or with other numbers ──────────────────────────


def edited(change):
    def make():
        saved = checkpoint()
        change(saved.optimizer)
        return saved

    return make


UNFIT = {
    "swapped groups": (
        edited(lambda sd: sd["param_groups"].reverse()),
        '"b" is in group 1, jp.REST here',
    ),
    "another shape": (
        edited(lambda sd: sd["state"][1].update(exp_avg=np.ones(6, np.float32))),
        r"shape \(6,\); \(3, 2\)",
    ),
    "a key missing": (edited(lambda sd: sd["state"][1].pop("exp_avg")), 'no "exp_avg"'),
    "a key too many": (
        edited(lambda sd: sd["state"][1].update(momentum_buffer=np.ones(2, np.float32))),
        '"momentum_buffer"',
    ),
    "another dtype": (
        edited(lambda sd: sd["state"][1].update(exp_avg=np.full((3, 2), 0.1))),
        "without loss",
    ),
    "another name": (
        edited(lambda sd: sd["param_groups"][1].update(param_names=["c"])),
        'no parameter "c"',
    ),
    "a group missing": (
        edited(lambda sd: (sd["param_groups"].pop(), sd["state"].pop(1))),
        "1 parameter groups, the optimizer 2",
    ),
    "a negative decay": (
        edited(lambda sd: sd["param_groups"][0].update(weight_decay=-1.0)),
        "Invalid weight_decay value",
    ),
}


@pytest.mark.parametrize(("make", "message"), UNFIT.values(), ids=UNFIT)
def test_what_does_not_fit_the_optimizer(tmp_path, make, message):
    interop.save(tmp_path / "a.safetensors", make())
    found = interop.load(tmp_path / "a.safetensors")
    held = TX.init(PARAMS)
    before = jp.state_dict(TX, held, PARAMS)
    with pytest.raises(ValueError, match=message):
        jp.load_state_dict(TX, found.optimizer, PARAMS)
    assert same(jp.state_dict(TX, held, PARAMS), before)


SPOILT = {
    "parameters that are lists": {"params": {"a": [1.0]}},
    "parameters of objects": {"params": {"a": np.array([None])}},
    "a name that is a number": {"params": {1: np.ones(1)}},
    "an optimizer that is none": {"optimizer": {"lr": 1}},
    "an extra that is a function": {"extra": {"f": len}},
    "a dtype of dates": {"params": {"a": np.zeros(1, "M8[s]")}},
}


@pytest.mark.parametrize("changes", SPOILT.values(), ids=SPOILT)
@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_what_cannot_be_saved_replaces_nothing(tmp_path, changes, name):
    (tmp_path / name).write_bytes(b"as it was")
    with pytest.raises((ValueError, TypeError)):
        interop.save(tmp_path / name, dataclasses.replace(checkpoint(), **changes))
    assert (tmp_path / name).read_bytes() == b"as it was"
    assert os.listdir(tmp_path) == [name]


# ── a disk that is full, a folder that is closed, a process that is killed ─────────────────────


@pytest.fixture
def full_disk():
    """No file of this process may grow beyond 64 KiB; the system's own error comes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_a_full_disk(tmp_path, full_disk, name):
    (tmp_path / name).write_bytes(b"as it was")
    with pytest.raises(OSError, match=name) as caught:
        interop.save(tmp_path / name, Checkpoint({"a": np.ones(1 << 16)}))
    assert caught.value.errno == errno.EFBIG
    assert (tmp_path / name).read_bytes() == b"as it was"
    assert os.listdir(tmp_path) == [name]


def test_a_full_disk_leaves_old_shards(tmp_path, full_disk):
    folder = tmp_path / "model"
    small = {"a": np.ones(4), "b": np.ones(4)}
    interop.save(folder, Checkpoint(small), max_shard_size=32)
    before = sorted(os.listdir(folder))
    with pytest.raises(OSError, match="large"):
        interop.save(folder, Checkpoint({"a": np.ones(4), "b": np.ones(1 << 16)}), max_shard_size=9)
    assert sorted(os.listdir(folder)) == before
    assert same(interop.load(folder).params, small)


FOREIGN = ("precious.txt", "model-notes.safetensors", "other-00001-of-00001.safetensors")


@pytest.mark.parametrize("name", FOREIGN)
def test_saving_shards_deletes_no_file_of_others(tmp_path, name):
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / name).write_text("keep")
    index = {"metadata": {}, "weight_map": {"a": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    interop.save(folder, Checkpoint({"a": np.ones(2)}), max_shard_size=100)
    assert (folder / name).read_text() == "keep"
    interop.save(folder, Checkpoint({"a": np.zeros(2)}), max_shard_size=100)
    shards = [
        each for each in folder.iterdir() if each.name.startswith("model-") and each.name != name
    ]
    assert len(shards) == 1


KILLED = """
import os, sys, numpy as np
from jaxopt_port.interop import Checkpoint, save
import torch
params = {str(i): np.full(1 << 18, 2.0, np.float32) for i in range(8)}
for path in sys.argv[1:]:
    for at in (1, 3, 7, 12):  # of 16 parts, and a header
        if not (child := os.fork()):
            counted = []
            def progress(n):
                counted.append(n)
                if len(counted) == at:
                    os.kill(os.getpid(), 9)
            save(path, Checkpoint(params), progress=progress)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == 9, status
        os.listdir(os.path.dirname(path))
"""


def test_a_process_killed_as_it_writes(tmp_path):
    old = {"0": np.ones(3, np.float32)}
    files = [tmp_path / "a.safetensors", tmp_path / "a.pt"]
    for file in files:
        interop.save(file, Checkpoint(old))
    before = [file.read_bytes() for file in files]
    subprocess.run([sys.executable, "-W", "ignore", "-c", KILLED, *files], check=True)
    assert [file.read_bytes() for file in files] == before
    left = {name for name in os.listdir(tmp_path) if name.endswith(".tmp")}
    assert len(left) == 8
    interop.save(files[0], Checkpoint(old))


@contextlib.contextmanager
def without_rights(folder):
    """As a user who may read the folder and not write into it; the superuser may do everything."""
    user = os.geteuid()
    parents = [p for p in folder.parents if os.stat(p).st_uid == user and user == 0]
    modes = {path: path.stat().st_mode for path in [folder, *parents]}
    for path in parents:
        path.chmod(modes[path] | 0o055)
    folder.chmod(0o555)
    try:
        if user == 0:
            os.seteuid(65534)
        yield
    finally:
        if user == 0:
            os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode & 0o7777)


@pytest.mark.parametrize("name", ["run.pt", "run.safetensors", "model"])
def test_a_folder_without_rights(name, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    new = checkpoint()
    if name == "model":
        new = Checkpoint(new.params)
    interop.save(folder / name, new)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    closed = folder / name if name == "model" else folder
    with without_rights(closed), pytest.raises(PermissionError, match=name):
        interop.save(folder / name, new)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
