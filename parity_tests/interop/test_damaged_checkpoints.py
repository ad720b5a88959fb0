"""A damaged file is refused, by name and with the place, and what was there before stays."""

import json

import numpy as np
import pytest
import torch

from jaxopt_port import interop
from jaxopt_port.interop import Checkpoint
from parity_tests.interop.checkpoint_cases import Code
from parity_tests.interop.damaged_safetensors import SAFETENSORS, cut, with_record
from parity_tests.interop.small_run import checkpoint


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of one file of each format."""
    folder = tmp_path_factory.mktemp("whole")
    saved = checkpoint()
    for name in ("a.safetensors", "a.pt"):
        interop.save(folder / name, saved)
    interop.save(folder / "model", Checkpoint(saved.params), max_shard_size=8)
    torch.save({"w": torch.ones(3)}, folder / "old.pt", _use_new_zipfile_serialization=False)
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def refused(file, error, message, tmp_path):
    """What is refused replaces nothing: neither a file, nor itself."""
    before = file.read_bytes() if file.is_file() else None
    old = tmp_path / "old.safetensors"
    old.write_bytes(b"as it was")
    with pytest.raises(error, match=message):
        interop.save(old, interop.load(file))
    assert old.read_bytes() == b"as it was"
    assert before is None or file.read_bytes() == before


@pytest.mark.parametrize(("damage", "message"), SAFETENSORS.values(), ids=SAFETENSORS)
def test_a_safetensors_file(whole, tmp_path, damage, message):
    file = tmp_path / "a.safetensors"
    file.write_bytes(damage(whole["a.safetensors"]))
    refused(file, ValueError, message, tmp_path)


@pytest.mark.parametrize("odd", [np.zeros(4), np.zeros(0)], ids=["odd", "of nothing"])
def test_pairs_of_complex_numbers_that_are_none(tmp_path, odd):
    file = tmp_path / "a.safetensors"
    interop.save(file, Checkpoint({"odd": odd}))
    damage = with_record(lambda record: record.update(complex128=["params/odd"]))
    file.write_bytes(damage(file.read_bytes()))
    refused(file, ValueError, "no pairs of float64", tmp_path)


# ── a file of torch's ──────────────────────────────────────────────────────────────────────────


def saved(value):
    def damage(_):
        torch.save(value, "made.pt")
        with open("made.pt", "rb") as file:
            return file.read()

    return damage


def flipped(data, tensor):
    return data.replace(tensor, bytes([tensor[0] ^ 1]) + tensor[1:])


def optimizer(**changes):
    parts = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"params": [0]}]}
    return saved({"model": {"w": torch.ones(1)}, "optimizer": {**parts, **changes}})


TORCH = {
    "empty": ("a.pt", cut(0), r"begins with b'' \(it is empty\)"),
    "text": ("a.pt", lambda _: b"hello world", "no file of torch.save"),
    "half of it": ("a.pt", lambda data: data[: len(data) // 2], "cut off or damaged"),
    "a few bytes less": ("a.pt", lambda data: data[:-8], "cut off or damaged"),
    "the pickle is damaged": (
        "a.pt",
        lambda data: data.replace(b"model_state_dict", b"\xff" * 16),
        "is damaged",
    ),
    "a bit of a tensor": (
        "a.pt",
        lambda _: flipped(saved({"model": {"w": torch.ones(8)}})(None), b"\0\0\x80?" * 8),
        "data/0 have another CRC",
    ),
    "an old file cut": ("old.pt", lambda data: data[: len(data) // 2], "is damaged"),
    "code": ("a.pt", saved({"model": Code()}), "it would run (posix|nt).system"),
    "an object": ("a.pt", saved(Code()), "it would run (posix|nt).system"),
    "an object of others": ("a.pt", saved({"model": {"w": Code()}}), "--allow (posix|nt).system"),
    "a tensor alone": (
        "a.pt",
        saved(torch.ones(2)),
        r"it holds a tensor of shape \(2,\), not a dict",
    ),
    "nothing known": ("a.pt", saved({"epoch": 3}), "neither parameters nor an optimizer"),
    "a sparse tensor": (
        "a.pt",
        saved({"model": {"w": torch.eye(2).to_sparse()}}),
        r"model/w: .* make it dense first",
    ),
    "groups that are a dict": ("a.pt", optimizer(param_groups={}), "not a list of dicts"),
    "an index twice": ("a.pt", optimizer(param_groups=[{"params": [0, 0]}]), "twice"),
    "state of no parameter": ("a.pt", optimizer(state={3: {}}), "an entry for 3"),
    "a NaN step": ("a.pt", optimizer(state={0: {"step": torch.tensor(float("nan"))}}), "is nan"),
    "the record of another": (
        "a.pt",
        saved({"model": {}, "jaxopt_port": {"format": "x"}}),
        "it is damaged: 'jaxopt_port' in it does not say 'jaxopt_port checkpoint'",
    ),
    "a newer version": (
        "a.pt",
        saved({"model": {}, "jaxopt_port": {"format": "jaxopt_port checkpoint", "version": 9}}),
        "Install a newer",
    ),
}


@pytest.mark.parametrize(("name", "damage", "message"), TORCH.values(), ids=TORCH)
def test_a_file_of_torchs(whole, tmp_path, monkeypatch, name, damage, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pt").write_bytes(damage(whole[name]))
    refused(tmp_path / "a.pt", ValueError, message, tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_file_without_sums(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"model": {"w": torch.ones(8)}}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert interop.load(tmp_path / "a.pt").params["w"].tolist() == [1.0] * 8


# ── shards ─────────────────────────────────────────────────────────────────────────────────────

INDEX = "model.safetensors.index.json"
FIRST, SECOND = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))


def index(change):
    def damage(folder):
        record = json.loads((folder / INDEX).read_text())
        text = change(record)
        (folder / INDEX).write_text(json.dumps(record) if text is None else text)

    return damage


def key_twice(record):
    return json.dumps(record).replace('"a": ', f'"a": "{SECOND}", "a": ')


def in_another_layout(record):
    own = record["metadata"]
    own["jaxopt_port"] = own["jaxopt_port"].replace('"torch"', '"torcH"')


SHARDS = {
    "no index": (lambda folder: (folder / INDEX).unlink(), OSError, "a folder without"),
    "a shard missing": (
        lambda folder: (folder / SECOND).unlink(),
        ValueError,
        f"{SECOND} is missing",
    ),
    "a shard cut": (
        lambda folder: (folder / FIRST).write_bytes((folder / FIRST).read_bytes()[:-4]),
        ValueError,
        "cut off",
    ),
    "not JSON": (index(lambda _: "{"), ValueError, "is not JSON"),
    "no weight_map": (index(lambda r: r.pop("weight_map") and None), ValueError, "no 'weight_map'"),
    "a tensor in two shards": (index(key_twice), ValueError, "'a' stands there twice"),
    "a tensor in the other shard": (
        index(lambda r: r["weight_map"].update(a=SECOND)),
        ValueError,
        f"a is not in {SECOND}",
    ),
    "a tensor in no shard": (
        index(lambda r: r["weight_map"].update(c=SECOND)),
        ValueError,
        f"c is not in {SECOND}",
    ),
    "a tensor not in the index": (
        index(lambda r: r["weight_map"].pop("b") and r["weight_map"].update(c=SECOND)),
        ValueError,
        f"b is in {SECOND}, and the index has it nowhere",
    ),
    "a record that is no text": (
        index(lambda r: r["metadata"].update(jaxopt_port=3)),
        ValueError,
        "is no text",
    ),
    "another layout": (
        index(in_another_layout),
        ValueError,
        "torcH",
    ),
    "a file elsewhere": (
        index(lambda r: r["weight_map"].update(a="../../etc/passwd")),
        ValueError,
        "which is no file name",
    ),
}


@pytest.mark.parametrize(("damage", "error", "message"), SHARDS.values(), ids=SHARDS)
def test_a_model_in_shards(whole, tmp_path, damage, error, message):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in (INDEX, FIRST, SECOND):
        (folder / name).write_bytes(whole[f"model/{name}"])
    damage(folder)
    refused(folder, error, message, tmp_path)


def test_a_trace_is_no_run(tmp_path):
    (tmp_path / "trace.json").write_text("{}")
    with pytest.raises(
        OSError, match=r"is what jaxopt-port record has written.*jaxopt-port replay"
    ):
        interop.load(tmp_path)


def test_a_path_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*a\.pt"):
        interop.load(tmp_path / "a.pt")
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match="does not say what it is"):
        interop.load(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="does not say what it shall be"):
        interop.save(tmp_path / "b.txt", checkpoint())
    with pytest.raises(FileNotFoundError, match="no folder to write into"):
        interop.save(tmp_path / "none" / "a.pt", checkpoint())
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(IsADirectoryError, match="over a folder"):
        interop.save(tmp_path / "folder.pt", checkpoint())
    with pytest.raises(FileNotFoundError, match=r"a folder without model\.safetensors\.index"):
        interop.load(tmp_path / "folder.pt")
